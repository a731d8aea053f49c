//! The index of a space: which blocks exist, and which are full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::address::Family;
use crate::block::Fullness;
use crate::offset::BlockNumber;
use crate::view::View;

/// Why a space is frozen whose leases went to another program, which gives its addresses away from then on. It is stored,
/// so it stays as it is.
pub const HANDED_OVER: &str = "its leases were handed over to another program, which gives its addresses away now";

/// A set of block numbers: a roaring bitmap of the low 32 bits under each value of the high bits.
///
/// A view looks for the first number that is *not* in the set, so full runs are jumped over, not walked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockSet {
    by_high: BTreeMap<u128, RoaringBitmap>,
}

/// The index of a space.
///
/// A mark may be missing, which costs a read; a block is never marked full for longer than it takes to settle the
/// intent of the release that made room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// Rises with every write, so that a restored older image is told from the newest.
    pub(crate) sequence: u64,
    /// Rises when a repair opens the space again.
    pub(crate) epoch: u64,
    /// Why nobody may take an address, for as long as the space is frozen.
    pub(crate) frozen: Option<String>,
    /// The nodes that have put back what their ledgers prove, since the space was frozen.
    pub(crate) reported: BTreeSet<Arc<str>>,
    /// The blocks that have been made. One that is listed here and cannot be read has been lost.
    pub(crate) existing: BlockSet,
    /// The blocks in which nothing is free.
    pub(crate) full: BlockSet,
    /// The blocks in which nothing is free but perhaps offset 0; `full` is part of it.
    pub(crate) full_but_zero: BlockSet,
}

// === impl BlockSet ===

/// Cuts a block number into the key of its bitmap and its place in it.
fn split(number: BlockNumber) -> (u128, u32) {
    let low = number.get() & u128::from(u32::MAX);
    (number.get() >> 32, u32::try_from(low).unwrap_or(u32::MAX))
}

impl BlockSet {
    /// Whether `number` is in the set.
    #[must_use]
    pub fn contains(&self, number: BlockNumber) -> bool {
        let (high, low) = split(number);
        self.by_high.get(&high).is_some_and(|bitmap| bitmap.contains(low))
    }

    /// How many numbers it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.by_high.values().map(RoaringBitmap::len).fold(0, u64::saturating_add)
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_high.is_empty()
    }

    /// Its highest number.
    #[must_use]
    pub fn last(&self) -> Option<BlockNumber> {
        let (high, bitmap) = self.by_high.last_key_value()?;
        Some(BlockNumber::from_bounded(high << 32 | u128::from(bitmap.max()?)))
    }

    /// Its numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = BlockNumber> {
        self.by_high.iter().flat_map(|(high, bitmap)| {
            bitmap.iter().map(move |low| BlockNumber::from_bounded(high << 32 | u128::from(low)))
        })
    }

    /// Its numbers from `first` to `last`, both included, ascending; none when `last` comes first.
    pub fn iter_between(&self, first: BlockNumber, last: BlockNumber) -> impl Iterator<Item = BlockNumber> {
        let (high_first, low_first) = split(first);
        let (high_last, low_last) = split(last);
        let bitmaps = (first <= last).then(|| self.by_high.range(high_first..=high_last));
        bitmaps.into_iter().flatten().flat_map(move |(&high, bitmap)| {
            let from = if high == high_first { low_first } else { 0 };
            let to = if high == high_last { low_last } else { u32::MAX };
            bitmap.range(from..=to).map(move |low| BlockNumber::from_bounded(high << 32 | u128::from(low)))
        })
    }

    /// The first number from `from` on that is not in the set; `None` when the set holds all that follow.
    #[must_use]
    pub fn first_absent(&self, from: BlockNumber) -> Option<BlockNumber> {
        let (mut high, mut low) = split(from);
        while let Some(bitmap) = self.by_high.get(&high) {
            let mut runs = bitmap.range(low..);
            let mut full = false;
            // A run may be cut where the bitmap changes its representation; its parts follow each other.
            while let Some(run) = runs.next_range() {
                if *run.start() != low {
                    break;
                }
                match run.end().checked_add(1) {
                    Some(next) => low = next,
                    None => {
                        full = true;
                        break;
                    }
                }
            }
            if !full {
                break;
            }
            high = high.checked_add(1)?;
            low = 0;
        }
        // The blocks of IPv6 are all that there are; after them there is nothing that could be absent.
        BlockNumber::new(Family::V6, high << 32 | u128::from(low))
    }

    /// Adds `number`; says whether it was new.
    pub(crate) fn insert(&mut self, number: BlockNumber) -> bool {
        let (high, low) = split(number);
        self.by_high.entry(high).or_default().insert(low)
    }

    /// Takes `number` out; says whether it was there.
    pub(crate) fn remove(&mut self, number: BlockNumber) -> bool {
        let (high, low) = split(number);
        let Some(bitmap) = self.by_high.get_mut(&high) else { return false };
        let was = bitmap.remove(low);
        if bitmap.is_empty() {
            self.by_high.remove(&high);
        }
        was
    }

    /// The bitmaps by their high bits, as they are stored.
    pub(crate) fn bitmaps(&self) -> impl Iterator<Item = (u128, &RoaringBitmap)> {
        self.by_high.iter().map(|(high, bitmap)| (*high, bitmap))
    }

    /// Puts a set together from its bitmaps; `None` when one is empty or its key does not belong to a block number.
    pub(crate) fn from_bitmaps(bitmaps: impl IntoIterator<Item = (u128, RoaringBitmap)>) -> Option<Self> {
        let mut by_high = BTreeMap::new();
        for (high, bitmap) in bitmaps {
            // A block number has 120 bits, of which 32 are in the bitmap.
            if bitmap.is_empty() || high >> 88 != 0 || by_high.insert(high, bitmap).is_some() {
                return None;
            }
        }
        Some(Self { by_high })
    }
}

// === impl Index ===

impl Index {
    /// The index of a space in which no block has been made.
    #[must_use]
    pub fn empty(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// How often the index has been written.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How often a repair has opened the space, or a migration has filled it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Why the space is frozen, while it is.
    #[must_use]
    pub fn frozen(&self) -> Option<&str> {
        self.frozen.as_deref()
    }

    /// Whether the leases of the space went to another program: then it is frozen for good, and no repair opens it.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.frozen() == Some(HANDED_OVER)
    }

    /// The nodes that have reported to the repair of a frozen space.
    #[must_use]
    pub fn reported(&self) -> &BTreeSet<Arc<str>> {
        &self.reported
    }

    /// The blocks that have been made.
    #[must_use]
    pub fn existing(&self) -> &BlockSet {
        &self.existing
    }

    /// The blocks in which the index says that nothing is free.
    #[must_use]
    pub fn full(&self) -> &BlockSet {
        &self.full
    }

    /// The blocks in which the index says that nothing is free but perhaps offset 0.
    #[must_use]
    pub fn full_but_zero(&self) -> &BlockSet {
        &self.full_but_zero
    }

    /// The first block of `view`, from `from` on, that the index does not call full for this view.
    #[must_use]
    pub fn first_open(&self, view: &View, from: BlockNumber) -> Option<BlockNumber> {
        let closed = if view.uses_zero() { &self.full } else { &self.full_but_zero };
        view.block_spans_from(from).find_map(|span| {
            let first = closed.first_absent(span.first.max(from))?;
            (first <= span.last).then_some(first)
        })
    }

    /// What the index says of a block's room.
    #[must_use]
    pub fn mark(&self, number: BlockNumber) -> Fullness {
        if self.full.contains(number) {
            Fullness::Full
        } else if self.full_but_zero.contains(number) {
            Fullness::FullButZero
        } else {
            Fullness::Open
        }
    }

    /// Marks a block's room; says whether that changed anything.
    pub(crate) fn set_mark(&mut self, number: BlockNumber, fullness: Fullness) -> bool {
        let put = |set: &mut BlockSet, member: bool| if member { set.insert(number) } else { set.remove(number) };
        let full = put(&mut self.full, fullness == Fullness::Full);
        let but_zero = put(&mut self.full_but_zero, fullness != Fullness::Open);
        full | but_zero
    }

    /// Forgets which blocks are full; says whether any was marked.
    pub(crate) fn clear_marks(&mut self) -> bool {
        let marked = !self.full_but_zero.is_empty();
        (self.full, self.full_but_zero) = Default::default();
        if marked {
            self.advance();
        }
        marked
    }

    /// Counts one more write.
    pub(crate) fn advance(&mut self) {
        self.sequence = self.sequence.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
