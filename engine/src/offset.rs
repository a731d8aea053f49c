//! Where an address lies: the number of its block, and its offset in it.

use std::fmt;

use crate::{Address, Family, Range};

/// How many addresses a block has: a /24 of IPv4, a /120 of IPv6.
pub const BLOCK_SIZE: u16 = 256;

const OFFSET_BITS: u32 = 8;
const OFFSET_MASK: u128 = 0xff;

/// The number of a block of 256 aligned addresses: the address without its last eight bits.
///
/// The family is that of the space in which the block lies, and is not repeated here.
///
/// ```
/// use whereabouts_engine::{Address, BlockNumber, Family, Offset};
///
/// let address: Address = "10.0.3.7".parse()?;
/// let block = BlockNumber::of(address);
/// assert_eq!(block.first_address(Family::V4).to_string(), "10.0.3.0");
/// assert_eq!(block.address_at(Family::V4, Offset::of(address)), address);
/// # Ok::<(), whereabouts_engine::ParseAddressError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(u128);

/// The position of an address in its block, 0 to 255. Never an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u8);

// === impl BlockNumber ===

impl BlockNumber {
    /// The block in which the address lies.
    #[must_use]
    pub const fn of(address: Address) -> Self {
        Self(address.number() >> OFFSET_BITS)
    }

    /// The block with this number, or `None` when the family has none.
    #[must_use]
    pub const fn new(family: Family, number: u128) -> Option<Self> {
        if number <= Self::last(family).0 { Some(Self(number)) } else { None }
    }

    /// The block that holds the last address of the family.
    #[must_use]
    pub const fn last(family: Family) -> Self {
        Self(family.last() >> OFFSET_BITS)
    }

    /// For numbers that are known to be of a block, because they were taken from one.
    pub(crate) const fn from_bounded(number: u128) -> Self {
        Self(number & (u128::MAX >> OFFSET_BITS))
    }

    /// The number, from 0 to 2^24 − 1 in IPv4 and to 2^120 − 1 in IPv6.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The address at offset 0.
    ///
    /// The family is the one that the block was made with; a number beyond the blocks of IPv4 is a mistake of the
    /// caller, is caught in debug builds and loses its high bits in others.
    #[must_use]
    pub const fn first_address(self, family: Family) -> Address {
        self.address_at(family, Offset::ZERO)
    }

    /// The address at this offset. About the family see [`BlockNumber::first_address`].
    #[must_use]
    pub const fn address_at(self, family: Family, offset: Offset) -> Address {
        Address::from_bounded(family, (self.0 << OFFSET_BITS) | offset.0 as u128)
    }

    /// The block after this one, or `None` after the last of the family.
    #[must_use]
    pub const fn next(self, family: Family) -> Option<Self> {
        // The highest block number has 120 bits.
        Self::new(family, self.0 + 1)
    }

    /// The number that the address at offset 0 has, in any family.
    pub(crate) const fn base(self) -> u128 {
        self.0 << OFFSET_BITS
    }

    /// The first and the last offset that the range has in this block, or `None` when it has none.
    pub(crate) fn part_of(self, range: Range) -> Option<(Offset, Offset)> {
        let (first, last) = (BlockNumber::of(range.first()), BlockNumber::of(range.last()));
        (first <= self && self <= last).then(|| {
            (
                if first < self { Offset::ZERO } else { Offset::of(range.first()) },
                if self < last { Offset::LAST } else { Offset::of(range.last()) },
            )
        })
    }

    /// All blocks from `first` to `last`, both included; none when `last` comes first.
    pub(crate) fn run(first: Self, last: Self) -> impl Iterator<Item = Self> {
        (first.0..=last.0).map(Self)
    }
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

// === impl Offset ===

impl Offset {
    /// The first position: the `.0` of an IPv4 block.
    pub const ZERO: Self = Self(0);

    /// The last position: the `.255` of an IPv4 block.
    pub const LAST: Self = Self(u8::MAX);

    /// The position of the address in its block.
    #[must_use]
    pub const fn of(address: Address) -> Self {
        Self((address.number() & OFFSET_MASK) as u8)
    }

    /// The position as a number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl From<u8> for Offset {
    fn from(offset: u8) -> Self {
        Self(offset)
    }
}

impl From<Offset> for u8 {
    fn from(offset: Offset) -> Self {
        offset.0
    }
}

/// What a bitmap of offsets holds.
impl From<Offset> for u32 {
    fn from(offset: Offset) -> Self {
        Self::from(offset.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_block_and_its_offset() {
        for text in ["0.0.0.0", "10.1.2.255", "255.255.255.255", "::", "fd00::1ff", "ffff::ffff", "::ffff:10.0.0.1"] {
            let address: Address = text.parse().unwrap();
            let (block, offset) = (BlockNumber::of(address), Offset::of(address));
            assert_eq!(block.address_at(address.family(), offset), address);
            assert_eq!(block.first_address(address.family()).number() % u128::from(BLOCK_SIZE), 0);
            assert_eq!(BlockNumber::new(address.family(), block.get()), Some(block));
        }
    }

    #[test]
    fn the_blocks_of_a_family_end() {
        for (family, bits) in [(Family::V4, 24), (Family::V6, 120)] {
            let last = BlockNumber::last(family);
            assert_eq!(last.get(), (1 << bits) - 1);
            assert_eq!(last.next(family), None);
            assert_eq!(BlockNumber::new(family, 1 << bits), None);
            assert_eq!(last.address_at(family, Offset::LAST).number(), family.last());
            assert_eq!(BlockNumber::new(family, last.get() - 1).and_then(|block| block.next(family)), Some(last));
        }
    }

    #[test]
    fn a_range_meets_a_block_in_a_run_of_offsets() {
        let range = Range::new("10.0.0.7".parse().unwrap(), "10.0.2.9".parse().unwrap()).unwrap();
        let part = |text: &str| {
            let part = BlockNumber::of(text.parse().unwrap()).part_of(range);
            part.map(|(first, last)| (first.get(), last.get()))
        };
        assert_eq!(part("9.255.255.0"), None);
        assert_eq!(part("10.0.0.0"), Some((7, 255)));
        assert_eq!(part("10.0.1.0"), Some((0, 255)));
        assert_eq!(part("10.0.2.0"), Some((0, 9)));
        assert_eq!(part("10.0.3.0"), None);
    }
}
