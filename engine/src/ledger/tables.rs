//! The tables of a ledger, with their types.

use std::ops::ControlFlow;

use super::error::StorageError;
use super::keys;
use super::meta::{FullRow, HostRow, IdentityRow, SharingRow, StoreRow};
use super::rows::{Rows, RowsMut, Table};
use crate::block::{Block, Fullness};
use crate::codec::{OwnerAddress, OwnerRow, Record};
use crate::index::Index;
use crate::intent::{AttachmentRow, Intent, Past, Seen};
use crate::interval::Range;
use crate::lease::{Attachment, Lease, OperationId, Owner};
use crate::offset::{BlockNumber, Offset};
use crate::space::{BlockId, Pool, Sharing, Space};

/// How many past leases are kept.
pub(crate) const HISTORY_MAX: u64 = 100_000;

const IDENTITY: &[u8] = b"identity";
const HOST: &[u8] = b"host";
const STORE: &[u8] = b"store";

/// The tables of a ledger, for as long as a transaction sees them.
#[derive(Debug)]
pub struct Tables<R>(pub(crate) R);

fn decode<T: Record>(table: Table, key: &[u8], record: &[u8]) -> Result<T, StorageError> {
    T::decode(key, record).map_err(|source| StorageError::damaged(table, key, source))
}

impl<R: Rows> Tables<R> {
    fn row<T: Record>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StorageError> {
        self.0.get(table, key)?.map(|record| decode(table, key, &record)).transpose()
    }

    /// Visits the rows whose keys begin with `prefix`.
    fn each<T: Record>(
        &self,
        table: Table,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], T) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<(), StorageError> {
        self.0.scan(table, prefix, &mut |key, record| {
            if !key.starts_with(prefix) {
                return Ok(ControlFlow::Break(()));
            }
            visit(key, decode(table, key, record)?)
        })
    }

    /// The rows themselves, for a walk that must go on where one cannot be read.
    pub(crate) fn rows(&self) -> &R {
        &self.0
    }

    /// Whether a row of the meta table can be read.
    pub(crate) fn check_meta(key: &[u8], record: &[u8]) -> Result<(), StorageError> {
        match key {
            IDENTITY => decode::<IdentityRow>(Table::Meta, key, record).map(drop),
            HOST => decode::<HostRow>(Table::Meta, key, record).map(drop),
            STORE => decode::<StoreRow>(Table::Meta, key, record).map(drop),
            _ if key.starts_with(keys::SHARING) => decode::<SharingRow>(Table::Meta, key, record).map(drop),
            _ if keys::to_full(key).is_some() => decode::<FullRow>(Table::Meta, key, record).map(drop),
            _ => Err(StorageError::strange_key(Table::Meta, key)),
        }
    }

    /// Whether the ledger knows whose it is.
    pub(crate) fn has_identity(&self) -> Result<bool, StorageError> {
        Ok(self.0.get(Table::Meta, IDENTITY)?.is_some())
    }

    pub(crate) fn host(&self) -> Result<Option<HostRow>, StorageError> {
        self.row(Table::Meta, HOST)
    }

    pub(crate) fn identity(&self) -> Result<Option<IdentityRow>, StorageError> {
        self.row(Table::Meta, IDENTITY)
    }

    /// The store that this ledger belongs to, where it is none itself.
    pub(crate) fn store(&self) -> Result<Option<StoreRow>, StorageError> {
        self.row(Table::Meta, STORE)
    }

    pub(crate) fn sharing(&self, pool: &Pool) -> Result<Option<Sharing>, StorageError> {
        Ok(self.row::<SharingRow>(Table::Meta, &keys::sharing(pool))?.map(|row| row.0))
    }

    /// The pools that were ever used, and how; those of which that can be read.
    pub(crate) fn pools(&self) -> Result<Vec<(Pool, Sharing)>, StorageError> {
        let mut pools = Vec::new();
        self.0.scan(Table::Meta, keys::SHARING, &mut |key, record| {
            let Some(of_pool) = key.strip_prefix(keys::SHARING) else { return Ok(ControlFlow::Break(())) };
            let space = keys::to_space(of_pool);
            let pool = space.and_then(|space| Some(Pool::new(space.network().clone(), space.private_cidr()?)));
            pools.extend(pool.zip(SharingRow::decode(key, record).ok().map(|row| row.0)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(pools)
    }

    /// When a range was found full, as far as that can be read: it is a hint.
    pub(crate) fn full(&self, space: &Space, range: Range) -> Result<Option<FullRow>, StorageError> {
        match self.row(Table::Meta, &keys::full(space, range)) {
            Err(error) if error.is_of_one_row() => Ok(None),
            row => row,
        }
    }

    /// The index of a space: the truth where the ledger is the store, what was read last where it is not.
    pub(crate) fn index(&self, space: &Space) -> Result<Option<Index>, StorageError> {
        self.row(Table::Indexes, &keys::space(space))
    }

    /// The spaces that have an index.
    pub(crate) fn spaces(&self) -> Result<Vec<Space>, StorageError> {
        let mut spaces = Vec::new();
        self.0.scan(Table::Indexes, &[], &mut |key, _| {
            spaces.push(keys::to_space(key).ok_or_else(|| StorageError::strange_key(Table::Indexes, key))?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(spaces)
    }

    pub(crate) fn block(&self, id: &BlockId) -> Result<Option<Block>, StorageError> {
        self.row(Table::Blocks, &keys::block(id))
    }

    /// Visits the blocks of a space, ascending, from `first` on.
    pub(crate) fn each_block_from(
        &self,
        space: &Space,
        first: Option<BlockNumber>,
        mut visit: impl FnMut(BlockId, Block) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<(), StorageError> {
        let prefix = keys::space(space);
        let from =
            first.map_or_else(|| prefix.clone(), |number| keys::block(&BlockId { space: space.clone(), number }));
        self.0.scan(Table::Blocks, &from, &mut |key, record| {
            if !key.starts_with(&prefix) {
                return Ok(ControlFlow::Break(()));
            }
            let id = keys::to_block(key).ok_or_else(|| StorageError::strange_key(Table::Blocks, key))?;
            visit(id, decode(Table::Blocks, key, record)?)
        })
    }

    pub(crate) fn attachment(&self, attachment: &Attachment) -> Result<Option<AttachmentRow>, StorageError> {
        self.row(Table::Attachments, &keys::attachment(attachment))
    }

    /// The attachments of one interface of a container, whatever their CNI network.
    pub(crate) fn attachments_of(
        &self,
        container: &str,
        interface: &str,
    ) -> Result<Vec<(Attachment, AttachmentRow)>, StorageError> {
        self.attachments_from(&keys::attachments_of(container, interface))
    }

    /// The attachments of a container.
    pub(crate) fn attachments_of_container(
        &self,
        container: &str,
    ) -> Result<Vec<(Attachment, AttachmentRow)>, StorageError> {
        self.attachments_from(&keys::attachments_of_container(container))
    }

    fn attachments_from(&self, prefix: &[u8]) -> Result<Vec<(Attachment, AttachmentRow)>, StorageError> {
        let mut found = Vec::new();
        self.each_attachment(prefix, |attachment, row| {
            found.push((attachment, row));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Visits the attachments whose keys begin with `prefix`.
    pub(crate) fn each_attachment(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(Attachment, AttachmentRow) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<(), StorageError> {
        self.each(Table::Attachments, prefix, |key, row| {
            let attachment =
                keys::to_attachment(key).ok_or_else(|| StorageError::strange_key(Table::Attachments, key))?;
            visit(attachment, row)
        })
    }

    /// Visits every attachment; a row that cannot be read comes as the error that it is, and the walk goes on.
    pub(crate) fn each_attachment_or_error(
        &self,
        mut visit: impl FnMut(Result<(Attachment, AttachmentRow), StorageError>),
    ) -> Result<(), StorageError> {
        self.0.scan(Table::Attachments, &[], &mut |key, record| {
            let attachment = keys::to_attachment(key).ok_or_else(|| StorageError::strange_key(Table::Attachments, key));
            visit(attachment.and_then(|attachment| Ok((attachment, decode(Table::Attachments, key, record)?))));
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The addresses of an owner in a space, on this node.
    pub(crate) fn owner(&self, space: &Space, owner: &Owner, interface: &str) -> Result<OwnerRow, StorageError> {
        let Some(key) = keys::owner(space, owner, interface) else { return Ok(OwnerRow::default()) };
        Ok(self.row(Table::Owners, &key)?.unwrap_or_default())
    }

    pub(crate) fn intent(&self, operation: OperationId) -> Result<Option<Intent>, StorageError> {
        self.row(Table::Intents, &operation.to_bytes())
    }

    /// All changes that are under way.
    pub(crate) fn intents(&self) -> Result<Vec<(OperationId, Intent)>, StorageError> {
        let mut intents = Vec::new();
        self.each(Table::Intents, &[], |key, intent| {
            let operation = key.try_into().map_err(|_| StorageError::strange_key(Table::Intents, key))?;
            intents.push((OperationId::from_bytes(operation), intent));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(intents)
    }

    pub(crate) fn seen_block(&self, id: &BlockId) -> Result<Option<Seen>, StorageError> {
        self.row(Table::Seen, &keys::block(id))
    }

    pub(crate) fn seen_index(&self, space: &Space) -> Result<Option<Seen>, StorageError> {
        self.row(Table::Seen, &keys::space(space))
    }

    /// Visits past leases, the earliest end first, from `from` on (milliseconds since 1970).
    pub(crate) fn each_past(
        &self,
        from: u64,
        mut visit: impl FnMut(Past) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<(), StorageError> {
        self.0.scan(Table::History, &from.to_be_bytes(), &mut |key, record| match decode(Table::History, key, record) {
            Ok(past) => visit(past),
            // It is of one address, and which is not known; `verify` tells it.
            Err(_) => Ok(ControlFlow::Continue(())),
        })
    }
}

impl<R: RowsMut> Tables<R> {
    fn put<T: Record>(&mut self, table: Table, key: &[u8], value: &T) -> Result<(), StorageError> {
        let record = value.encode(key).map_err(|source| StorageError::damaged(table, key, source))?;
        self.0.put(table, key, &record)
    }

    /// Forgets which boot leases die with. The next runtime's call says it anew; the marks of the indexes are cleared, as
    /// after any boot that may be over.
    pub(crate) fn forget_host(&mut self) -> Result<(), StorageError> {
        for space in self.spaces()? {
            if let Ok(Some(mut index)) = self.index(&space)
                && index.clear_marks()
            {
                self.set_index(&space, &index)?;
            }
        }
        self.delete(Table::Meta, HOST)
    }

    /// Sees to it that this host looks into a block again, whatever it remembers of the index and of the ranges that have
    /// addresses there.
    pub(crate) fn remember_room(&mut self, block: &BlockId) -> Result<(), StorageError> {
        let in_space = keys::full_in(&block.space);
        let mut outdated = Vec::new();
        self.0.scan(Table::Meta, &in_space, &mut |key, _| {
            if !key.starts_with(&in_space) {
                return Ok(ControlFlow::Break(()));
            }
            if keys::to_full(key).is_none_or(|(_, range)| block.number.part_of(range).is_some()) {
                outdated.push(key.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        outdated.iter().try_for_each(|key| self.delete(Table::Meta, key))?;
        let Some(mut index) = self.index(&block.space)? else { return Ok(()) };
        if index.set_mark(block.number, Fullness::Open) { self.set_index(&block.space, &index) } else { Ok(()) }
    }

    /// Notes that the store may have leases of this node which this ledger does not know.
    pub(crate) fn lacks_leases(&mut self) -> Result<(), StorageError> {
        match self.store()? {
            Some(row) if row.is_complete => self.set_store(&StoreRow { is_complete: false, ..row }),
            _ => Ok(()),
        }
    }

    /// Takes away what cannot be read of a container's interface, and notes that the store may know it.
    pub(crate) fn forget_unreadable(&mut self, container: &str, interface: &str) -> Result<(), StorageError> {
        let prefix = keys::attachments_of(container, interface);
        let mut unreadable = Vec::new();
        self.0.scan(Table::Attachments, &prefix, &mut |key, record| {
            if !key.starts_with(&prefix) {
                return Ok(ControlFlow::Break(()));
            }
            if keys::to_attachment(key).is_none() || AttachmentRow::decode(key, record).is_err() {
                unreadable.push(key.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        unreadable.iter().try_for_each(|key| self.delete(Table::Attachments, key))?;
        self.lacks_leases()
    }

    /// Takes a row away that cannot be read.
    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError> {
        self.0.delete(table, key)
    }

    /// Puts an owner's row in place, by its key.
    pub(crate) fn put_owner(&mut self, key: &[u8], row: &OwnerRow) -> Result<(), StorageError> {
        self.put(Table::Owners, key, row)
    }

    pub(crate) fn set_identity(&mut self, identity: &IdentityRow) -> Result<(), StorageError> {
        self.put(Table::Meta, IDENTITY, identity)
    }

    pub(crate) fn set_host(&mut self, host: &HostRow) -> Result<(), StorageError> {
        self.put(Table::Meta, HOST, host)
    }

    pub(crate) fn set_store(&mut self, store: &StoreRow) -> Result<(), StorageError> {
        self.put(Table::Meta, STORE, store)
    }

    pub(crate) fn set_sharing(&mut self, pool: &Pool, sharing: Sharing) -> Result<(), StorageError> {
        self.put(Table::Meta, &keys::sharing(pool), &SharingRow(sharing))
    }

    pub(crate) fn set_full(&mut self, space: &Space, range: Range, row: &FullRow) -> Result<(), StorageError> {
        self.put(Table::Meta, &keys::full(space, range), row)
    }

    pub(crate) fn forget_full(&mut self, space: &Space, range: Range) -> Result<(), StorageError> {
        self.delete(Table::Meta, &keys::full(space, range))
    }

    pub(crate) fn set_index(&mut self, space: &Space, index: &Index) -> Result<(), StorageError> {
        self.put(Table::Indexes, &keys::space(space), index)
    }

    pub(crate) fn set_block(&mut self, id: &BlockId, block: &Block) -> Result<(), StorageError> {
        self.put(Table::Blocks, &keys::block(id), block)
    }

    pub(crate) fn set_attachment(&mut self, attachment: &Attachment, row: &AttachmentRow) -> Result<(), StorageError> {
        self.put(Table::Attachments, &keys::attachment(attachment), row)
    }

    pub(crate) fn forget_attachment(&mut self, attachment: &Attachment) -> Result<(), StorageError> {
        self.0.delete(Table::Attachments, &keys::attachment(attachment))
    }

    /// Remembers where an owner's addresses are; none forgets the owner.
    fn set_owner(&mut self, space: &Space, owner: &Owner, interface: &str, row: &OwnerRow) -> Result<(), StorageError> {
        let Some(key) = keys::owner(space, owner, interface) else { return Ok(()) };
        if row.addresses.is_empty() { self.0.delete(Table::Owners, &key) } else { self.put(Table::Owners, &key, row) }
    }

    /// Remembers that a lease's address is its owner's.
    pub(crate) fn add_owner_address(
        &mut self,
        id: &BlockId,
        offset: Offset,
        lease: &Lease,
    ) -> Result<(), StorageError> {
        let (owner, interface) = (&lease.owner, &lease.attachment.interface);
        let mut row = self.owner(&id.space, owner, interface)?;
        let new = OwnerAddress { address: id.address_at(offset).number(), operation: lease.operation };
        match row.addresses.iter_mut().find(|known| known.address == new.address) {
            Some(known) if *known == new => return Ok(()),
            Some(known) => *known = new,
            None => row.addresses.push(new),
        }
        self.set_owner(&id.space, owner, interface, &row)
    }

    /// Takes a lease that is gone out of its attachment's and its owner's rows. Rows that speak of a newer operation
    /// at the same place stay.
    pub(crate) fn forget_lease(&mut self, id: &BlockId, offset: Offset, lease: &Lease) -> Result<(), StorageError> {
        self.forget_held(id, offset, lease)?;
        self.forget_owner(id, offset, lease)
    }

    /// Takes a lease out of its owner's row alone: the address has another owner now. A newer lease of the same owner at
    /// the same address stays. A row that cannot be read is left to whoever verifies the ledger: no address is held for
    /// longer because of it.
    pub(crate) fn forget_owner(&mut self, id: &BlockId, offset: Offset, lease: &Lease) -> Result<(), StorageError> {
        let (owner, interface) = (&lease.owner, &lease.attachment.interface);
        let mut row = match self.owner(&id.space, owner, interface) {
            Err(error) if error.is_of_one_row() => return Ok(()),
            row => row?,
        };
        let gone = OwnerAddress { address: id.address_at(offset).number(), operation: lease.operation };
        let before = row.addresses.len();
        row.addresses.retain(|known| *known != gone);
        if row.addresses.len() == before { Ok(()) } else { self.set_owner(&id.space, owner, interface, &row) }
    }

    /// Takes a lease out of its attachment's row alone: another attachment of the same owner has it now. A row that
    /// cannot be read is left, as in [`Self::forget_owner`].
    pub(crate) fn forget_held(&mut self, id: &BlockId, offset: Offset, lease: &Lease) -> Result<(), StorageError> {
        let mut row = match self.attachment(&lease.attachment) {
            Err(error) if error.is_of_one_row() => return Ok(()),
            Ok(None) => return Ok(()),
            Ok(Some(row)) => row,
            Err(error) => return Err(error),
        };
        let before = row.held.len();
        row.held.retain(|held| held.block != *id || held.offset != offset || held.operation != lease.operation);
        if row.held.len() == before {
            Ok(())
        } else if row.held.is_empty() {
            self.forget_attachment(&lease.attachment)
        } else {
            self.set_attachment(&lease.attachment, &row)
        }
    }

    pub(crate) fn set_intent(&mut self, operation: OperationId, intent: &Intent) -> Result<(), StorageError> {
        self.put(Table::Intents, &operation.to_bytes(), intent)
    }

    pub(crate) fn close_intent(&mut self, operation: OperationId) -> Result<(), StorageError> {
        self.0.delete(Table::Intents, &operation.to_bytes())
    }

    pub(crate) fn set_seen_block(&mut self, id: &BlockId, seen: &Seen) -> Result<(), StorageError> {
        self.put(Table::Seen, &keys::block(id), seen)
    }

    pub(crate) fn set_seen_index(&mut self, space: &Space, seen: &Seen) -> Result<(), StorageError> {
        self.put(Table::Seen, &keys::space(space), seen)
    }

    /// Adds a past lease, and lets the earliest go when there are more than [`HISTORY_MAX`].
    pub(crate) fn add_past(&mut self, past: &Past) -> Result<(), StorageError> {
        self.add_past_within(past, HISTORY_MAX)
    }

    fn add_past_within(&mut self, past: &Past, most: u64) -> Result<(), StorageError> {
        let key = keys::history(past.until, past.lease.operation, &past.block, past.offset.get());
        self.put(Table::History, &key, past)?;
        let mut surplus = self.0.count(Table::History)?.saturating_sub(most);
        if surplus == 0 {
            return Ok(());
        }
        let mut earliest = Vec::new();
        self.0.scan(Table::History, &[], &mut |key, _| {
            if surplus == 0 {
                return Ok(ControlFlow::Break(()));
            }
            surplus -= 1;
            earliest.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        earliest.iter().try_for_each(|key| self.0.delete(Table::History, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseState;
    use crate::ledger::Journal;
    use crate::ledger::memory::MemoryLedger;
    use crate::{Family, Network};

    /// A lease that ended then.
    fn past(until: u64, offset: u8) -> Past {
        let number = BlockNumber::new(Family::V4, 10 << 16).unwrap();
        let lease = Lease {
            state: LeaseState::Active,
            operation: OperationId::from_bytes(until.to_be_bytes()),
            attachment: Attachment::new("c", "eth0", "net"),
            owner: Owner::Container,
            node: "n".into(),
            boot: None,
            pool: "10.0.0.0/24".parse().unwrap(),
            provider: None,
            since: 0,
        };
        let block = BlockId { space: Space::shared(Network::unnamed(), Family::V4), number };
        Past { block, offset: Offset::from(offset), lease, until }
    }

    fn ends(ledger: &MemoryLedger) -> Vec<u64> {
        let look = ledger.look(|tables| {
            let mut ends = Vec::new();
            tables.each_past(0, |past| {
                ends.push(past.until);
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(ends)
        });
        look.unwrap()
    }

    /// However late a lease is written down that ended early, as by a clock that goes back.
    #[test]
    fn the_earliest_of_the_history_go_and_the_newest_stay() {
        const MOST: usize = 5;
        let ledger = MemoryLedger::default();
        let mut expected = Vec::new();
        // 300 needs a second byte of the key, where the lowest would be the highest in the other order of bytes.
        for (offset, until) in (1..).zip([7, 300, 2, 9, 255, 256, 1, 8, 301, 3]) {
            ledger.record(|tables| tables.add_past_within(&past(until, offset), MOST as u64)).unwrap();
            expected.push(until);
            expected.sort_unstable();
            expected.drain(..expected.len().saturating_sub(MOST));
            assert_eq!(ends(&ledger), expected, "after {until}");
        }
        assert_eq!(expected, [9, 255, 256, 300, 301]);
        // All that is too much goes at once, and what is kept is that of every ledger.
        ledger.record(|tables| tables.add_past_within(&past(400, 0), 2)).unwrap();
        assert_eq!(ends(&ledger), [301, 400]);
        ledger.record(|tables| tables.add_past(&past(500, 0))).unwrap();
        assert_eq!((ends(&ledger).len(), HISTORY_MAX), (3, 100_000), "as the documents say");
    }
}
