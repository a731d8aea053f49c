//! Rebuilding: what a ledger that is new, or behind a repair or a migration, learns of its own node from the store.

use std::collections::BTreeSet;

use super::ClusterHost;
use crate::intent::{AttachmentRow, HeldAddress, Seen};
use crate::lease::{Lease, LeaseState, Owner, Pod};
use crate::ledger::meta::StoreRow;
use crate::ledger::{Journal, StorageError};
use crate::offset::Offset;
use crate::operations::{Environment, forget_known};
use crate::space::{BlockId, Space};
use crate::store::{ReadError, Store};

/// What a rebuilt ledger has learned.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rebuilt {
    /// How many addresses of this node it did not know.
    pub learned: usize,
    /// How many blocks could not be read. While there are any, the ledger does not count as complete.
    pub unsound: usize,
}

impl<S: Store, E: Environment> ClusterHost<'_, S, E> {
    /// Makes sure that this ledger knows everything that its node holds: reads the blocks of all spaces if the ledger is
    /// new, and those of the spaces of which a repair or a migration has raised the epoch since.
    ///
    /// Only after that is an attachment that the ledger does not know unknown for certain.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; [`ReadError`] inside when the store does not answer.
    pub async fn rebuild_if_behind(&self) -> Result<Result<Option<Rebuilt>, ReadError>, StorageError> {
        let journal = &self.ledger.journal;
        let row = journal.look(|tables| tables.store())?;
        let is_complete = row.as_ref().is_some_and(|row| row.is_complete);
        let indexes = match self.store.list_indexes().await {
            Ok(indexes) => indexes,
            Err(error) => return Ok(Err(error)),
        };
        let mut spaces = Vec::new();
        for (space, listed) in indexes {
            let seen = journal.look(|tables| tables.seen_index(&space))?.map_or(0, |seen| seen.epoch);
            match listed {
                // A migration makes spaces: those that this ledger has never seen are among them.
                Ok(stored) if !is_complete || stored.object.epoch() > seen => spaces.push(space),
                Ok(_) => {}
                // In which epoch it is cannot be read, but its blocks can: one object that is wrong must not keep the
                // containers of all other networks.
                Err(error) => {
                    tracing::warn!(%error, "its blocks are read to know what this node holds in them");
                    spaces.push(space);
                }
            }
        }
        spaces.dedup();
        if is_complete && spaces.is_empty() {
            return Ok(Ok(None));
        }
        let mut rebuilt = Rebuilt::default();
        let mut epochs = Vec::new();
        for space in &spaces {
            match self.learn(space, &mut rebuilt).await? {
                Ok(epoch) => epochs.extend(epoch.map(|epoch| (space, epoch))),
                Err(error) => return Ok(Err(error)),
            }
        }
        if rebuilt.unsound == 0 && !is_complete {
            journal.record(|tables| {
                // A migration that came to its end meanwhile has given this node what was not in the lists yet.
                for (space, epoch) in &epochs {
                    if tables.seen_index(space)?.is_some_and(|seen| seen.epoch > *epoch) {
                        return Ok(());
                    }
                }
                match tables.store()? {
                    Some(row) => tables.set_store(&StoreRow { is_complete: true, ..row }),
                    None => Ok(()),
                }
            })?;
        }
        tracing::info!(n_spaces = spaces.len(), ?rebuilt, "learned from the store what this node holds");
        Ok(Ok(Some(rebuilt)))
    }

    /// Makes sure that this ledger knows what its node holds in a space that it has never used, if a migration filled it:
    /// a pod that comes again is to get what it had.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; [`ReadError`] inside when the store does not answer.
    pub async fn learn_new(&self, space: &Space, epoch: u64) -> Result<Result<(), ReadError>, StorageError> {
        // In its first epoch a space has nothing of a node but what its ledger wrote.
        if epoch == 0 {
            return Ok(Ok(()));
        }
        Ok(self.learn(space, &mut Rebuilt::default()).await?.map(drop))
    }

    /// Writes down what a space has of this node; says in which epoch that was, if its index can be read.
    async fn learn(
        &self,
        space: &Space,
        rebuilt: &mut Rebuilt,
    ) -> Result<Result<Option<u64>, ReadError>, StorageError> {
        let began = self.environment.boot_clock();
        let (index, blocks) = match (self.store.read_index(space).await, self.store.list_blocks(space).await) {
            (Ok(index), Ok(blocks)) => (index, blocks),
            (Err(ReadError::Unsound { .. } | ReadError::Foreign { .. }), Ok(blocks)) => (None, blocks),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        };
        let facts = &self.ledger.facts;
        let (now, clock) = (self.environment.now(), self.environment.boot_clock());
        let learned = self.ledger.journal.record(|tables| {
            let mut learned = Vec::new();
            for (number, listed) in &blocks {
                let stored = match listed {
                    Ok(stored) => stored,
                    Err(error) => {
                        tracing::warn!(%error, "left out of what this node holds");
                        rebuilt.unsound += 1;
                        continue;
                    }
                };
                let block = BlockId { space: space.clone(), number: *number };
                // What another node has taken over may come back, and then somebody must be able to release it.
                let leases = stored.object.covered().chain(stored.object.iter());
                // Where a migration did not learn the node, the container's DEL comes to the right one, and every node must
                // find it. What it held back for a contradiction no DEL frees.
                let may_be_here = |lease: &Lease| lease.node == facts.node || lease.node.is_empty();
                let is_ours = |lease: &Lease| may_be_here(lease) && lease.state != LeaseState::Quarantined;
                for (offset, lease) in leases.filter(|(_, lease)| is_ours(lease)) {
                    let (attachment, operation) = (&lease.attachment, lease.operation);
                    let new = HeldAddress { block: block.clone(), offset, operation, lease: Some(lease.clone()) };
                    let known = match tables.attachment(attachment) {
                        // The list knows better what it holds.
                        Err(error) if error.is_of_one_row() => None,
                        known => known?,
                    };
                    let mut row = known.unwrap_or_else(|| AttachmentRow {
                        store: "".into(),
                        boot: facts.boot,
                        // As it was given, as far as clocks can tell: a release that waits in the spool may be younger.
                        recorded: clock.saturating_sub(now.saturating_sub(lease.since)),
                        held: Vec::new(),
                    });
                    let is_here = |held: &HeldAddress| held.block == block && held.offset == offset;
                    let is_given_since =
                        row.boot == facts.boot && row.recorded >= began && row.held.iter().any(is_here);
                    // A call that is under way, or has answered since, knows better than a list.
                    if row.held.contains(&new) || is_given_since || tables.intent(operation)?.is_some() {
                        continue;
                    }
                    row.held.retain(|held| !is_here(held));
                    row.held.push(new);
                    tables.set_attachment(attachment, &row)?;
                    tables.add_owner_address(&block, offset, lease)?;
                    // Of a runtime that gives no UIDs the pod will be asked for without.
                    if let (true, Owner::Pod(pod)) = (lease.is_migrated(), &lease.owner) {
                        let owner = Owner::Pod(Pod { uid: None, ..pod.clone() });
                        tables.add_owner_address(&block, offset, &Lease { owner, ..lease.clone() })?;
                    }
                    learned.push((block.clone(), offset, lease.clone()));
                }
                let seen = Seen::of_block(stored);
                if seen.is_newer_than(tables.seen_block(&block)?.as_ref()) {
                    tables.set_seen_block(&block, &seen)?;
                }
            }
            if let Some(index) = &index {
                let seen = Seen::of_index(index);
                if seen.is_newer_than(tables.seen_index(space)?.as_ref()) {
                    tables.set_seen_index(space, &seen)?;
                    tables.set_index(space, &index.object)?;
                }
            }
            Ok(learned)
        })?;
        rebuilt.learned += learned.len();
        let epoch = index.map(|index| index.object.epoch());
        Ok(self.unlearn_released(space, learned).await?.map(|()| epoch))
    }

    /// Takes out again what was learned and has been released between the list and its being written down: the release did
    /// not find it here. What is released from now on does.
    async fn unlearn_released(
        &self,
        space: &Space,
        learned: Vec<(BlockId, Offset, Lease)>,
    ) -> Result<Result<(), ReadError>, StorageError> {
        if learned.is_empty() {
            return Ok(Ok(()));
        }
        let listed = match self.store.list_blocks(space).await {
            Ok(listed) => listed,
            Err(error) => return Ok(Err(error)),
        };
        let mut still_there = BTreeSet::new();
        let mut unreadable = BTreeSet::new();
        for (number, block) in listed {
            match block {
                Ok(stored) => {
                    let leases = stored.object.covered().chain(stored.object.iter());
                    still_there.extend(leases.map(|(offset, lease)| (number, offset, lease.operation)));
                }
                Err(_) => drop(unreadable.insert(number)),
            }
        }
        let is_released = |(block, offset, lease): &&(BlockId, Offset, Lease)| {
            !unreadable.contains(&block.number) && !still_there.contains(&(block.number, *offset, lease.operation))
        };
        let released: Vec<_> = learned.iter().filter(is_released).collect();
        if !released.is_empty() {
            self.ledger.journal.record(|tables| {
                released.iter().try_for_each(|(block, offset, lease)| forget_known(tables, block, *offset, lease))
            })?;
        }
        Ok(Ok(()))
    }
}
