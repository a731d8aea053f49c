//! What several records are made of: texts, networks, spaces, leases, bitmaps.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use roaring::RoaringBitmap;
use wincode::{SchemaRead, SchemaWrite};

use super::{CodecError, malformed};
use crate::address::{Address, Family};
use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner, Pod};
use crate::offset::BlockNumber;
use crate::space::{BlockId, Network, Pool, Sharing, Space};

/// A text, with the two shapes that make up most of a block written as the bytes that they spell.
#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) enum StoredText {
    Plain(String),
    /// Pairs of lower-case hexadecimal digits, at least 16: container ids.
    Hex(Vec<u8>),
    /// A lower-case UUID with its four hyphens: pod UIDs.
    Uuid([u8; 16]),
}

/// Fewer digits than this are kept as they are read; a dictionary of `eth0`s gains nothing.
const HEX_DIGITS_MIN: usize = 16;

/// Where a UUID has its hyphens.
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];

#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) enum StoredNet {
    V4([u8; 4], u8),
    V6([u8; 16], u8),
}

#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) enum StoredAddress {
    V4([u8; 4]),
    V6([u8; 16]),
}

#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) struct StoredSpace {
    network: String,
    v6: bool,
    private: Option<StoredNet>,
}

#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) struct StoredBlockId {
    space: StoredSpace,
    number: u128,
}

#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) struct StoredAttachment {
    container: StoredText,
    interface: String,
    network: String,
}

#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) struct StoredPod {
    namespace: String,
    name: String,
    uid: Option<StoredText>,
}

#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) enum StoredOwner {
    Container,
    Pod(StoredPod),
    Sticky(String, Option<StoredPod>),
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) enum StoredState {
    Active,
    Pending,
    Releasing,
    Quarantined,
}

/// A lease on its own, with nothing shared.
#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(super) struct StoredLease {
    state: StoredState,
    operation: [u8; 8],
    attachment: StoredAttachment,
    owner: StoredOwner,
    node: String,
    boot: Option<[u8; 16]>,
    pool: StoredNet,
    provider: Option<String>,
    since: u64,
}

// === impl StoredText ===

impl From<&str> for StoredText {
    fn from(text: &str) -> Self {
        if let Some(bytes) = hex(text.as_bytes(), HEX_DIGITS_MIN) {
            return Self::Hex(bytes);
        }
        match uuid(text) {
            Some(bytes) => Self::Uuid(bytes),
            None => Self::Plain(text.to_owned()),
        }
    }
}

impl From<StoredText> for Arc<str> {
    fn from(stored: StoredText) -> Self {
        match stored {
            StoredText::Plain(text) => text.into(),
            StoredText::Hex(bytes) => spell(&bytes, &[]).into(),
            StoredText::Uuid(bytes) => spell(&bytes, &UUID_HYPHENS).into(),
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn hex(digits: &[u8], at_least: usize) -> Option<Vec<u8>> {
    let (pairs, odd) = digits.as_chunks::<2>();
    if digits.len() < at_least || !odd.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || UUID_HYPHENS.iter().any(|&at| bytes.get(at) != Some(&b'-')) {
        return None;
    }
    let digits: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != b'-').collect();
    hex(&digits, 32)?.try_into().ok()
}

fn spell(bytes: &[u8], hyphens: &[usize]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2 + hyphens.len());
    for byte in bytes {
        if hyphens.contains(&text.len()) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
        }
    }
    text
}

// === impl StoredNet ===

impl From<IpNet> for StoredNet {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::V4(net.network().octets(), net.prefix_len()),
            IpNet::V6(net) => Self::V6(net.network().octets(), net.prefix_len()),
        }
    }
}

impl TryFrom<StoredNet> for IpNet {
    type Error = CodecError;

    fn try_from(stored: StoredNet) -> Result<Self, CodecError> {
        match stored {
            StoredNet::V4(octets, prefix) => Ipv4Net::new(Ipv4Addr::from(octets), prefix).map(Self::V4),
            StoredNet::V6(octets, prefix) => Ipv6Net::new(Ipv6Addr::from(octets), prefix).map(Self::V6),
        }
        .map(|net| net.trunc())
        .map_err(malformed)
    }
}

// === impl StoredAddress ===

impl From<Address> for StoredAddress {
    fn from(address: Address) -> Self {
        match address.to_ip() {
            std::net::IpAddr::V4(ip) => Self::V4(ip.octets()),
            std::net::IpAddr::V6(ip) => Self::V6(ip.octets()),
        }
    }
}

impl From<StoredAddress> for Address {
    fn from(stored: StoredAddress) -> Self {
        match stored {
            StoredAddress::V4(octets) => Ipv4Addr::from(octets).into(),
            StoredAddress::V6(octets) => Ipv6Addr::from(octets).into(),
        }
    }
}

// === impl StoredSpace ===

impl From<&Space> for StoredSpace {
    fn from(space: &Space) -> Self {
        Self {
            network: space.network().as_str().to_owned(),
            v6: space.family() == Family::V6,
            private: space.private_cidr().map(StoredNet::from),
        }
    }
}

impl TryFrom<StoredSpace> for Space {
    type Error = CodecError;

    fn try_from(stored: StoredSpace) -> Result<Self, CodecError> {
        let network = Network::new(&stored.network).map_err(malformed)?;
        let family = if stored.v6 { Family::V6 } else { Family::V4 };
        let Some(net) = stored.private else { return Ok(Self::shared(network, family)) };
        let pool = Pool::new(network, net.try_into()?);
        if pool.family() != family {
            return Err(malformed("a private space has a CIDR of the other family"));
        }
        Ok(pool.space(Sharing::Private))
    }
}

impl From<&BlockId> for StoredBlockId {
    fn from(block: &BlockId) -> Self {
        Self { space: (&block.space).into(), number: block.number.get() }
    }
}

impl TryFrom<StoredBlockId> for BlockId {
    type Error = CodecError;

    fn try_from(stored: StoredBlockId) -> Result<Self, CodecError> {
        let space = Space::try_from(stored.space)?;
        let number = BlockNumber::new(space.family(), stored.number)
            .ok_or_else(|| malformed(format_args!("there is no block {} in {space}", stored.number)))?;
        Ok(Self { space, number })
    }
}

// === impl StoredAttachment, StoredPod, StoredOwner ===

impl From<&Attachment> for StoredAttachment {
    fn from(attachment: &Attachment) -> Self {
        Self {
            container: (&*attachment.container).into(),
            interface: (*attachment.interface).to_owned(),
            network: (*attachment.network).to_owned(),
        }
    }
}

impl From<StoredAttachment> for Attachment {
    fn from(stored: StoredAttachment) -> Self {
        Self { container: stored.container.into(), interface: stored.interface.into(), network: stored.network.into() }
    }
}

impl From<&Pod> for StoredPod {
    fn from(pod: &Pod) -> Self {
        Self {
            namespace: (*pod.namespace).to_owned(),
            name: (*pod.name).to_owned(),
            uid: pod.uid.as_deref().map(StoredText::from),
        }
    }
}

impl From<StoredPod> for Pod {
    fn from(stored: StoredPod) -> Self {
        Self { namespace: stored.namespace.into(), name: stored.name.into(), uid: stored.uid.map(Arc::from) }
    }
}

impl From<&Owner> for StoredOwner {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Container => Self::Container,
            Owner::Pod(pod) => Self::Pod(pod.into()),
            Owner::Sticky { name, pod } => Self::Sticky((**name).to_owned(), pod.as_ref().map(StoredPod::from)),
            Owner::Named(name) => Self::Named((**name).to_owned()),
        }
    }
}

impl From<StoredOwner> for Owner {
    fn from(stored: StoredOwner) -> Self {
        match stored {
            StoredOwner::Container => Self::Container,
            StoredOwner::Pod(pod) => Self::Pod(pod.into()),
            StoredOwner::Sticky(name, pod) => Self::Sticky { name: name.into(), pod: pod.map(Pod::from) },
            StoredOwner::Named(name) => Self::Named(name.into()),
        }
    }
}

// === impl StoredState ===

impl From<LeaseState> for StoredState {
    fn from(state: LeaseState) -> Self {
        match state {
            LeaseState::Active => Self::Active,
            LeaseState::Pending => Self::Pending,
            LeaseState::Releasing => Self::Releasing,
            LeaseState::Quarantined => Self::Quarantined,
        }
    }
}

impl From<StoredState> for LeaseState {
    fn from(stored: StoredState) -> Self {
        match stored {
            StoredState::Active => Self::Active,
            StoredState::Pending => Self::Pending,
            StoredState::Releasing => Self::Releasing,
            StoredState::Quarantined => Self::Quarantined,
        }
    }
}

// === impl StoredLease ===

impl From<&Lease> for StoredLease {
    fn from(lease: &Lease) -> Self {
        Self {
            state: lease.state.into(),
            operation: lease.operation.to_bytes(),
            attachment: (&lease.attachment).into(),
            owner: (&lease.owner).into(),
            node: (*lease.node).to_owned(),
            boot: lease.boot.map(BootId::to_bytes),
            pool: lease.pool.into(),
            provider: lease.provider.as_deref().map(str::to_owned),
            since: lease.since,
        }
    }
}

impl TryFrom<StoredLease> for Lease {
    type Error = CodecError;

    fn try_from(stored: StoredLease) -> Result<Self, CodecError> {
        Ok(Self {
            state: stored.state.into(),
            operation: OperationId::from_bytes(stored.operation),
            attachment: stored.attachment.into(),
            owner: stored.owner.into(),
            node: stored.node.into(),
            boot: stored.boot.map(BootId::from_bytes),
            pool: stored.pool.try_into()?,
            provider: stored.provider.map(Arc::from),
            since: stored.since,
        })
    }
}

// === bitmaps ===

/// A bitmap in the portable roaring format, in the smallest of its representations, so that equal sets are equal
/// bytes.
pub(super) fn write_bitmap(bitmap: &RoaringBitmap) -> Result<Vec<u8>, CodecError> {
    let mut smallest = bitmap.clone();
    smallest.optimize();
    let mut bytes = Vec::with_capacity(smallest.serialized_size());
    smallest.serialize_into(&mut bytes).map_err(malformed)?;
    Ok(bytes)
}

/// The bitmap of these bytes, which must be all of them.
pub(super) fn read_bitmap(mut bytes: &[u8]) -> Result<RoaringBitmap, CodecError> {
    let bitmap = RoaringBitmap::deserialize_from(&mut bytes).map_err(malformed)?;
    if bytes.is_empty() { Ok(bitmap) } else { Err(malformed("bytes follow a bitmap")) }
}
