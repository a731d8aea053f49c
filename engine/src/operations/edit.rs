//! Edits: changes of blocks that know nothing but an operation id, and are repeated until they are settled.
//!
//! Releasing, undoing and fencing are edits. They never take an address, so a repetition does no harm.

use std::collections::{BTreeMap, BTreeSet};

use super::Host;
use super::environment::{Backoff, Environment};
use crate::block::Block;
use crate::lease::{Lease, OperationId};
use crate::ledger::Journal;
use crate::offset::Offset;
use crate::space::BlockId;
use crate::store::{Object, Outcome, ReadError, Store, Swap, Version};

/// A change of one block.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// Frees an address, if the lease is still the one that was judged.
    Free { offset: Offset, operation: OperationId },
    /// Gives an address back to who had it before, or frees it, if the operation took it.
    Undo { offset: Offset, operation: OperationId, previous: Option<Box<Lease>> },
    /// Moves the version on if it is still this one: a swap that was lost on its way can never land after that.
    Fence { expected: Version },
}

/// What the edits of one block came to.
#[derive(Debug)]
pub(super) enum Edited {
    /// They are done, and nothing of them is on its way any more.
    Settled {
        /// The leases that were freed.
        freed: Vec<(Offset, Lease)>,
        /// Whether the index may say that the block has less room than it has now: the edits made room in a block that
        /// had none, or an attempt of which nobody knows did.
        made_room: bool,
        /// Whether an attempt before the last one may have made the edits.
        is_uncertain: bool,
    },
    /// They are to be repeated by a later call.
    Open {
        /// Why, for people.
        reason: String,
    },
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Makes edits, one swap per block, again and again until each is settled or time is up.
    pub(super) async fn edit(&self, mut edits: BTreeMap<BlockId, Vec<Edit>>) -> BTreeMap<BlockId, Edited> {
        let mut edited = BTreeMap::new();
        let mut uncertain: BTreeSet<BlockId> = BTreeSet::new();
        let mut backoff = Backoff::default();
        loop {
            let mut swaps = Vec::new();
            let mut sent: Vec<(BlockId, Edited)> = Vec::new();
            let mut open: BTreeMap<BlockId, String> = BTreeMap::new();
            for (id, edits) in &edits {
                let mut put_off = |error: ReadError| match error {
                    ReadError::Unavailable { .. } => drop(open.insert(id.clone(), error.to_string())),
                    // It does not get better by waiting.
                    _ => drop(edited.insert(id.clone(), Edited::Open { reason: error.to_string() })),
                };
                let stored = match self.store.read_block(id).await {
                    Ok(Some(stored)) => stored,
                    Ok(None) => {
                        match self.must_be_there(id).await {
                            Ok(None) => {}
                            Ok(Some(reason)) => {
                                edited.insert(id.clone(), Edited::Open { reason });
                                continue;
                            }
                            Err(error) => {
                                put_off(error);
                                continue;
                            }
                        }
                        let untouched = Edited::untouched(uncertain.contains(id));
                        match edit_absent(id, edits) {
                            Some(swap) => {
                                swaps.push(swap);
                                sent.push((id.clone(), untouched));
                            }
                            // There is nothing to free in a block that is gone, and nothing on its way.
                            None => drop(edited.insert(id.clone(), untouched)),
                        }
                        continue;
                    }
                    Err(error) => {
                        put_off(error);
                        continue;
                    }
                };
                let before = stored.object.fullness();
                let mut block = stored.object;
                let mut freed = Vec::new();
                let mut changed = false;
                for edit in edits {
                    changed |= edit.apply(&mut block, &stored.version, &mut freed);
                }
                // In a frozen block nothing is settled, not even that there is nothing to do: a repair may be about to put
                // back what is to be freed.
                if block.is_frozen() {
                    let reason = format!("{} is frozen; run `whereabouts repair`", id.space);
                    edited.insert(id.clone(), Edited::Open { reason });
                } else if !changed {
                    edited.insert(id.clone(), Edited::untouched(uncertain.contains(id)));
                } else {
                    block.advance();
                    let is_uncertain = uncertain.contains(id);
                    let made_room = is_uncertain || block.fullness() < before;
                    sent.push((id.clone(), Edited::Settled { freed, made_room, is_uncertain }));
                    swaps.push(Swap { expected: stored.version, object: Object::Block(id.clone(), block.into()) });
                }
            }
            let outcomes = if swaps.is_empty() { Vec::new() } else { self.swap_edits(swaps).await };
            for ((id, result), outcome) in sent.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Accepted { .. } => drop(edited.insert(id, result)),
                    Outcome::Refused => drop(open.insert(id, "other writers were faster".to_owned())),
                    // Another attempt would fare no better, so it is left to a later call at once.
                    Outcome::Rejected { reason } => drop(edited.insert(id, Edited::Open { reason })),
                    Outcome::Unknown { reason } => {
                        uncertain.insert(id.clone());
                        open.insert(id, reason);
                    }
                }
            }
            edits.retain(|id, _| !edited.contains_key(id));
            if edits.is_empty() {
                return edited;
            }
            if !self.needs_intents() || !backoff.pause(self.environment).await {
                for (id, _) in edits {
                    let reason = open.remove(&id).unwrap_or_else(|| "time is up".to_owned());
                    edited.insert(id, Edited::Open { reason });
                }
                return edited;
            }
        }
    }

    /// Why a block that is absent has been lost, if it has. Absent is not free: one that is listed is not made anew behind
    /// the back of a repair; and in another store than the ledger's, it says nothing.
    async fn must_be_there(&self, id: &BlockId) -> Result<Option<String>, ReadError> {
        match self.store.read_index(&id.space).await? {
            Some(index) if index.object.frozen().is_some() => {
                Ok(Some(format!("{} is frozen; run `whereabouts repair`", id.space)))
            }
            Some(index) if index.object.existing().contains(id.number) => {
                Ok(Some(format!("block {id} is listed in the index and gone; run `whereabouts repair`")))
            }
            _ => Ok(self.store.confirm().await.err().map(|error| error.to_string())),
        }
    }

    /// Where blocks are swapped together, one that moved must not hold back the others: edits do not belong together.
    async fn swap_edits(&self, swaps: Vec<Swap>) -> Vec<Outcome> {
        if !self.promises().several_at_once || self.promises().one_transaction_with_journal {
            return self.store.swap(swaps).await;
        }
        let mut outcomes = Vec::with_capacity(swaps.len());
        for swap in swaps {
            outcomes.push(self.swap_one(swap).await);
        }
        outcomes
    }

    /// Swaps a single object.
    pub(super) async fn swap_one(&self, swap: Swap) -> Outcome {
        let unanswered = || Outcome::Unknown { reason: "the store gave no answer".to_owned() };
        self.store.swap(vec![swap]).await.pop().unwrap_or_else(unanswered)
    }
}

/// A block that may still be made by a swap that was lost is made empty, which that swap cannot survive.
fn edit_absent(id: &BlockId, edits: &[Edit]) -> Option<Swap> {
    let may_land = |edit: &Edit| matches!(edit, Edit::Fence { expected } if expected.is_absent());
    edits.iter().any(may_land).then(|| {
        let object = Object::Block(id.clone(), Block::empty(0).into());
        Swap { expected: Version::absent(), object }
    })
}

// === impl Edit ===

impl Edit {
    /// Applies the edit to a block that was read at `version`; says whether it must be swapped.
    fn apply(&self, block: &mut Block, version: &Version, freed: &mut Vec<(Offset, Lease)>) -> bool {
        let wrote = |block: &Block, offset: Offset, operation: OperationId| {
            block.get(offset).is_some_and(|lease| lease.operation == operation)
        };
        match self {
            Self::Free { offset, operation } if wrote(block, *offset, *operation) => {
                freed.extend(block.remove(*offset).map(|lease| (*offset, lease)));
                true
            }
            // Another node has taken it over, and must not give it back.
            Self::Free { offset, operation } => block.end_covered(*offset, *operation),
            Self::Undo { offset, operation, previous } => block.give_back(*offset, *operation, previous.as_deref()),
            Self::Fence { expected } => expected == version,
        }
    }
}

// === impl Edited ===

impl Edited {
    /// There was nothing left to edit.
    fn untouched(is_uncertain: bool) -> Self {
        Self::Settled { freed: Vec::new(), made_room: is_uncertain, is_uncertain }
    }
}
