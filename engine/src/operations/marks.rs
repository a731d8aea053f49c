//! Marks: what the index says of a block's room, kept true without a lock.
//!
//! Whoever finds a block full marks it, then reads the block again: had somebody made room in between, the mark is
//! taken back. Whoever makes room in a block that was full reads the index after that and clears the mark. Either
//! order of the two leaves no wrong mark, and an intent stays open until it is certain.

use std::collections::BTreeMap;

use super::Host;
use super::environment::{Backoff, Environment};
use crate::block::Fullness;
use crate::intent::Purpose;
use crate::lease::{Attachment, OperationId};
use crate::ledger::{Journal, StorageError};
use crate::space::{BlockId, Space};
use crate::store::{Object, Outcome, ReadError, Store, Swap};

/// What becomes of an index when it is looked at.
enum Change {
    /// These blocks are full. Only while the intent of this operation stands: whoever has settled it looks no more.
    Mark { operation: OperationId, blocks: BTreeMap<BlockId, Fullness> },
    /// These blocks may have more room than is marked; their room is read anew. With `fence`, a swap that was lost on
    /// its way must not land after that.
    Recheck { blocks: Vec<BlockId>, fence: bool },
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Marks blocks that were read and found full. Nobody depends on it: what cannot be marked now is found full again.
    pub(super) async fn mark_full(&self, unmarked: BTreeMap<BlockId, Fullness>) -> Result<(), StorageError> {
        for (space, blocks) in by_space(unmarked) {
            let operation = self.new_operation();
            let names: Vec<BlockId> = blocks.keys().cloned().collect();
            let intent = self.intent(&Attachment::named(""), Purpose::Recheck(names.clone()));
            self.journal.record(|tables| tables.set_intent(operation, &intent))?;
            let sure = self.change_marks(&space, Change::Mark { operation, blocks: blocks.clone() }).await;
            // A mark that may have been lost on its way is left to whoever settles the intent.
            if sure && self.recheck(names, false).await {
                self.journal.record(|tables| {
                    tables.close_intent(operation)?;
                    // The next call on this host is not to find them full again.
                    let Some(mut index) = tables.index(&space)? else { return Ok(()) };
                    let mut changed = false;
                    for (id, fullness) in blocks {
                        changed |= index.mark(id.number) < fullness && index.set_mark(id.number, fullness);
                    }
                    if changed { tables.set_index(&space, &index) } else { Ok(()) }
                })?;
            }
        }
        Ok(())
    }

    /// Clears the marks of blocks that may have more room than is marked; says whether that is certain now.
    pub(super) async fn recheck(&self, blocks: Vec<BlockId>, fence: bool) -> bool {
        let mut sure = true;
        for (space, blocks) in by_space(blocks.into_iter().map(|id| (id, ())).collect()) {
            let blocks = blocks.into_keys().collect();
            sure &= self.change_marks(&space, Change::Recheck { blocks, fence }).await;
        }
        sure
    }

    async fn change_marks(&self, space: &Space, change: Change) -> bool {
        let mut backoff = Backoff::default();
        loop {
            if let Some(done) = self.try_change_marks(space, &change).await {
                return done;
            }
            if !self.needs_intents() || !backoff.pause(self.environment).await {
                return false;
            }
        }
    }

    /// One attempt: `Some(true)` when it is done, `Some(false)` when it cannot be done now, `None` to try again.
    async fn try_change_marks(&self, space: &Space, change: &Change) -> Option<bool> {
        let stored = match self.store.read_index(space).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return Some(true),
            Err(error) => return may_be_read_later(&error),
        };
        if stored.object.frozen().is_some() {
            return Some(false);
        }
        let mut index = stored.object;
        let mut changed = false;
        match change {
            Change::Mark { blocks, .. } => {
                for (id, fullness) in blocks {
                    if index.mark(id.number) < *fullness {
                        changed |= index.set_mark(id.number, *fullness);
                    }
                }
            }
            Change::Recheck { blocks, fence } => {
                for id in blocks {
                    if index.mark(id.number) == Fullness::Open {
                        continue;
                    }
                    let block = match self.store.read_block(id).await {
                        Ok(block) => block,
                        Err(error) => return may_be_read_later(&error),
                    };
                    let fullness = block.map_or(Fullness::Open, |stored| stored.object.fullness());
                    if fullness < index.mark(id.number) {
                        changed |= index.set_mark(id.number, fullness);
                    }
                }
                changed |= fence;
            }
        }
        if !changed {
            return Some(true);
        }
        // Looked at after the index was read: who takes the intent over does that before it raises the index's version.
        if let Change::Mark { operation, .. } = change
            && !self.journal.look(|tables| tables.intent(*operation)).is_ok_and(|intent| intent.is_some())
        {
            return Some(false);
        }
        index.advance();
        let swap = Swap { expected: stored.version, object: Object::Index(space.clone(), index.into()) };
        match self.swap_one(swap).await {
            Outcome::Accepted { .. } => Some(true),
            // An attempt before it may still be on its way, so this is not certain.
            Outcome::Rejected { .. } => Some(false),
            // A lost mark must be known to be dead before it is rechecked, so it is repeated as it was.
            Outcome::Refused | Outcome::Unknown { .. } => None,
        }
    }
}

/// What cannot be read now is tried again; what is unsound, or not to be read at all, is not waited for.
fn may_be_read_later(error: &ReadError) -> Option<bool> {
    if matches!(error, ReadError::Unavailable { .. }) { None } else { Some(false) }
}

fn by_space<T>(blocks: BTreeMap<BlockId, T>) -> BTreeMap<Space, BTreeMap<BlockId, T>> {
    let mut spaces: BTreeMap<Space, BTreeMap<BlockId, T>> = BTreeMap::new();
    for (id, value) in blocks {
        spaces.entry(id.space.clone()).or_default().insert(id, value);
    }
    spaces
}
