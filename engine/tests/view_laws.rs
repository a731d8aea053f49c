//! Views and interval sets against models that anyone can read.
//!
//! The model of a view is a `BTreeSet` of numbers, made by asking of every single address of a small network whether it
//! may be assigned. The small networks lie anywhere: in the middle of a family, and at its very ends, where arithmetic
//! overflows. What is too wide to be counted by hand is held to laws instead.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use whereabouts_engine::{
    Address, BlockNumber, Edges, Family, Ignored, IntervalSet, IpNet, Offset, Range, View, ViewError, ViewSpec,
};

fn address(family: Family, number: u128) -> Address {
    Address::new(family, number).unwrap()
}

fn network(family: Family, number: u128, prefix_len: u8) -> IpNet {
    IpNet::new(address(family, number).to_ip(), prefix_len).unwrap()
}

// === The model ===

/// What a specification means, one address at a time.
#[derive(Debug)]
struct Model {
    assignable: BTreeSet<u128>,
    start_is_ignored: bool,
    end_is_ignored: bool,
    excludes_ignored: usize,
}

/// `None` when the network is too small.
fn model(spec: &ViewSpec) -> Option<Model> {
    let family = Family::from(spec.cidr);
    let mask = mask(spec.cidr);
    let network = Address::from(spec.cidr.addr()).number() & mask;
    let broadcast = network | (family.last() & !mask);
    let reserved = spec.edges == Edges::Reserved;
    if reserved && broadcast - network < 3 {
        return None;
    }
    let usable = |number: u128| !reserved || (number != network && number != broadcast);
    let possible = |bound: Address| {
        let number = bound.number();
        bound.family() == family && network <= number && number <= broadcast && usable(number)
    };

    let start = spec.start.filter(|&start| possible(start));
    let lowest = start.map_or(network, Address::number).max(network + u128::from(reserved));
    let end = spec.end.filter(|&end| possible(end) && end.number() >= lowest);

    let excluded = |exclude: &IpNet, number: u128| {
        Family::from(*exclude) == family
            && Address::from(exclude.addr()).number() & self::mask(*exclude) == number & self::mask(*exclude)
    };
    let assignable = (network..=broadcast)
        .filter(|&number| usable(number))
        .filter(|&number| start.is_none_or(|start| start.number() <= number))
        .filter(|&number| end.is_none_or(|end| number <= end.number()))
        .filter(|&number| !(reserved && family == Family::V4 && number % 256 == 0))
        .filter(|&number| !spec.excludes.iter().any(|exclude| excluded(exclude, number)))
        .filter(|&number| !spec.gateways.contains(&address(family, number)))
        .collect();
    let somewhere = |exclude: &&IpNet| (network..=broadcast).any(|number| excluded(exclude, number));
    Some(Model {
        assignable,
        start_is_ignored: spec.start != start,
        end_is_ignored: spec.end != end,
        excludes_ignored: spec.excludes.len() - spec.excludes.iter().filter(somewhere).count(),
    })
}

fn mask(network: IpNet) -> u128 {
    let family = Family::from(network);
    let host_bits = u32::from(family.bits() - network.prefix_len());
    family.last() & !1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1)
}

// === Generators ===

fn any_family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// A number of the family, with its ends and the borders of its blocks more often than chance would have them.
fn any_number(family: Family) -> impl Strategy<Value = u128> {
    let last = family.last();
    prop_oneof![
        2 => any::<u128>().prop_map(move |number| number & last),
        1 => 0_u128..600,
        1 => (0_u128..600).prop_map(move |below| last - below),
        1 => any::<u128>().prop_map(move |number| number & last & !0xff),
    ]
}

/// A number that lies in the network or a little beside it.
fn near(family: Family, base: u128, size: u128) -> impl Strategy<Value = u128> {
    let (last, reach) = (family.last(), size + 300);
    (0..=reach + 300).prop_map(move |distance| {
        let number = base.saturating_add(distance).saturating_sub(300);
        number.min(last)
    })
}

/// Mostly an address near the network, now and then one of the other family or from anywhere.
fn any_bound(family: Family, base: u128, size: u128) -> impl Strategy<Value = Address> {
    let anywhere =
        any_family().prop_flat_map(|family| any_number(family).prop_map(move |number| address(family, number)));
    prop_oneof![
        9 => near(family, base, size).prop_map(move |number| address(family, number)),
        1 => anywhere,
    ]
}

fn any_exclude(family: Family, base: u128, size: u128) -> impl Strategy<Value = IpNet> {
    (any_bound(family, base, size), prop_oneof![20 => 0_u8..9, 1 => 0_u8..=128]).prop_map(|(bound, host_bits)| {
        let prefix_len = bound.family().bits().saturating_sub(host_bits);
        network(bound.family(), bound.number(), prefix_len)
    })
}

fn any_edges() -> impl Strategy<Value = Edges> {
    prop_oneof![Just(Edges::Reserved), Just(Edges::Usable)]
}

/// A network of `host_bits`, anywhere, with all that can be configured for it.
fn any_spec(host_bits: std::ops::RangeInclusive<u8>, excludes: usize) -> impl Strategy<Value = ViewSpec> {
    (any_family(), host_bits)
        .prop_map(|(family, host_bits)| (family, host_bits.min(family.bits())))
        .prop_flat_map(|(family, host_bits)| (Just((family, host_bits)), any_number(family)))
        .prop_flat_map(move |((family, host_bits), number)| {
            let cidr = network(family, number, family.bits() - host_bits);
            let base = Address::from(cidr.network()).number();
            let size = 1_u128.checked_shl(u32::from(host_bits)).unwrap_or(u128::MAX).min(1 << 100);
            (
                Just(cidr),
                proptest::option::of(any_bound(family, base, size)),
                proptest::option::of(any_bound(family, base, size)),
                vec(any_exclude(family, base, size), 0..=excludes),
                vec(any_bound(family, base, size), 0..3),
                any_edges(),
            )
        })
        .prop_map(|(cidr, start, end, excludes, gateways, edges)| ViewSpec {
            cidr,
            start,
            end,
            excludes,
            gateways,
            edges,
        })
}

/// Ranges of a handful of numbers, so that many of them overlap and touch.
fn any_small_ranges() -> impl Strategy<Value = Vec<(u128, u128)>> {
    vec((0_u128..120, 0_u128..12).prop_map(|(first, more)| (first, first + more)), 0..12)
}

fn any_wide_set(family: Family) -> impl Strategy<Value = IntervalSet> {
    vec((any_number(family), any_number(family)), 0..8).prop_map(move |ends| {
        let ranges =
            ends.into_iter().map(|(a, b)| Range::new(address(family, a.min(b)), address(family, a.max(b))).unwrap());
        IntervalSet::from_ranges(family, ranges)
    })
}

// === Checks ===

fn check_against_model(spec: &ViewSpec) -> Result<(), TestCaseError> {
    let (view, model) = match (View::new(spec), model(spec)) {
        (Ok(view), Some(model)) => (view, model),
        (Err(ViewError::TooSmall { .. }), None) => return Ok(()),
        (view, model) => return Err(TestCaseError::fail(format!("{view:?} but {model:?}"))),
    };
    let family = view.family();
    prop_assert_eq!(view.cidr(), spec.cidr.trunc());
    let expected: Vec<Address> = model.assignable.iter().map(|&number| address(family, number)).collect();

    prop_assert_eq!(view.iter().collect::<Vec<_>>(), expected.clone());
    prop_assert_eq!(view.count(), expected.len() as u128);
    prop_assert_eq!(view.first(), expected.first().copied());
    prop_assert_eq!(view.last(), expected.last().copied());
    for (index, &found) in expected.iter().enumerate() {
        prop_assert_eq!(view.nth(index as u128), Some(found), "nth({})", index);
    }
    for beyond in [expected.len() as u128, expected.len() as u128 + 1, 1 << 32, u128::MAX] {
        prop_assert_eq!(view.nth(beyond), None, "nth({})", beyond);
    }

    let network = Range::from(view.cidr());
    let around =
        network.first().number().saturating_sub(600)..=network.last().number().saturating_add(600).min(family.last());
    for number in around.clone() {
        prop_assert_eq!(
            view.contains(address(family, number)),
            model.assignable.contains(&number),
            "number {}",
            number
        );
    }
    let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
    prop_assert!(!view.contains(address(other, network.first().number() & other.last())));

    let mut blocks = BTreeSet::new();
    for number in (around.start() >> 8)..=(around.end() >> 8) {
        let block = BlockNumber::new(family, number).unwrap();
        let offsets: Vec<u32> = view.offsets(block).into_iter().collect();
        let in_block = |offset: &u32| model.assignable.contains(&(number << 8 | u128::from(*offset)));
        prop_assert_eq!(&offsets, &(0..256).filter(in_block).collect::<Vec<_>>(), "block {}", number);
        prop_assert!(view.uses_zero() || !offsets.contains(&0));
        if !offsets.is_empty() {
            blocks.insert(block);
        }
    }
    let spans: Vec<_> = view.block_spans().collect();
    prop_assert_eq!(spans.iter().flat_map(|span| span.iter()).collect::<Vec<_>>(), Vec::from_iter(blocks));
    for pair in spans.windows(2) {
        prop_assert!(pair[0].last.get() + 1 < pair[1].first.get(), "{:?} could be one run", pair);
    }

    let ignored = |wanted: fn(&Ignored) -> bool| view.ignored().iter().filter(|&part| wanted(part)).count();
    prop_assert_eq!(ignored(|part| matches!(part, Ignored::StartOutside { .. })), usize::from(model.start_is_ignored));
    let end = ignored(|part| matches!(part, Ignored::EndOutside { .. } | Ignored::EndBeforeStart { .. }));
    prop_assert_eq!(end, usize::from(model.end_is_ignored));
    prop_assert_eq!(ignored(|part| matches!(part, Ignored::ExcludeOutside { .. })), model.excludes_ignored);
    Ok(())
}

/// A view that ends at its address number `index` has `index + 1` addresses.
fn check_wide(spec: &ViewSpec, index: u128) -> Result<(), TestCaseError> {
    let Ok(view) = View::new(spec) else { return Ok(()) };
    if view.count() == 0 {
        prop_assert_eq!((view.first(), view.last(), view.block_spans().count()), (None, None, 0));
        return Ok(());
    }
    let index = index % view.count();
    let found = view.nth(index).unwrap();
    prop_assert!(view.contains(found));
    prop_assert!(view.first().unwrap() <= found && found <= view.last().unwrap());
    prop_assert!(view.offsets(BlockNumber::of(found)).contains(u32::from(Offset::of(found))));
    prop_assert!(view.block_spans().any(|span| span.contains(BlockNumber::of(found))));

    let lower = View::new(&ViewSpec { end: Some(found), ..spec.clone() }).unwrap();
    prop_assert_eq!((lower.count(), lower.last()), (index + 1, Some(found)));
    if let Some(next) = view.nth(index + 1) {
        prop_assert!(found < next);
        let upper = View::new(&ViewSpec { start: Some(next), ..spec.clone() }).unwrap();
        // Only where 2^128 addresses are counted as one less does the last one have the highest index there is.
        let highest = if view.nth(u128::MAX).is_some() { u128::MAX } else { view.count() - 1 };
        prop_assert_eq!((upper.count(), upper.first()), (highest - index, Some(next)));
    } else {
        prop_assert_eq!(view.last(), Some(found));
    }
    for span in view.block_spans() {
        for block in [span.first, span.last] {
            prop_assert!(!view.offsets(block).is_empty(), "block {} of {:?}", block, span);
        }
    }
    Ok(())
}

fn check_canonical(set: &IntervalSet) -> Result<(), TestCaseError> {
    for pair in set.ranges().windows(2) {
        let gap = pair[1].first().number().checked_sub(pair[0].last().number());
        prop_assert!(gap.is_some_and(|gap| gap > 1), "{:?} overlap or touch", pair);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn a_small_view_is_what_the_model_says(spec in any_spec(0..=10, 12)) {
        check_against_model(&spec)?;
    }

    #[test]
    fn a_wide_view_keeps_the_laws(spec in any_spec(8..=128, 40), index in any::<u128>()) {
        check_wide(&spec, index)?;
    }

    #[test]
    fn small_sets_are_what_the_model_says(
        family in any_family(),
        base in any::<u128>(),
        ours in any_small_ranges(),
        theirs in any_small_ranges(),
    ) {
        // Half of the universes end where their family ends.
        let base = if base % 2 == 0 { family.last() - 131 } else { (base & family.last()).min(family.last() - 131) };
        let set = |ranges: &[(u128, u128)]| IntervalSet::from_ranges(
            family,
            ranges.iter().map(|(first, last)| Range::new(address(family, base + first), address(family, base + last)).unwrap()),
        );
        let numbers = |ranges: &[(u128, u128)]| -> BTreeSet<u128> {
            ranges.iter().flat_map(|&(first, last)| base + first..=base + last).collect()
        };
        let ((a, b), (model_a, model_b)) = ((set(&ours), set(&theirs)), (numbers(&ours), numbers(&theirs)));
        for (set, model) in [
            (a.clone(), model_a.clone()),
            (a.union(&b), &model_a | &model_b),
            (a.intersect(&b), &model_a & &model_b),
            (a.subtract(&b), &model_a - &model_b),
        ] {
            check_canonical(&set)?;
            let expected: Vec<Address> = model.iter().map(|&number| address(family, number)).collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(set.len(), expected.len() as u128);
            prop_assert_eq!((set.first(), set.last()), (expected.first().copied(), expected.last().copied()));
            prop_assert_eq!(set.is_empty(), expected.is_empty());
            for index in 0..=expected.len() {
                prop_assert_eq!(set.nth(index as u128), expected.get(index).copied());
            }
            for number in base..=base + 131 {
                prop_assert_eq!(set.contains(address(family, number)), model.contains(&number));
            }
        }
    }

    #[test]
    fn wide_sets_are_an_algebra(
        (a, b, c) in any_family().prop_flat_map(|family| (any_wide_set(family), any_wide_set(family), any_wide_set(family)))
    ) {
        let empty = IntervalSet::empty(a.family());
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersect(&b).intersect(&c), a.intersect(&b.intersect(&c)));
        prop_assert_eq!(a.intersect(&b.union(&c)), a.intersect(&b).union(&a.intersect(&c)));
        prop_assert_eq!(a.subtract(&b.union(&c)), a.subtract(&b).subtract(&c));
        prop_assert_eq!(a.subtract(&b.intersect(&c)), a.subtract(&b).union(&a.subtract(&c)));
        prop_assert_eq!(a.subtract(&b).intersect(&b), empty.clone());
        prop_assert_eq!(a.subtract(&b).union(&a.intersect(&b)), a.clone());
        prop_assert_eq!((a.subtract(&a), a.union(&a), a.intersect(&a)), (empty.clone(), a.clone(), a.clone()));
        prop_assert_eq!((a.subtract(&empty), a.union(&empty), a.intersect(&empty)), (a.clone(), a.clone(), empty));
        for set in [&a, &a.union(&b), &a.intersect(&b), &a.subtract(&b)] {
            check_canonical(set)?;
            if let (Some(first), Some(last)) = (set.first(), set.last()) {
                prop_assert!(set.contains(first) && set.contains(last));
                // Where 2^128 addresses are counted as one less, the last one is one further.
                let highest = set.nth(u128::MAX).or_else(|| set.nth(set.len() - 1));
                prop_assert_eq!((set.nth(0), highest), (Some(first), Some(last)));
            }
        }
        if let (Some(apart), Some(together)) =
            (a.len().checked_add(b.len()), a.union(&b).len().checked_add(a.intersect(&b).len()))
        {
            // A length of 2^128 saturates, and then only says that it is at least so much.
            prop_assert!(apart == together || a.union(&b).len() == u128::MAX);
        }
    }
}

/// Every second address of a block out of each of 1,000 blocks: as many ranges as there are excludes, and one more.
#[test]
fn a_64_with_a_thousand_excludes() {
    let mut spec: ViewSpec = "2001:db8::/64".parse().unwrap();
    let base = Address::from(spec.cidr.network()).number();
    spec.excludes = (1..=1_000).rev().map(|block| network(Family::V6, base + block * 256, 121)).collect();
    let view = View::new(&spec).unwrap();

    assert_eq!(view.count(), (1 << 64) - 2 - 1_000 * 128);
    let nth = |index| view.nth(index).map(|found| found.number() - base);
    assert_eq!((nth(0), nth(254), nth(255)), (Some(1), Some(255), Some(256 + 128)));
    assert_eq!((nth(255 + 127), nth(255 + 128)), (Some(511), Some(512 + 128)));
    assert_eq!(nth(view.count() - 1), Some((1 << 64) - 2));
    let block = BlockNumber::of(address(Family::V6, base + 700 * 256));
    assert_eq!(view.offsets(block).into_iter().collect::<Vec<_>>(), Vec::from_iter(128..256));
    assert_eq!(view.block_spans().count(), 1, "no block of the network is without addresses");
}
