//! What those who wait for the ledger leave beside it: the addresses that they want, and what another process got for
//! them. Nothing of it outlives the processes; the format byte keeps two versions of the program apart.

use std::sync::Arc;

use ipnet::IpNet;
use wincode::{SchemaRead, SchemaWrite};

use super::parts::{StoredAddress, StoredAttachment, StoredNet, StoredOwner};
use super::{CodecError, Kind, Record, malformed};
use crate::address::Address;
use crate::host::HostFacts;
use crate::interval::Range;
use crate::lease::{BootId, OperationId};
use crate::operations::{Allocate, Allocated, Want};
use crate::space::{Network, Pool, Sharing};
use crate::spec::Edges;
use crate::view::View;

/// A request that waits, and the host as its process sees it.
#[derive(Clone, Debug)]
pub(crate) struct WaitingRequest {
    pub(crate) facts: HostFacts,
    /// How its process reaches the store; empty where the ledger is the store.
    pub(crate) store: Arc<str>,
    pub(crate) request: Allocate,
}

/// What a request was given by another process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served(pub(crate) Vec<Allocated>);

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredWaiting {
    facts: StoredFacts,
    store: String,
    attachment: StoredAttachment,
    owner: StoredOwner,
    wants: Vec<StoredWant>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
struct StoredFacts {
    node: String,
    machine: String,
    boot: [u8; 16],
    pid_namespace: u64,
    may_end_boots: bool,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
struct StoredWant {
    network: String,
    pool: StoredNet,
    private: bool,
    view: StoredView,
    exactly: Option<StoredAddress>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
struct StoredView {
    cidr: StoredNet,
    edges_usable: bool,
    /// The first and the last address of each range.
    ranges: Vec<(StoredAddress, StoredAddress)>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredAllocated {
    address: StoredAddress,
    operation: [u8; 8],
    reused: bool,
}

// === impl StoredWant ===

impl From<&Want> for StoredWant {
    fn from(want: &Want) -> Self {
        let ranges = want.view.ranges().iter().map(|range| (range.first().into(), range.last().into()));
        Self {
            network: want.pool.network().as_str().to_owned(),
            pool: want.pool.cidr().into(),
            private: want.sharing == Sharing::Private,
            view: StoredView {
                cidr: want.view.cidr().into(),
                edges_usable: want.view.edges() == Edges::Usable,
                ranges: ranges.collect(),
            },
            exactly: want.exactly.map(StoredAddress::from),
        }
    }
}

impl TryFrom<StoredWant> for Want {
    type Error = CodecError;

    fn try_from(stored: StoredWant) -> Result<Self, CodecError> {
        let range = |(first, last): (StoredAddress, StoredAddress)| {
            Range::new(first.into(), last.into()).ok_or_else(|| malformed("a range of a view is none"))
        };
        let ranges = stored.view.ranges.into_iter().map(range).collect::<Result<Vec<_>, _>>()?;
        let edges = if stored.view.edges_usable { Edges::Usable } else { Edges::Reserved };
        let view = View::from_ranges(IpNet::try_from(stored.view.cidr)?, edges, &ranges)
            .ok_or_else(|| malformed("a range of a view is not in its network"))?;
        Ok(Self {
            pool: Pool::new(Network::new(&stored.network).map_err(malformed)?, stored.pool.try_into()?),
            sharing: if stored.private { Sharing::Private } else { Sharing::Shared },
            view: Arc::new(view),
            exactly: stored.exactly.map(Address::from),
        })
    }
}

// === impl Record ===

impl Record for WaitingRequest {
    const KIND: Kind = Kind::Waiting;
    type Stored = StoredWaiting;

    fn to_stored(&self) -> Result<StoredWaiting, CodecError> {
        let HostFacts { node, machine, boot, pid_namespace, may_end_boots } = &self.facts;
        Ok(StoredWaiting {
            facts: StoredFacts {
                node: (**node).to_owned(),
                machine: (**machine).to_owned(),
                boot: boot.to_bytes(),
                pid_namespace: *pid_namespace,
                may_end_boots: *may_end_boots,
            },
            store: (*self.store).to_owned(),
            attachment: (&self.request.attachment).into(),
            owner: (&self.request.owner).into(),
            wants: self.request.wants.iter().map(StoredWant::from).collect(),
        })
    }

    fn from_stored(stored: StoredWaiting) -> Result<Self, CodecError> {
        let StoredFacts { node, machine, boot, pid_namespace, may_end_boots } = stored.facts;
        let (node, machine, boot) = (node.into(), machine.into(), BootId::from_bytes(boot));
        let wants = stored.wants.into_iter().map(Want::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            facts: HostFacts { node, machine, boot, pid_namespace, may_end_boots },
            store: stored.store.into(),
            request: Allocate { attachment: stored.attachment.into(), owner: stored.owner.into(), wants },
        })
    }
}

impl Record for Served {
    const KIND: Kind = Kind::Served;
    type Stored = Vec<StoredAllocated>;

    fn to_stored(&self) -> Result<Vec<StoredAllocated>, CodecError> {
        let stored = |allocated: &Allocated| StoredAllocated {
            address: allocated.address.into(),
            operation: allocated.operation.to_bytes(),
            reused: allocated.reused,
        };
        Ok(self.0.iter().map(stored).collect())
    }

    fn from_stored(stored: Vec<StoredAllocated>) -> Result<Self, CodecError> {
        let allocated = |stored: StoredAllocated| Allocated {
            address: stored.address.into(),
            operation: OperationId::from_bytes(stored.operation),
            reused: stored.reused,
        };
        Ok(Self(stored.into_iter().map(allocated).collect()))
    }
}
