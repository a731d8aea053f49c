//! Verify: walk every table and say what disagrees.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::report::{boot, is_live};
use super::{Ledger, LedgerError};
use crate::codec::{OwnerRow, Record};
use crate::index::Index;
use crate::intent::{AttachmentRow, Intent, Past, Seen};
use crate::ledger::{Rows, Spool, SpoolError, StorageError, Table, Tables, keys};
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
    #[error("{space} is frozen: {reason}; run `whereabouts repair`, with --local where no cluster is the store")]
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
    #[error(
        "the index calls {block} fuller than it is, so that some of its addresses are not handed out; `whereabouts \
             repair --local` mends it on one host, and so does the release of one of its addresses"
    )]
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
    /// The owner of an address would not find it again.
    #[error(
        "{address} is held by {by}, for whom there is no owner's row, so that its next container gets another address; \
         `whereabouts repair --local` mends it"
    )]
    NoOwner {
        /// The address.
        address: crate::Address,
        /// Who holds it.
        by: String,
    },
    /// The spool cannot be used, or part of it is damaged.
    #[error("{0}")]
    Spool(String),
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
    /// Every live lease, and what was found of it elsewhere.
    leases: BTreeMap<(BlockId, Offset), (crate::Lease, Found)>,
    /// Leases of an earlier boot, whose rows are still there and may be.
    over: BTreeMap<(BlockId, Offset), crate::OperationId>,
}

/// What of a lease was found beside its block.
#[derive(Clone, Copy, Default)]
struct Found {
    by_attachment: bool,
    by_owner: bool,
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
        verified.disagreements.extend(spool_damage(self.file.path()).map(Disagreement::Spool));
        Ok(verified)
    }
}

/// What is wrong with the spool. One that is not there yet is made by the next one who opens the ledger to write.
fn spool_damage(ledger: &Path) -> Option<String> {
    match Spool::peek(ledger) {
        Ok(spooled) if spooled.n_damaged > 0 => Some(format!(
            "{} releases in the spool of {} are damaged; the next GC frees what they were to free",
            spooled.n_damaged,
            ledger.display()
        )),
        Ok(_) | Err(SpoolError::Missing { .. }) => None,
        Err(error) => Some(error.to_string()),
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
        Some(space) => {
            if let Some(reason) = index.frozen() {
                let (space, reason) = (space.clone(), reason.to_owned());
                walk.result.disagreements.push(Disagreement::Frozen { space, reason });
            }
            indexes.insert(space, index);
        }
        None => walk.strange(Table::Indexes, key),
    })?;
    let mut blocks = BTreeMap::new();
    walk.each::<crate::Block, R>(tables, Table::Blocks, |walk, key, block| {
        let Some(id) = keys::to_block(key) else { return walk.strange(Table::Blocks, key) };
        for (offset, lease) in block.iter() {
            if is_live(lease, boot) {
                walk.hold_pool_against(&id, offset, lease);
                walk.leases.insert((id.clone(), offset), (lease.clone(), Found::default()));
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
    for ((id, offset), (lease, found)) in &walk.leases {
        let (address, by) = (id.address_at(*offset), lease.to_string());
        if !found.by_attachment {
            walk.result.disagreements.push(Disagreement::NoAttachment { address, by });
        } else if !found.by_owner && keys::owner(&id.space, &lease.owner, &lease.attachment.interface).is_some() {
            walk.result.disagreements.push(Disagreement::NoOwner { address, by });
        }
    }
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
                Some((lease, found)) if lease.operation == held.operation && lease.attachment == *attachment => {
                    found.by_attachment = true;
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
            let is_held = self.leases.get_mut(&place).is_some_and(|(lease, found)| {
                let is_its = lease.operation == known.operation
                    && keys::owner(&space, &lease.owner, &lease.attachment.interface).as_deref() == Some(key);
                found.by_owner |= is_its;
                is_its
            });
            if !is_held && !self.over.contains_key(&place) {
                self.result.disagreements.push(Disagreement::Owner { space: space.clone(), address });
            }
        }
    }
}
