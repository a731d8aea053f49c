//! Sets of addresses as sorted intervals of numbers: what a /28 costs, ::/0 costs.

use std::fmt;

use crate::{Address, Family, IpNet};

/// Neighbouring addresses of one family, from `first` to `last`, both included; never empty.
///
/// Both ends are included so that the last address of a family has a name.
///
/// ```
/// use whereabouts_engine::{IpNet, Range};
///
/// let range = Range::from("10.0.0.0/30".parse::<IpNet>()?);
/// assert_eq!(range.to_string(), "10.0.0.0-10.0.0.3");
/// assert_eq!(range.len(), 4);
/// assert_eq!(Range::new(range.last(), range.first()), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    family: Family,
    first: u128,
    last: u128,
}

/// A set of addresses of one family: sorted ranges that neither overlap nor touch.
///
/// What belongs to the other family is not in the set: adding it changes nothing, and neither does taking it away.
///
/// ```
/// use whereabouts_engine::{Family, IntervalSet, IpNet, Range};
///
/// let set = |text: &str| -> Result<IntervalSet, ipnet::AddrParseError> {
///     Ok(IntervalSet::from_ranges(Family::V6, [Range::from(text.parse::<IpNet>()?)]))
/// };
/// let half = set("::/0")?.subtract(&set("8000::/1")?);
/// assert_eq!(half, set("::/1")?);
/// assert_eq!(half.len(), 1 << 127);
/// assert_eq!(half.nth(0).map(|address| address.to_string()).as_deref(), Some("::"));
/// # Ok::<(), ipnet::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IntervalSet {
    family: Family,
    /// Ascending; between two there is at least one address of neither.
    ranges: Vec<Range>,
}

// === impl Range ===

// A range is never empty, so there is no `is_empty` beside `len`.
#[expect(clippy::len_without_is_empty, reason = "a range holds at least one address")]
impl Range {
    /// The addresses from `first` to `last`, or `None` when `last` comes first or the families differ.
    #[must_use]
    pub fn new(first: Address, last: Address) -> Option<Self> {
        if first.family() == last.family() && first <= last {
            Some(Self { family: first.family(), first: first.number(), last: last.number() })
        } else {
            None
        }
    }

    /// The family of both ends.
    #[must_use]
    pub const fn family(self) -> Family {
        self.family
    }

    /// The lowest address.
    #[must_use]
    pub const fn first(self) -> Address {
        Address::from_bounded(self.family, self.first)
    }

    /// The highest address, which belongs to the range.
    #[must_use]
    pub const fn last(self) -> Address {
        Address::from_bounded(self.family, self.last)
    }

    /// Whether the address lies between the ends, or is one of them.
    #[must_use]
    pub fn contains(self, address: Address) -> bool {
        address.family() == self.family && self.first <= address.number() && address.number() <= self.last
    }

    /// How many addresses; `u128::MAX` for the 2^128 of all of IPv6, exact for all others.
    #[must_use]
    pub const fn len(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// The addresses in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Address> {
        (self.first..=self.last).map(move |number| Address::from_bounded(self.family, number))
    }

    /// What is in both ranges.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (self.family == other.family && first <= last).then_some(Self { family: self.family, first, last })
    }

    fn touches(self, next: Self) -> bool {
        self.last.checked_add(1).is_none_or(|after| next.first <= after)
    }
}

/// The whole network: network address, broadcast address and host bits included.
impl From<IpNet> for Range {
    fn from(network: IpNet) -> Self {
        let (first, last) = (Address::from(network.network()), Address::from(network.broadcast()));
        Self { family: first.family(), first: first.number(), last: last.number() }
    }
}

impl From<Address> for Range {
    fn from(address: Address) -> Self {
        Self { family: address.family(), first: address.number(), last: address.number() }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl IntervalSet ===

impl IntervalSet {
    /// The set without addresses.
    #[must_use]
    pub const fn empty(family: Family) -> Self {
        Self { family, ranges: Vec::new() }
    }

    /// All addresses of the ranges, which may overlap and come in any order. O(n log n).
    #[must_use]
    pub fn from_ranges(family: Family, ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut sorted: Vec<Range> = ranges.into_iter().filter(|range| range.family == family).collect();
        sorted.sort();
        sorted.dedup_by(|next, kept| {
            let merged = kept.touches(*next);
            if merged {
                kept.last = kept.last.max(next.last);
            }
            merged
        });
        Self { family, ranges: sorted }
    }

    /// The family of all addresses of the set.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The ranges: ascending, disjoint and as few as possible.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Whether there is no address in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the address is in the set. O(log n) in the number of ranges.
    #[must_use]
    pub fn contains(&self, address: Address) -> bool {
        self.ranges_from(address.number()).first().is_some_and(|range| range.contains(address))
    }

    /// How many addresses; `u128::MAX` for the 2^128 of all of IPv6, exact for all others.
    #[must_use]
    pub fn len(&self) -> u128 {
        self.ranges.iter().fold(0, |sum: u128, range| sum.saturating_add(range.len()))
    }

    /// The lowest address.
    #[must_use]
    pub fn first(&self) -> Option<Address> {
        self.ranges.first().map(|range| range.first())
    }

    /// The highest address.
    #[must_use]
    pub fn last(&self) -> Option<Address> {
        self.ranges.last().map(|range| range.last())
    }

    /// The address that has `index` lower ones in the set, or `None` when there are not that many. O(n) in the number
    /// of ranges.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<Address> {
        let mut index = index;
        for range in &self.ranges {
            // The distance between the ends and not the length, which 2^128 addresses would not fit into.
            let distance = range.last - range.first;
            if index <= distance {
                return Some(Address::from_bounded(self.family, range.first + index));
            }
            index -= distance;
            index -= 1;
        }
        None
    }

    /// The addresses in ascending order, one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Address> {
        self.ranges.iter().flat_map(|range| range.iter())
    }

    /// What is in one of the sets, or in both. O(n).
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        // Sorting two sorted runs is merging them.
        Self::from_ranges(self.family, self.ranges.iter().chain(&other.ranges).copied())
    }

    /// What is in both sets. O(n).
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut ours, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&our), Some(&&their)) = (ours.peek(), theirs.peek()) {
            ranges.extend(our.intersect(their));
            // The one that ends first can meet no other.
            if our.last <= their.last {
                ours.next();
            } else {
                theirs.next();
            }
        }
        Self { family: self.family, ranges }
    }

    /// What is in this set and not in the other. O(n).
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        if self.family != other.family {
            return self.clone();
        }
        let mut ranges = Vec::new();
        let mut holes = other.ranges.iter().peekable();
        for &range in &self.ranges {
            let mut rest = Some(range);
            while let (Some(left), Some(&&hole)) = (rest, holes.peek()) {
                if hole.first > left.last {
                    break;
                }
                if hole.first > left.first {
                    ranges.push(Range { last: hole.first - 1, ..left });
                }
                if hole.last >= left.last {
                    // The hole may reach into the next range of this set.
                    rest = None;
                } else {
                    rest = Some(Range { first: left.first.max(hole.last + 1), ..left });
                    holes.next();
                }
            }
            ranges.extend(rest);
        }
        Self { family: self.family, ranges }
    }

    /// The ranges that end at this number or later.
    pub(crate) fn ranges_from(&self, number: u128) -> &[Range] {
        let start = self.ranges.partition_point(|range| range.last < number);
        self.ranges.get(start..).unwrap_or_default()
    }
}
