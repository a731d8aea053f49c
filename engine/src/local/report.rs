//! What people ask a ledger: who holds what, who held it, how full a range is.

use std::ops::ControlFlow;

use super::{Ledger, LedgerError};
use crate::address::Address;
use crate::block::Block;
use crate::codec::Record;
use crate::host::HostEnvironment;
use crate::intent::{HeldAddress, Past};
use crate::interval::Range;
use crate::lease::{Attachment, BootId, Lease};
use crate::ledger::{Rows, StorageError, Table, Tables, keys};
use crate::offset::{BlockNumber, Offset};
use crate::operations::Environment;
use crate::space::{BlockId, Network, Space};
use crate::view::View;

/// An address and who holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    /// The space.
    pub space: Space,
    /// The address.
    pub address: Address,
    /// Who holds it.
    pub lease: Lease,
}

/// What holdings are asked for.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Only those of this network.
    pub network: Option<Network>,
    /// Only those within this range of addresses, both ends included.
    pub range: Option<Range>,
}

/// How full a range is.
#[derive(Clone, Debug, PartialEq)]
pub struct Occupancy {
    /// How many addresses can be handed out in all; `u128::MAX` for the 2^128 of all of IPv6.
    pub assignable: u128,
    /// How many of those are held.
    pub held: u128,
    /// How many addresses are held that the view would not hand out: they were before it was edited, or through
    /// another view.
    pub strays: u128,
    /// The address that would be handed out next.
    pub lowest_free: Option<Address>,
    /// The range cut into cells, ascending and without gaps.
    pub cells: Vec<Cell>,
    /// Each cell has 2 to the power of this many addresses and begins at a multiple of that. The first and the last
    /// one may reach out of the range, where nothing is counted.
    pub cell_bits: u32,
}

/// A part of a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cell {
    /// The lowest address of the cell, whether it is in the range or not.
    pub first: Address,
    /// How many addresses of the cell can be handed out.
    pub assignable: u128,
    /// How many of those are held.
    pub held: u128,
    /// How many addresses are held that the view would not hand out.
    pub strays: u128,
}

// === impl Ledger ===

impl Ledger {
    /// The spaces in which something was ever held.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn spaces(&self) -> Result<Vec<Space>, LedgerError> {
        self.read(|tables| tables.spaces())
    }

    /// Visits everything that is held, by space and address, until the visitor breaks.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn each_holding(
        &self,
        asked: &Holdings,
        mut visit: impl FnMut(Holding) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.read(|tables| {
            let boot = boot(tables)?;
            for space in tables.spaces()? {
                if asked.network.as_ref().is_some_and(|network| network != space.network()) {
                    continue;
                }
                let visited = each_live_block(tables, &space, boot, asked.range, |id, block| {
                    for (offset, lease) in block.iter() {
                        let address = id.address_at(offset);
                        if asked.range.is_none_or(|range| range.contains(address)) {
                            visit(Holding { space: space.clone(), address, lease: lease.clone() })?;
                        }
                    }
                    ControlFlow::Continue(())
                })?;
                if visited.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Visits everything that is held and can be read, by space and address, and steps over what cannot be read.
    /// Returns what was stepped over: who holds addresses there is not known, so they are not free.
    ///
    /// What this does not visit, [`Ledger::each_holding`] does not either: it ends with an error instead.
    pub fn each_readable_holding(&self, asked: &Holdings, mut visit: impl FnMut(Holding)) -> Vec<LedgerError> {
        let mut damage: Vec<LedgerError> = Vec::new();
        let walked = self.read(|tables| {
            // Without the boot, what ended with an earlier one is told as held, which is the lesser harm.
            let boot = boot(tables).unwrap_or_else(|error| {
                damage.push(error.into());
                None
            });
            // By the blocks alone, so that a lost row of an index hides nothing.
            tables.rows().scan(Table::Blocks, &[], &mut |key, record| {
                let Some(id) = keys::to_block(key) else {
                    damage.push(StorageError::strange_key(Table::Blocks, key).into());
                    return Ok(ControlFlow::Continue(()));
                };
                if !asked.may_be_in(&id) {
                    return Ok(ControlFlow::Continue(()));
                }
                match Block::decode(key, record) {
                    Ok(block) => {
                        for (offset, lease) in block.iter().filter(|(_, lease)| is_live(lease, boot)) {
                            let address = id.address_at(offset);
                            if asked.range.is_none_or(|range| range.contains(address)) {
                                visit(Holding { space: id.space.clone(), address, lease: lease.clone() });
                            }
                        }
                    }
                    Err(source) => damage.push(StorageError::damaged(Table::Blocks, key, source).into()),
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        damage.extend(walked.err());
        damage
    }

    /// Who holds an address now, in each space that has it.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn who(&self, address: Address) -> Result<Vec<Holding>, LedgerError> {
        self.read(|tables| {
            let boot = boot(tables)?;
            let mut found = Vec::new();
            for space in tables.spaces()? {
                let Some(id) = space.block_of(address) else { continue };
                let Some(block) = tables.block(&id)? else { continue };
                let lease = block.get(Offset::of(address)).filter(|lease| is_live(lease, boot));
                found.extend(lease.map(|lease| Holding { space, address, lease: lease.clone() }));
            }
            Ok(found)
        })
    }

    /// The addresses that an attachment holds.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn held_by(&self, attachment: &Attachment) -> Result<Vec<Address>, LedgerError> {
        self.read(|tables| {
            let row = tables.attachment(attachment)?;
            Ok(row.map(|row| row.held.iter().map(HeldAddress::address).collect()).unwrap_or_default())
        })
    }

    /// Who held an address in the past, the earliest end first. The ledger keeps the newest 100,000 in all.
    ///
    /// What died with an earlier boot ends when it is noticed: when its block is read by an operation, else now.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn history(&self, address: Address) -> Result<Vec<Past>, LedgerError> {
        self.read(|tables| {
            let mut found = Vec::new();
            tables.each_past(0, |past| {
                if past.address() == address {
                    found.push(past);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let boot = boot(tables)?;
            for space in tables.spaces()? {
                let Some(id) = space.block_of(address) else { continue };
                let Some(block) = tables.block(&id)? else { continue };
                let offset = Offset::of(address);
                let over = block.get(offset).filter(|lease| !is_live(lease, boot)).cloned();
                found.extend(over.map(|lease| Past { block: id, offset, lease, until: HostEnvironment.now() }));
            }
            Ok(found)
        })
    }

    /// The attachments of a container, or of whatever else holds addresses under that id.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn attachments(&self, container: &str) -> Result<Vec<Attachment>, LedgerError> {
        self.read(|tables| {
            let found = tables.attachments_of_container(container)?;
            Ok(found.into_iter().map(|(attachment, _)| attachment).collect())
        })
    }

    /// How full a range is for those who ask with this view, as a whole and in at most `n_cells` cells.
    ///
    /// `range` says what is looked at; the addresses of it that the view does not hand out are strays where they are
    /// held. Costs what reading the blocks of the range costs.
    ///
    /// ```
    /// # use whereabouts_engine::{Family, HostFacts, Ledger, Network, OpenOptions, Range, Space, View, ViewSpec};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let ledger = Ledger::open(&OpenOptions::new(folder.path().join("ledger.redb")), HostFacts::read())?;
    /// let network = "10.0.0.0/24".parse()?;
    /// let view = View::new(&ViewSpec::new(network))?;
    /// let space = Space::shared(Network::unnamed(), Family::V4);
    /// let occupancy = ledger.occupancy(&space, &view, Range::from(network), 4)?;
    /// assert_eq!((occupancy.assignable, occupancy.held), (254, 0));
    /// assert_eq!(occupancy.cells.iter().map(|cell| cell.assignable).collect::<Vec<_>>(), [63, 64, 64, 63]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn occupancy(&self, space: &Space, view: &View, range: Range, n_cells: u32) -> Result<Occupancy, LedgerError> {
        let mut occupancy = Occupancy::empty(view, range, n_cells);
        let first_cell = range.first().number() >> occupancy.cell_bits;
        // Addresses come in ascending order, so the lowest free one is found by counting along.
        let mut next = view.count_below(range.first());
        self.read(|tables| {
            let boot = boot(tables)?;
            let visited = each_live_block(tables, space, boot, Some(range), |id, block| {
                for (offset, _) in block.iter() {
                    let address = id.address_at(offset);
                    if !range.contains(address) {
                        continue;
                    }
                    let is_stray = !view.contains(address);
                    let at = usize::try_from((address.number() >> occupancy.cell_bits) - first_cell);
                    if let Some(cell) = at.ok().and_then(|at| occupancy.cells.get_mut(at)) {
                        *(if is_stray { &mut cell.strays } else { &mut cell.held }) += 1;
                    }
                    if !is_stray && view.nth(next) == Some(address) {
                        next += 1;
                    }
                }
                ControlFlow::Continue(())
            })?;
            debug_assert!(visited.is_continue());
            Ok(())
        })?;
        occupancy.held = occupancy.cells.iter().map(|cell| cell.held).sum();
        occupancy.strays = occupancy.cells.iter().map(|cell| cell.strays).sum();
        occupancy.lowest_free = view.nth(next).filter(|&address| range.contains(address));
        Ok(occupancy)
    }
}

// === impl Holdings ===

impl Holdings {
    /// Whether anything of a block can be among what is asked for.
    fn may_be_in(&self, id: &BlockId) -> bool {
        let is_of_network = self.network.as_ref().is_none_or(|network| network == id.space.network());
        let touches = |range: Range| {
            range.family() == id.space.family()
                && (BlockNumber::of(range.first())..=BlockNumber::of(range.last())).contains(&id.number)
        };
        is_of_network && self.range.is_none_or(touches)
    }
}

// === impl Occupancy ===

impl Occupancy {
    fn empty(view: &View, range: Range, n_cells: u32) -> Self {
        let (first, last) = (range.first().number(), range.last().number());
        // Two cells are enough for all of IPv6, and one is not: an address cannot be shifted by 128 bits.
        let most = u128::from(n_cells.max(2)) - 1;
        let cell_bits = (0..127).find(|&bits| (last >> bits) - (first >> bits) <= most).unwrap_or(127);
        let cells = (first >> cell_bits..=last >> cell_bits).filter_map(|number| {
            let lowest = number << cell_bits;
            let highest = lowest | ((1 << cell_bits) - 1);
            let address = |number| Address::new(range.family(), number);
            let of_range = Range::new(address(lowest.max(first))?, address(highest.min(last))?)?;
            Some(Cell { first: address(lowest)?, assignable: view.count_in(of_range), held: 0, strays: 0 })
        });
        let cells = cells.collect();
        Self { assignable: view.count_in(range), held: 0, strays: 0, lowest_free: None, cells, cell_bits }
    }
}

/// The boot that the ledger knows.
pub(super) fn boot<R: Rows>(tables: &Tables<R>) -> Result<Option<BootId>, StorageError> {
    Ok(tables.host()?.map(|host| host.boot))
}

/// Whether a lease is held: not when it died with an earlier boot, though its block was not read since.
pub(super) fn is_live(lease: &Lease, boot: Option<BootId>) -> bool {
    boot.is_none_or(|boot| !lease.is_of_an_earlier_boot(boot))
}

/// Visits the blocks of a space that a range touches, without the leases of earlier boots. Breaks when the visitor did.
pub(super) fn each_live_block<R: Rows>(
    tables: &Tables<R>,
    space: &Space,
    boot: Option<BootId>,
    range: Option<Range>,
    mut visit: impl FnMut(BlockId, Block) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StorageError> {
    if range.is_some_and(|range| range.family() != space.family()) {
        return Ok(ControlFlow::Continue(()));
    }
    let first = range.map(|range| BlockNumber::of(range.first()));
    let last = range.map(|range| BlockNumber::of(range.last()));
    let mut visited = ControlFlow::Continue(());
    tables.each_block_from(space, first, |id, mut block| {
        if last.is_some_and(|last| id.number > last) {
            return Ok(ControlFlow::Break(()));
        }
        let over: Vec<Offset> =
            block.iter().filter(|(_, lease)| !is_live(lease, boot)).map(|(offset, _)| offset).collect();
        for offset in over {
            block.remove(offset);
        }
        visited = visit(id, block);
        Ok(visited)
    })?;
    Ok(visited)
}
