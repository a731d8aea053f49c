//! The record of a block: its used set, then the leases in the order of the set, in columns.
//!
//! The set is the key column: no offset is stored twice, and nothing can disagree. Names that many leases share
//! (interfaces, namespaces, nodes, networks, pools, boots) stand once, in dictionaries. What nobody can guess (operation
//! ids, the digits of container ids and UIDs) stands last, so that the rest can be packed well.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use ipnet::IpNet;
use wincode::{SchemaRead, SchemaWrite};

use super::parts::{StoredLease, StoredNet, StoredState, StoredText, read_bitmap, write_bitmap};
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
    containers: Vec<StoredBlockText>,
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
    /// Leases that other nodes took over, by offset, the newest first: nearly always none.
    covered: Vec<StoredCovered>,
    operations: Vec<[u8; 8]>,
    /// The digits of the containers' ids and of the pods' UIDs, lease by lease.
    digits: Vec<u8>,
}

/// A text whose digits stand apart.
#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
enum StoredBlockText {
    Plain(String),
    /// So many bytes of hexadecimal digits.
    Hex(u32),
    Uuid,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
struct StoredCovered {
    offset: u8,
    lease: StoredLease,
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
    uid: Option<StoredBlockText>,
}

/// The digits that are still to be read.
struct Digits<'d>(&'d [u8]);

/// Values in the order of first use, and where each is.
struct Dictionary<T> {
    values: Vec<T>,
    places: HashMap<T, u32>,
}

/// A column of places in a dictionary. Neighbours are mostly alike, and then nothing is looked up.
struct Column<T> {
    places: Vec<u32>,
    last: Option<(T, u32)>,
}

// === impl Dictionary ===

impl<T: Copy + Eq + Hash> Dictionary<T> {
    fn new() -> Self {
        Self { values: Vec::new(), places: HashMap::new() }
    }

    fn place(&mut self, value: T) -> Result<u32, CodecError> {
        match self.places.entry(value) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let place = u32::try_from(self.values.len()).map_err(malformed)?;
                self.values.push(value);
                Ok(*new.insert(place))
            }
        }
    }
}

impl<T: Copy + Eq + Hash> Column<T> {
    fn of(rows: usize) -> Self {
        Self { places: Vec::with_capacity(rows), last: None }
    }

    fn push(&mut self, dictionary: &mut Dictionary<T>, value: T) -> Result<(), CodecError> {
        let place = match self.last {
            Some((last, place)) if last == value => place,
            _ => dictionary.place(value)?,
        };
        self.last = Some((value, place));
        self.places.push(place);
        Ok(())
    }

    /// 0 for what is missing, else one more than the place.
    fn push_option(&mut self, dictionary: &mut Dictionary<T>, value: Option<T>) -> Result<(), CodecError> {
        let Some(value) = value else {
            self.places.push(0);
            return Ok(());
        };
        self.push(dictionary, value)?;
        if let Some(place) = self.places.last_mut() {
            *place = place.saturating_add(1);
        }
        Ok(())
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

// === impl StoredBlockText ===

impl StoredBlockText {
    fn new(text: &str, digits: &mut Vec<u8>) -> Result<Self, CodecError> {
        Ok(match StoredText::from(text) {
            StoredText::Plain(text) => Self::Plain(text),
            StoredText::Hex(bytes) => {
                digits.extend_from_slice(&bytes);
                Self::Hex(u32::try_from(bytes.len()).map_err(malformed)?)
            }
            StoredText::Uuid(bytes) => {
                digits.extend_from_slice(&bytes);
                Self::Uuid
            }
        })
    }

    fn into_text(self, digits: &mut Digits<'_>) -> Result<Arc<str>, CodecError> {
        Ok(match self {
            Self::Plain(text) => StoredText::Plain(text),
            Self::Hex(n) => StoredText::Hex(digits.take(usize::try_from(n).map_err(malformed)?)?.to_vec()),
            Self::Uuid => StoredText::Uuid(digits.take(16)?.try_into().map_err(malformed)?),
        }
        .into())
    }
}

impl<'d> Digits<'d> {
    fn take(&mut self, n: usize) -> Result<&'d [u8], CodecError> {
        let (taken, left) = self.0.split_at_checked(n).ok_or_else(|| malformed("digits of a block are missing"))?;
        self.0 = left;
        Ok(taken)
    }
}

// === impl StoredBlockOwner ===

impl StoredBlockPod {
    fn new<'l>(pod: &'l Pod, texts: &mut Dictionary<&'l str>, digits: &mut Vec<u8>) -> Result<Self, CodecError> {
        Ok(Self {
            namespace: texts.place(&pod.namespace)?,
            name: (*pod.name).to_owned(),
            uid: pod.uid.as_deref().map(|uid| StoredBlockText::new(uid, digits)).transpose()?,
        })
    }

    fn into_pod(self, texts: &[Arc<str>], digits: &mut Digits<'_>) -> Result<Pod, CodecError> {
        Ok(Pod {
            namespace: at(texts, self.namespace)?,
            name: self.name.into(),
            uid: self.uid.map(|uid| uid.into_text(digits)).transpose()?,
        })
    }
}

impl StoredBlockOwner {
    fn new<'l>(owner: &'l Owner, texts: &mut Dictionary<&'l str>, digits: &mut Vec<u8>) -> Result<Self, CodecError> {
        Ok(match owner {
            Owner::Container => Self::Container,
            Owner::Pod(pod) => Self::Pod(StoredBlockPod::new(pod, texts, digits)?),
            Owner::Sticky { name, pod } => {
                let pod = pod.as_ref().map(|pod| StoredBlockPod::new(pod, texts, digits)).transpose()?;
                Self::Sticky((**name).to_owned(), pod)
            }
            Owner::Named(name) => Self::Named((**name).to_owned()),
        })
    }

    fn into_owner(self, texts: &[Arc<str>], digits: &mut Digits<'_>) -> Result<Owner, CodecError> {
        Ok(match self {
            Self::Container => Owner::Container,
            Self::Pod(pod) => Owner::Pod(pod.into_pod(texts, digits)?),
            Self::Sticky(name, pod) => {
                Owner::Sticky { name: name.into(), pod: pod.map(|pod| pod.into_pod(texts, digits)).transpose()? }
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
        let mut texts = Dictionary::<&str>::new();
        let mut boots = Dictionary::<BootId>::new();
        let mut pools = Dictionary::<IpNet>::new();
        let (mut interfaces, mut networks, mut nodes) = (Column::of(n), Column::of(n), Column::of(n));
        let (mut lease_boots, mut lease_pools, mut providers) = (Column::of(n), Column::of(n), Column::of(n));
        let (mut states, mut operations) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut containers, mut owners) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let mut digits = Vec::with_capacity(n.saturating_mul(48));
        let since = self.iter().map(|(_, lease)| lease.since).min().unwrap_or(0);
        let mut since_after = Vec::with_capacity(n);
        for (_, lease) in self.iter() {
            states.push(lease.state.into());
            operations.push(lease.operation.to_bytes());
            containers.push(StoredBlockText::new(&lease.attachment.container, &mut digits)?);
            interfaces.push(&mut texts, &*lease.attachment.interface)?;
            networks.push(&mut texts, &*lease.attachment.network)?;
            owners.push(StoredBlockOwner::new(&lease.owner, &mut texts, &mut digits)?);
            nodes.push(&mut texts, &*lease.node)?;
            lease_boots.push_option(&mut boots, lease.boot)?;
            lease_pools.push(&mut pools, lease.pool.trunc())?;
            providers.push_option(&mut texts, lease.provider.as_deref())?;
            since_after.push(lease.since.saturating_sub(since));
        }
        Ok(StoredBlock {
            sequence: self.sequence(),
            epoch: self.epoch(),
            frozen: self.is_frozen(),
            used: write_bitmap(self.used())?,
            texts: texts.values.into_iter().map(str::to_owned).collect(),
            boots: boots.values.into_iter().map(BootId::to_bytes).collect(),
            pools: pools.values.into_iter().map(StoredNet::from).collect(),
            states,
            containers,
            interfaces: interfaces.places,
            networks: networks.places,
            owners,
            nodes: nodes.places,
            lease_boots: lease_boots.places,
            lease_pools: lease_pools.places,
            providers: providers.places,
            since,
            since_after,
            covered: self
                .covered()
                .map(|(offset, lease)| StoredCovered { offset: offset.get(), lease: lease.into() })
                .collect(),
            operations,
            digits,
        })
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
        let mut digits = Digits(&stored.digits);
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
        let mut next_lease = || -> Option<Result<Lease, CodecError>> {
            let (state, operation, container) = (states.next()?, operations.next()?, containers.next()?);
            let (interface, network, owner) = (interfaces.next()?, networks.next()?, owners.next()?);
            let (node, boot, pool) = (nodes.next()?, lease_boots.next()?, lease_pools.next()?);
            let (provider, after) = (providers.next()?, since_after.next()?);
            let lease = || {
                Ok(Lease {
                    state: state.into(),
                    operation: OperationId::from_bytes(operation),
                    attachment: Attachment {
                        container: container.into_text(&mut digits)?,
                        interface: at(&texts, interface)?,
                        network: at(&texts, network)?,
                    },
                    owner: owner.into_owner(&texts, &mut digits)?,
                    node: at(&texts, node)?,
                    boot: at_option(&boots, boot)?,
                    pool: at(&pools, pool)?,
                    provider: at_option(&texts, provider)?,
                    since: stored.since.saturating_add(after),
                })
            };
            Some(lease())
        };
        let mut leases = Vec::with_capacity(n);
        while let Some(lease) = next_lease() {
            leases.push(lease?);
        }
        if !digits.0.is_empty() {
            return Err(malformed("a block has digits that belong to nothing"));
        }
        let covered = |covered: StoredCovered| Ok((covered.offset.into(), covered.lease.try_into()?));
        let covered = stored.covered.into_iter().map(covered).collect::<Result<Vec<_>, CodecError>>()?;
        Self::from_parts(stored.sequence, stored.epoch, stored.frozen, used, leases, covered)
            .ok_or_else(|| malformed("an offset is beyond the block, or a covered lease is out of place"))
    }
}
