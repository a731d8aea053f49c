//! Frozen spaces: when what a store holds cannot be the newest state, nobody takes an address until a repair.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Host;
use super::environment::{Backoff, Environment};
use super::error::AllocateError;
use super::proven::Proven;
use crate::address::Address;
use crate::block::Block;
use crate::index::Index;
use crate::intent::{HeldAddress, Purpose};
use crate::lease::{Attachment, Lease, OperationId};
use crate::ledger::{Journal, StorageError};
use crate::offset::BlockNumber;
use crate::space::{BlockId, Space};
use crate::store::{Object, Outcome, ReadError, Store, Stored, Swap, Version};

/// What a repair put back for this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reinserted {
    /// Addresses whose leases were missing and are there again.
    pub put_back: Vec<Address>,
    /// Addresses that this host proves and somebody else holds. While there are any, this node has not reported.
    pub contradictions: Vec<Contradiction>,
    /// Whether the store says that this node holds addresses, and the ledger knows of none: it is another node's, or new,
    /// and has not reported.
    pub knows_nothing: bool,
}

/// An address that two prove.
#[derive(Clone, Debug, PartialEq)]
pub struct Contradiction {
    /// The address.
    pub address: Address,
    /// Who holds it by this host's ledger.
    pub here: Box<Lease>,
    /// Who holds it by the block.
    pub there: Box<Lease>,
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Freezes a space for all, and says so. The mark in the index stops whoever reads the index; the stamps in the
    /// blocks stop whoever goes by a hint.
    ///
    /// `epoch` is the one in which it was judged: a repair that raises it has answered the judgement.
    pub(super) async fn freeze<T>(&self, space: &Space, epoch: u64, reason: String) -> Result<T, AllocateError> {
        // Where the ledger is the store nobody else is to be warned, and nobody but this host could repair it: the
        // addresses in question are refused, the others of the space are served.
        if !self.needs_intents() {
            return Err(ReadError::Unsound { object: space.to_string(), reason }.into());
        }
        // A ledger that is asked for another cluster than its own knows nothing of that cluster's state.
        self.store.confirm().await?;
        tracing::error!(%space, %reason, "the space is frozen");
        let operation = self.new_operation();
        let purpose = Purpose::Freeze { space: space.clone(), epoch, reason: reason.clone() };
        let intent = self.intent(&Attachment::named(""), purpose);
        self.journal.record(|tables| tables.set_intent(operation, &intent))?;
        if self.carry_out_freeze(space, epoch, &reason).await {
            self.close(&[operation])?;
        }
        Err(AllocateError::Frozen { space: space.clone(), reason })
    }

    /// Marks the index and stamps every block; says whether all of it is done.
    pub(crate) async fn carry_out_freeze(&self, space: &Space, epoch: u64, reason: &str) -> bool {
        self.retry(async || self.try_freeze(space, epoch, reason).await).await.is_ok()
    }

    async fn try_freeze(&self, space: &Space, epoch: u64, reason: &str) -> Result<(), ReadError> {
        let (expected, mut index) = match self.store.read_index(space).await? {
            Some(stored) => (stored.version, stored.object),
            None => (Version::absent(), Index::empty(0)),
        };
        if index.epoch > epoch {
            return Ok(());
        }
        // One that is unsound or foreign stops whoever reads it anyway, and is never overwritten.
        let blocks = self.store.list_blocks(space).await?;
        let blocks: Vec<_> = blocks.into_iter().filter_map(|(number, block)| Some((number, block.ok()?))).collect();
        let newest = blocks.iter().map(|(_, stored)| stored.object.epoch()).max().unwrap_or(0);
        // The repair must end in an epoch that nobody has seen yet.
        index.epoch = epoch.max(newest);
        index.frozen.get_or_insert_with(|| reason.to_owned());
        index.reported.clear();
        // Written even where it is frozen already: a repair that is under way must begin anew.
        index.advance();
        self.swap_now(expected, Object::Index(space.clone(), index.into())).await?;
        for (number, stored) in blocks {
            let mut block = stored.object;
            if !block.is_frozen() {
                let epoch = block.epoch();
                block.set_frozen(true, epoch);
                block.advance();
                let id = BlockId { space: space.clone(), number };
                self.swap_now(stored.version, Object::Block(id, block.into())).await?;
            }
        }
        Ok(())
    }

    /// Puts back what this host's ledger proves alive and the store has lost. Only for a space that is frozen.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used. [`ReadError`] inside when the store does not answer in time;
    /// then it is to be called again.
    pub async fn reinsert(&self, space: &Space) -> Result<Result<Reinserted, ReadError>, StorageError> {
        let (proven, under_way) = self.journal.look(|tables| {
            // What cannot be read may be a container's, and then this node cannot say that it has put back all.
            let Proven(mut proven) = Proven::read(tables, &self.store_name, Err)?;
            proven.retain(|id, _| id.space == *space);
            let mut under_way: Vec<OperationId> = Vec::new();
            for (operation, intent) in tables.intents()? {
                under_way.push(operation);
                if let Purpose::Release(held) = intent.purpose {
                    under_way.extend(held.into_iter().map(|held| held.operation));
                }
            }
            Ok((proven, under_way))
        })?;
        let mut reinserted = Reinserted::default();
        if proven.is_empty() {
            let listed = match self.store.list_blocks(space).await {
                Ok(listed) => listed,
                Err(error) => return Ok(Err(error)),
            };
            let blocks = listed.into_iter().filter_map(|(_, block)| block.ok());
            reinserted.knows_nothing = blocks
                .flat_map(|stored| stored.object.iter().map(|(_, lease)| Arc::clone(&lease.node)).collect::<Vec<_>>())
                .any(|node| node == self.node);
        }
        let known: BTreeSet<OperationId> =
            proven.values().flatten().map(|held| held.operation).chain(under_way).collect();
        for (id, held) in proven {
            match self.retry(async || self.try_reinsert(&id, &held, &known).await).await {
                Ok(part) => {
                    reinserted.put_back.extend(part.put_back);
                    reinserted.contradictions.extend(part.contradictions);
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        // Opened, the space would give an address away that one of two may have.
        if reinserted.knows_nothing || !reinserted.contradictions.is_empty() {
            return Ok(Ok(reinserted));
        }
        let reported = self.retry(async || self.try_report(space).await).await;
        Ok(reported.map(|()| reinserted))
    }

    /// Writes down for all that this node has put back what it could prove.
    async fn try_report(&self, space: &Space) -> Result<(), ReadError> {
        let Some(stored) = self.store.read_index(space).await? else { return Ok(()) };
        let mut index = stored.object;
        if index.frozen.is_none() || !index.reported.insert(Arc::clone(&self.node)) {
            return Ok(());
        }
        index.advance();
        self.swap_now(stored.version, Object::Index(space.clone(), index.into())).await.map(drop)
    }

    /// `known` are the operations of this ledger: a lease of this node by another one is what an old image brought back of
    /// a container that is gone by now.
    async fn try_reinsert(
        &self,
        id: &BlockId,
        proven: &[HeldAddress],
        known: &BTreeSet<OperationId>,
    ) -> Result<Reinserted, ReadError> {
        let (expected, mut block) = match self.store.read_block(id).await? {
            Some(stored) => (stored.version, stored.object),
            None => {
                let mut block = Block::empty(0);
                block.set_frozen(true, 0);
                (Version::absent(), block)
            }
        };
        let mut result = Reinserted::default();
        for held in proven {
            // One whose node a migration did not learn every host knows, and none can prove.
            let Some(here) = held.lease.as_ref().filter(|lease| !lease.node.is_empty()) else { continue };
            match block.get(held.offset) {
                None => {
                    block.insert(held.offset, here.clone());
                    result.put_back.push(held.address());
                }
                Some(there)
                    if there.operation != held.operation
                        && there.node == self.node
                        && !known.contains(&there.operation) =>
                {
                    block.insert(held.offset, here.clone());
                    result.put_back.push(held.address());
                }
                Some(there) if there.operation != held.operation => result.contradictions.push(Contradiction {
                    address: held.address(),
                    here: Box::new(here.clone()),
                    there: Box::new(there.clone()),
                }),
                Some(_) => {}
            }
        }
        if !result.put_back.is_empty() || expected.is_absent() {
            block.advance();
            self.swap_now(expected, Object::Block(id.clone(), block.into())).await?;
        }
        Ok(result)
    }

    /// Opens a frozen space again in a new epoch: the blocks that are there are the ones that exist, and what the
    /// hosts have seen before counts no more.
    ///
    /// # Errors
    /// [`ReadError`] when the store does not answer in time; then it is to be called again.
    pub async fn thaw(&self, space: &Space) -> Result<(), ReadError> {
        self.retry(async || self.try_thaw(space).await).await
    }

    async fn try_thaw(&self, space: &Space) -> Result<(), ReadError> {
        let Some(stored) = self.store.read_index(space).await? else { return Ok(()) };
        let mut index = stored.object;
        // What went to another program while a repair was under way stays closed.
        if index.frozen.is_none() || index.is_handed_over() {
            return Ok(());
        }
        // The epoch is raised first: from here on, whoever has not frozen all blocks yet leaves them alone.
        let blocks = self.sound_blocks(space).await?;
        let newest = blocks.iter().map(|(_, stored)| stored.object.epoch()).max().unwrap_or(0);
        let epoch = newest.max(index.epoch).saturating_add(1);
        index.epoch = epoch;
        index.advance();
        let version = self.swap_now(stored.version, Object::Index(space.clone(), index.clone().into())).await?;
        (index.existing, index.full, index.full_but_zero) = Default::default();
        for (number, stored) in self.sound_blocks(space).await? {
            let mut block = stored.object;
            index.existing.insert(number);
            index.set_mark(number, block.fullness());
            block.set_frozen(false, epoch);
            block.advance();
            let id = BlockId { space: space.clone(), number };
            self.swap_now(stored.version, Object::Block(id, block.into())).await?;
        }
        index.frozen = None;
        index.reported.clear();
        index.advance();
        self.swap_now(version, Object::Index(space.clone(), index.into())).await?;
        Ok(())
    }

    /// All blocks of a space, none of which may be unsound: what cannot be read may hold leases.
    async fn sound_blocks(&self, space: &Space) -> Result<Vec<(BlockNumber, Stored<Block>)>, ReadError> {
        let listed = self.store.list_blocks(space).await?;
        let with_cure = |error| match error {
            ReadError::Unsound { object, reason } => {
                let reason =
                    format!("{reason}; take that object away, and run `whereabouts repair` on every node again");
                ReadError::Unsound { object, reason }
            }
            error => error,
        };
        listed.into_iter().map(|(number, block)| Ok((number, block.map_err(with_cure)?))).collect()
    }

    /// Tries until it succeeds, is certain to fail again, or time is up.
    pub(super) async fn retry<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut backoff = Backoff::default();
        loop {
            match attempt().await {
                Err(ReadError::Unavailable { .. }) if self.needs_intents() && backoff.pause(self.environment).await => {
                }
                done => return done,
            }
        }
    }

    /// Swaps one object. What may succeed when it is tried again is [`ReadError::Unavailable`].
    pub(super) async fn swap_now(&self, expected: Version, object: Object) -> Result<Version, ReadError> {
        match self.swap_one(Swap { expected, object }).await {
            Outcome::Accepted { version, .. } => Ok(version),
            Outcome::Refused => Err(ReadError::Unavailable { reason: "other writers were faster".to_owned() }),
            Outcome::Rejected { reason } => Err(ReadError::Rejected { reason }),
            Outcome::Unknown { reason } => Err(ReadError::Unavailable { reason }),
        }
    }
}
