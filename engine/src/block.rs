//! Blocks: who holds what among 256 aligned addresses.

use roaring::RoaringBitmap;

use crate::lease::{Lease, OperationId};
use crate::offset::{BLOCK_SIZE, Offset};

/// How many addresses a block has.
const BLOCK_ADDRESSES: u32 = BLOCK_SIZE as u32;

/// How many leases of other nodes one lease may stand on. An owner that moves off dead nodes again and again leaves one
/// behind each time, and a block must not grow by that for ever.
const COVERED_MAX: usize = 4;

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
    /// Leases that another node took over, by offset, the newest first: whoever must undo the lease above gives the
    /// address back to the first of them, and a lease that ends meanwhile is taken out.
    covered: Vec<(Offset, Lease)>,
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

    /// Puts a block together from what was stored; `None` when the leases are not one for each used offset, an
    /// offset is beyond the block, or nobody stands on a lease that is covered.
    pub(crate) fn from_parts(
        sequence: u64,
        epoch: u64,
        frozen: bool,
        used: RoaringBitmap,
        leases: Vec<Lease>,
        covered: Vec<(Offset, Lease)>,
    ) -> Option<Self> {
        let fits = used.len() == leases.len() as u64 && used.max().is_none_or(|last| last < BLOCK_ADDRESSES);
        let ascends = covered.is_sorted_by_key(|(offset, _)| *offset);
        let is_sound = fits && ascends && covered.iter().all(|(offset, _)| used.contains(u32::from(offset.get())));
        is_sound.then_some(Self { sequence, epoch, frozen, used, leases, covered })
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

    /// The leases that other nodes took over and may have to give back, by offset, the newest first.
    pub fn covered(&self) -> impl Iterator<Item = (Offset, &Lease)> {
        self.covered.iter().map(|(offset, lease)| (*offset, lease))
    }

    /// The lowest of `assignable` that nobody holds.
    #[must_use]
    pub fn lowest_free(&self, assignable: &RoaringBitmap) -> Option<Offset> {
        // Both ascend, so one walk through both will do; asking the bitmap about each offset is ten times slower.
        let mut used = self.used.iter().peekable();
        let free = assignable.iter().find(|offset| {
            while used.next_if(|used| used < offset).is_some() {}
            used.peek() != Some(offset)
        });
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

    /// Gives `offset` to a lease for good, and returns who held it before.
    pub(crate) fn insert(&mut self, offset: Offset, lease: Lease) -> Option<Lease> {
        self.covered.retain(|(at, _)| *at != offset);
        self.replace(offset, lease)
    }

    /// Gives `offset` to a lease that may yet be undone. A lease of another node stays below it: only that node knows
    /// whether it is over by then. One of the same node does not, and its call is through, so what is below that one
    /// will not come back.
    pub(crate) fn take_over(&mut self, offset: Offset, lease: Lease) {
        let node = lease.node.clone();
        let first = self.covered.partition_point(|(at, _)| *at < offset);
        match self.replace(offset, lease) {
            Some(held) if held.node != node => {
                self.covered.insert(first, (offset, held));
                let end = self.covered.partition_point(|(at, _)| *at <= offset);
                self.covered.drain(first.saturating_add(COVERED_MAX).min(end)..end);
            }
            _ => self.covered.retain(|(at, _)| *at != offset),
        }
    }

    /// Takes back the last [`Self::take_over`], by which `previous` was replaced.
    pub(crate) fn take_back(&mut self, offset: Offset, previous: Option<&Lease>) {
        let Some(previous) = previous else { return drop(self.remove(offset)) };
        let was_covered = |(at, lease): &mut (Offset, Lease)| *at == offset && lease.operation == previous.operation;
        self.covered.extract_if(.., was_covered).for_each(drop);
        self.replace(offset, previous.clone());
    }

    /// Undoes what `operation` took: gives the address back to `previous` of the same node, else to the newest lease
    /// below, else to nobody. Says whether anything changed.
    pub(crate) fn give_back(&mut self, offset: Offset, operation: OperationId, previous: Option<&Lease>) -> bool {
        let is_it = |lease: &Lease| lease.operation == operation;
        let previous_on = |node: &str| previous.filter(|previous| *previous.node == *node).cloned();
        if let Some(held) = self.get(offset).filter(|lease| is_it(lease)) {
            let below = self.covered.iter().position(|(at, _)| *at == offset);
            match (previous_on(&held.node), below) {
                (Some(previous), _) => drop(self.replace(offset, previous)),
                (None, Some(below)) => {
                    let (_, lease) = self.covered.remove(below);
                    self.replace(offset, lease);
                }
                (None, None) => drop(self.remove(offset)),
            }
            return true;
        }
        // Another node stands on it: it goes from below, and what it replaced comes there again.
        let Some(at) = self.covered.iter().position(|(at, lease)| *at == offset && is_it(lease)) else { return false };
        let (_, lease) = self.covered.remove(at);
        if let Some(previous) = previous_on(&lease.node) {
            self.covered.insert(at, (offset, previous));
        }
        true
    }

    /// Ends a lease that another node stands on, and with it those that it stood on itself: its call was through, so
    /// they will not come back. Says whether anything changed.
    pub(crate) fn end_covered(&mut self, offset: Offset, operation: OperationId) -> bool {
        let is_it = |(at, lease): &(Offset, Lease)| *at == offset && lease.operation == operation;
        let Some(first) = self.covered.iter().position(is_it) else { return false };
        let end = self.covered.partition_point(|(at, _)| *at <= offset);
        self.covered.drain(first..end);
        true
    }

    /// Puts a lease at `offset`, and returns who held it before.
    fn replace(&mut self, offset: Offset, lease: Lease) -> Option<Lease> {
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
        self.covered.retain(|(at, _)| *at != offset);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::lease::{Attachment, LeaseState, OperationId, Owner};

    /// A lease that is told from others by its operation alone.
    fn lease(operation: u64) -> Lease {
        Lease {
            state: LeaseState::Active,
            operation: OperationId::from_bytes(operation.to_be_bytes()),
            attachment: Attachment::named("a"),
            owner: Owner::Container,
            node: "n".into(),
            boot: None,
            pool: "10.0.0.0/24".parse().unwrap(),
            provider: None,
            since: 0,
        }
    }

    /// What can be done with a block, as often as it takes to fill it.
    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8),
        /// From the first to the last offset, without a gap.
        Fill(u8, u8),
        Remove(u8),
        Clear(u8, u8),
        /// Another representation of the same set.
        Optimise,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u8>().prop_map(Step::Insert),
            1 => (any::<u8>(), any::<u8>()).prop_map(|(first, last)| Step::Fill(first, last)),
            1 => Just(Step::Fill(1, 255)),
            1 => Just(Step::Fill(0, 255)),
            3 => any::<u8>().prop_map(Step::Remove),
            1 => Just(Step::Remove(0)),
            1 => (any::<u8>(), any::<u8>()).prop_map(|(first, last)| Step::Clear(first, last)),
            1 => Just(Step::Optimise),
        ]
    }

    fn check(block: &Block, model: &BTreeMap<u8, Lease>, assignable: &RoaringBitmap) -> Result<(), TestCaseError> {
        prop_assert_eq!(block.n_used() as usize, model.len());
        let held: Vec<(u8, Lease)> = block.iter().map(|(offset, lease)| (offset.get(), lease.clone())).collect();
        let expected: Vec<(u8, Lease)> = model.iter().map(|(offset, lease)| (*offset, lease.clone())).collect();
        prop_assert_eq!(held, expected);
        prop_assert_eq!(
            block.used().iter().collect::<Vec<_>>(),
            model.keys().map(|&at| u32::from(at)).collect::<Vec<_>>()
        );
        for offset in 0..=u8::MAX {
            prop_assert_eq!(block.get(Offset::from(offset)), model.get(&offset));
        }
        let free = (0..=u8::MAX).find(|at| assignable.contains(u32::from(*at)) && !model.contains_key(at));
        prop_assert_eq!(block.lowest_free(assignable).map(Offset::get), free);
        let free: Vec<u8> = (0..=u8::MAX).filter(|at| !model.contains_key(at)).collect();
        prop_assert_eq!(
            block.fullness(),
            match free.as_slice() {
                [] => Fullness::Full,
                [0] => Fullness::FullButZero,
                _ => Fullness::Open,
            }
        );
        let (sequence, epoch, frozen) = (block.sequence(), block.epoch(), block.is_frozen());
        let again = Block::from_parts(sequence, epoch, frozen, block.used().clone(), block.leases.clone(), Vec::new());
        prop_assert_eq!(again.as_ref(), Some(block));
        Ok(())
    }

    proptest! {
        #[test]
        fn a_block_is_what_the_model_says(
            steps in vec(any_step(), 1..30),
            assignable in prop_oneof![
                Just(RoaringBitmap::from_iter(0..256)),
                Just(RoaringBitmap::from_iter(1..255)),
                vec(0_u32..256, 0..20).prop_map(RoaringBitmap::from_iter),
            ],
        ) {
            let (mut block, mut model) = (Block::empty(0), BTreeMap::new());
            for (operation, step) in (0..).zip(steps) {
                match step {
                    Step::Insert(at) => {
                        let before = block.insert(Offset::from(at), lease(operation));
                        prop_assert_eq!(before, model.insert(at, lease(operation)));
                    }
                    Step::Fill(first, last) => {
                        for at in first..=last {
                            prop_assert_eq!(block.insert(Offset::from(at), lease(operation)), model.insert(at, lease(operation)));
                        }
                    }
                    Step::Remove(at) => prop_assert_eq!(block.remove(Offset::from(at)), model.remove(&at)),
                    Step::Clear(first, last) => {
                        for at in first..=last {
                            prop_assert_eq!(block.remove(Offset::from(at)), model.remove(&at));
                        }
                    }
                    Step::Optimise => drop(block.used.optimize()),
                }
                check(&block, &model, &assignable)?;
            }
        }
    }

    #[test]
    fn a_block_is_not_put_together_from_parts_that_disagree() {
        let parts = |used: &[u32], n: u64| {
            Block::from_parts(0, 0, false, RoaringBitmap::from_iter(used), (0..n).map(lease).collect(), Vec::new())
        };
        assert!(parts(&[], 0).is_some());
        assert!(parts(&[0, 255], 2).is_some());
        assert_eq!(parts(&[0, 255], 1), None);
        assert_eq!(parts(&[0], 2), None);
        assert_eq!(parts(&[256], 1), None);
    }

    /// A lease of a node, told from others by its operation.
    fn lease_on(node: &str, operation: u64) -> Lease {
        Lease { node: node.into(), ..lease(operation) }
    }

    fn operation(operation: u64) -> OperationId {
        lease(operation).operation
    }

    /// The lease at offset 1 and those below it, by node.
    fn pile(block: &Block) -> Vec<&str> {
        let below = block.covered().filter(|(offset, _)| *offset == Offset::from(1));
        let held = block.get(Offset::from(1)).into_iter();
        held.chain(below.map(|(_, lease)| lease)).map(|lease| &*lease.node).collect()
    }

    /// Offset 1 moves from node to node; its neighbours are in nobody's way.
    fn moved(nodes: &[&str]) -> Block {
        let mut block = Block::empty(0);
        for offset in [0, 2] {
            block.take_over(Offset::from(offset), lease_on("x", 100));
            block.take_over(Offset::from(offset), lease_on("y", 101));
        }
        for (operation, node) in (0..).zip(nodes) {
            block.take_over(Offset::from(1), lease_on(node, operation));
        }
        block
    }

    #[test]
    fn a_lease_of_another_node_stays_below_the_one_that_took_over() {
        let at = Offset::from(1);
        assert_eq!(pile(&moved(&["a", "b", "c"])), ["c", "b", "a"]);
        // What the same node replaces is known there, and its call was through.
        assert_eq!(pile(&moved(&["a", "b", "b"])), ["b"]);
        let mut block = moved(&["a", "b", "c"]);
        block.insert(at, lease_on("d", 9));
        assert_eq!(pile(&block), ["d"]);
        let mut block = moved(&["a", "b", "c"]);
        assert_eq!(block.remove(at), Some(lease_on("c", 2)));
        assert_eq!(pile(&block), Vec::<&str>::new());
    }

    #[test]
    fn a_pile_of_leases_does_not_grow_for_ever() {
        assert_eq!(pile(&moved(&["a", "b", "c", "d", "e", "f", "g"])), ["g", "f", "e", "d", "c"]);
    }

    #[test]
    fn a_take_over_is_taken_back() {
        let at = Offset::from(1);
        for nodes in [&["a", "b"][..], &["a", "a"], &["a"]] {
            let before = moved(nodes);
            let mut block = before.clone();
            block.take_over(at, lease_on("c", 9));
            block.take_back(at, before.get(at));
            assert_eq!(block, before, "{nodes:?}");
        }
        let mut block = moved(&[]);
        block.take_over(at, lease_on("c", 9));
        block.take_back(at, None);
        assert_eq!(block, moved(&[]));
    }

    #[test]
    fn what_is_undone_gives_back_to_the_lease_below() {
        let at = Offset::from(1);
        let mut block = moved(&["a", "b", "c"]);
        assert!(block.give_back(at, operation(2), None));
        assert_eq!(pile(&block), ["b", "a"]);
        assert!(!block.give_back(at, operation(2), None), "it is undone already");
        // From below it goes too, and what it replaced on its own node is there again.
        let mut block = moved(&["a", "b", "c"]);
        assert!(block.give_back(at, operation(1), None));
        assert_eq!(pile(&block), ["c", "a"]);
        let mut block = moved(&["a", "b", "c"]);
        assert!(block.give_back(at, operation(1), Some(&lease_on("b", 7))));
        assert_eq!(pile(&block), ["c", "b", "a"]);
        let mut block = moved(&["a", "a"]);
        assert!(block.give_back(at, operation(1), Some(&lease_on("a", 0))));
        assert_eq!(block, moved(&["a"]));
        assert!(block.give_back(at, operation(0), None));
        assert_eq!(block, moved(&[]));
    }

    #[test]
    fn a_lease_that_ends_below_takes_the_older_ones_with_it() {
        let at = Offset::from(1);
        let mut block = moved(&["a", "b", "c", "d"]);
        assert!(block.end_covered(at, operation(1)));
        assert_eq!(pile(&block), ["d", "c"]);
        assert!(!block.end_covered(at, operation(1)));
        assert!(!block.end_covered(at, operation(3)), "it holds the address");
        assert!(!block.end_covered(Offset::from(3), operation(2)));
        assert_eq!(pile(&block), ["d", "c"]);
    }

    #[test]
    fn writes_are_counted_up_to_the_end() {
        let mut block = Block::empty(7);
        block.advance();
        assert_eq!((block.sequence(), block.epoch(), block.is_frozen()), (1, 7, false));
        block.set_frozen(true, 8);
        assert_eq!((block.epoch(), block.is_frozen()), (8, true));
        block.sequence = u64::MAX;
        block.advance();
        assert_eq!(block.sequence(), u64::MAX);
    }
}
