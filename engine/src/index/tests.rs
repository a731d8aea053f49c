//! Block sets and indexes against sets of numbers that anyone can read.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{Address, Edges, IpNet, ViewSpec};

const LAST_V4: u128 = (1 << 24) - 1;
const LAST_V6: u128 = (1 << 120) - 1;

/// Where something ends: containers of 2^16 numbers, the blocks of IPv4, bitmaps of 2^32, the blocks of IPv6.
const EDGES: [u128; 7] = [0, 1 << 16, LAST_V4, 1 << 32, 1 << 33, (1 << 64) + (1 << 32), LAST_V6];

fn number(number: u128) -> BlockNumber {
    BlockNumber::new(Family::V6, number).unwrap()
}

fn numbers(blocks: impl Iterator<Item = BlockNumber>) -> Vec<u128> {
    blocks.map(BlockNumber::get).collect()
}

/// Close to an edge, so that steps meet each other there.
fn any_number() -> impl Strategy<Value = u128> {
    (prop::sample::select(EDGES.to_vec()), 0_u128..40)
        .prop_map(|(edge, more)| (edge.saturating_sub(20) + more).min(LAST_V6))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u128),
    InsertRun(u128, u128),
    Remove(u128),
    RemoveRun(u128, u128),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any_number().prop_map(Step::Insert),
        3 => (any_number(), 1_u128..60).prop_map(|(first, n)| Step::InsertRun(first, n)),
        2 => any_number().prop_map(Step::Remove),
        1 => (any_number(), 1_u128..30).prop_map(|(first, n)| Step::RemoveRun(first, n)),
    ]
}

fn run(first: u128, n: u128) -> impl Iterator<Item = u128> {
    first..=(first + n - 1).min(LAST_V6)
}

fn first_absent(model: &BTreeSet<u128>, from: u128) -> Option<u128> {
    (from..=LAST_V6).find(|number| !model.contains(number))
}

fn check_set(set: &BlockSet, model: &BTreeSet<u128>) -> Result<(), TestCaseError> {
    prop_assert_eq!(numbers(set.iter()), Vec::from_iter(model.iter().copied()));
    prop_assert_eq!(set.len(), model.len() as u64);
    prop_assert_eq!(set.is_empty(), model.is_empty());
    prop_assert_eq!(set.last().map(BlockNumber::get), model.last().copied());
    for edge in EDGES {
        for at in (edge.saturating_sub(30)..=edge + 30).filter(|&at| at <= LAST_V6) {
            prop_assert_eq!(set.contains(number(at)), model.contains(&at), "contains {}", at);
            let absent = set.first_absent(number(at)).map(BlockNumber::get);
            prop_assert_eq!(absent, first_absent(model, at), "first absent from {}", at);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_block_set_is_what_the_model_says(
        steps in vec(any_step(), 1..12),
        ends in vec((any_number(), any_number()), 8),
    ) {
        let (mut set, mut model) = (BlockSet::default(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Insert(at) => prop_assert_eq!(set.insert(number(at)), model.insert(at)),
                Step::InsertRun(first, n) => for at in run(first, n) {
                    prop_assert_eq!(set.insert(number(at)), model.insert(at));
                },
                Step::Remove(at) => prop_assert_eq!(set.remove(number(at)), model.remove(&at)),
                Step::RemoveRun(first, n) => for at in run(first, n) {
                    prop_assert_eq!(set.remove(number(at)), model.remove(&at));
                },
            }
            check_set(&set, &model)?;
        }
        for (first, last) in ends {
            let between = model.iter().copied().filter(|at| (first..=last).contains(at));
            prop_assert_eq!(numbers(set.iter_between(number(first), number(last))), Vec::from_iter(between));
        }
        // The representation does not show: as it is stored, and as it was built.
        let stored = BlockSet::from_bitmaps(set.bitmaps().map(|(high, lows)| {
            let mut lows = lows.clone();
            lows.optimize();
            (high, lows)
        }));
        prop_assert_eq!(stored.as_ref(), Some(&set));
        check_set(&stored.unwrap(), &model)?;
    }

    #[test]
    fn marks_are_what_the_model_says(
        marks in vec((any_number(), prop_oneof![
            Just(Fullness::Open), Just(Fullness::FullButZero), Just(Fullness::Full)
        ]), 1..60),
    ) {
        let (mut index, mut model) = (Index::empty(0), BTreeMap::new());
        for (at, fullness) in marks {
            let before = model.insert(at, fullness).unwrap_or(Fullness::Open);
            prop_assert_eq!(index.set_mark(number(at), fullness), before != fullness);
            prop_assert_eq!(index.mark(number(at)), fullness);
        }
        let of = |wanted: &[Fullness]| {
            let marked = model.iter().filter(|(_, mark)| wanted.contains(mark)).map(|(at, _)| *at);
            Vec::from_iter(marked)
        };
        prop_assert_eq!(numbers(index.full().iter()), of(&[Fullness::Full]));
        prop_assert_eq!(numbers(index.full_but_zero().iter()), of(&[Fullness::Full, Fullness::FullButZero]));
        prop_assert!(index.existing().is_empty(), "marking makes no blocks");
    }

    #[test]
    fn the_first_open_block_is_what_the_model_says(
        (family, base) in prop_oneof![
            Just((Family::V4, 0x0a_00_00)),
            Just((Family::V4, 0)),
            Just((Family::V4, LAST_V4)),
            Just((Family::V6, (1 << 32) - 64)),
            Just((Family::V6, LAST_V6)),
            Just((Family::V6, 0x2001_0db8 << 88)),
        ],
        host_bits in 9_u8..15,
        edges in prop_oneof![Just(Edges::Reserved), Just(Edges::Usable)],
        excludes in vec((0_u128..64, 0_u8..3), 0..4),
        marks in vec((0_u128..70, 1_u128..30, prop_oneof![Just(Fullness::FullButZero), Just(Fullness::Full)]), 0..6),
        froms in vec(0_u128..80, 4),
    ) {
        let net = |block: u128, host_bits: u8| {
            let block = BlockNumber::new(family, block.min(BlockNumber::last(family).get())).unwrap();
            IpNet::new(block.first_address(family).to_ip(), family.bits() - host_bits).unwrap().trunc()
        };
        let mut spec = ViewSpec { edges, ..ViewSpec::new(net(base, host_bits)) };
        let base = BlockNumber::of(Address::from(spec.cidr.network())).get();
        spec.excludes = excludes.iter().map(|(at, more_bits)| net(base + at, 8 + more_bits)).collect();
        let view = View::new(&spec).unwrap();
        let mut index = Index::empty(0);
        for (first, n, fullness) in marks {
            for at in (base + first..base + first + n).filter(|&at| at <= BlockNumber::last(family).get()) {
                index.set_mark(number(at), fullness);
            }
        }
        let blocks: BTreeSet<BlockNumber> = view.iter().map(BlockNumber::of).collect();
        let closed = |block: BlockNumber| match index.mark(block) {
            Fullness::Open => false,
            Fullness::FullButZero => !view.uses_zero(),
            Fullness::Full => true,
        };
        for from in froms.into_iter().map(|from| (base + from).saturating_sub(5).min(BlockNumber::last(family).get())) {
            let from = number(from);
            let expected = blocks.range(from..).copied().find(|&block| !closed(block));
            prop_assert_eq!(index.first_open(&view, from), expected, "from {} of {:?}", from, spec);
        }
    }
}

/// Whole bitmaps of 2^32 numbers, one after the other, are jumped over, and after the last block comes none.
#[test]
fn the_first_absent_lies_behind_whole_bitmaps() {
    let whole = || {
        let mut whole = RoaringBitmap::new();
        whole.insert_range(..);
        whole
    };
    let last_high = (1_u128 << 88) - 1;
    let set =
        BlockSet::from_bitmaps([(0, whole()), (1, whole()), (last_high - 1, whole()), (last_high, whole())]).unwrap();
    let absent = |from: u128| set.first_absent(number(from)).map(BlockNumber::get);
    assert_eq!(absent(0), Some(2 << 32));
    assert_eq!(absent((1 << 32) - 1), Some(2 << 32));
    assert_eq!(absent(2 << 32), Some(2 << 32));
    assert_eq!(absent((last_high - 1) << 32), None);
    assert_eq!(absent(LAST_V6), None);
}

/// A view that ends with its family: when its last block is full, there is no open one, and least of all block 0.
#[test]
fn after_the_last_block_of_a_family_comes_none() {
    for range in ["255.255.255.0/24", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"] {
        let spec = ViewSpec { edges: Edges::Usable, ..ViewSpec::new(range.parse().unwrap()) };
        let view = View::new(&spec).unwrap();
        let last = BlockNumber::last(view.family());
        let mut index = Index::empty(0);
        assert_eq!(index.first_open(&view, number(0)), Some(last));
        index.set_mark(last, Fullness::Full);
        assert_eq!(index.first_open(&view, number(0)), None);
        assert_eq!(index.first_open(&view, last), None);
    }
}

#[test]
fn a_block_set_is_not_put_together_from_parts_that_cannot_be() {
    let some = || RoaringBitmap::from_iter([1]);
    assert!(BlockSet::from_bitmaps([(0, some()), ((1 << 88) - 1, some())]).is_some());
    assert_eq!(BlockSet::from_bitmaps([(1 << 88, some())]), None);
    assert_eq!(BlockSet::from_bitmaps([(0, some()), (0, some())]), None);
    assert_eq!(BlockSet::from_bitmaps([(0, RoaringBitmap::new())]), None);
}
