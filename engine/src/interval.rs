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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn range(first: &str, last: &str) -> Range {
        Range::new(address(first), address(last)).unwrap()
    }

    fn network(text: &str) -> Range {
        Range::from(text.parse::<IpNet>().unwrap())
    }

    #[test]
    fn h8_both_ends_and_what_lies_between_are_in_a_range() {
        let v4 = range("192.168.0.0", "192.169.0.0");
        for text in ["192.168.255.100", "192.169.0.0", "192.168.0.0"] {
            assert!(v4.contains(address(text)), "{text}");
        }
        for text in ["2000::ffff:ffcc", "2000:1::", "2000::"] {
            assert!(range("2000::", "2000:1::").contains(address(text)), "{text}");
        }
        let narrow = range("2001:db8:480:603d::1", "2001:db8:480:603e::4");
        assert!(narrow.contains(address("2001:db8:480:603d:304:403::")));
    }

    #[test]
    fn h9_h11_what_lies_beyond_the_ends_is_not() {
        for text in ["192.169.255.100", "192.169.0.1", "192.167.255.255", "::c0a8:ffff", "::ffff:192.168.0.1"] {
            assert!(!range("192.168.0.0", "192.169.0.0").contains(address(text)), "{text}");
        }
        for text in ["2000:1::ffff:ffcc", "2000:1::1", "1fff:ffff::"] {
            assert!(!range("2000::", "2000:1::").contains(address(text)), "{text}");
        }
        assert!(!range("2000::1", "2000:1::").contains(address("2000::")));
    }

    #[test]
    fn h12_h13_a_network_reaches_from_network_to_broadcast_address() {
        for (text, first, last) in [
            ("192.168.0.0/32", "192.168.0.0", "192.168.0.0"),
            ("192.168.0.0/31", "192.168.0.0", "192.168.0.1"),
            ("192.168.0.0/30", "192.168.0.0", "192.168.0.3"),
            ("192.168.0.0/23", "192.168.0.0", "192.168.1.255"),
            ("192.168.0.77/23", "192.168.0.0", "192.168.1.255"),
            ("2000::/128", "2000::", "2000::"),
            ("2000::/127", "2000::", "2000::1"),
            ("2000::/126", "2000::", "2000::3"),
            ("2000::/64", "2000::", "2000::ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(network(text), range(first, last), "{text}");
        }
    }

    /// Offsets of the Go plugin are differences of addresses; here they are lengths and positions.
    #[test]
    fn o1_to_o7_distances_carry() {
        for (low, high, distance) in [
            ("192.168.1.0", "192.168.1.1", 1),
            ("192.168.3.0", "192.168.4.0", 256),
            ("192.168.1.0", "192.168.2.255", 511),
            ("192.168.2.1", "192.168.3.0", 255),
            ("ff02::1", "ff02::100", 255),
            ("ff02::1", "ff02::1:0", 65_535),
            ("192.168.1.1", "192.168.2.1", 256),
            ("2000::1", "2000::1:0", 65_535),
        ] {
            let set = IntervalSet::from_ranges(address(low).family(), [range(low, high)]);
            assert_eq!(set.len(), distance + 1, "{low} to {high}");
            assert_eq!(set.nth(distance), Some(address(high)));
            assert_eq!(set.nth(distance + 1), None);
        }
    }

    #[test]
    fn o5_o6_no_range_joins_the_families() {
        assert_eq!(Range::new(address("192.168.3.0"), address("ff02::1")), None);
        assert_eq!(Range::new(address("ff02::1"), address("192.168.3.0")), None);
    }

    #[test]
    fn an_inverted_range_is_none() {
        assert_eq!(Range::new(address("10.0.0.2"), address("10.0.0.1")), None);
    }

    #[test]
    fn ranges_merge_where_they_overlap_or_touch() {
        let set = IntervalSet::from_ranges(
            Family::V4,
            [network("10.0.1.0/24"), network("10.0.0.0/24"), network("10.0.0.8/30"), network("10.0.3.0/24")],
        );
        assert_eq!(set.ranges(), [range("10.0.0.0", "10.0.1.255"), range("10.0.3.0", "10.0.3.255")]);
        // A range within an earlier, wider one must not shorten it.
        let set = IntervalSet::from_ranges(
            Family::V4,
            [network("10.0.0.0/8"), network("10.0.0.0/24"), network("10.9.0.0/24")],
        );
        assert_eq!(set.ranges(), [network("10.0.0.0/8")]);
        // Nothing comes after the last address of IPv6.
        let set = IntervalSet::from_ranges(Family::V6, [network("::/0"), network("ffff::/16"), network("::/128")]);
        assert_eq!((set.ranges(), set.len()), ([network("::/0")].as_slice(), u128::MAX));
    }

    #[test]
    fn the_other_family_is_not_in_a_set() {
        let v6 = IntervalSet::from_ranges(Family::V6, [network("::/0"), network("0.0.0.0/0")]);
        let v4 = IntervalSet::from_ranges(Family::V4, [network("0.0.0.0/0")]);
        assert!(!v6.contains(address("10.0.0.1")) && !v4.contains(address("::1")));
        assert_eq!(v4.subtract(&v6), v4);
        assert_eq!(v4.union(&v6), v4);
        assert_eq!(v4.intersect(&v6), IntervalSet::empty(Family::V4));
    }

    #[test]
    fn a_hole_reaches_over_several_ranges() {
        let set = IntervalSet::from_ranges(
            Family::V4,
            [network("10.0.0.0/24"), network("10.0.2.0/24"), network("10.0.4.0/24")],
        );
        let hole = IntervalSet::from_ranges(Family::V4, [range("10.0.0.9", "10.0.4.3"), range("10.0.4.5", "10.0.4.5")]);
        let rest = [range("10.0.0.0", "10.0.0.8"), range("10.0.4.4", "10.0.4.4"), range("10.0.4.6", "10.0.4.255")];
        assert_eq!(set.subtract(&hole).ranges(), rest);
    }
}
