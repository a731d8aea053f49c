//! The stored types once more, for bincode 2.0.1: that the bytes are bincode's standard configuration is a promise of
//! the format, and here is who holds us to it.
//!
//! Both sides print the same text where they read the same values, so no field can be taken for another one.

use std::fmt::Debug;

use bincode::{Decode, Encode};
use proptest::prelude::*;

use super::super::{OwnerRow, Record, body};
use super::arbitrary::*;
use crate::block::Block;
use crate::index::Index;
use crate::intent::{AttachmentRow, Intent, Past, Seen};
use crate::ledger::meta::{FullRow, HostRow, IdentityRow, SharingRow, StoreRow};

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum StoredText {
    Plain(String),
    Hex(Vec<u8>),
    Uuid([u8; 16]),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum StoredNet {
    V4([u8; 4], u8),
    V6([u8; 16], u8),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredSpace {
    pub(super) network: String,
    pub(super) v6: bool,
    pub(super) private: Option<StoredNet>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredBlockId {
    pub(super) space: StoredSpace,
    pub(super) number: u128,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredAttachment {
    pub(super) container: StoredText,
    pub(super) interface: String,
    pub(super) network: String,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredPod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Option<StoredText>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum StoredOwner {
    Container,
    Pod(StoredPod),
    Sticky(String, Option<StoredPod>),
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub(super) enum StoredState {
    Active,
    Pending,
    Releasing,
    Quarantined,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredLease {
    pub(super) state: StoredState,
    pub(super) operation: [u8; 8],
    pub(super) attachment: StoredAttachment,
    pub(super) owner: StoredOwner,
    pub(super) node: String,
    pub(super) boot: Option<[u8; 16]>,
    pub(super) pool: StoredNet,
    pub(super) provider: Option<String>,
    pub(super) since: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredBlock {
    pub(super) sequence: u64,
    pub(super) epoch: u64,
    pub(super) frozen: bool,
    pub(super) used: Vec<u8>,
    pub(super) texts: Vec<String>,
    pub(super) boots: Vec<[u8; 16]>,
    pub(super) pools: Vec<StoredNet>,
    pub(super) states: Vec<StoredState>,
    pub(super) containers: Vec<StoredBlockText>,
    pub(super) interfaces: Vec<u32>,
    pub(super) networks: Vec<u32>,
    pub(super) owners: Vec<StoredBlockOwner>,
    pub(super) nodes: Vec<u32>,
    pub(super) lease_boots: Vec<u32>,
    pub(super) lease_pools: Vec<u32>,
    pub(super) providers: Vec<u32>,
    pub(super) since: u64,
    pub(super) since_after: Vec<u64>,
    pub(super) covered: Vec<StoredCovered>,
    pub(super) operations: Vec<[u8; 8]>,
    pub(super) digits: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum StoredBlockText {
    Plain(String),
    Hex(u32),
    Uuid,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredCovered {
    pub(super) offset: u8,
    pub(super) lease: StoredLease,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum StoredBlockOwner {
    Container,
    Pod(StoredBlockPod),
    Sticky(String, Option<StoredBlockPod>),
    Named(String),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredBlockPod {
    pub(super) namespace: u32,
    pub(super) name: String,
    pub(super) uid: Option<StoredBlockText>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredIndex {
    pub(super) sequence: u64,
    pub(super) epoch: u64,
    pub(super) frozen: Option<String>,
    pub(super) reported: Vec<String>,
    pub(super) existing: Vec<StoredBitmap>,
    pub(super) full: Vec<StoredBitmap>,
    pub(super) full_but_zero: Vec<StoredBitmap>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredBitmap {
    pub(super) high: u128,
    pub(super) low: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredHeld {
    pub(super) block: StoredBlockId,
    pub(super) offset: u8,
    pub(super) operation: [u8; 8],
    pub(super) lease: Option<StoredLease>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredClaim {
    pub(super) block: StoredBlockId,
    pub(super) offset: u8,
    pub(super) expected: Vec<u8>,
    pub(super) previous: Option<StoredLease>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredAttachmentRow {
    pub(super) store: String,
    pub(super) boot: [u8; 16],
    pub(super) recorded: u64,
    pub(super) held: Vec<StoredHeld>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredIntent {
    pub(super) attachment: StoredAttachment,
    pub(super) store: String,
    pub(super) boot: [u8; 16],
    pub(super) opened: u64,
    pub(super) purpose: StoredPurpose,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum StoredPurpose {
    Claim(Vec<StoredClaim>),
    Undo(Vec<StoredClaim>),
    Release(Vec<StoredHeld>),
    Recheck(Vec<StoredBlockId>),
    Freeze(StoredSpace, u64, String),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredSeen {
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) identity: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredPast {
    pub(super) block: StoredBlockId,
    pub(super) offset: u8,
    pub(super) lease: StoredLease,
    pub(super) until: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredIdentity {
    pub(super) machine: String,
    pub(super) random: [u8; 16],
    pub(super) created: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredOwnerAddress {
    pub(super) address: u128,
    pub(super) operation: [u8; 8],
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredHost {
    pub(super) boot: [u8; 16],
    pub(super) pid_namespace: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredStore {
    pub(super) identity: String,
    pub(super) address: String,
    pub(super) is_complete: bool,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct StoredFull {
    pub(super) held: u128,
    pub(super) boot: [u8; 16],
    pub(super) found: u64,
}

/// What bincode makes of a value.
pub(super) fn to_bincode(value: &impl Encode) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).unwrap()
}

/// What bincode reads from the whole of a body.
pub(super) fn from_bincode<M: Decode<()>>(body: &[u8]) -> M {
    let (value, read) = bincode::decode_from_slice(body, bincode::config::standard()).unwrap();
    assert_eq!(read, body.len());
    value
}

fn check<M, R>(value: &R) -> Result<(), TestCaseError>
where
    M: Debug + Encode + Decode<()>,
    R: Record,
    R::Stored: Debug,
{
    let ours = body(value).unwrap();
    let theirs: M = from_bincode(&ours);
    prop_assert_eq!(format!("{theirs:?}"), format!("{:?}", value.to_stored().unwrap()));
    prop_assert_eq!(to_bincode(&theirs), ours);
    Ok(())
}

proptest! {
    #[test]
    fn bincode_reads_and_writes_the_same_blocks(block in any_block()) {
        check::<StoredBlock, Block>(&block)?;
    }

    #[test]
    fn bincode_reads_and_writes_the_same_indexes((_, index) in any_index()) {
        check::<StoredIndex, Index>(&index)?;
    }

    #[test]
    fn bincode_reads_and_writes_the_same_rows(
        attachment in any_attachment_row(),
        owner in any_owner_row(),
        intent in any_intent(),
        seen in any_seen(),
        (_, past) in any_past(),
        identity in any_identity(),
        host in any_host(),
        store in any_store(),
        sharing in any_sharing(),
        full in any_full(),
    ) {
        check::<StoredAttachmentRow, AttachmentRow>(&attachment)?;
        check::<Vec<StoredOwnerAddress>, OwnerRow>(&owner)?;
        check::<StoredIntent, Intent>(&intent)?;
        check::<StoredSeen, Seen>(&seen)?;
        check::<StoredPast, Past>(&past)?;
        check::<StoredIdentity, IdentityRow>(&identity)?;
        check::<StoredHost, HostRow>(&host)?;
        check::<StoredStore, StoreRow>(&store)?;
        check::<bool, SharingRow>(&sharing)?;
        check::<StoredFull, FullRow>(&full)?;
    }
}
