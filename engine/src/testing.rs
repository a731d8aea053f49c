//! What tests and fuzz targets need and programs do not: records as bytes.
//!
//! Nothing here is part of the library's interface; it changes without notice.

use ipnet::{IpNet, Ipv4Net};

use crate::address::Family;
use crate::block::{Block, Fullness};
use crate::codec::{self, CodecError, OwnerRow, Record};
use crate::index::Index;
use crate::intent::{AttachmentRow, Intent, Past, Seen};
use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner, Pod};
use crate::ledger::meta::{FullRow, HostRow, IdentityRow, SharingRow, StoreRow};
use crate::offset::{BlockNumber, Offset};

/// What a record is. The five of the meta table are told apart by their keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecordKind {
    /// A block.
    Block,
    /// An index.
    Index,
    /// What an attachment holds.
    Attachment,
    /// Where an owner's addresses are.
    Owner,
    /// An intent.
    Intent,
    /// What was seen of an object in a cluster.
    Seen,
    /// A past lease.
    Past,
    /// Whose ledger it is.
    Identity,
    /// The boot that the ledger knows.
    Host,
    /// The store that the ledger belongs to.
    Store,
    /// How a pool is used.
    Sharing,
    /// A range that was found full.
    Full,
}

// === impl RecordKind ===

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Block,
        Self::Index,
        Self::Attachment,
        Self::Owner,
        Self::Intent,
        Self::Seen,
        Self::Past,
        Self::Identity,
        Self::Host,
        Self::Store,
        Self::Sharing,
        Self::Full,
    ];

    /// Decodes a record that was found under `key`, and encodes its value again.
    ///
    /// # Errors
    /// [`CodecError`] when it is no sound record of this kind under this key.
    pub fn reencode(self, key: &[u8], record: &[u8]) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Block => reencode::<Block>(key, record),
            Self::Index => reencode::<Index>(key, record),
            Self::Attachment => reencode::<AttachmentRow>(key, record),
            Self::Owner => reencode::<OwnerRow>(key, record),
            Self::Intent => reencode::<Intent>(key, record),
            Self::Seen => reencode::<Seen>(key, record),
            Self::Past => reencode::<Past>(key, record),
            Self::Identity => reencode::<IdentityRow>(key, record),
            Self::Host => reencode::<HostRow>(key, record),
            Self::Store => reencode::<StoreRow>(key, record),
            Self::Sharing => reencode::<SharingRow>(key, record),
            Self::Full => reencode::<FullRow>(key, record),
        }
    }

    /// The record with this body, under a checksum that is right: what a damaged one never gets past, a test does.
    #[must_use]
    pub fn seal(self, key: &[u8], body: &[u8]) -> Vec<u8> {
        let kind = match self {
            Self::Block => Block::KIND,
            Self::Index => Index::KIND,
            Self::Attachment => AttachmentRow::KIND,
            Self::Owner => OwnerRow::KIND,
            Self::Intent => Intent::KIND,
            Self::Seen => Seen::KIND,
            Self::Past => Past::KIND,
            Self::Identity => IdentityRow::KIND,
            Self::Host => HostRow::KIND,
            Self::Store => StoreRow::KIND,
            Self::Sharing => SharingRow::KIND,
            Self::Full => FullRow::KIND,
        };
        codec::seal(codec::FORMAT, kind, key, body)
    }
}

fn reencode<R: Record>(key: &[u8], record: &[u8]) -> Result<Vec<u8>, CodecError> {
    R::decode(key, record)?.encode(key)
}

/// An index in which the first `n` blocks of a family exist and are full: what a benchmark would wait hours for.
#[must_use]
pub fn index_of_full_blocks(family: Family, first: BlockNumber, n: u64) -> Index {
    let mut index = Index::empty(0);
    let mut next = Some(first);
    for _ in 0..n {
        let Some(number) = next else { break };
        index.existing.insert(number);
        index.set_mark(number, Fullness::Full);
        next = number.next(family);
    }
    index
}

/// A block in which the lowest `n` offsets are held by pods of a cluster.
#[must_use]
pub fn block_of_pods(n: u8) -> Block {
    let mut block = Block::empty(0);
    for number in 0..n {
        let lease = Lease {
            state: LeaseState::Active,
            operation: OperationId::from_bytes([number; 8]),
            attachment: Attachment::new(&format!("{number:064x}"), "eth0", "pods"),
            owner: Owner::Pod(Pod {
                namespace: "shop".into(),
                name: format!("storefront-7d9f8b6c5d-{number:05}").into(),
                uid: Some(format!("6c0e5f0a-1b2c-4d3e-8f90-{number:012x}").into()),
            }),
            node: format!("node-{}", number % 40).into(),
            boot: Some(BootId::from_bytes([number % 40; 16])),
            pool: IpNet::V4(Ipv4Net::default()),
            provider: None,
            since: 1_767_225_600_000 + u64::from(number),
        };
        block.insert(Offset::from(number), lease);
    }
    block
}

/// A number that nothing of its seed can be seen in.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Digits that no compression could shorten, as those of an id.
fn digits(seed: u64, n: usize) -> String {
    let words = (0..).map(|part| mixed(seed.wrapping_add(part << 32)));
    words.flat_map(|word| format!("{word:016x}").into_bytes()).map(char::from).take(n).collect()
}

/// A full block of pods as a cluster has them, on so many nodes: what one lease has to do with another is what a
/// Deployment and a node make of it, so that its size is that of a block in use.
#[must_use]
pub fn full_block_of_pods(n_nodes: u64) -> Block {
    let mut block = Block::empty(0);
    for number in 0..=u8::MAX {
        let at = u64::from(number);
        let (namespace, deployment, node) = (mixed(at + 4000) % 3, mixed(at + 5000) % 7, mixed(at + 6000) % n_nodes);
        let (high, low) = (mixed(at + 10_000), mixed(at + 11_000));
        let [a, b, c, d, e] = [high >> 32, high >> 16 & 0xffff, high & 0xffff, low >> 48, low & 0xffff_ffff_ffff];
        let boot = u128::from(mixed(node + 7000)) << 64 | u128::from(mixed(node + 8000));
        let lease = Lease {
            state: LeaseState::Active,
            operation: OperationId::from_bytes(mixed(at + 1000).to_be_bytes()),
            attachment: Attachment::new(&digits(at + 2000, 64), "eth0", "macvlan-conf"),
            owner: Owner::Pod(Pod {
                namespace: match namespace {
                    0 => "production".into(),
                    1 => "staging".into(),
                    _ => "kube-system".into(),
                },
                name: format!("checkout-{}-{}", digits(deployment, 10), digits(at + 9000, 5)).into(),
                uid: Some(format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}").into()),
            }),
            node: format!("worker-{node:02}.rack-3.example.net").into(),
            boot: Some(BootId::from_bytes(boot.to_be_bytes())),
            pool: IpNet::V4(Ipv4Net::default()),
            provider: None,
            // Within a month.
            since: 1_767_225_600_000 + mixed(at + 3000) % 2_592_000_000,
        };
        block.insert(Offset::from(number), lease);
        block.advance();
    }
    block
}

/// What a release does in memory: the lease leaves its block, which the index then no longer calls full.
pub fn release(index: &mut Index, number: BlockNumber, block: &mut Block, offset: Offset) -> Option<Lease> {
    let freed = block.remove(offset);
    index.set_mark(number, block.fullness());
    freed
}

/// Marks a block as full again, for the next release.
pub fn mark_full(index: &mut Index, number: BlockNumber) {
    index.set_mark(number, Fullness::Full);
}

/// The record of a block.
///
/// # Errors
/// [`CodecError`] when it cannot be encoded.
pub fn encode_block(key: &[u8], block: &Block) -> Result<Vec<u8>, CodecError> {
    block.encode(key)
}

/// The block of a record.
///
/// # Errors
/// [`CodecError`] when it is no sound one.
pub fn decode_block(key: &[u8], record: &[u8]) -> Result<Block, CodecError> {
    Block::decode(key, record)
}

/// The record of an index.
///
/// # Errors
/// [`CodecError`] when it cannot be encoded.
pub fn encode_index(key: &[u8], index: &Index) -> Result<Vec<u8>, CodecError> {
    index.encode(key)
}

/// The index of a record.
///
/// # Errors
/// [`CodecError`] when it is no sound one.
pub fn decode_index(key: &[u8], record: &[u8]) -> Result<Index, CodecError> {
    Index::decode(key, record)
}
