//! The record of a block: its used set, then the leases in the order of the set, in columns.
//!
//! The set is the key column: no offset is stored twice, and nothing can disagree. Names that many leases share
//! (interfaces, namespaces, nodes, networks, pools, boots) stand once, in dictionaries.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use ipnet::IpNet;
use wincode::{SchemaRead, SchemaWrite};

use super::parts::{StoredNet, StoredState, StoredText, read_bitmap, write_bitmap};
use super::{CodecError, Kind, Record, malformed};
use crate::block::Block;
use crate::lease::{Attachment, BootId, Lease, OperationId, Owner, Pod};

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredBlock {
    sequence: u64,
    epoch: u64,
    frozen: bool,
    /// A roaring bitmap of offsets, portable format.
    used: Vec<u8>,
    /// The dictionaries, each in the order of first use.
    texts: Vec<String>,
    boots: Vec<[u8; 16]>,
    pools: Vec<StoredNet>,
    /// The columns, each as long as `used`; numbers are places in a dictionary, and where a value may be missing,
    /// 0 stands for that and `n` for place `n − 1`.
    states: Vec<StoredState>,
    operations: Vec<[u8; 8]>,
    containers: Vec<StoredText>,
    interfaces: Vec<u32>,
    networks: Vec<u32>,
    owners: Vec<StoredBlockOwner>,
    nodes: Vec<u32>,
    lease_boots: Vec<u32>,
    lease_pools: Vec<u32>,
    providers: Vec<u32>,
    /// Milliseconds since 1970 of the earliest lease, and of each lease after that.
    since: u64,
    since_after: Vec<u64>,
}

/// An owner, with the namespace in the dictionary.
#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
enum StoredBlockOwner {
    Container,
    Pod(StoredBlockPod),
    Sticky(String, Option<StoredBlockPod>),
    Named(String),
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
struct StoredBlockPod {
    namespace: u32,
    name: String,
    uid: Option<StoredText>,
}

/// Values in the order of first use, and where each is.
struct Dictionary<T> {
    values: Vec<T>,
    places: HashMap<T, u32>,
}

// === impl Dictionary ===

impl<T: Clone + Eq + Hash> Dictionary<T> {
    fn new() -> Self {
        Self { values: Vec::new(), places: HashMap::new() }
    }

    fn place(&mut self, value: &T) -> Result<u32, CodecError> {
        if let Some(&place) = self.places.get(value) {
            return Ok(place);
        }
        let place = u32::try_from(self.values.len()).map_err(malformed)?;
        self.values.push(value.clone());
        self.places.insert(value.clone(), place);
        Ok(place)
    }

    /// 0 for what is missing, else one more than the place.
    fn place_of_option(&mut self, value: Option<&T>) -> Result<u32, CodecError> {
        value.map_or(Ok(0), |value| Ok(self.place(value)?.saturating_add(1)))
    }
}

fn at<T: Clone>(values: &[T], place: u32) -> Result<T, CodecError> {
    usize::try_from(place)
        .ok()
        .and_then(|place| values.get(place))
        .cloned()
        .ok_or_else(|| malformed(format_args!("a dictionary has no place {place}")))
}

fn at_option<T: Clone>(values: &[T], place: u32) -> Result<Option<T>, CodecError> {
    place.checked_sub(1).map(|place| at(values, place)).transpose()
}

// === impl StoredBlockOwner ===

impl StoredBlockPod {
    fn new(pod: &Pod, texts: &mut Dictionary<Arc<str>>) -> Result<Self, CodecError> {
        Ok(Self {
            namespace: texts.place(&pod.namespace)?,
            name: (*pod.name).to_owned(),
            uid: pod.uid.as_deref().map(StoredText::from),
        })
    }

    fn into_pod(self, texts: &[Arc<str>]) -> Result<Pod, CodecError> {
        Ok(Pod { namespace: at(texts, self.namespace)?, name: self.name.into(), uid: self.uid.map(Arc::from) })
    }
}

impl StoredBlockOwner {
    fn new(owner: &Owner, texts: &mut Dictionary<Arc<str>>) -> Result<Self, CodecError> {
        Ok(match owner {
            Owner::Container => Self::Container,
            Owner::Pod(pod) => Self::Pod(StoredBlockPod::new(pod, texts)?),
            Owner::Sticky { name, pod } => {
                let pod = pod.as_ref().map(|pod| StoredBlockPod::new(pod, texts)).transpose()?;
                Self::Sticky((**name).to_owned(), pod)
            }
            Owner::Named(name) => Self::Named((**name).to_owned()),
        })
    }

    fn into_owner(self, texts: &[Arc<str>]) -> Result<Owner, CodecError> {
        Ok(match self {
            Self::Container => Owner::Container,
            Self::Pod(pod) => Owner::Pod(pod.into_pod(texts)?),
            Self::Sticky(name, pod) => {
                Owner::Sticky { name: name.into(), pod: pod.map(|pod| pod.into_pod(texts)).transpose()? }
            }
            Self::Named(name) => Owner::Named(name.into()),
        })
    }
}

// === impl Record for Block ===

impl Record for Block {
    const KIND: Kind = Kind::Block;
    type Stored = StoredBlock;

    fn to_stored(&self) -> Result<StoredBlock, CodecError> {
        let n = usize::try_from(self.n_used()).map_err(malformed)?;
        let mut texts = Dictionary::<Arc<str>>::new();
        let mut boots = Dictionary::<BootId>::new();
        let mut pools = Dictionary::<IpNet>::new();
        let since = self.iter().map(|(_, lease)| lease.since).min().unwrap_or(0);
        let mut stored = StoredBlock {
            sequence: self.sequence(),
            epoch: self.epoch(),
            frozen: self.is_frozen(),
            used: write_bitmap(self.used())?,
            texts: Vec::new(),
            boots: Vec::new(),
            pools: Vec::new(),
            states: Vec::with_capacity(n),
            operations: Vec::with_capacity(n),
            containers: Vec::with_capacity(n),
            interfaces: Vec::with_capacity(n),
            networks: Vec::with_capacity(n),
            owners: Vec::with_capacity(n),
            nodes: Vec::with_capacity(n),
            lease_boots: Vec::with_capacity(n),
            lease_pools: Vec::with_capacity(n),
            providers: Vec::with_capacity(n),
            since,
            since_after: Vec::with_capacity(n),
        };
        for (_, lease) in self.iter() {
            stored.states.push(lease.state.into());
            stored.operations.push(lease.operation.to_bytes());
            stored.containers.push((&*lease.attachment.container).into());
            stored.interfaces.push(texts.place(&lease.attachment.interface)?);
            stored.networks.push(texts.place(&lease.attachment.network)?);
            stored.owners.push(StoredBlockOwner::new(&lease.owner, &mut texts)?);
            stored.nodes.push(texts.place(&lease.node)?);
            stored.lease_boots.push(boots.place_of_option(lease.boot.as_ref())?);
            stored.lease_pools.push(pools.place(&lease.pool)?);
            stored.providers.push(texts.place_of_option(lease.provider.as_ref())?);
            stored.since_after.push(lease.since.saturating_sub(since));
        }
        stored.texts = texts.values.iter().map(|text| (**text).to_owned()).collect();
        stored.boots = boots.values.into_iter().map(BootId::to_bytes).collect();
        stored.pools = pools.values.into_iter().map(StoredNet::from).collect();
        Ok(stored)
    }

    fn from_stored(stored: StoredBlock) -> Result<Self, CodecError> {
        let texts: Vec<Arc<str>> = stored.texts.into_iter().map(Arc::from).collect();
        let boots: Vec<BootId> = stored.boots.into_iter().map(BootId::from_bytes).collect();
        let pools: Vec<IpNet> = stored.pools.into_iter().map(IpNet::try_from).collect::<Result<_, _>>()?;
        let used = read_bitmap(&stored.used)?;
        let n = usize::try_from(used.len()).map_err(malformed)?;
        let columns = [
            stored.states.len(),
            stored.operations.len(),
            stored.containers.len(),
            stored.interfaces.len(),
            stored.networks.len(),
            stored.owners.len(),
            stored.nodes.len(),
            stored.lease_boots.len(),
            stored.lease_pools.len(),
            stored.providers.len(),
            stored.since_after.len(),
        ];
        if columns.iter().any(|&rows| rows != n) {
            return Err(malformed("the columns of a block are not as long as its used set"));
        }
        let mut states = stored.states.into_iter();
        let mut operations = stored.operations.into_iter();
        let mut containers = stored.containers.into_iter();
        let mut interfaces = stored.interfaces.into_iter();
        let mut networks = stored.networks.into_iter();
        let mut owners = stored.owners.into_iter();
        let mut nodes = stored.nodes.into_iter();
        let mut lease_boots = stored.lease_boots.into_iter();
        let mut lease_pools = stored.lease_pools.into_iter();
        let mut providers = stored.providers.into_iter();
        let mut since_after = stored.since_after.into_iter();
        let next_lease = || -> Option<Result<Lease, CodecError>> {
            let (state, operation, container) = (states.next()?, operations.next()?, containers.next()?);
            let (interface, network, owner) = (interfaces.next()?, networks.next()?, owners.next()?);
            let (node, boot, pool) = (nodes.next()?, lease_boots.next()?, lease_pools.next()?);
            let (provider, after) = (providers.next()?, since_after.next()?);
            let lease = || {
                Ok(Lease {
                    state: state.into(),
                    operation: OperationId::from_bytes(operation),
                    attachment: Attachment {
                        container: container.into(),
                        interface: at(&texts, interface)?,
                        network: at(&texts, network)?,
                    },
                    owner: owner.into_owner(&texts)?,
                    node: at(&texts, node)?,
                    boot: at_option(&boots, boot)?,
                    pool: at(&pools, pool)?,
                    provider: at_option(&texts, provider)?,
                    since: stored.since.saturating_add(after),
                })
            };
            Some(lease())
        };
        let leases = std::iter::from_fn(next_lease).collect::<Result<Vec<_>, _>>()?;
        Self::from_parts(stored.sequence, stored.epoch, stored.frozen, used, leases)
            .ok_or_else(|| malformed("an offset is beyond the block"))
    }
}
