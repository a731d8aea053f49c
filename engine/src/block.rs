//! Blocks: who holds what among 256 aligned addresses.

use roaring::RoaringBitmap;

use crate::lease::Lease;
use crate::offset::{BLOCK_SIZE, Offset};

/// How many addresses a block has.
const BLOCK_ADDRESSES: u32 = BLOCK_SIZE as u32;

/// A block: the used offsets, and a lease for each.
///
/// ```
/// use whereabouts_engine::{Block, Fullness};
///
/// let block = Block::empty(0);
/// assert_eq!(block.fullness(), Fullness::Open);
/// assert_eq!(block.n_used(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// Rises with every write, so that a restored older image is told from the newest.
    sequence: u64,
    /// The epoch of the space in which it was written last.
    epoch: u64,
    /// The space is frozen, and nobody may take an address here.
    frozen: bool,
    used: RoaringBitmap,
    /// In the order of `used`.
    leases: Vec<Lease>,
}

/// What room a block has, as the index marks it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Fullness {
    /// At least one address besides offset 0 is free.
    Open,
    /// Nothing is free but offset 0, which ordinary IPv4 views never hand out.
    FullButZero,
    /// Nothing is free.
    Full,
}

// === impl Block ===

impl Block {
    /// A block in which nothing is held.
    #[must_use]
    pub fn empty(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Puts a block together from what was stored; `None` when the leases are not one for each used offset, or
    /// an offset is beyond the block.
    pub(crate) fn from_parts(
        sequence: u64,
        epoch: u64,
        frozen: bool,
        used: RoaringBitmap,
        leases: Vec<Lease>,
    ) -> Option<Self> {
        let fits = used.len() == leases.len() as u64 && used.max().is_none_or(|last| last < BLOCK_ADDRESSES);
        fits.then_some(Self { sequence, epoch, frozen, used, leases })
    }

    /// How often the block has been written.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The epoch of the space in which the block was written last.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the block was stamped because its space is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The offsets that are held.
    #[must_use]
    pub fn used(&self) -> &RoaringBitmap {
        &self.used
    }

    /// How many addresses are held.
    #[must_use]
    pub fn n_used(&self) -> u32 {
        u32::try_from(self.leases.len()).unwrap_or(BLOCK_ADDRESSES)
    }

    /// Who holds `offset`.
    #[must_use]
    pub fn get(&self, offset: Offset) -> Option<&Lease> {
        self.leases.get(self.position(offset).ok()?)
    }

    /// All leases, by offset.
    pub fn iter(&self) -> impl Iterator<Item = (Offset, &Lease)> {
        self.used.iter().filter_map(|offset| Some(Offset::from(u8::try_from(offset).ok()?))).zip(&self.leases)
    }

    /// The lowest of `assignable` that nobody holds.
    #[must_use]
    pub fn lowest_free(&self, assignable: &RoaringBitmap) -> Option<Offset> {
        let free = if self.used.is_empty() {
            assignable.min()
        } else {
            assignable.iter().find(|offset| !self.used.contains(*offset))
        };
        Some(Offset::from(u8::try_from(free?).ok()?))
    }

    /// What room is left.
    #[must_use]
    pub fn fullness(&self) -> Fullness {
        match self.n_used() {
            BLOCK_ADDRESSES.. => Fullness::Full,
            255 if !self.used.contains(0) => Fullness::FullButZero,
            _ => Fullness::Open,
        }
    }

    /// Gives `offset` to a lease, and returns who held it before.
    pub(crate) fn insert(&mut self, offset: Offset, lease: Lease) -> Option<Lease> {
        match self.position(offset) {
            Ok(at) => self.leases.get_mut(at).map(|held| std::mem::replace(held, lease)),
            Err(at) => {
                self.used.insert(u32::from(offset.get()));
                self.leases.insert(at, lease);
                None
            }
        }
    }

    /// Frees `offset`, and returns who held it.
    pub(crate) fn remove(&mut self, offset: Offset) -> Option<Lease> {
        let at = self.position(offset).ok()?;
        self.used.remove(u32::from(offset.get()));
        Some(self.leases.remove(at))
    }

    /// Counts one more write.
    pub(crate) fn advance(&mut self) {
        self.sequence = self.sequence.saturating_add(1);
    }

    /// Marks the block as part of a frozen space, or as thawed in `epoch`.
    pub(crate) fn set_frozen(&mut self, frozen: bool, epoch: u64) {
        self.frozen = frozen;
        self.epoch = epoch;
    }

    /// Where the lease of `offset` is, or where it would go.
    fn position(&self, offset: Offset) -> Result<usize, usize> {
        let offset = u32::from(offset.get());
        // A rank within 256 fits every usize.
        let rank = usize::try_from(self.used.rank(offset)).unwrap_or(usize::MAX);
        if self.used.contains(offset) { Ok(rank.saturating_sub(1)) } else { Err(rank) }
    }
}
