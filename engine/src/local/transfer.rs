//! Import: put leases of a backup back, and never beside another holder.

use std::collections::BTreeMap;

use super::{Holding, Ledger, LedgerError};
use crate::address::Address;
use crate::block::Block;
use crate::index::Index;
use crate::intent::{AttachmentRow, HeldAddress};
use crate::lease::{BootId, Lease};
use crate::ledger::{Journal, RowsMut, StorageError, Tables};
use crate::offset::Offset;
use crate::operations::Environment;
use crate::space::{BlockId, Pool, Space};

/// An address that a backup gives to one and this ledger to another.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportConflict {
    /// The space.
    pub space: Space,
    /// The address.
    pub address: Address,
    /// Who holds it by the backup.
    pub imported: Box<Lease>,
    /// Who holds it here.
    pub held_by: Box<Lease>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Addresses of the backup are held by others here. Nothing was changed.
    #[error(
        "{} addresses of the backup are held by others, {} among them; release those first, or leave them out of the backup",
        .0.len(), .0.first().map_or_else(String::new, |first| format!("{} (by {})", first.address, first.held_by))
    )]
    Conflicts(Vec<ImportConflict>),
    /// An address does not belong to its space.
    #[error("address {address} is not of {space}; mend the backup")]
    WrongFamily {
        /// The address.
        address: Address,
        /// The space.
        space: Space,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Ledger {
    /// Puts holdings back, all or none, and says how many were not there already. A holding that is there as it is in
    /// the backup stays as it is.
    ///
    /// # Errors
    /// [`ImportError`]; then nothing was changed.
    pub fn import(&self, holdings: &[Holding]) -> Result<usize, ImportError> {
        let places = by_block(holdings)?;
        let conflicts = self.change(async |host| {
            host.journal.record(|tables| {
                let (conflicts, missing) = compare(tables, &places, host.boot)?;
                if conflicts.is_empty() {
                    put_back(tables, &missing, host.boot, host.environment.boot_clock())?;
                }
                Ok((conflicts, missing.values().map(Vec::len).sum()))
            })
        });
        match conflicts.map_err(ImportError::Ledger)? {
            (conflicts, n_missing) if conflicts.is_empty() => Ok(n_missing),
            (conflicts, _) => Err(ImportError::Conflicts(conflicts)),
        }
    }
}

type Places<'h> = BTreeMap<BlockId, Vec<(Offset, &'h Lease)>>;

fn by_block(holdings: &[Holding]) -> Result<Places<'_>, ImportError> {
    let mut places = Places::new();
    for Holding { space, address, lease } in holdings {
        let wrong = || ImportError::WrongFamily { address: *address, space: space.clone() };
        let block = space.block_of(*address).ok_or_else(wrong)?;
        places.entry(block).or_default().push((Offset::of(*address), lease));
    }
    Ok(places)
}

/// What others hold, and what nobody holds yet.
fn compare<'h, R: RowsMut>(
    tables: &Tables<R>,
    places: &Places<'h>,
    boot: BootId,
) -> Result<(Vec<ImportConflict>, Places<'h>), StorageError> {
    let mut conflicts = Vec::new();
    let mut missing = Places::new();
    for (id, leases) in places {
        let mut block = tables.block(id)?.unwrap_or_default();
        for &(offset, lease) in leases {
            match block.get(offset) {
                Some(held_by) if !held_by.is_of_an_earlier_boot(boot) => {
                    if held_by.operation != lease.operation || held_by.attachment != lease.attachment {
                        conflicts.push(ImportConflict {
                            space: id.space.clone(),
                            address: id.address_at(offset),
                            imported: Box::new(lease.clone()),
                            held_by: Box::new(held_by.clone()),
                        });
                    }
                }
                _ => {
                    missing.entry(id.clone()).or_default().push((offset, lease));
                    // A backup that names an address twice is in conflict with itself.
                    block.insert(offset, lease.clone());
                }
            }
        }
    }
    Ok((conflicts, missing))
}

fn put_back<R: RowsMut>(
    tables: &mut Tables<R>,
    missing: &Places<'_>,
    boot: BootId,
    recorded: u64,
) -> Result<(), StorageError> {
    for (id, leases) in missing {
        let mut index = tables.index(&id.space)?.unwrap_or_else(|| Index::empty(0));
        let mut block = tables.block(id)?.unwrap_or_else(|| Block::empty(index.epoch()));
        for &(offset, lease) in leases {
            if let Some(over) = block.insert(offset, lease.clone()) {
                tables.forget_lease(id, offset, &over)?;
            }
            let mut row = tables.attachment(&lease.attachment)?.unwrap_or_else(|| AttachmentRow {
                store: "".into(),
                boot: lease.boot.unwrap_or(boot),
                recorded,
                held: Vec::new(),
            });
            let operation = lease.operation;
            row.held.push(HeldAddress { block: id.clone(), offset, operation, lease: None });
            tables.set_attachment(&lease.attachment, &row)?;
            let interface = &lease.attachment.interface;
            tables.add_owner_address(&id.space, &lease.owner, interface, id.address_at(offset))?;
            let pool = Pool::new(id.space.network().clone(), lease.pool);
            if tables.sharing(&pool)?.is_none() {
                tables.set_sharing(&pool, id.space.sharing())?;
            }
        }
        block.advance();
        tables.set_block(id, &block)?;
        let is_new = index.existing.insert(id.number);
        if index.mark(id.number) > block.fullness() && index.set_mark(id.number, block.fullness()) || is_new {
            index.advance();
            tables.set_index(&id.space, &index)?;
        }
    }
    Ok(())
}
