//! Adopt: take over leases that another program gave, as a migration does.
//!
//! A space without an index is taken over in one step: its blocks are made with what they hold, and then the index that
//! lists them all. Until that is there, the space has not begun. Into a space that has begun, leases go block by block.
//! Either way the epoch rises, so that every host learns what of it is its own.

use std::collections::BTreeMap;

use super::Host;
use super::environment::Environment;
use super::error::cure;
use crate::address::Address;
use crate::block::{Block, Fullness};
use crate::index::Index;
use crate::lease::Lease;
use crate::ledger::Journal;
use crate::offset::{BlockNumber, Offset};
use crate::space::{BlockId, Space};
use crate::store::{Object, ReadError, Store, Stored, Version};

/// What became of leases that were to be taken over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Adopted {
    /// How many are held now and were not before.
    pub n_added: usize,
    /// How many were held already by the same pod or container, and stay as they are.
    pub n_present: usize,
}

/// An address that is to be taken over, and that another holds already.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptConflict {
    /// The space.
    pub space: Space,
    /// The address.
    pub address: Address,
    /// Who was to have it.
    pub adopted: Box<Lease>,
    /// Who holds it.
    pub held_by: Box<Lease>,
}

/// Why leases could not be taken over.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// Others hold addresses of them.
    #[error(
        "{} addresses are held by others already, {} among them", .0.len(),
        .0.first().map_or_else(String::new, |first| format!(
            "{} of {} (for {}, held by {})", first.address, first.space, first.adopted, first.held_by
        ))
    )]
    Held(Vec<AdoptConflict>),
    /// The space is frozen.
    #[error("{space} is frozen: {reason}; first of all, {}", cure(reason))]
    Frozen {
        /// The space.
        space: Space,
        /// Why.
        reason: String,
    },
    /// The store cannot be read, or does not answer. What was written stays, and the same call goes on from there.
    #[error(transparent)]
    Store(#[from] ReadError),
}

type Places<'l> = BTreeMap<BlockNumber, Vec<(Offset, &'l Lease)>>;

/// What is there of leases that are to be taken over.
struct Beside {
    blocks: BTreeMap<BlockNumber, Stored<Block>>,
    adopted: Adopted,
    /// The epoch that the space is to have; `None` where nothing is to be done.
    epoch: Option<u64>,
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Says what [`Self::adopt`] would do now, and changes nothing.
    ///
    /// # Errors
    /// [`AdoptError`], as `adopt` would return it.
    pub async fn would_adopt(&self, space: &Space, leases: &[(Address, Lease)]) -> Result<Adopted, AdoptError> {
        Ok(self.beside(space, &by_block(leases)).await?.adopted)
    }

    /// Takes leases over into a space. Where an address is held by another, nothing is written at all, unless that
    /// happens meanwhile. Asked again, it changes nothing.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub async fn adopt(&self, space: &Space, leases: &[(Address, Lease)]) -> Result<Adopted, AdoptError> {
        let places = by_block(leases);
        let Beside { mut blocks, adopted, epoch } = self.beside(space, &places).await?;
        let Some(epoch) = epoch else { return Ok(adopted) };
        let mut room = BTreeMap::new();
        for (&number, leases) in &places {
            let id = BlockId { space: space.clone(), number };
            // What was read a moment ago will do for the first attempt.
            let mut read = Some(blocks.remove(&number));
            let put = self.retry(async || self.try_put(&id, leases, epoch, read.take()).await).await;
            room.insert(number, put??);
        }
        self.retry(async || self.try_list(space, &room, epoch).await).await??;
        // In a space that has begun, somebody may have made room before the mark was there.
        self.recheck(room.into_keys().map(|number| BlockId { space: space.clone(), number }).collect(), false).await;
        Ok(adopted)
    }

    async fn beside(&self, space: &Space, places: &Places<'_>) -> Result<Beside, AdoptError> {
        let index = self.store.read_index(space).await?.map(|stored| stored.object);
        if let Some(reason) = index.as_ref().and_then(Index::frozen) {
            return Err(AdoptError::Frozen { space: space.clone(), reason: reason.to_owned() });
        }
        let mut blocks = BTreeMap::new();
        for (number, listed) in self.store.list_blocks(space).await? {
            blocks.insert(number, listed?);
        }
        let current = index.as_ref().map_or(0, Index::epoch);
        let mut is_unfinished = index.is_none();
        let mut adopted = Adopted::default();
        let mut conflicts = Vec::new();
        for (number, leases) in places {
            let id = BlockId { space: space.clone(), number: *number };
            let is_listed = index.as_ref().is_some_and(|index| index.existing().contains(*number));
            let block = blocks.get(number).map(|stored| &stored.object);
            if block.is_none() && is_listed {
                let reason = "it is listed in the index and gone; run `whereabouts repair` first".to_owned();
                return Err(ReadError::Unsound { object: format!("block {id}"), reason }.into());
            }
            // An earlier call may have ended between a block and the index.
            is_unfinished |= !is_listed || block.is_some_and(|block| block.epoch() > current);
            for &(offset, lease) in leases {
                match block.and_then(|block| block.get(offset)) {
                    None => adopted.n_added += 1,
                    Some(held_by) if is_same_holder(held_by, lease) => adopted.n_present += 1,
                    Some(held_by) => conflicts.push(conflict(&id, offset, lease, held_by)),
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(AdoptError::Held(conflicts));
        }
        let epoch = (adopted.n_added > 0 || is_unfinished).then_some(current.saturating_add(1));
        Ok(Beside { blocks, adopted, epoch })
    }

    /// Puts the leases that are missing into a block, and says what room is left.
    async fn try_put(
        &self,
        id: &BlockId,
        leases: &[(Offset, &Lease)],
        epoch: u64,
        read: Option<Option<Stored<Block>>>,
    ) -> Result<Result<Fullness, AdoptError>, ReadError> {
        let stored = match read {
            Some(stored) => stored,
            None => self.store.read_block(id).await?,
        };
        let (expected, mut block) = match stored {
            Some(stored) => (stored.version, stored.object),
            None => (Version::absent(), Block::empty(epoch)),
        };
        if block.is_frozen() {
            let reason = format!("block {id} is");
            return Ok(Err(AdoptError::Frozen { space: id.space.clone(), reason }));
        }
        let mut is_changed = false;
        for &(offset, lease) in leases {
            match block.get(offset) {
                None => {
                    block.insert(offset, lease.clone());
                    is_changed = true;
                }
                Some(held_by) if is_same_holder(held_by, lease) => {}
                Some(held_by) => return Ok(Err(AdoptError::Held(vec![conflict(id, offset, lease, held_by)]))),
            }
        }
        if is_changed {
            block.set_frozen(false, epoch.max(block.epoch()));
            block.advance();
            self.swap_now(expected, Object::Block(id.clone(), block.clone().into())).await?;
        }
        Ok(Ok(block.fullness()))
    }

    /// Lists the blocks as existing, in a new epoch.
    async fn try_list(
        &self,
        space: &Space,
        room: &BTreeMap<BlockNumber, Fullness>,
        epoch: u64,
    ) -> Result<Result<(), AdoptError>, ReadError> {
        let (expected, mut index) = match self.store.read_index(space).await? {
            Some(stored) => (stored.version, stored.object),
            None => (Version::absent(), Index::empty(0)),
        };
        if let Some(reason) = index.frozen() {
            return Ok(Err(AdoptError::Frozen { space: space.clone(), reason: reason.to_owned() }));
        }
        for (&number, &fullness) in room {
            index.existing.insert(number);
            if index.mark(number) < fullness {
                index.set_mark(number, fullness);
            }
        }
        // Written in any case: another migration may have raised it, before these leases were there to be learned.
        index.epoch = epoch.max(index.epoch.saturating_add(1));
        index.advance();
        self.swap_now(expected, Object::Index(space.clone(), index.into())).await?;
        Ok(Ok(()))
    }
}

fn by_block(leases: &[(Address, Lease)]) -> Places<'_> {
    let mut places = Places::new();
    for (address, lease) in leases {
        places.entry(BlockNumber::of(*address)).or_default().push((Offset::of(*address), lease));
    }
    places
}

/// Whether a lease that is there is the one that is to be taken over, perhaps renewed since by its pod.
fn is_same_holder(there: &Lease, lease: &Lease) -> bool {
    let (there_through, through) = (&there.attachment, &lease.attachment);
    let is_interface = there_through.interface == through.interface;
    let names = |lease: &Lease| lease.owner.pod().map(|pod| (pod.namespace.clone(), pod.name.clone()));
    let is_pod = names(there).is_some() && names(there) == names(lease);
    is_interface && (is_pod || there_through.container == through.container)
}

fn conflict(id: &BlockId, offset: Offset, adopted: &Lease, held_by: &Lease) -> AdoptConflict {
    AdoptConflict {
        space: id.space.clone(),
        address: id.address_at(offset),
        adopted: Box::new(adopted.clone()),
        held_by: Box::new(held_by.clone()),
    }
}
