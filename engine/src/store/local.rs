//! The ledger as the store: blocks and indexes are rows of the transaction that also holds the journal.
//!
//! Only one process at a time has the transaction, so every swap is accepted, everything is durable at once or was
//! never there, and no future ever waits.

use std::cell::RefCell;
use std::future::{Future, ready};
use std::ops::ControlFlow;

use super::{Listed, Object, Outcome, Promises, ReadError, Store, Stored, Swap, Version};
use crate::block::Block;
use crate::index::Index;
use crate::intent::Past;
use crate::lease::BootId;
use crate::ledger::{Journal, RowsMut, StorageError, Tables};
use crate::offset::BlockNumber;
use crate::space::{BlockId, Space};

/// One transaction of a ledger, as the store and as the journal of the operations that run in it.
#[derive(Debug)]
pub(crate) struct Unit<R> {
    tables: RefCell<Tables<R>>,
    /// The boot that the ledger knows: leases of any other one are over.
    boot: BootId,
    /// Milliseconds since 1970, for the history of what a boot left behind.
    now: u64,
    /// Why a swap failed, after which nothing of the transaction may be kept.
    failure: RefCell<Option<StorageError>>,
}

// === impl Unit ===

impl<R: RowsMut> Unit<R> {
    pub(crate) fn new(tables: Tables<R>, boot: BootId, now: u64) -> Self {
        Self { tables: RefCell::new(tables), boot, now, failure: RefCell::new(None) }
    }

    /// Why nothing of the transaction may be kept, if so.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.failure.take()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn into_tables(self) -> Tables<R> {
        self.tables.into_inner()
    }

    /// The transaction is used by one future at a time, and none keeps it while it waits.
    fn with<T>(&self, work: impl FnOnce(&mut Tables<R>) -> Result<T, StorageError>) -> Result<T, StorageError> {
        let mut tables =
            self.tables.try_borrow_mut().map_err(|_| StorageError::io("the transaction is used twice at once"))?;
        work(&mut tables)
    }

    /// Reads a block and clears it of what an earlier boot left behind.
    fn block(&self, id: &BlockId) -> Result<Option<Block>, StorageError> {
        self.with(|tables| {
            let Some(mut block) = tables.block(id)? else { return Ok(None) };
            let over: Vec<_> = block
                .iter()
                .filter(|(_, lease)| lease.is_of_an_earlier_boot(self.boot))
                .map(|(offset, _)| offset)
                .collect();
            for &offset in &over {
                if let Some(lease) = block.remove(offset) {
                    tables.forget_lease(id, offset, &lease)?;
                    tables.add_past(&Past { block: id.clone(), offset, lease, until: self.now })?;
                }
            }
            if !over.is_empty() {
                block.advance();
                tables.set_block(id, &block)?;
            }
            Ok(Some(block))
        })
    }
}

fn unsound(error: StorageError) -> ReadError {
    ReadError::Unsound { object: "the ledger".to_owned(), reason: error.to_string() }
}

/// Any version but [`Version::absent`]: the transaction excludes every other writer.
fn present<T>(object: T) -> Stored<T> {
    Stored { version: Version::from_bytes(&[1]), identity: Vec::new(), object }
}

impl<R: RowsMut> Journal for Unit<R> {
    type Rows<'t> = R;
    type Snapshot<'t> = R;

    fn record<T>(
        &self,
        change: impl for<'t> FnOnce(&mut Tables<R>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.with(change)
    }

    fn look<T>(&self, look: impl for<'t> FnOnce(&Tables<R>) -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.with(|tables| look(tables))
    }
}

impl<R: RowsMut> Store for Unit<R> {
    fn promises(&self) -> Promises {
        Promises { several_at_once: true, one_transaction_with_journal: true }
    }

    fn read_index(&self, space: &Space) -> impl Future<Output = Result<Option<Stored<Index>>, ReadError>> {
        ready(self.with(|tables| tables.index(space)).map(|index| index.map(present)).map_err(unsound))
    }

    fn read_block(&self, block: &BlockId) -> impl Future<Output = Result<Option<Stored<Block>>, ReadError>> {
        ready(self.block(block).map(|block| block.map(present)).map_err(unsound))
    }

    fn swap(&self, swaps: Vec<Swap>) -> impl Future<Output = Vec<Outcome>> {
        let n = swaps.len();
        let put = self.with(|tables| {
            swaps.iter().try_for_each(|swap| match &swap.object {
                Object::Block(id, block) => tables.set_block(id, block),
                Object::Index(space, index) => tables.set_index(space, index),
            })
        });
        let outcome = match put {
            Ok(()) => Outcome::Accepted { version: Version::from_bytes(&[1]), identity: Vec::new() },
            // The transaction will not be committed, so what was put is gone with it.
            Err(error) => {
                let reason = error.to_string();
                self.failure.replace(Some(error));
                Outcome::Unknown { reason }
            }
        };
        ready(vec![outcome; n])
    }

    fn list_blocks(&self, space: &Space) -> impl Future<Output = Result<Vec<Listed<BlockNumber, Block>>, ReadError>> {
        ready(
            self.with(|tables| {
                let mut blocks = Vec::new();
                tables.each_block_from(space, None, |id, block| {
                    blocks.push((id.number, Ok(present(block))));
                    Ok(ControlFlow::Continue(()))
                })?;
                Ok(blocks)
            })
            .map_err(unsound),
        )
    }

    fn list_indexes(&self) -> impl Future<Output = Result<Vec<Listed<Space, Index>>, ReadError>> {
        ready(
            self.with(|tables| {
                let index = |space: Space| match tables.index(&space) {
                    Ok(index) => index.map(|index| (space, Ok(present(index)))),
                    Err(error) => Some((space, Err(unsound(error)))),
                };
                Ok(tables.spaces()?.into_iter().filter_map(index).collect())
            })
            .map_err(unsound),
        )
    }

    fn confirm(&self) -> impl Future<Output = Result<(), ReadError>> {
        ready(Ok(()))
    }
}
