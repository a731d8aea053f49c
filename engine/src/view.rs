//! The assignable addresses of one configured range.
//!
//! A view is a set, never a container of state: who holds what is in the blocks of the space. All of its questions are
//! answered from sorted intervals, so a range may be as wide as its family.

use std::fmt;

use roaring::RoaringBitmap;

use crate::{Address, BlockNumber, Edges, Family, IntervalSet, IpNet, Offset, Range, ViewSpec};

/// The assignable addresses of one configured range: the range without its excludes, without its gateways and, unless
/// [`Edges::Usable`], without network and broadcast address and without the IPv4 addresses that end in `.0`.
///
/// Built once in O(n log n) of the excludes; then every question is a binary search.
///
/// ```
/// use whereabouts_engine::{View, ViewSpec, parse_exclude};
///
/// let mut spec = ViewSpec::new("2001:db8::/64".parse()?);
/// spec.excludes.push(parse_exclude("2001:db8::/65")?);
/// let view = View::new(&spec)?;
///
/// assert_eq!(view.first().map(|address| address.to_string()).as_deref(), Some("2001:db8:0:0:8000::"));
/// assert_eq!(view.count(), (1 << 63) - 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    cidr: IpNet,
    edges: Edges,
    /// Every range begins and ends with an assignable address. Where `.0` is not assigned, those between the ends are
    /// still in here: taking them out would make 2^24 ranges of 0.0.0.0/0.
    ranges: IntervalSet,
    /// For each range, how many assignable addresses are below it.
    below: Vec<u128>,
    count: u128,
    ignored: Vec<Ignored>,
}

/// Neighbouring blocks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSpan {
    /// The lowest block.
    pub first: BlockNumber,
    /// The highest block.
    pub last: BlockNumber,
}

/// A part of a configured range that has no effect. Not an error, because the Go plugin takes no notice of it either;
/// its text is a warning for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ignored {
    /// The start is not among the usable addresses.
    StartOutside {
        /// What was configured.
        start: Address,
        /// What is usable.
        usable: Range,
    },
    /// The end is not among the usable addresses.
    EndOutside {
        /// What was configured.
        end: Address,
        /// What is usable.
        usable: Range,
    },
    /// The end comes before the start.
    EndBeforeStart {
        /// What was configured.
        end: Address,
        /// Where the view begins.
        start: Address,
    },
    /// The exclude has no address in common with the network.
    ExcludeOutside {
        /// What was configured.
        exclude: IpNet,
        /// The network.
        cidr: IpNet,
    },
}

/// Why there is no view of a configured range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// Without its first and its last address, nothing is left of the network.
    #[error(
        "net mask is too short, subnet {cidr} has no usable IP addresses, it is too small: use a prefix of at most \
         /{longest_prefix}, or set enable_l3 to assign every address"
    )]
    TooSmall {
        /// The network.
        cidr: IpNet,
        /// The longest prefix that is possible: 30 or 126.
        longest_prefix: u8,
    },
    /// The addresses would be IPv4-mapped ones, which most programs take for IPv4 addresses.
    #[error("{value} is an IPv4-mapped IPv6 range or address: write it as the IPv4 that it stands for, {plain}")]
    Ipv4Mapped {
        /// What was configured.
        value: String,
        /// The same in IPv4.
        plain: String,
    },
}

// === impl View ===

impl View {
    /// Works out the view of a configured range.
    ///
    /// A start or an end that is not possible, and an exclude that lies elsewhere, have no effect and are kept in
    /// [`View::ignored`]. A view may be empty: excludes may cover all of it.
    ///
    /// # Errors
    /// [`ViewError::TooSmall`] for a network of one or two addresses whose edges are reserved,
    /// [`ViewError::Ipv4Mapped`] for a network in `::ffff:0:0/96` and for a start or an end in it.
    pub fn new(spec: &ViewSpec) -> Result<Self, ViewError> {
        let cidr = spec.cidr.trunc();
        refuse_mapped_network(cidr)?;
        let mut ignored = Vec::new();
        let bounds = bounds(spec, usable(cidr, spec.edges)?, &mut ignored)?;

        let network = Range::from(cidr);
        ignored.extend(
            spec.excludes
                .iter()
                .filter(|&&exclude| network.intersect(Range::from(exclude)).is_none())
                .map(|&exclude| Ignored::ExcludeOutside { exclude, cidr }),
        );

        let family = network.family();
        let left_out = spec.excludes.iter().copied().map(Range::from);
        let left_out = left_out.chain(spec.gateways.iter().copied().map(Range::from));
        let ranges = IntervalSet::from_ranges(family, [bounds]).subtract(&IntervalSet::from_ranges(family, left_out));

        Ok(Self::of_ranges(cidr, spec.edges, ranges, ignored))
    }

    /// The view that has these ranges, which lie in the network.
    fn of_ranges(cidr: IpNet, edges: Edges, ranges: IntervalSet, ignored: Vec<Ignored>) -> Self {
        let family = ranges.family();
        let mut view = Self { cidr, edges, ranges, below: Vec::new(), count: 0, ignored };
        if !view.uses_zero() {
            let trimmed = view.ranges.ranges().iter().filter_map(|range| without_zero_at_the_ends(*range));
            view.ranges = IntervalSet::from_ranges(family, trimmed);
        }
        for range in view.ranges.ranges() {
            view.below.push(view.count);
            let distance = view.rank(range.last()) - view.rank(range.first());
            view.count = view.count.saturating_add(distance).saturating_add(1);
        }
        view
    }

    /// The ranges, each of which begins and ends with an assignable address.
    pub(crate) fn ranges(&self) -> &[Range] {
        self.ranges.ranges()
    }

    /// The view with these [`ranges`](Self::ranges), of which nothing was ignored; `None` when one lies outside of the
    /// network.
    pub(crate) fn from_ranges(cidr: IpNet, edges: Edges, ranges: &[Range]) -> Option<Self> {
        let network = Range::from(cidr);
        let all_inside = ranges.iter().all(|range| network.intersect(*range) == Some(*range));
        let ranges = IntervalSet::from_ranges(network.family(), ranges.iter().copied());
        all_inside.then(|| Self::of_ranges(cidr, edges, ranges, Vec::new()))
    }

    /// The network, without host bits.
    #[must_use]
    pub const fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// The length of the network's prefix in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.cidr.prefix_len()
    }

    /// The family of all addresses of the view.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.ranges.family()
    }

    /// What becomes of the addresses at the edges.
    #[must_use]
    pub const fn edges(&self) -> Edges {
        self.edges
    }

    /// What was configured and has no effect.
    #[must_use]
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// Whether the first address of a block may be assigned: in IPv6, and in IPv4 with [`Edges::Usable`].
    #[must_use]
    pub fn uses_zero(&self) -> bool {
        self.family() == Family::V6 || self.edges == Edges::Usable
    }

    /// Whether the address may be assigned.
    #[must_use]
    pub fn contains(&self, address: Address) -> bool {
        (self.uses_zero() || Offset::of(address) != Offset::ZERO) && self.ranges.contains(address)
    }

    /// How many addresses may be assigned; `u128::MAX` for the 2^128 of all of IPv6, exact for all others.
    #[must_use]
    pub const fn count(&self) -> u128 {
        self.count
    }

    /// The lowest address, or `None` when the view is empty.
    #[must_use]
    pub fn first(&self) -> Option<Address> {
        self.ranges.first()
    }

    /// The highest address, or `None` when the view is empty.
    #[must_use]
    pub fn last(&self) -> Option<Address> {
        self.ranges.last()
    }

    /// The address that has `index` lower ones in the view, or `None` when there are not that many.
    ///
    /// ```
    /// # use whereabouts_engine::{View, ViewSpec};
    /// let view = View::new(&ViewSpec::new("10.0.0.0/16".parse()?))?;
    /// let text = |index| view.nth(index).map(|address| address.to_string());
    /// assert_eq!(text(254).as_deref(), Some("10.0.0.255"));
    /// assert_eq!(text(255).as_deref(), Some("10.0.1.1")); // 10.0.1.0 is not assigned
    /// assert_eq!(text(view.count()), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<Address> {
        let position = self.below.partition_point(|&below| below <= index).checked_sub(1)?;
        let (range, below) = (self.ranges.ranges().get(position)?, self.below.get(position)?);
        // Comparing distances, because all of IPv6 has more addresses than a count can say.
        let distance = index - below;
        let (first, last) = (self.rank(range.first()), self.rank(range.last()));
        (distance <= last - first).then(|| self.unrank(first + distance))
    }

    /// How many of the addresses from one to another may be assigned.
    ///
    /// ```
    /// # use whereabouts_engine::{Range, View, ViewSpec};
    /// let view = View::new(&ViewSpec::new("10.0.0.0/23".parse()?))?;
    /// let range = Range::new("10.0.0.250".parse()?, "10.0.1.2".parse()?);
    /// assert_eq!(range.map(|range| view.count_in(range)), Some(8)); // 10.0.1.0 is not assigned
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn count_in(&self, range: Range) -> u128 {
        if range.family() != self.family() {
            return 0;
        }
        let at_the_end = u128::from(self.contains(range.last()));
        (self.count_below(range.last()) - self.count_below(range.first())).saturating_add(at_the_end)
    }

    /// The addresses in ascending order, one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Address> {
        let uses_zero = self.uses_zero();
        self.ranges.iter().filter(move |&address| uses_zero || Offset::of(address) != Offset::ZERO)
    }

    /// The blocks in which the view has at least one address, ascending, as few runs as possible.
    ///
    /// ```
    /// # use whereabouts_engine::{View, ViewSpec};
    /// let mut spec = ViewSpec::new("10.0.0.0/22".parse()?);
    /// spec.excludes.push("10.0.1.0/24".parse()?);
    /// let view = View::new(&spec)?;
    /// let spans: Vec<_> = view.block_spans().map(|span| (span.first.get(), span.last.get())).collect();
    /// assert_eq!(spans, [(0x0a0000, 0x0a0000), (0x0a0002, 0x0a0003)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn block_spans(&self) -> impl Iterator<Item = BlockSpan> {
        Self::spans(self.ranges.ranges())
    }

    /// Like [`View::block_spans`], without the spans that end before `from`.
    pub(crate) fn block_spans_from(&self, from: BlockNumber) -> impl Iterator<Item = BlockSpan> {
        Self::spans(self.ranges.ranges_from(from.base()))
    }

    fn spans(ranges: &[Range]) -> impl Iterator<Item = BlockSpan> {
        let mut ranges = ranges.iter().map(|range| BlockSpan::of(*range)).peekable();
        std::iter::from_fn(move || {
            let mut span = ranges.next()?;
            while let Some(next) = ranges.next_if(|next| next.first.get() <= span.last.get() + 1) {
                span.last = next.last;
            }
            Some(span)
        })
    }

    /// The assignable offsets of a block, 0 to 255; none for a block in which the view has no address.
    #[must_use]
    pub fn offsets(&self, block: BlockNumber) -> RoaringBitmap {
        let mut offsets = RoaringBitmap::new();
        let base = block.base();
        for range in self.ranges.ranges_from(base) {
            let Some((first, last)) = block.part_of(*range) else { break };
            offsets.insert_range(u32::from(first)..=u32::from(last));
        }
        if !self.uses_zero() {
            offsets.remove(u32::from(Offset::ZERO));
        }
        offsets
    }

    /// How many assignable addresses are lower than an address of the view's family.
    pub(crate) fn count_below(&self, address: Address) -> u128 {
        let ranges = self.ranges.ranges();
        let position = ranges.partition_point(|range| range.last() < address);
        match ranges.get(position).zip(self.below.get(position)) {
            Some((range, below)) if range.first() < address => {
                // What ends in .0 has no rank of its own; the address after it has as many below.
                let ranked = if self.contains(address) { Some(address) } else { address.checked_next() };
                below + (self.rank(ranked.unwrap_or(address)) - self.rank(range.first()))
            }
            Some((_, below)) => *below,
            None => self.count,
        }
    }

    /// The position of an assignable address in the counting that leaves out what ends in `.0`, if the view does.
    fn rank(&self, address: Address) -> u128 {
        if self.uses_zero() {
            address.number()
        } else {
            BlockNumber::of(address).get() * 255 + u128::from(Offset::of(address).get()) - 1
        }
    }

    /// The address at a position that lies between those of two addresses of the view.
    fn unrank(&self, rank: u128) -> Address {
        let number = if self.uses_zero() { rank } else { (rank / 255) * 256 + rank % 255 + 1 };
        Address::from_bounded(self.family(), number)
    }
}

/// What of the network may be assigned before start, end and excludes are looked at.
fn usable(cidr: IpNet, edges: Edges) -> Result<Range, ViewError> {
    let network = Range::from(cidr);
    match edges {
        Edges::Usable => Ok(network),
        Edges::Reserved => {
            let too_small = ViewError::TooSmall { cidr, longest_prefix: cidr.max_prefix_len() - 2 };
            let (first, last) = (network.first().checked_next(), network.last().checked_previous());
            first.zip(last).and_then(|(first, last)| Range::new(first, last)).ok_or(too_small)
        }
    }
}

/// Start and end where they are possible, and what is usable where they are not.
fn bounds(spec: &ViewSpec, usable: Range, ignored: &mut Vec<Ignored>) -> Result<Range, ViewError> {
    let mut bounds = usable;
    if let Some(start) = spec.start {
        match Range::new(start, usable.last()).filter(|_| usable.contains(start)) {
            Some(range) => {
                refuse_mapped(start)?;
                bounds = range;
            }
            None => ignored.push(Ignored::StartOutside { start, usable }),
        }
    }
    if let Some(end) = spec.end {
        match Range::new(bounds.first(), end).filter(|_| usable.contains(end)) {
            Some(range) => {
                refuse_mapped(end)?;
                bounds = range;
            }
            None if usable.contains(end) => ignored.push(Ignored::EndBeforeStart { end, start: bounds.first() }),
            None => ignored.push(Ignored::EndOutside { end, usable }),
        }
    }
    Ok(bounds)
}

/// Refuses a network inside `::ffff:0:0/96`. A wider one is IPv6 like any other.
fn refuse_mapped_network(network: IpNet) -> Result<(), ViewError> {
    const MAPPED_PREFIX_LEN: u8 = 96;
    let first = Address::from(network.network());
    match network.prefix_len().checked_sub(MAPPED_PREFIX_LEN) {
        Some(prefix) if first.is_ipv4_mapped() => Err(ViewError::Ipv4Mapped {
            value: network.to_string(),
            plain: format!("{}/{prefix}", first.to_canonical()),
        }),
        _ => Ok(()),
    }
}

fn refuse_mapped(bound: Address) -> Result<(), ViewError> {
    if bound.is_ipv4_mapped() {
        return Err(ViewError::Ipv4Mapped { value: bound.to_string(), plain: bound.to_canonical().to_string() });
    }
    Ok(())
}

fn without_zero_at_the_ends(range: Range) -> Option<Range> {
    let is_zero = |address: Address| Offset::of(address) == Offset::ZERO;
    let first = if is_zero(range.first()) { range.first().checked_next()? } else { range.first() };
    let last = if is_zero(range.last()) { range.last().checked_previous()? } else { range.last() };
    Range::new(first, last)
}

// === impl BlockSpan ===

impl BlockSpan {
    /// Whether the block is in the run.
    #[must_use]
    pub fn contains(self, block: BlockNumber) -> bool {
        self.first <= block && block <= self.last
    }

    /// The blocks in ascending order.
    pub fn iter(self) -> impl Iterator<Item = BlockNumber> {
        BlockNumber::run(self.first, self.last)
    }

    fn of(range: Range) -> Self {
        Self { first: BlockNumber::of(range.first()), last: BlockNumber::of(range.last()) }
    }
}

// === impl Ignored ===

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartOutside { start, usable } => {
                write!(f, "range_start {start} has no effect: it is not within {usable}")
            }
            Self::EndOutside { end, usable } => write!(f, "range_end {end} has no effect: it is not within {usable}"),
            Self::EndBeforeStart { end, start } => {
                write!(f, "range_end {end} has no effect: it comes before {start}, where the range begins")
            }
            Self::ExcludeOutside { exclude, cidr } => {
                write!(f, "exclude {exclude} has no effect: it has no address in common with {cidr}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
