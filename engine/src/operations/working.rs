//! The working set of a batch: the blocks and indexes that it has read, and what it makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Host;
use super::environment::{Backoff, Environment};
use super::error::AllocateError;
use super::proven::{Proven, skip_damaged};
use crate::block::{Block, Fullness};
use crate::index::Index;
use crate::intent::Seen;
use crate::lease::{Attachment, Lease};
use crate::ledger::{Journal, Rows, RowsMut, StorageError, Tables};
use crate::offset::{BlockNumber, Offset};
use crate::space::{BlockId, Space};
use crate::store::{Object, Outcome, ReadError, Store, Stored, Swap, Version};
use crate::view::View;

/// The blocks and indexes that a batch has read.
pub(super) struct Working<'h, 'a, S, J, E> {
    host: &'h Host<'a, S, J, E>,
    blocks: BTreeMap<BlockId, WorkingBlock>,
    indexes: BTreeMap<Space, WorkingIndex>,
    /// Blocks that were read and have no room, though the index does not say so.
    unmarked: BTreeMap<BlockId, Fullness>,
    /// Whether something was about to be given away that the store has lost.
    has_lost: bool,
}

struct WorkingBlock {
    version: Version,
    identity: Vec<u8>,
    block: Arc<Block>,
    changed: bool,
}

impl WorkingBlock {
    /// What is seen of the block as it was read or swapped in.
    fn seen(&self) -> Seen {
        Seen { epoch: self.block.epoch(), sequence: self.block.sequence(), identity: self.identity.clone() }
    }
}

struct WorkingIndex {
    /// `None` for an index that is only remembered from an earlier call.
    version: Option<Version>,
    identity: Vec<u8>,
    index: Arc<Index>,
    changed: bool,
}

/// What the swap of all changed blocks came to.
#[derive(Debug, Default)]
pub(super) struct Swapped {
    /// The blocks that changed nothing, and never will.
    pub(super) refused: Vec<BlockId>,
    /// Of those, the ones of which an attempt before may still be on its way, with the version that it expects: a
    /// store may refuse an attempt though the version has not moved.
    pub(super) in_doubt: BTreeMap<BlockId, Version>,
    /// Of those, the ones that the store would not have again either, and why.
    pub(super) rejected: BTreeMap<BlockId, String>,
    /// The blocks of which nobody could say anything until the deadline, and why.
    pub(super) unknown: BTreeMap<BlockId, AllocateError>,
}

impl<'h, 'a, S: Store, J: Journal, E: Environment> Working<'h, 'a, S, J, E> {
    pub(super) fn new(host: &'h Host<'a, S, J, E>) -> Self {
        Self { host, blocks: BTreeMap::new(), indexes: BTreeMap::new(), unmarked: BTreeMap::new(), has_lost: false }
    }

    /// A block, as the batch would have it; it must have been [opened](Self::open).
    pub(super) fn block(&self, id: &BlockId) -> Option<&Block> {
        self.blocks.get(id).map(|working| &*working.block)
    }

    /// The version against which a block will be swapped.
    pub(super) fn version(&self, id: &BlockId) -> Version {
        self.blocks.get(id).map_or_else(Version::absent, |working| working.version.clone())
    }

    /// Gives an address to a lease, in the working set only.
    pub(super) fn put(&mut self, id: &BlockId, offset: Offset, lease: Lease) {
        if let Some(working) = self.blocks.get_mut(id) {
            // A ledger has no other nodes, whatever its host was called before.
            match self.host.needs_intents() {
                true => Arc::make_mut(&mut working.block).take_over(offset, lease),
                false => drop(Arc::make_mut(&mut working.block).insert(offset, lease)),
            }
            working.changed = true;
        }
    }

    /// Takes back what [`Self::put`] did.
    pub(super) fn take_back(&mut self, id: &BlockId, offset: Offset, previous: Option<&Lease>) {
        if let Some(working) = self.blocks.get_mut(id) {
            Arc::make_mut(&mut working.block).take_back(offset, previous);
        }
    }

    /// The blocks without room that the index does not mark.
    pub(super) fn take_unmarked(&mut self) -> BTreeMap<BlockId, Fullness> {
        std::mem::take(&mut self.unmarked)
    }

    /// Finds the lowest free address of a view: of the first block that the index does not call full.
    ///
    /// Answers `None` only after the index was read afresh and every block that it does not mark was read. Where the
    /// ledger is the store, a block that cannot be read is passed over, and is the answer only where no other has room.
    ///
    /// What the ledger says that another container of this node has is not given to `asking`, though the block has lost
    /// it, and is the answer where nothing else is free.
    pub(super) async fn lowest_free(
        &mut self,
        space: &Space,
        view: &View,
        asking: &Attachment,
    ) -> Result<Option<(BlockId, Offset)>, AllocateError> {
        let first = view.first().map(BlockNumber::of);
        let mut from = first;
        let mut left_out = None;
        loop {
            let open = match from {
                Some(from) => self.index(space).await?.index.first_open(view, from),
                None => None,
            };
            let Some(number) = open else {
                if self.index(space).await?.version.is_some() {
                    return left_out.map_or(Ok(None), Err);
                }
                self.read_index(space).await?;
                from = first;
                continue;
            };
            let id = BlockId { space: space.clone(), number };
            let is_local = !self.host.needs_intents();
            match self.open(&id).await {
                Err(error @ AllocateError::Store(ReadError::Unsound { .. })) if is_local => {
                    tracing::error!(block = %id, %error, "its addresses are not given to anybody");
                    left_out.get_or_insert(error);
                    from = number.next(space.family());
                    continue;
                }
                opened => drop(opened?),
            }
            let mut assignable = view.offsets(number);
            for (offset, lease) in self.lost_leases(&id, asking)? {
                if assignable.remove(offset.get().into()) {
                    let lost = AllocateError::Lost { address: id.address_at(offset), held_by: Box::new(lease) };
                    tracing::error!(error = %lost, "another is looked for");
                    left_out.get_or_insert(lost);
                }
            }
            let block = self.block(&id).ok_or_else(lost)?;
            if let Some(offset) = block.lowest_free(&assignable) {
                return Ok(Some((id, offset)));
            }
            let fullness = block.fullness();
            self.note_fullness(&id, fullness);
            from = number.next(space.family());
        }
    }

    /// What other containers of this node than `asking` have by its ledger, and nobody by a block that was read. None
    /// before [`Self::look_for_lost`], so that it costs nothing while nothing is lost.
    pub(super) fn lost_leases(&self, id: &BlockId, asking: &Attachment) -> Result<Vec<(Offset, Lease)>, StorageError> {
        let Some(block) = self.block(id).filter(|_| self.has_lost) else { return Ok(Vec::new()) };
        // Read after the block: what was released before that is in neither.
        let proven = self.host.journal.look(|tables| Proven::read(tables, &self.host.store_name, skip_damaged))?;
        let lost = proven.of_others(id, asking).filter(|(offset, _)| block.get(*offset).is_none());
        Ok(lost.map(|(offset, lease)| (offset, lease.clone())).collect())
    }

    /// From here on, looks for what the store has lost before an address is chosen.
    pub(super) fn look_for_lost(&mut self) {
        self.has_lost = true;
    }

    /// Remembers that a block has less room than the index says.
    fn note_fullness(&mut self, id: &BlockId, fullness: Fullness) {
        if self.indexes.get(&id.space).is_some_and(|working| working.index.mark(id.number) < fullness) {
            self.unmarked.insert(id.clone(), fullness);
        }
    }

    /// Marks the blocks without room. In one transaction nothing can come between a block and its mark, and what was
    /// taken back meanwhile has left room again.
    fn mark_together(&mut self) {
        for id in self.take_unmarked().into_keys() {
            let fullness = self.block(&id).map(Block::fullness);
            if let (Some(fullness), Some(working)) = (fullness, self.indexes.get_mut(&id.space))
                && working.index.mark(id.number) < fullness
            {
                working.changed |= Arc::make_mut(&mut working.index).set_mark(id.number, fullness);
            }
        }
    }

    /// The index of a space: as it was remembered, if it was, else as it is.
    async fn index(&mut self, space: &Space) -> Result<&WorkingIndex, AllocateError> {
        if !self.indexes.contains_key(space) {
            let remembered = match self.host.needs_intents() {
                true => self.host.journal.look(|tables| tables.index(space))?,
                false => None,
            };
            match remembered {
                Some(index) => {
                    let working =
                        WorkingIndex { version: None, identity: Vec::new(), index: index.into(), changed: false };
                    self.indexes.insert(space.clone(), working);
                }
                None => self.read_index(space).await?,
            }
        }
        self.indexes.get(space).ok_or_else(lost)
    }

    /// Reads the index of a space as it is.
    pub(super) async fn read_index(&mut self, space: &Space) -> Result<(), AllocateError> {
        // What has been seen is looked up before the read: another call on this host may see more while it travels.
        let seen = match self.host.needs_intents() {
            true => self.host.journal.look(|tables| tables.seen_index(space))?,
            false => None,
        };
        let stored = self.host.store.read_index(space).await?;
        if let Some((epoch, reason)) = contradiction(seen.as_ref(), stored.as_ref().map(Seen::of_index).as_ref()) {
            return self.host.freeze(space, epoch, format!("its index cannot be trusted: {reason}")).await;
        }
        let working = match stored {
            None => WorkingIndex {
                version: Some(Version::absent()),
                identity: Vec::new(),
                index: Index::empty(0).into(),
                changed: false,
            },
            Some(stored) => {
                if let Some(reason) = stored.object.frozen() {
                    return Err(AllocateError::Frozen { space: space.clone(), reason: reason.to_owned() });
                }
                WorkingIndex {
                    version: Some(stored.version),
                    identity: stored.identity,
                    index: stored.object.into(),
                    changed: false,
                }
            }
        };
        self.indexes.insert(space.clone(), working);
        Ok(())
    }

    /// Reads a block into the working set, and makes it where there is none yet.
    ///
    /// A block that is listed and gone, or older than what this host has seen, freezes the space: absent is not free.
    pub(super) async fn open(&mut self, id: &BlockId) -> Result<&Block, AllocateError> {
        if !self.blocks.contains_key(id) {
            let seen = match self.host.needs_intents() {
                true => self.host.journal.look(|tables| tables.seen_block(id))?,
                false => None,
            };
            let stored = match self.host.store.read_block(id).await {
                Err(error @ ReadError::Foreign { .. }) => {
                    let epoch = self.index(&id.space).await?.index.epoch();
                    return self.host.freeze(&id.space, epoch, error.to_string()).await;
                }
                read => read?,
            };
            if let Some((epoch, reason)) = contradiction(seen.as_ref(), stored.as_ref().map(Seen::of_block).as_ref()) {
                return self.host.freeze(&id.space, epoch, format!("block {id} cannot be trusted: {reason}")).await;
            }
            match stored {
                Some(stored) => self.take_in(id, stored).await?,
                None => self.make(id).await?,
            }
        }
        self.block(id).ok_or_else(lost)
    }

    /// Takes a block that was read into the working set, once the index lists it.
    async fn take_in(&mut self, id: &BlockId, stored: Stored<Block>) -> Result<(), AllocateError> {
        if stored.object.is_frozen() {
            self.read_index(&id.space).await?;
            let reason = format!("block {id} is still frozen; a repair is under way");
            return Err(AllocateError::Frozen { space: id.space.clone(), reason });
        }
        if !self.index(&id.space).await?.index.existing.contains(id.number) {
            self.list(id).await?;
        }
        let Stored { version, identity, object } = stored;
        self.blocks.insert(id.clone(), WorkingBlock { version, identity, block: object.into(), changed: false });
        Ok(())
    }

    /// Makes a block: created empty, then listed as existing, then used.
    async fn make(&mut self, id: &BlockId) -> Result<(), AllocateError> {
        if self.index(&id.space).await?.version.is_none() {
            self.read_index(&id.space).await?;
        }
        let working = self.index(&id.space).await?;
        if working.index.existing.contains(id.number) {
            // Somebody may have made and listed it after it was looked for and before the index was read.
            return self.open_listed(id).await;
        }
        let block = Arc::new(Block::empty(working.index.epoch()));
        if self.host.promises().several_at_once {
            // Block and index go in one swap, so there is no moment between them.
            let working = WorkingBlock { version: Version::absent(), identity: Vec::new(), block, changed: true };
            self.blocks.insert(id.clone(), working);
            return self.list(id).await;
        }
        let mut backoff = Backoff::default();
        loop {
            let create = Swap { expected: Version::absent(), object: Object::Block(id.clone(), block.clone()) };
            let reason = match self.swap_one(create).await {
                Outcome::Accepted { .. } => break,
                // Somebody else made it, or the store would not have it; what is not there must not be listed.
                Outcome::Refused if self.host.store.read_block(id).await?.is_some() => break,
                Outcome::Refused => format!("the store does not let block {id} be made"),
                Outcome::Rejected { reason } => return Err(AllocateError::Rejected { reason }),
                Outcome::Unknown { reason } => reason,
            };
            if !backoff.pause(self.host.environment).await {
                return Err(AllocateError::Busy { reason });
            }
        }
        self.list(id).await?;
        self.open_listed(id).await
    }

    /// Reads a block that the index was seen to list: one that is not there now is gone.
    async fn open_listed(&mut self, id: &BlockId) -> Result<(), AllocateError> {
        match self.host.store.read_block(id).await? {
            Some(stored) => self.take_in(id, stored).await,
            None => {
                let epoch = self.index(&id.space).await?.index.epoch();
                self.host.freeze(&id.space, epoch, format!("block {id} is listed in the index and gone")).await
            }
        }
    }

    /// Lists a block as existing.
    async fn list(&mut self, id: &BlockId) -> Result<(), AllocateError> {
        let mut backoff = Backoff::default();
        loop {
            if self.index(&id.space).await?.version.is_none() {
                self.read_index(&id.space).await?;
            }
            let several_at_once = self.host.promises().several_at_once;
            let Some(working) = self.indexes.get_mut(&id.space) else { return Err(lost()) };
            if !Arc::make_mut(&mut working.index).existing.insert(id.number) {
                return Ok(());
            }
            if several_at_once {
                working.changed = true;
                return Ok(());
            }
            Arc::make_mut(&mut working.index).advance();
            let index = Arc::clone(&working.index);
            let expected = working.version.clone().unwrap_or_else(Version::absent);
            let reason =
                match self.swap_one(Swap { expected, object: Object::Index(id.space.clone(), index.clone()) }).await {
                    Outcome::Accepted { version, identity } => {
                        let working = WorkingIndex { version: Some(version), identity, index, changed: false };
                        self.indexes.insert(id.space.clone(), working);
                        return Ok(());
                    }
                    Outcome::Refused => "other writers of the index were faster".to_owned(),
                    Outcome::Rejected { reason } => {
                        self.indexes.remove(&id.space);
                        return Err(AllocateError::Rejected { reason });
                    }
                    Outcome::Unknown { reason } => reason,
                };
            self.indexes.remove(&id.space);
            if !backoff.pause(self.host.environment).await {
                return Err(AllocateError::Busy { reason });
            }
            self.read_index(&id.space).await?;
        }
    }

    async fn swap_one(&self, swap: Swap) -> Outcome {
        self.host.swap_one(swap).await
    }

    /// Swaps in everything that the batch changed. What nobody can say is repeated against the same version until the
    /// deadline: accepted or refused, the version has moved then, and a lost write can never land any more.
    pub(super) async fn swap_changed(&mut self) -> Swapped {
        if self.host.promises().one_transaction_with_journal {
            self.mark_together();
        }
        let mut open: Vec<Swap> = Vec::new();
        for (id, working) in &mut self.blocks {
            if std::mem::take(&mut working.changed) {
                Arc::make_mut(&mut working.block).advance();
                let object = Object::Block(id.clone(), working.block.clone());
                open.push(Swap { expected: working.version.clone(), object });
            }
        }
        for (space, working) in &mut self.indexes {
            if std::mem::take(&mut working.changed) {
                Arc::make_mut(&mut working.index).advance();
                let expected = working.version.clone().unwrap_or_else(Version::absent);
                open.push(Swap { expected, object: Object::Index(space.clone(), working.index.clone()) });
            }
        }
        let mut swapped = Swapped::default();
        let mut was_unknown = BTreeSet::new();
        let mut backoff = Backoff::default();
        while !open.is_empty() {
            let mut outcomes = self.host.store.swap(open.clone()).await.into_iter();
            let mut reason = String::new();
            open.retain(|swap| match outcomes.next() {
                Some(Outcome::Accepted { version, identity }) => {
                    self.accepted(&swap.object, version, identity);
                    false
                }
                Some(refused @ (Outcome::Refused | Outcome::Rejected { .. })) => {
                    let id = self.forget(&swap.object);
                    if let Some(id) = id.as_ref().filter(|id| was_unknown.contains(*id)) {
                        swapped.in_doubt.insert(id.clone(), swap.expected.clone());
                    }
                    if let Outcome::Rejected { reason } = refused {
                        swapped.rejected.extend(id.clone().map(|id| (id, reason)));
                    }
                    swapped.refused.extend(id);
                    false
                }
                Some(Outcome::Unknown { reason: why }) => {
                    reason = why;
                    if let Object::Block(id, _) = &swap.object {
                        was_unknown.insert(id.clone());
                    }
                    true
                }
                None => true,
            });
            let is_final = !self.host.needs_intents();
            if !open.is_empty() && (is_final || !backoff.pause(self.host.environment).await) {
                for swap in open.drain(..) {
                    let error = AllocateError::Busy { reason: reason.clone() };
                    swapped.unknown.extend(self.forget(&swap.object).map(|id| (id, error)));
                }
            }
        }
        swapped
    }

    fn accepted(&mut self, object: &Object, version: Version, identity: Vec<u8>) {
        match object {
            Object::Block(id, _) => {
                if let Some(working) = self.blocks.get_mut(id) {
                    (working.version, working.identity) = (version, identity);
                }
            }
            Object::Index(space, _) => {
                if let Some(working) = self.indexes.get_mut(space) {
                    (working.version, working.identity) = (Some(version), identity);
                }
            }
        }
    }

    /// Forgets what is not in place, so that the next look reads it again; says which block that was.
    fn forget(&mut self, object: &Object) -> Option<BlockId> {
        match object {
            Object::Block(id, _) => {
                self.blocks.remove(id);
                Some(id.clone())
            }
            Object::Index(space, _) => {
                self.indexes.remove(space);
                // What it was about to list, the next one does not: each block is to be taken in anew.
                self.blocks.retain(|id, _| id.space != *space);
                None
            }
        }
    }

    /// The changed blocks of which another call on this host has seen a newer state meanwhile. That state may have been
    /// lost again before they were read here, so they are to be read and judged once more.
    pub(super) fn outdated<R: Rows>(&self, tables: &Tables<R>) -> Result<BTreeSet<BlockId>, StorageError> {
        let mut outdated = BTreeSet::new();
        for (id, working) in self.blocks.iter().filter(|(_, working)| working.changed) {
            if tables
                .seen_block(id)?
                .is_some_and(|seen| working.version.is_absent() || seen.is_newer_than(Some(&working.seen())))
            {
                outdated.insert(id.clone());
            }
        }
        Ok(outdated)
    }

    /// Forgets blocks, so that the next look reads them again. One that was to be made is not listed either, or it would
    /// be listed without being made.
    pub(super) fn forget_blocks(&mut self, ids: &BTreeSet<BlockId>) {
        for id in ids {
            if self.blocks.remove(id).is_some_and(|working| working.version.is_absent())
                && let Some(working) = self.indexes.get_mut(&id.space)
            {
                Arc::make_mut(&mut working.index).existing.remove(id.number);
            }
        }
    }

    /// Writes down what this batch has seen of the store, for the next call on this host.
    pub(super) fn remember<R: RowsMut>(&self, tables: &mut Tables<R>) -> Result<(), StorageError> {
        for (id, working) in &self.blocks {
            if !working.version.is_absent() && !working.changed {
                let seen = working.seen();
                // Another call on this host may have seen more meanwhile.
                if seen.is_newer_than(tables.seen_block(id)?.as_ref()) {
                    tables.set_seen_block(id, &seen)?;
                }
            }
        }
        for (space, working) in &self.indexes {
            let read = working.version.as_ref().is_some_and(|version| !version.is_absent());
            if read && !working.changed {
                let (index, identity) = (&working.index, working.identity.clone());
                let seen = Seen { epoch: index.epoch(), sequence: index.sequence(), identity };
                let before = tables.seen_index(space)?;
                if seen.is_newer_than(before.as_ref()) {
                    if before.map_or(0, |before| before.epoch) < seen.epoch {
                        // What a migration or a repair brought for this node is not learned by looking at the index.
                        tables.lacks_leases()?;
                    }
                    tables.set_seen_index(space, &seen)?;
                    tables.set_index(space, index)?;
                }
            }
        }
        Ok(())
    }
}

/// Why an object that was read cannot be the newest state of it, by what this host has seen, and in which epoch it
/// has.
pub(super) fn contradiction(seen: Option<&Seen>, now: Option<&Seen>) -> Option<(u64, String)> {
    let seen = seen?;
    let reason = match now {
        None => "it is gone, though this host has seen it".to_owned(),
        Some(now) => seen.contradicts(now)?,
    };
    Some((seen.epoch, reason))
}

/// A working set always holds what was just put into it.
fn lost() -> AllocateError {
    AllocateError::Storage(StorageError::io("the working set lost what was just put into it"))
}
