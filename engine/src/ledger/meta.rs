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
    /// The inode of the pid namespace in which the ledger was made: only there can be told that a boot is over, or a
    /// command run inside a container would free everything.
    pub(crate) pid_namespace: u64,
}

/// How a pool is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SharingRow(pub(crate) Sharing);
