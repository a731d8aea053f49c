//! What several records are made of: texts, networks, spaces, leases, bitmaps.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
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

/// Where the digits of a UUID are between its hyphens, and which bytes they spell.
const UUID_PARTS: [(Range<usize>, Range<usize>); 5] =
    [(0..8, 0..4), (9..13, 4..6), (14..18, 6..8), (19..23, 8..10), (24..36, 10..16)];

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
        if let Some(bytes) = uuid(text) {
            return Self::Uuid(bytes);
        }
        hex(text).map_or_else(|| Self::Plain(text.to_owned()), Self::Hex)
    }
}

impl From<StoredText> for Arc<str> {
    fn from(stored: StoredText) -> Self {
        match stored {
            StoredText::Plain(text) => text.into(),
            StoredText::Hex(bytes) => spell_hex(&bytes),
            StoredText::Uuid(bytes) => spell_uuid(bytes),
        }
    }
}

/// The value of a lower-case digit, and more than 15 for anything else.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => u8::MAX,
    }
}

/// Puts the bytes that lower-case digits spell into `bytes`; says whether they are all digits, two for each byte.
///
/// A block has thousands of digits, so nothing is decided at each.
fn unspell(digits: &[u8], bytes: &mut [u8]) -> bool {
    let (pairs, odd) = digits.as_chunks::<2>();
    let mut seen = 0;
    for (&[high, low], byte) in pairs.iter().zip(bytes.iter_mut()) {
        let (high, low) = (digit(high), digit(low));
        seen |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    seen < 16 && odd.is_empty() && pairs.len() == bytes.len()
}

/// Puts the two digits of each byte into `digits`.
fn spell(bytes: &[u8], digits: &mut [u8]) {
    let letter = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    for ([high, low], byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        (*high, *low) = (letter(byte >> 4), letter(byte & 0xf));
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    (text.len() >= HEX_DIGITS_MIN && unspell(text.as_bytes(), &mut bytes)).then_some(bytes)
}

fn spell_hex(bytes: &[u8]) -> Arc<str> {
    let mut digits = vec![0; bytes.len().saturating_mul(2)];
    spell(bytes, &mut digits);
    to_text(&digits)
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    let is_uuid = UUID_PARTS.into_iter().all(|(digits, part)| {
        let follows_hyphen = digits.start.checked_sub(1).is_none_or(|before| text.get(before) == Some(&b'-'));
        follows_hyphen && text.get(digits).zip(bytes.get_mut(part)).is_some_and(|(digits, part)| unspell(digits, part))
    });
    is_uuid.then_some(bytes)
}

fn spell_uuid(bytes: [u8; 16]) -> Arc<str> {
    let mut text = [b'-'; 36];
    for (digits, part) in UUID_PARTS {
        if let Some((digits, part)) = text.get_mut(digits).zip(bytes.get(part)) {
            spell(part, digits);
        }
    }
    to_text(&text)
}

/// Digits and hyphens are always text.
fn to_text(ascii: &[u8]) -> Arc<str> {
    std::str::from_utf8(ascii).unwrap_or_default().into()
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
