//! Verify: walk every table and say what disagrees.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::report::{boot, is_live};
use super::{Ledger, LedgerError};
use crate::codec::{OwnerRow, Record};
use crate::index::Index;
use crate::intent::{AttachmentRow, Intent, Past, Seen};
use crate::ledger::{Rows, StorageError, Table, Tables, keys};
use crate::offset::Offset;
use crate::space::{BlockId, Space};
use crate::store::ReadError;

/// What a walk through a ledger found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// How many rows were read in all.
    pub n_rows: u64,
    /// How many addresses are held.
    pub n_held: u64,
    /// Whether the pages of the file were read too, and not only its rows: where it was opened to read.
    pub pages_checked: bool,
    /// What disagrees. A sound ledger has none.
    pub disagreements: Vec<Disagreement>,
}

/// Two things in a ledger that cannot both be right, or one that cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// The file's pages are not what was written.
    #[error("pages of the file are damaged; restore an export")]
    Pages,
    /// A row cannot be read.
    #[error("{0}")]
    Row(StorageError),
    /// An object of the store cannot be read.
    #[error("{0}; it is never overwritten: find out who changed it, take it away, and run `whereabouts repair`")]
    Unreadable(ReadError),
    /// Nobody gets an address of a space.
    #[error("{space} is frozen: {reason}; run `whereabouts repair`")]
    Frozen {
        /// The space.
        space: Space,
        /// Why.
        reason: String,
    },
    /// A block is there and the index does not list it, or the other way round.
    #[error("{block} is {}", if *listed { "listed in the index and gone" } else { "there, and not listed in the index" })]
    Listing {
        /// The block.
        block: BlockId,
        /// Whether the index lists it.
        listed: bool,
    },
    /// The index calls a block fuller than it is, so addresses of it are never handed out.
    #[error("the index calls {block} fuller than it is; release one of its addresses, or restore an export")]
    Mark {
        /// The block.
        block: BlockId,
    },
    /// An address is held, and its attachment does not know, so that its DEL would not free it.
    #[error(
        "{address} is held by {by}, whose attachment does not know of it; `whereabouts release {address}` frees it"
    )]
    NoAttachment {
        /// The address.
        address: crate::Address,
        /// Who holds it.
        by: String,
    },
    /// An address is held for a pool that does not have it.
    #[error(
        "{address} of {space} is held by {by} for {pool}, which does not have it; `whereabouts release {address}` frees it"
    )]
    NotInPool {
        /// The address.
        address: crate::Address,
        /// Who holds it.
        by: String,
        /// The pool's CIDR.
        pool: crate::IpNet,
        /// The space.
        space: Space,
    },
    /// An attachment says that it holds an address, and the block does not.
    #[error("attachment {attachment} claims {address}, which its block does not give to it")]
    NoLease {
        /// The attachment.
        attachment: crate::Attachment,
        /// The address.
        address: crate::Address,
    },
    /// An owner's row points at an address that the owner does not hold.
    #[error("an owner's row of {space} points at {address}, which that owner does not hold")]
    Owner {
        /// The space.
        space: Space,
        /// The address.
        address: crate::Address,
    },
}

/// What is found on the way, so that the tables can be held against each other.
#[derive(Default)]
struct Walk {
    result: Verified,
    /// Every live lease, and whether an attachment claimed it.
    leases: BTreeMap<(BlockId, Offset), (crate::Lease, bool)>,
    /// Leases of an earlier boot, whose rows are still there and may be.
    over: BTreeMap<(BlockId, Offset), crate::OperationId>,
}

impl Ledger {
    /// Walks every table, and every page of a file that was opened to read, and says what disagrees. A handle that
    /// writes cannot look at the pages, because redb would write what it repairs.
    ///
    /// # Errors
    /// [`LedgerError`] when the file cannot be read at all. What can be read and is wrong is in [`Verified`].
    #[expect(clippy::redundant_closure, reason = "the function is not general enough in its lifetime")]
    pub fn verify(&mut self) -> Result<Verified, LedgerError> {
        let is_reading = self.file.access() == crate::Access::Read;
        let pages_are_intact = !is_reading || self.file.pages_are_intact()?;
        let mut verified = self.read(|tables| walk(tables))?;
        verified.pages_checked = is_reading;
        if !pages_are_intact {
            verified.disagreements.insert(0, Disagreement::Pages);
        }
        Ok(verified)
    }
}

fn walk<R: Rows>(tables: &Tables<R>) -> Result<Verified, StorageError> {
    let mut walk = Walk::default();
    // A row that cannot be read is told when its table is walked.
    let boot = boot(tables).unwrap_or(None);
    tables.rows().scan(Table::Meta, &[], &mut |key, record| {
        walk.result.n_rows += 1;
        walk.result.disagreements.extend(Tables::<R>::check_meta(key, record).err().map(Disagreement::Row));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut indexes: BTreeMap<Space, Index> = BTreeMap::new();
    walk.each::<Index, R>(tables, Table::Indexes, |walk, key, index| match keys::to_space(key) {
        Some(space) => drop(indexes.insert(space, index)),
        None => walk.strange(Table::Indexes, key),
    })?;
    let mut blocks = BTreeMap::new();
    walk.each::<crate::Block, R>(tables, Table::Blocks, |walk, key, block| {
        let Some(id) = keys::to_block(key) else { return walk.strange(Table::Blocks, key) };
        for (offset, lease) in block.iter() {
            if is_live(lease, boot) {
                walk.hold_pool_against(&id, offset, lease);
                walk.leases.insert((id.clone(), offset), (lease.clone(), false));
            } else {
                walk.over.insert((id.clone(), offset), lease.operation);
            }
        }
        blocks.insert(id, block.fullness());
    })?;
    walk.hold_indexes_against(&indexes, &blocks);
    walk.each::<AttachmentRow, R>(tables, Table::Attachments, |walk, key, row| match keys::to_attachment(key) {
        Some(attachment) => walk.attachment(&attachment, row),
        None => walk.strange(Table::Attachments, key),
    })?;
    walk.each::<OwnerRow, R>(tables, Table::Owners, |walk, key, row| walk.owner(key, &row))?;
    walk.each::<Intent, R>(tables, Table::Intents, |_, _, _| {})?;
    walk.each::<Seen, R>(tables, Table::Seen, |_, _, _| {})?;
    walk.each::<Past, R>(tables, Table::History, |_, _, _| {})?;
    let lost = walk.leases.iter().filter(|(_, (_, claimed))| !claimed).map(|((id, offset), (lease, _))| {
        Disagreement::NoAttachment { address: id.address_at(*offset), by: lease.to_string() }
    });
    walk.result.disagreements.extend(lost);
    walk.result.n_held = u64::try_from(walk.leases.len()).unwrap_or(u64::MAX);
    Ok(walk.result)
}

// === impl Walk ===

impl Walk {
    /// Visits every row of a table that can be read, and writes down every one that cannot.
    fn each<T: Record, R: Rows>(
        &mut self,
        tables: &Tables<R>,
        table: Table,
        mut visit: impl FnMut(&mut Self, &[u8], T),
    ) -> Result<(), StorageError> {
        tables.rows().scan(table, &[], &mut |key, record| {
            self.result.n_rows += 1;
            match T::decode(key, record) {
                Ok(value) => visit(self, key, value),
                Err(source) => {
                    self.result.disagreements.push(Disagreement::Row(StorageError::damaged(table, key, source)));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn strange(&mut self, table: Table, key: &[u8]) {
        self.result.disagreements.push(Disagreement::Row(StorageError::strange_key(table, key)));
    }

    fn hold_pool_against(&mut self, id: &BlockId, offset: Offset, lease: &crate::Lease) {
        let address = id.address_at(offset);
        if !lease.is_for(&id.space, address) {
            let (by, pool, space) = (lease.to_string(), lease.pool, id.space.clone());
            self.result.disagreements.push(Disagreement::NotInPool { address, by, pool, space });
        }
    }

    fn hold_indexes_against(&mut self, indexes: &BTreeMap<Space, Index>, blocks: &BTreeMap<BlockId, crate::Fullness>) {
        for (block, &fullness) in blocks {
            let index = indexes.get(&block.space);
            if !index.is_some_and(|index| index.existing().contains(block.number)) {
                self.result.disagreements.push(Disagreement::Listing { block: block.clone(), listed: false });
            }
            if index.is_some_and(|index| index.mark(block.number) > fullness) {
                self.result.disagreements.push(Disagreement::Mark { block: block.clone() });
            }
        }
        for (space, index) in indexes {
            for number in index.existing().iter() {
                let block = BlockId { space: space.clone(), number };
                if !blocks.contains_key(&block) {
                    self.result.disagreements.push(Disagreement::Listing { block, listed: true });
                }
            }
        }
    }

    fn attachment(&mut self, attachment: &crate::Attachment, row: AttachmentRow) {
        if !row.store.is_empty() {
            return;
        }
        for held in row.held {
            let place = (held.block.clone(), held.offset);
            match self.leases.get_mut(&place) {
                Some((lease, claimed)) if lease.operation == held.operation && lease.attachment == *attachment => {
                    *claimed = true;
                }
                _ if self.over.get(&place) == Some(&held.operation) => {}
                _ => self
                    .result
                    .disagreements
                    .push(Disagreement::NoLease { attachment: attachment.clone(), address: held.address() }),
            }
        }
    }

    fn owner(&mut self, key: &[u8], row: &OwnerRow) {
        let Some(space) = keys::owner_space(key) else { return self.strange(Table::Owners, key) };
        for known in &row.addresses {
            let address = crate::Address::new(space.family(), known.address);
            let Some((address, id)) = address.and_then(|address| Some((address, space.block_of(address)?))) else {
                return self.strange(Table::Owners, key);
            };
            let place = (id, Offset::of(address));
            let is_held = self.leases.get(&place).is_some_and(|(lease, _)| {
                lease.operation == known.operation
                    && keys::owner(&space, &lease.owner, &lease.attachment.interface).as_deref() == Some(key)
            });
            if !is_held && !self.over.contains_key(&place) {
                self.result.disagreements.push(Disagreement::Owner { space: space.clone(), address });
            }
        }
    }
}
