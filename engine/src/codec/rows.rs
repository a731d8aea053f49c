//! The records of the ledger's own rows: attachments, owners, intents, what was seen, history, meta.

use std::sync::Arc;

use wincode::{SchemaRead, SchemaWrite};

use super::parts::{StoredAttachment, StoredBlockId, StoredLease, StoredSpace, StoredText};
use super::{CodecError, Kind, Record};
use crate::intent::{AttachmentRow, Claim, HeldAddress, Intent, Past, Purpose, Seen};
use crate::lease::{BootId, Lease, OperationId};
use crate::ledger::keys;
use crate::ledger::meta::{FullRow, HostRow, IdentityRow, SharingRow, StoreRow};
use crate::offset::Offset;
use crate::space::Sharing;
use crate::store::Version;

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredHeld {
    block: StoredBlockId,
    offset: u8,
    operation: [u8; 8],
    lease: Option<StoredLease>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredClaim {
    block: StoredBlockId,
    offset: u8,
    expected: Vec<u8>,
    previous: Option<StoredLease>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredAttachmentRow {
    store: String,
    boot: [u8; 16],
    recorded: u64,
    held: Vec<StoredHeld>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredIntent {
    attachment: StoredAttachment,
    store: String,
    boot: [u8; 16],
    opened: u64,
    purpose: StoredPurpose,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
enum StoredPurpose {
    Claim(Vec<StoredClaim>),
    Undo(Vec<StoredClaim>),
    Release(Vec<StoredHeld>),
    Recheck(Vec<StoredBlockId>),
    Freeze(StoredSpace, u64, String),
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredSeen {
    epoch: u64,
    sequence: u64,
    identity: Vec<u8>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredPast {
    block: StoredBlockId,
    offset: u8,
    lease: StoredLease,
    until: u64,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredIdentity {
    machine: String,
    random: [u8; 16],
    created: u64,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredStore {
    identity: String,
    address: String,
    is_complete: bool,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredHost {
    boot: [u8; 16],
    pid_namespace: u64,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredFull {
    held: u128,
    boot: [u8; 16],
    found: u64,
}

/// The addresses of an owner in one space, in the order in which it got them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OwnerRow {
    pub(crate) addresses: Vec<OwnerAddress>,
}

/// An address of an owner, and the operation that gave it: an older one that ends late must not take it away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OwnerAddress {
    pub(crate) address: u128,
    pub(crate) operation: OperationId,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredOwnerAddress {
    address: u128,
    operation: [u8; 8],
}

/// A release that waits in the spool for a day on which the ledger can be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpooledRelease {
    pub(crate) container: Arc<str>,
    pub(crate) interface: Arc<str>,
    pub(crate) network: Option<Arc<str>>,
    /// When, by the boot clock: what the same container is given after that is not meant.
    pub(crate) boot: BootId,
    pub(crate) spooled: u64,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredRelease {
    container: StoredText,
    interface: String,
    network: Option<String>,
    boot: [u8; 16],
    spooled: u64,
}

// === parts ===

impl From<&HeldAddress> for StoredHeld {
    fn from(held: &HeldAddress) -> Self {
        Self {
            block: (&held.block).into(),
            offset: held.offset.get(),
            operation: held.operation.to_bytes(),
            lease: held.lease.as_ref().map(StoredLease::from),
        }
    }
}

impl TryFrom<StoredHeld> for HeldAddress {
    type Error = CodecError;

    fn try_from(stored: StoredHeld) -> Result<Self, CodecError> {
        Ok(Self {
            block: stored.block.try_into()?,
            offset: Offset::from(stored.offset),
            operation: OperationId::from_bytes(stored.operation),
            lease: stored.lease.map(Lease::try_from).transpose()?,
        })
    }
}

impl From<&Claim> for StoredClaim {
    fn from(claim: &Claim) -> Self {
        Self {
            block: (&claim.block).into(),
            offset: claim.offset.get(),
            expected: claim.expected.as_bytes().to_vec(),
            previous: claim.previous.as_ref().map(StoredLease::from),
        }
    }
}

impl TryFrom<StoredClaim> for Claim {
    type Error = CodecError;

    fn try_from(stored: StoredClaim) -> Result<Self, CodecError> {
        Ok(Self {
            block: stored.block.try_into()?,
            offset: Offset::from(stored.offset),
            expected: Version::from_bytes(&stored.expected),
            previous: stored.previous.map(Lease::try_from).transpose()?,
        })
    }
}

fn each<S, T: TryFrom<S, Error = CodecError>>(stored: Vec<S>) -> Result<Vec<T>, CodecError> {
    stored.into_iter().map(T::try_from).collect()
}

// === impl Record ===

impl Record for AttachmentRow {
    const KIND: Kind = Kind::Attachment;
    type Stored = StoredAttachmentRow;

    fn to_stored(&self) -> Result<StoredAttachmentRow, CodecError> {
        Ok(StoredAttachmentRow {
            store: (*self.store).to_owned(),
            boot: self.boot.to_bytes(),
            recorded: self.recorded,
            held: self.held.iter().map(StoredHeld::from).collect(),
        })
    }

    fn from_stored(stored: StoredAttachmentRow) -> Result<Self, CodecError> {
        Ok(Self {
            store: stored.store.into(),
            boot: BootId::from_bytes(stored.boot),
            recorded: stored.recorded,
            held: each(stored.held)?,
        })
    }
}

impl Record for OwnerRow {
    const KIND: Kind = Kind::Owner;
    type Stored = Vec<StoredOwnerAddress>;

    fn to_stored(&self) -> Result<Self::Stored, CodecError> {
        let stored = |of: &OwnerAddress| StoredOwnerAddress { address: of.address, operation: of.operation.to_bytes() };
        Ok(self.addresses.iter().map(stored).collect())
    }

    fn from_stored(stored: Self::Stored) -> Result<Self, CodecError> {
        let address = |stored: StoredOwnerAddress| OwnerAddress {
            address: stored.address,
            operation: OperationId::from_bytes(stored.operation),
        };
        Ok(Self { addresses: stored.into_iter().map(address).collect() })
    }
}

impl Record for Intent {
    const KIND: Kind = Kind::Intent;
    type Stored = StoredIntent;

    fn to_stored(&self) -> Result<StoredIntent, CodecError> {
        let purpose = match &self.purpose {
            Purpose::Claim(claims) => StoredPurpose::Claim(claims.iter().map(StoredClaim::from).collect()),
            Purpose::Undo(claims) => StoredPurpose::Undo(claims.iter().map(StoredClaim::from).collect()),
            Purpose::Release(held) => StoredPurpose::Release(held.iter().map(StoredHeld::from).collect()),
            Purpose::Recheck(blocks) => StoredPurpose::Recheck(blocks.iter().map(StoredBlockId::from).collect()),
            Purpose::Freeze { space, epoch, reason } => StoredPurpose::Freeze(space.into(), *epoch, reason.clone()),
        };
        Ok(StoredIntent {
            attachment: (&self.attachment).into(),
            store: (*self.store).to_owned(),
            boot: self.boot.to_bytes(),
            opened: self.opened,
            purpose,
        })
    }

    fn from_stored(stored: StoredIntent) -> Result<Self, CodecError> {
        let purpose = match stored.purpose {
            StoredPurpose::Claim(claims) => Purpose::Claim(each(claims)?),
            StoredPurpose::Undo(claims) => Purpose::Undo(each(claims)?),
            StoredPurpose::Release(held) => Purpose::Release(each(held)?),
            StoredPurpose::Recheck(blocks) => Purpose::Recheck(each(blocks)?),
            StoredPurpose::Freeze(space, epoch, reason) => Purpose::Freeze { space: space.try_into()?, epoch, reason },
        };
        Ok(Self {
            attachment: stored.attachment.into(),
            store: stored.store.into(),
            boot: BootId::from_bytes(stored.boot),
            opened: stored.opened,
            purpose,
        })
    }
}

impl Record for Seen {
    const KIND: Kind = Kind::Seen;
    type Stored = StoredSeen;

    fn to_stored(&self) -> Result<StoredSeen, CodecError> {
        Ok(StoredSeen { epoch: self.epoch, sequence: self.sequence, identity: self.identity.clone() })
    }

    fn from_stored(stored: StoredSeen) -> Result<Self, CodecError> {
        Ok(Self { epoch: stored.epoch, sequence: stored.sequence, identity: stored.identity })
    }
}

impl Record for Past {
    const KIND: Kind = Kind::History;
    type Stored = StoredPast;

    fn belongs_under(&self, key: &[u8]) -> bool {
        keys::history(self.until, self.lease.operation, &self.block, self.offset.get()) == key
    }

    fn to_stored(&self) -> Result<StoredPast, CodecError> {
        Ok(StoredPast {
            block: (&self.block).into(),
            offset: self.offset.get(),
            lease: (&self.lease).into(),
            until: self.until,
        })
    }

    fn from_stored(stored: StoredPast) -> Result<Self, CodecError> {
        Ok(Self {
            block: stored.block.try_into()?,
            offset: Offset::from(stored.offset),
            lease: stored.lease.try_into()?,
            until: stored.until,
        })
    }
}

impl Record for SpooledRelease {
    const KIND: Kind = Kind::Spooled;
    type Stored = StoredRelease;

    fn to_stored(&self) -> Result<StoredRelease, CodecError> {
        Ok(StoredRelease {
            container: (&*self.container).into(),
            interface: (*self.interface).to_owned(),
            network: self.network.as_deref().map(str::to_owned),
            boot: self.boot.to_bytes(),
            spooled: self.spooled,
        })
    }

    fn from_stored(stored: StoredRelease) -> Result<Self, CodecError> {
        Ok(Self {
            container: stored.container.into(),
            interface: stored.interface.into(),
            network: stored.network.map(Arc::from),
            boot: BootId::from_bytes(stored.boot),
            spooled: stored.spooled,
        })
    }
}

impl Record for IdentityRow {
    const KIND: Kind = Kind::Meta;
    type Stored = StoredIdentity;

    fn to_stored(&self) -> Result<StoredIdentity, CodecError> {
        Ok(StoredIdentity { machine: (*self.machine).to_owned(), random: self.random, created: self.created })
    }

    fn from_stored(stored: StoredIdentity) -> Result<Self, CodecError> {
        Ok(Self { machine: Arc::from(stored.machine), random: stored.random, created: stored.created })
    }
}

impl Record for HostRow {
    const KIND: Kind = Kind::Meta;
    type Stored = StoredHost;

    fn to_stored(&self) -> Result<StoredHost, CodecError> {
        Ok(StoredHost { boot: self.boot.to_bytes(), pid_namespace: self.pid_namespace })
    }

    fn from_stored(stored: StoredHost) -> Result<Self, CodecError> {
        Ok(Self { boot: BootId::from_bytes(stored.boot), pid_namespace: stored.pid_namespace })
    }
}

impl Record for StoreRow {
    const KIND: Kind = Kind::Meta;
    type Stored = StoredStore;

    fn to_stored(&self) -> Result<StoredStore, CodecError> {
        let (identity, address) = ((*self.identity).to_owned(), (*self.address).to_owned());
        Ok(StoredStore { identity, address, is_complete: self.is_complete })
    }

    fn from_stored(stored: StoredStore) -> Result<Self, CodecError> {
        let StoredStore { identity, address, is_complete } = stored;
        Ok(Self { identity: identity.into(), address: address.into(), is_complete })
    }
}

impl Record for FullRow {
    const KIND: Kind = Kind::Meta;
    type Stored = StoredFull;

    fn to_stored(&self) -> Result<StoredFull, CodecError> {
        Ok(StoredFull { held: self.held, boot: self.boot.to_bytes(), found: self.found })
    }

    fn from_stored(stored: StoredFull) -> Result<Self, CodecError> {
        Ok(Self { held: stored.held, boot: BootId::from_bytes(stored.boot), found: stored.found })
    }
}

impl Record for SharingRow {
    const KIND: Kind = Kind::Meta;
    type Stored = bool;

    fn to_stored(&self) -> Result<bool, CodecError> {
        Ok(self.0 == Sharing::Private)
    }

    fn from_stored(stored: bool) -> Result<Self, CodecError> {
        Ok(Self(if stored { Sharing::Private } else { Sharing::Shared }))
    }
}
