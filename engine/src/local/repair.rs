//! Repair: put together again what of a ledger cannot be read, from what can.
//!
//! Who holds an address is written down three times: in its block, with the attachment, and with the owner. What is
//! damaged of one follows from the others. Nothing that can be read is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use ipnet::IpNet;

use super::{Ledger, LedgerError};
use crate::address::{Address, Family};
use crate::block::Block;
use crate::codec::{OwnerAddress, OwnerRow, Record};
use crate::host::HostFacts;
use crate::index::Index;
use crate::intent::{AttachmentRow, HeldAddress, Intent, Past};
use crate::interval::Range;
use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner};
use crate::ledger::{Journal, Rows, RowsMut, StorageError, Table, Tables, keys};
use crate::offset::Offset;
use crate::operations::Environment;
use crate::space::{BlockId, Pool, Sharing, Space};

/// What a repair has put together again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repaired {
    /// Blocks that could not be read, or were gone: they hold what the attachments say.
    pub blocks: Vec<BlockId>,
    /// Spaces whose index could not be read, was frozen, or did not fit the blocks.
    pub spaces: Vec<Space>,
    /// How many other rows were mended or, where they said nothing any more, taken away.
    pub n_rows: usize,
    /// What is free now, because it was to be released while it could not be read.
    pub freed: Vec<Address>,
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// What a block held is only known from the attachments, and one of those cannot be read either.
    #[error(
        "nothing was repaired: {block} cannot be read, nor what {attachment} holds, which may be in it; save what can be \
         read with `whereabouts export`, see that no container of this host has an address of that block any more, move \
         the ledger away, and put the export back with `whereabouts import`"
    )]
    Unknown {
        /// A block that cannot be read.
        block: BlockId,
        /// The attachment, or the row that should say which.
        attachment: String,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Everything in a ledger that can be read.
struct Remains {
    blocks: BTreeMap<BlockId, Block>,
    /// Blocks that cannot be read, or are listed and gone, as far as they are put together again.
    lost: BTreeMap<BlockId, Block>,
    /// The indexes; `None` where one cannot be read.
    indexes: BTreeMap<Space, Option<Index>>,
    attachments: BTreeMap<Attachment, AttachmentRow>,
    owners: BTreeMap<Vec<u8>, OwnerRow>,
    /// Pools that are in use, and how.
    pools: Vec<(Pool, Sharing)>,
    /// The keys of what cannot be read.
    unreadable: BTreeSet<(Table, Vec<u8>)>,
}

impl Ledger {
    /// Puts together again what cannot be read, and opens what is frozen, in one commit. A sound ledger stays as it is.
    ///
    /// Where it cannot be read which boot leases die with, that is forgotten first, in a commit of its own.
    ///
    /// # Errors
    /// [`RepairError`]; then nothing was changed.
    pub fn repair(&self) -> Result<Repaired, RepairError> {
        let is_host_unknown = self.read(|tables| Ok(tables.host().is_err_and(|error| error.is_of_one_row())))?;
        if is_host_unknown {
            self.write_rows(|tables| tables.forget_host())?;
        }
        let repaired = self.change(async |host| {
            let repaired = host.journal.record(|tables| {
                let mut remains = Remains::read(tables)?;
                if let Some(unknown) = remains.unknown() {
                    return Ok(Err(unknown));
                }
                remains.restore_lost(&self.facts, host.boot, host.environment.now());
                Ok(Ok(remains.write(tables, host.boot)?))
            })?;
            match repaired {
                Ok(mut repaired) => {
                    repaired.n_rows += usize::from(is_host_unknown);
                    repaired.freed = host.release_left_to_repair().await?;
                    Ok(Ok(repaired))
                }
                Err(unknown) => Ok(Err(unknown)),
            }
        });
        repaired.map_err(RepairError::Ledger)?
    }
}

// === impl Remains ===

impl Remains {
    fn read<R: Rows>(tables: &Tables<R>) -> Result<Self, StorageError> {
        let mut unreadable = BTreeSet::new();
        tables.rows().scan(Table::Meta, &[], &mut |key, record| {
            // How a pool is used follows from its leases when it is used next.
            if Tables::<R>::check_meta(key, record).is_err() {
                unreadable.insert((Table::Meta, key.to_vec()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut blocks = BTreeMap::new();
        let mut lost = BTreeMap::new();
        each::<Block, R>(tables, Table::Blocks, |key, block| match (keys::to_block(key), block) {
            (Some(id), Some(block)) => drop(blocks.insert(id, block)),
            (Some(id), None) => drop(lost.insert(id, Block::default())),
            (None, _) => {}
        })?;
        let mut indexes = BTreeMap::new();
        each::<Index, R>(tables, Table::Indexes, |key, index| {
            indexes.extend(keys::to_space(key).map(|space| (space, index)));
        })?;
        for (space, index) in &indexes {
            for number in index.iter().flat_map(|index| index.existing().iter()) {
                let id = BlockId { space: space.clone(), number };
                if !blocks.contains_key(&id) {
                    lost.entry(id).or_default();
                }
            }
        }
        let mut attachments = BTreeMap::new();
        each::<AttachmentRow, R>(tables, Table::Attachments, |key, row| match (keys::to_attachment(key), row) {
            (Some(attachment), Some(row)) => drop(attachments.insert(attachment, row)),
            _ => drop(unreadable.insert((Table::Attachments, key.to_vec()))),
        })?;
        let mut owners = BTreeMap::new();
        each::<OwnerRow, R>(tables, Table::Owners, |key, row| match row {
            Some(row) => drop(owners.insert(key.to_vec(), row)),
            None => drop(unreadable.insert((Table::Owners, key.to_vec()))),
        })?;
        each::<Past, R>(tables, Table::History, |key, past| {
            if past.is_none() {
                unreadable.insert((Table::History, key.to_vec()));
            }
        })?;
        each::<Intent, R>(tables, Table::Intents, |key, intent| {
            if intent.is_none() {
                unreadable.insert((Table::Intents, key.to_vec()));
            }
        })?;
        let pools = tables.pools()?;
        Ok(Self { blocks, lost, indexes, attachments, owners, pools, unreadable })
    }

    fn unknown(&self) -> Option<RepairError> {
        let block = self.lost.keys().next()?.clone();
        let (_, key) = self.unreadable.iter().find(|(table, _)| *table == Table::Attachments)?;
        let attachment = keys::to_attachment(key).map_or_else(|| "a strange row".to_owned(), |it| it.to_string());
        Some(RepairError::Unknown { block, attachment })
    }

    /// Fills the lost blocks with what the attachments hold in them.
    fn restore_lost(&mut self, facts: &HostFacts, boot: BootId, now: u64) {
        let mut owners: BTreeMap<(BlockId, Offset, OperationId), Owner> = BTreeMap::new();
        for (key, row) in &self.owners {
            let Some((space, owner)) = keys::to_owner(key) else { continue };
            for known in &row.addresses {
                let address = Address::new(space.family(), known.address);
                if let Some((block, address)) = address.and_then(|address| Some((space.block_of(address)?, address))) {
                    owners.insert((block, Offset::of(address), known.operation), owner.clone());
                }
            }
        }
        for (attachment, row) in &self.attachments {
            for held in &row.held {
                let owner = owners.get(&(held.block.clone(), held.offset, held.operation)).cloned();
                let owner = owner.unwrap_or(Owner::Container);
                let is_over = row.boot != boot && !owner.outlives_boots();
                let pool = self.pool_of(held);
                if let Some(block) = self.lost.get_mut(&held.block).filter(|_| row.store.is_empty() && !is_over) {
                    let lease = Lease {
                        state: LeaseState::Active,
                        operation: held.operation,
                        attachment: attachment.clone(),
                        node: facts.node.clone(),
                        boot: Some(row.boot).filter(|boot| *boot != BootId::UNKNOWN && !owner.outlives_boots()),
                        owner,
                        pool,
                        provider: None,
                        since: now,
                    };
                    block.insert(held.offset, lease);
                }
            }
        }
    }

    /// The pool that an address was taken for, as far as that can be told: the smallest in use that has it.
    fn pool_of(&self, held: &HeldAddress) -> IpNet {
        let (address, space) = (held.address(), &held.block.space);
        if let Some(cidr) = space.private_cidr() {
            return cidr;
        }
        let of_space = self.pools.iter().filter(|(pool, sharing)| pool.space(*sharing) == *space);
        let has_it = of_space.map(|(pool, _)| pool.cidr()).filter(|cidr| Range::from(*cidr).contains(address));
        let prefix = match space.family() {
            Family::V4 => 24,
            Family::V6 => 120,
        };
        let of_block = || IpNet::new(address.to_ip(), prefix).map(|net| net.trunc());
        has_it.max_by_key(IpNet::prefix_len).unwrap_or_else(|| of_block().unwrap_or_else(|_| address.to_ip().into()))
    }

    fn write<R: RowsMut>(self, tables: &mut Tables<R>, boot: BootId) -> Result<Repaired, StorageError> {
        let Self { mut blocks, lost, mut indexes, attachments, owners, unreadable, .. } = self;
        let mut repaired = Repaired { n_rows: unreadable.len(), ..Repaired::default() };
        for (table, key) in &unreadable {
            tables.delete(*table, key)?;
        }
        for (id, block) in lost {
            tables.set_block(&id, &block)?;
            repaired.blocks.push(id.clone());
            blocks.insert(id, block);
        }
        for id in blocks.keys() {
            indexes.entry(id.space.clone()).or_default();
        }
        for (space, index) in indexes {
            let of_space = || blocks.iter().filter(|(id, _)| id.space == space);
            let fits = index.as_ref().is_some_and(|index| {
                index.frozen().is_none()
                    && index.existing().len() == of_space().count() as u64
                    && of_space().all(|(id, block)| {
                        index.existing().contains(id.number) && index.mark(id.number) <= block.fullness()
                    })
            });
            if !fits {
                let mut new = Index::empty(index.as_ref().map_or(0, Index::epoch));
                for (id, block) in of_space() {
                    new.existing.insert(id.number);
                    new.set_mark(id.number, block.fullness());
                }
                new.advance();
                tables.set_index(&space, &new)?;
                repaired.spaces.push(space);
            }
        }
        let mut held: BTreeMap<Attachment, Vec<HeldAddress>> = BTreeMap::new();
        let mut of_owners: BTreeMap<Vec<u8>, Vec<OwnerAddress>> = BTreeMap::new();
        for (id, block) in &mut blocks {
            if block.is_frozen() {
                block.set_frozen(false, block.epoch());
                block.advance();
                tables.set_block(id, block)?;
            }
            for (offset, lease) in block.iter().filter(|(_, lease)| !lease.is_of_an_earlier_boot(boot)) {
                let operation = lease.operation;
                let place = HeldAddress { block: id.clone(), offset, operation, lease: None };
                let address = place.address().number();
                held.entry(lease.attachment.clone()).or_default().push(place);
                if let Some(key) = keys::owner(&id.space, &lease.owner, &lease.attachment.interface) {
                    of_owners.entry(key).or_default().push(OwnerAddress { address, operation });
                }
            }
        }
        for (attachment, mut places) in held {
            let row = attachments.get(&attachment).filter(|row| row.store.is_empty());
            // What is right stays in its order, and what an earlier boot left behind goes with its block.
            let before: Vec<HeldAddress> = row.map(|row| row.held.clone()).unwrap_or_default();
            places.retain(|place| !before.iter().any(|known| known == place));
            if !places.is_empty() || row.is_none() {
                let boot = row.map_or(boot, |row| row.boot);
                // When it was is not known, but before its row was damaged.
                let recorded = row.map_or(0, |row| row.recorded);
                let held = before.into_iter().chain(places).collect();
                tables.set_attachment(&attachment, &AttachmentRow { store: "".into(), boot, recorded, held })?;
                repaired.n_rows +=
                    usize::from(!unreadable.contains(&(Table::Attachments, keys::attachment(&attachment))));
            }
        }
        for key in owners.keys() {
            of_owners.entry(key.clone()).or_default();
        }
        for (key, places) in of_owners {
            let before = owners.get(&key).cloned().unwrap_or_default();
            let space = keys::to_owner(&key).map(|(space, _)| space);
            let is_held = |known: &OwnerAddress| {
                let address = Address::new(space.as_ref()?.family(), known.address)?;
                let block = blocks.get(&space.as_ref()?.block_of(address)?)?;
                Some(block.get(Offset::of(address))?.operation == known.operation)
            };
            let mut addresses: Vec<OwnerAddress> =
                before.addresses.iter().copied().filter(|known| is_held(known) == Some(true)).collect();
            addresses.retain(|known| places.iter().all(|new| new.address != known.address || new == known));
            let missing: Vec<OwnerAddress> = places.into_iter().filter(|place| !addresses.contains(place)).collect();
            addresses.extend(missing);
            if addresses.is_empty() {
                tables.delete(Table::Owners, &key)?;
            } else if addresses != before.addresses {
                tables.put_owner(&key, &OwnerRow { addresses: addresses.clone() })?;
            }
            let is_counted = addresses == before.addresses || unreadable.contains(&(Table::Owners, key));
            repaired.n_rows += usize::from(!is_counted);
        }
        Ok(repaired)
    }
}

/// Visits every row of a table, with what it says where that can be read.
fn each<T: Record, R: Rows>(
    tables: &Tables<R>,
    table: Table,
    mut visit: impl FnMut(&[u8], Option<T>),
) -> Result<(), StorageError> {
    tables.rows().scan(table, &[], &mut |key, record| {
        visit(key, T::decode(key, record).ok());
        Ok(ControlFlow::Continue(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Allocate, AllocateError, Disagreement, Network, OpenOptions, View, ViewSpec, Want};

    /// Nothing freezes a space of a host's own ledger; one that is frozen all the same must not stay so for good.
    #[test]
    fn a_frozen_space_is_told_and_opened() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&OpenOptions::new(folder.path().join("ledger.redb")), HostFacts::read()).unwrap();
        let range: IpNet = "10.0.0.0/24".parse().unwrap();
        let want = Want {
            pool: Pool::new(Network::unnamed(), range),
            sharing: Sharing::Shared,
            view: View::new(&ViewSpec::new(range)).unwrap().into(),
            exactly: None,
        };
        let add = |ledger: &Ledger, name: &str| {
            let (attachment, owner) = (Attachment::named(name), Owner::Named(name.into()));
            let request = Allocate { attachment, owner, wants: vec![want.clone()] };
            ledger.allocate(&[request]).unwrap().remove(0)
        };
        add(&ledger, "first").unwrap();
        let space = want.space();
        let freeze = ledger.change(async |host| {
            host.journal.record(|tables| {
                let mut index = tables.index(&space)?.unwrap_or_else(|| Index::empty(0));
                index.frozen = Some("by hand".to_owned());
                let id = space.block_of("10.0.0.1".parse().unwrap()).unwrap();
                let mut block = tables.block(&id)?.unwrap_or_default();
                block.set_frozen(true, 0);
                tables.set_block(&id, &block)?;
                tables.set_index(&space, &index)
            })
        });
        freeze.unwrap();
        assert!(matches!(add(&ledger, "second"), Err(AllocateError::Frozen { .. })));
        let found = ledger.verify().unwrap().disagreements;
        assert!(matches!(&found[..], [Disagreement::Frozen { .. }]), "{found:?}");
        assert_eq!(ledger.repair().unwrap().spaces, std::slice::from_ref(&space));
        assert_eq!(ledger.verify().unwrap().disagreements, []);
        assert_eq!(add(&ledger, "second").unwrap()[0].address, "10.0.0.2".parse().unwrap());
    }
}
