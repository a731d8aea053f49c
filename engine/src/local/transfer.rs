//! Import: put leases of a backup back, and never beside another holder.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ipnet::IpNet;

use super::report::each_live_block;
use super::{Holding, Ledger, LedgerError};
use crate::address::Address;
use crate::block::Block;
use crate::index::Index;
use crate::intent::{AttachmentRow, HeldAddress, Past};
use crate::interval::Range;
use crate::lease::{BootId, Lease};
use crate::ledger::{Journal, RowsMut, StorageError, Tables};
use crate::offset::Offset;
use crate::operations::Environment;
use crate::space::{BlockId, Pool, Sharing, Space};

/// What became of the holdings of a backup.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Imported {
    /// How many are held now and were not before.
    pub n_added: usize,
    /// How many were held here already by the same owner or attachment, and stay as they are.
    pub n_present: usize,
    /// How many are over, because the boot that they died with is not the one that this ledger knows.
    pub n_over: usize,
}

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
    /// The backup uses a pool in one way, and it is in use here, or elsewhere in the backup, in the other one. Nothing
    /// was changed.
    #[error(
        "pool {pool} is {} in the backup, but {address} is held in it as {held_as}; release those first, or leave \
         this pool out of the backup", held_as.other()
    )]
    Sharing {
        /// The pool.
        pool: Pool,
        /// How it is in use.
        held_as: Sharing,
        /// An address that is held in that way.
        address: Address,
    },
    /// An address does not belong to its space.
    #[error("address {address} is not of {space}; mend the backup")]
    WrongFamily {
        /// The address.
        address: Address,
        /// The space.
        space: Space,
    },
    /// An address is held for a pool that does not have it.
    #[error("address {address} is held for {pool} in {space}, which does not have it; mend the backup")]
    NotInPool {
        /// The address.
        address: Address,
        /// The pool's CIDR.
        pool: IpNet,
        /// The space.
        space: Space,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Ledger {
    /// Puts holdings back, all or none. Where the same owner or attachment holds an address already, that lease stays.
    ///
    /// # Errors
    /// [`ImportError`]; then nothing was changed.
    pub fn import(&self, holdings: &[Holding]) -> Result<Imported, ImportError> {
        let backup = Backup::new(holdings)?;
        let answer = self.change(async |host| {
            host.journal.record(|tables| {
                let compared = match backup.beside(tables, host.boot)? {
                    Ok(compared) => compared,
                    Err(refused) => return Ok(Err(refused)),
                };
                put_back(tables, &compared.missing, host.boot, host.environment)?;
                Ok(Ok(compared.imported))
            })
        });
        answer.map_err(ImportError::Ledger)?
    }

    /// Says what [`Ledger::import`] would do now, and changes nothing: for a backup that is put back in parts, so that
    /// none of it is where a part would be refused.
    ///
    /// # Errors
    /// [`ImportError`], as `import` would return it.
    pub fn would_import(&self, holdings: &[Holding]) -> Result<Imported, ImportError> {
        let backup = Backup::new(holdings)?;
        let answer = self.look(async |host| {
            host.journal.record(|tables| Ok(backup.beside(tables, host.boot)?.map(|compared| compared.imported)))
        });
        answer.map_err(ImportError::Ledger)?
    }
}

/// A backup that does not contradict itself.
struct Backup<'h> {
    places: Places<'h>,
    pools: BTreeMap<Pool, Sharing>,
}

impl<'h> Backup<'h> {
    fn new(holdings: &'h [Holding]) -> Result<Self, ImportError> {
        Ok(Self { places: by_block(holdings)?, pools: pools_of(holdings)? })
    }

    /// What of it is here, what is missing, or why it cannot be put back.
    fn beside<R: RowsMut>(
        &self,
        tables: &Tables<R>,
        boot: BootId,
    ) -> Result<Result<Compared<'h>, ImportError>, StorageError> {
        if let Some(refused) = find_other_use(tables, &self.pools, boot)? {
            return Ok(Err(refused));
        }
        let mut compared = compare(tables, &self.places, boot)?;
        if !compared.conflicts.is_empty() {
            return Ok(Err(ImportError::Conflicts(compared.conflicts)));
        }
        compared.imported.n_added = compared.missing.values().map(Vec::len).sum();
        Ok(Ok(compared))
    }
}

type Places<'h> = BTreeMap<BlockId, Vec<(Offset, &'h Lease)>>;

/// The holdings of a backup beside what is here.
#[derive(Default)]
struct Compared<'h> {
    conflicts: Vec<ImportConflict>,
    missing: Places<'h>,
    imported: Imported,
}

fn by_block(holdings: &[Holding]) -> Result<Places<'_>, ImportError> {
    let mut places = Places::new();
    for Holding { space, address, lease } in holdings {
        let wrong = || ImportError::WrongFamily { address: *address, space: space.clone() };
        let block = space.block_of(*address).ok_or_else(wrong)?;
        if !lease.is_for(space, *address) {
            return Err(ImportError::NotInPool { address: *address, pool: lease.pool, space: space.clone() });
        }
        places.entry(block).or_default().push((Offset::of(*address), lease));
    }
    Ok(places)
}

/// How the backup uses its pools.
fn pools_of(holdings: &[Holding]) -> Result<BTreeMap<Pool, Sharing>, ImportError> {
    let mut pools = BTreeMap::new();
    for Holding { space, address, lease } in holdings {
        let pool = Pool::new(space.network().clone(), lease.pool);
        let held_as = space.sharing();
        if *pools.entry(pool.clone()).or_insert(held_as) != held_as {
            return Err(ImportError::Sharing { pool, held_as, address: *address });
        }
    }
    Ok(pools)
}

/// Finds a pool that is in use here in the other way.
fn find_other_use<R: RowsMut>(
    tables: &Tables<R>,
    pools: &BTreeMap<Pool, Sharing>,
    boot: BootId,
) -> Result<Option<ImportError>, StorageError> {
    for (pool, &sharing) in pools {
        let held_as = sharing.other();
        let mut held = None;
        let range = Some(Range::from(pool.cidr()));
        let _ = each_live_block(tables, &pool.space(held_as), Some(boot), range, |id, block| {
            match block.iter().find(|(_, lease)| lease.pool == pool.cidr()) {
                Some((offset, _)) => {
                    held = Some(id.address_at(offset));
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            }
        })?;
        if let Some(address) = held {
            return Ok(Some(ImportError::Sharing { pool: pool.clone(), held_as, address }));
        }
    }
    Ok(None)
}

/// What others hold, and what nobody holds yet.
fn compare<'h, R: RowsMut>(
    tables: &Tables<R>,
    places: &Places<'h>,
    boot: BootId,
) -> Result<Compared<'h>, StorageError> {
    let mut compared = Compared::default();
    for (id, leases) in places {
        let mut block = tables.block(id)?.unwrap_or_default();
        for &(offset, lease) in leases {
            if lease.is_of_an_earlier_boot(boot) {
                compared.imported.n_over += 1;
                continue;
            }
            match block.get(offset).filter(|held_by| !held_by.is_of_an_earlier_boot(boot)) {
                Some(held_by) if held_by.attachment == lease.attachment || held_by.owner.is_same(&lease.owner) => {
                    compared.imported.n_present += 1;
                }
                Some(held_by) => compared.conflicts.push(ImportConflict {
                    space: id.space.clone(),
                    address: id.address_at(offset),
                    imported: Box::new(lease.clone()),
                    held_by: Box::new(held_by.clone()),
                }),
                None => {
                    compared.missing.entry(id.clone()).or_default().push((offset, lease));
                    // A backup that names an address twice is in conflict with itself.
                    block.insert(offset, lease.clone());
                }
            }
        }
    }
    Ok(compared)
}

fn put_back<R: RowsMut>(
    tables: &mut Tables<R>,
    missing: &Places<'_>,
    boot: BootId,
    environment: &impl Environment,
) -> Result<(), StorageError> {
    for (id, leases) in missing {
        let mut index = tables.index(&id.space)?.unwrap_or_else(|| Index::empty(0));
        let mut block = tables.block(id)?.unwrap_or_else(|| Block::empty(index.epoch()));
        for &(offset, lease) in leases {
            if let Some(over) = block.insert(offset, lease.clone()) {
                tables.forget_lease(id, offset, &over)?;
                tables.add_past(&Past { block: id.clone(), offset, lease: over, until: environment.now() })?;
            }
            let mut row = tables.attachment(&lease.attachment)?.unwrap_or_else(|| AttachmentRow {
                store: "".into(),
                boot: lease.boot.unwrap_or(boot),
                recorded: environment.boot_clock(),
                held: Vec::new(),
            });
            let operation = lease.operation;
            row.held.push(HeldAddress { block: id.clone(), offset, operation, lease: None });
            tables.set_attachment(&lease.attachment, &row)?;
            tables.add_owner_address(id, offset, lease)?;
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
