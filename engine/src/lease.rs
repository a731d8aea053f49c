//! Leases: who holds an address, through which attachment, and by which operation.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::address::Address;
use crate::space::Space;

/// The id of the operation that wrote a lease: 8 random bytes.
///
/// A lease is only ever freed under the operation id that was judged, so a late DEL of an old container
/// cannot free what a newer ADD wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct OperationId([u8; 8]);

/// One run of a host, from boot to boot. Leases of an earlier boot are over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct BootId([u8; 16]);

/// Container id, interface and CNI network name: what DEL and GC name.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Attachment {
    /// The container id that the runtime gave; for a lease of the command line, the owner's name.
    pub container: Arc<str>,
    /// The interface name inside the container; empty for a lease of the command line.
    pub interface: Arc<str>,
    /// The `name` of the CNI network configuration; empty for a lease of the command line.
    pub network: Arc<str>,
}

/// A pod as the runtime names it.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Pod {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
    /// The UID, where the runtime gives one. A pod with and a pod without UID are different owners.
    pub uid: Option<Arc<str>>,
}

/// Who keeps an address across sandboxes.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Owner {
    /// The container itself: no pod and no name was given, so nothing outlives it.
    Container,
    /// A pod keeps its address when its sandbox is made anew.
    Pod(Pod),
    /// A sticky name (`podname`): the user's promise that it is unique. It outlives boots.
    Sticky {
        /// The name.
        name: Arc<str>,
        /// The pod that came with the name last; for people only.
        pod: Option<Pod>,
    },
    /// A name given on the command line. It outlives boots.
    Named(Arc<str>),
}

/// What a lease is at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum LeaseState {
    /// Held.
    Active,
    /// A provider is being asked whether the address may be used.
    Pending,
    /// On its way out. Nobody, the same owner included, takes an address in this state.
    Releasing,
    /// Held back by a migration or a repair that found a contradiction; only a command frees it.
    Quarantined,
}

/// An address held by an owner through an attachment. Which address it is, its place in the block says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// What the lease is at the moment.
    pub state: LeaseState,
    /// The operation that wrote it last.
    pub operation: OperationId,
    /// Through which attachment it is held.
    pub attachment: Attachment,
    /// Who keeps it.
    pub owner: Owner,
    /// The node that holds it; empty where a migration did not learn it.
    pub node: Arc<str>,
    /// The boot that it dies with; `None` for a lease that outlives boots.
    pub boot: Option<BootId>,
    /// The CIDR of the configured range that it was taken for.
    pub pool: IpNet,
    /// The provider's pool that has the last word on it, if any.
    pub provider: Option<Arc<str>>,
    /// Since when this attachment holds it, in milliseconds since 1970 by the clock of its node. Only people and a ledger
    /// that is rebuilt go by it.
    pub since: u64,
}

// === impl OperationId ===

impl OperationId {
    /// The id with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

// === impl BootId ===

impl BootId {
    /// A boot of which nothing is known: it is neither the same as another one nor over.
    pub const UNKNOWN: Self = Self([0; 16]);

    /// The boot with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

// === impl Attachment ===

impl Attachment {
    /// The attachment of a CNI call.
    ///
    /// ```
    /// use whereabouts_engine::Attachment;
    ///
    /// let attachment = Attachment::new("8f0c", "eth0", "blue");
    /// assert_eq!(attachment.to_string(), "8f0c/eth0 of network blue");
    /// ```
    #[must_use]
    pub fn new(container: &str, interface: &str, network: &str) -> Self {
        Self { container: container.into(), interface: interface.into(), network: network.into() }
    }

    /// Whether a call that names `called` means this attachment: it is the same, or one of which a migration did not
    /// learn the CNI network's name.
    pub(crate) fn is_meant_by(&self, called: &Self) -> bool {
        let is_same_interface = self.container == called.container && self.interface == called.interface;
        is_same_interface && (self.network == called.network || self.lacks_network())
    }

    /// Whether a container holds through it and the CNI network's name is not known: no CNI call leaves it out, a
    /// migration does.
    pub(crate) fn lacks_network(&self) -> bool {
        self.network.is_empty() && !self.interface.is_empty()
    }

    /// The same container and interface, as a migration knows them.
    pub(crate) fn without_network(&self) -> Self {
        Self { network: "".into(), ..self.clone() }
    }

    /// What stands for an attachment where there is no container: the name of the owner.
    #[must_use]
    pub fn named(owner: &str) -> Self {
        Self::new(owner, "", "")
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.container)?;
        if !self.interface.is_empty() {
            write!(f, "/{}", self.interface)?;
        }
        if !self.network.is_empty() {
            write!(f, " of network {}", self.network)?;
        }
        Ok(())
    }
}

// === impl Owner ===

impl Owner {
    /// Whether both are one owner. Pods are compared by UID and name, sticky names by the name alone; a container
    /// is nobody's owner but its own, so it never equals another.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pod(one), Self::Pod(two)) => one == two,
            (Self::Sticky { name: one, .. }, Self::Sticky { name: two, .. }) | (Self::Named(one), Self::Named(two)) => {
                one == two
            }
            _ => false,
        }
    }

    /// Whether a lease of this owner outlives the boot in which it was made.
    #[must_use]
    pub fn outlives_boots(&self) -> bool {
        matches!(self, Self::Sticky { .. } | Self::Named(_))
    }

    /// The pod, where there is one.
    #[must_use]
    pub fn pod(&self) -> Option<&Pod> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::Sticky { pod, .. } => pod.as_ref(),
            Self::Container | Self::Named(_) => None,
        }
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl LeaseState ===

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Releasing => "releasing",
            Self::Quarantined => "quarantined",
        })
    }
}

// === impl Lease ===

impl Lease {
    /// Whether its pool has this address, and is the one of a private space.
    #[must_use]
    pub fn is_for(&self, space: &Space, address: Address) -> bool {
        let is_of_space = space.private_cidr().is_none_or(|cidr| cidr == self.pool);
        is_of_space && self.pool == self.pool.trunc() && self.pool.contains(&address.to_ip())
    }

    /// Whether a migration brought it, and no call has renewed it since.
    #[must_use]
    pub fn is_migrated(&self) -> bool {
        self.attachment.lacks_network()
    }

    /// Whether it is this owner's to keep. A runtime that gives no UIDs may name the pod of a migrated lease, which has
    /// the UID that the cluster knew.
    pub(crate) fn is_kept_by(&self, owner: &Owner) -> bool {
        let names_the_pod = |one: &Pod, asking: &Pod| {
            asking.uid.is_none() && one.namespace == asking.namespace && one.name == asking.name
        };
        self.owner.is_same(owner)
            || self.is_migrated()
                && matches!((&self.owner, owner), (Owner::Pod(one), Owner::Pod(asking)) if names_the_pod(one, asking))
    }

    /// Whether the lease died with a boot before `current`.
    #[must_use]
    pub fn is_of_an_earlier_boot(&self, current: BootId) -> bool {
        self.boot.is_some_and(|boot| boot != current)
    }
}

impl fmt::Display for Lease {
    /// Who holds it, as a person would say it: the owner, else the container.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::Container => write!(f, "container {}", self.attachment),
            Owner::Pod(pod) => write!(f, "pod {pod} (container {})", self.attachment),
            Owner::Sticky { name, .. } => write!(f, "{name} (container {})", self.attachment),
            Owner::Named(name) => f.write_str(name),
        }
    }
}
