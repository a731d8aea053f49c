//! What tests and fuzz targets need and programs do not: records as bytes.
//!
//! Nothing here is part of the library's interface; it changes without notice.

use crate::block::Block;
use crate::codec::{self, CodecError, OwnerRow, Record};
use crate::index::Index;
use crate::intent::{AttachmentRow, Intent, Past, Seen};
use crate::ledger::meta::{HostRow, IdentityRow, SharingRow};

/// What a record is. The three of the meta table are told apart by their keys.
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
    /// How a pool is used.
    Sharing,
}

// === impl RecordKind ===

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Block,
        Self::Index,
        Self::Attachment,
        Self::Owner,
        Self::Intent,
        Self::Seen,
        Self::Past,
        Self::Identity,
        Self::Host,
        Self::Sharing,
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
            Self::Sharing => reencode::<SharingRow>(key, record),
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
            Self::Sharing => SharingRow::KIND,
        };
        codec::seal(codec::FORMAT, kind, key, body)
    }
}

fn reencode<R: Record>(key: &[u8], record: &[u8]) -> Result<Vec<u8>, CodecError> {
    R::decode(key, record)?.encode(key)
}
