//! What the ledger says about itself: whose it is, which boot it knows, how pools are used.

use std::sync::Arc;

use crate::lease::BootId;
use crate::space::Sharing;

/// Whose ledger this is. One that was copied from another host must not speak for this one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IdentityRow {
    /// The machine id of the host that made it.
    pub(crate) machine: Arc<str>,
    /// What tells it from every other ledger of that host.
    pub(crate) random: [u8; 16],
    /// When it was made, in milliseconds since 1970.
    pub(crate) created: u64,
}

/// The run of the host that the ledger knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HostRow {
    pub(crate) boot: BootId,
    /// The inode of the pid namespace from which the boot was seen. On a host that is no container itself only there can
    /// be told that the boot is over: a container may have been given a boot id of its own.
    pub(crate) pid_namespace: u64,
}

/// The store that a ledger belongs to, where the ledger itself is none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoreRow {
    /// What tells the store from every other one: in Kubernetes the UID of the namespace `kube-system`.
    pub(crate) identity: Arc<str>,
    /// How it was reached last, for a call that comes without a configuration: the path of the kubeconfig.
    pub(crate) address: Arc<str>,
    /// Whether the ledger knows everything that this node holds there.
    pub(crate) is_complete: bool,
}

/// A range that an allocation on this host found full, where the ledger is not the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FullRow {
    /// How many addresses it had then, all of them held: with more or fewer excludes it is another range.
    pub(crate) held: u128,
    /// When, in milliseconds by the clock of this boot.
    pub(crate) boot: BootId,
    pub(crate) found: u64,
}

/// How a pool is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SharingRow(pub(crate) Sharing);
