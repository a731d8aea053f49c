//! The record of an index: three sets of block numbers as roaring bitmaps, keyed by the high bits.

use std::sync::Arc;

use roaring::RoaringBitmap;
use wincode::{SchemaRead, SchemaWrite};

use super::parts::{read_bitmap, write_bitmap};
use super::{CodecError, Kind, Record, malformed};
use crate::index::{BlockSet, Index};
use crate::ledger::keys;
use crate::offset::BlockNumber;

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
pub(crate) struct StoredIndex {
    sequence: u64,
    epoch: u64,
    frozen: Option<String>,
    /// Node names, ascending.
    reported: Vec<String>,
    existing: Vec<StoredBitmap>,
    full: Vec<StoredBitmap>,
    full_but_zero: Vec<StoredBitmap>,
}

#[derive(Debug, PartialEq, SchemaWrite, SchemaRead)]
struct StoredBitmap {
    /// The block numbers without their low 32 bits.
    high: u128,
    /// The low 32 bits of each, a roaring bitmap in portable format.
    low: Vec<u8>,
}

fn write_set(set: &BlockSet) -> Result<Vec<StoredBitmap>, CodecError> {
    set.bitmaps().map(|(high, bitmap)| Ok(StoredBitmap { high, low: write_bitmap(bitmap)? })).collect()
}

fn read_set(stored: Vec<StoredBitmap>) -> Result<BlockSet, CodecError> {
    let bitmaps = stored
        .into_iter()
        .map(|bitmap| Ok((bitmap.high, read_bitmap(&bitmap.low)?)))
        .collect::<Result<Vec<(u128, RoaringBitmap)>, CodecError>>()?;
    BlockSet::from_bitmaps(bitmaps).ok_or_else(|| malformed("a set of blocks has an empty, double or impossible part"))
}

impl Record for Index {
    const KIND: Kind = Kind::Index;
    type Stored = StoredIndex;

    fn belongs_under(&self, key: &[u8]) -> bool {
        let Some(space) = keys::to_space(key) else { return false };
        let last = BlockNumber::last(space.family());
        [&self.existing, &self.full, &self.full_but_zero].iter().all(|set| set.last().is_none_or(|block| block <= last))
    }

    fn to_stored(&self) -> Result<StoredIndex, CodecError> {
        Ok(StoredIndex {
            sequence: self.sequence,
            epoch: self.epoch,
            frozen: self.frozen.clone(),
            reported: self.reported.iter().map(|node| (**node).to_owned()).collect(),
            existing: write_set(&self.existing)?,
            full: write_set(&self.full)?,
            full_but_zero: write_set(&self.full_but_zero)?,
        })
    }

    fn from_stored(stored: StoredIndex) -> Result<Self, CodecError> {
        Ok(Self {
            sequence: stored.sequence,
            epoch: stored.epoch,
            frozen: stored.frozen,
            reported: stored.reported.into_iter().map(Arc::from).collect(),
            existing: read_set(stored.existing)?,
            full: read_set(stored.full)?,
            full_but_zero: read_set(stored.full_but_zero)?,
        })
    }
}
