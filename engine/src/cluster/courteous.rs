//! A store that lets others use the ledger while it is waited for.

use crate::block::Block;
use crate::index::Index;
use crate::ledger::FileJournal;
use crate::offset::BlockNumber;
use crate::space::{BlockId, Space};
use crate::store::{Listed, Outcome, Promises, ReadError, Store, Stored, Swap};

/// A store, and the journal that is closed before each of its requests.
#[derive(Debug)]
pub(super) struct Courteous<'a, S> {
    store: &'a S,
    journal: &'a FileJournal,
}

// === impl Courteous ===

impl<'a, S> Courteous<'a, S> {
    pub(super) fn new(store: &'a S, journal: &'a FileJournal) -> Self {
        Self { store, journal }
    }

    fn while_others_work(&self) -> &'a S {
        self.journal.let_go();
        self.store
    }
}

impl<S: Store> Store for Courteous<'_, S> {
    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn read_index(&self, space: &Space) -> Result<Option<Stored<Index>>, ReadError> {
        self.while_others_work().read_index(space).await
    }

    async fn read_block(&self, block: &BlockId) -> Result<Option<Stored<Block>>, ReadError> {
        self.while_others_work().read_block(block).await
    }

    async fn swap(&self, swaps: Vec<Swap>) -> Vec<Outcome> {
        self.while_others_work().swap(swaps).await
    }

    async fn list_blocks(&self, space: &Space) -> Result<Vec<Listed<BlockNumber, Block>>, ReadError> {
        self.while_others_work().list_blocks(space).await
    }

    async fn list_indexes(&self) -> Result<Vec<Listed<Space, Index>>, ReadError> {
        self.while_others_work().list_indexes().await
    }

    async fn confirm(&self) -> Result<(), ReadError> {
        self.while_others_work().confirm().await
    }
}
