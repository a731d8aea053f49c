//! What people ask a ledger: who holds what, who held it, how full a range is.

use std::ops::ControlFlow;

use roaring::RoaringBitmap;

use super::{Ledger, LedgerError};
use crate::address::Address;
use crate::block::Block;
use crate::intent::{HeldAddress, Past};
use crate::lease::{Attachment, BootId, Lease};
use crate::ledger::{Rows, StorageError, Tables};
use crate::offset::{BlockNumber, Offset};
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
    pub range: Option<crate::interval::Range>,
}

/// How full the range of a view is.
#[derive(Clone, Debug, PartialEq)]
pub struct Occupancy {
    /// How many addresses can be handed out in all.
    pub assignable: u128,
    /// How many of those are held.
    pub held: u128,
    /// How many are held in parts equal in size, from the first address of the view to the last, with the number of
    /// addresses that can be handed out in each. There are as many parts as were asked for, or fewer.
    pub parts: Vec<(u128, u128)>,
}

// === impl Ledger ===

impl Ledger {
    /// The spaces in which something was ever held.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method is not general enough in its lifetime")]
    pub fn spaces(&self) -> Result<Vec<Space>, LedgerError> {
        self.read(|tables| tables.spaces())
    }

    /// Visits everything that is held, by space and address.
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
                let mut broke = false;
                each_live_block(tables, &space, boot, asked.range, |id, block| {
                    for (offset, lease) in block.iter() {
                        let address = id.address_at(offset);
                        if asked.range.is_some_and(|range| !range.contains(address)) {
                            continue;
                        }
                        let holding = Holding { space: space.clone(), address, lease: lease.clone() };
                        if visit(holding).is_break() {
                            broke = true;
                            return ControlFlow::Break(());
                        }
                    }
                    ControlFlow::Continue(())
                })?;
                if broke {
                    break;
                }
            }
            Ok(())
        })
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
            Ok(found)
        })
    }

    /// How full the range of a view is, as a whole and in at most `n_parts` equal parts.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn occupancy(&self, space: &Space, view: &View, n_parts: u32) -> Result<Occupancy, LedgerError> {
        let assignable = view.count();
        let n_parts = u128::from(n_parts).min(assignable);
        // Part p has the addresses from rank p·count/n on; the parts differ by at most one address.
        let rank_of = |part: u128| match assignable.checked_mul(part) {
            Some(product) => product / n_parts.max(1),
            None => (assignable / n_parts.max(1)).saturating_mul(part),
        };
        let starts: Vec<Address> = (0..n_parts).filter_map(|part| view.nth(rank_of(part))).collect();
        let mut held = vec![0_u128; starts.len()];
        self.read(|tables| {
            let boot = boot(tables)?;
            let range = view.first().zip(view.last()).and_then(|(first, last)| crate::Range::new(first, last));
            each_live_block(tables, space, boot, range, |id, block| {
                let offsets: RoaringBitmap = block.used() & view.offsets(id.number);
                for offset in offsets {
                    let Ok(offset) = u8::try_from(offset) else { continue };
                    let address = id.address_at(Offset::from(offset));
                    let part = starts.partition_point(|&start| start <= address).saturating_sub(1);
                    if let Some(held) = held.get_mut(part) {
                        *held += 1;
                    }
                }
                ControlFlow::Continue(())
            })
        })?;
        let ends = (1..=n_parts).map(rank_of);
        let sizes = ends.scan(0, |before, end| Some(end - std::mem::replace(before, end)));
        let parts: Vec<(u128, u128)> = held.into_iter().zip(sizes).collect();
        Ok(Occupancy { assignable, held: parts.iter().map(|(held, _)| held).sum(), parts })
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

/// Visits the blocks of a space that a range touches, without the leases of earlier boots.
fn each_live_block<R: Rows>(
    tables: &Tables<R>,
    space: &Space,
    boot: Option<BootId>,
    range: Option<crate::interval::Range>,
    mut visit: impl FnMut(BlockId, Block) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    let range = range.filter(|range| range.first().family() == space.family());
    let first = range.map(|range| BlockNumber::of(range.first()));
    let last = range.map(|range| BlockNumber::of(range.last()));
    tables.each_block_from(space, first, |id, mut block| {
        if last.is_some_and(|last| id.number > last) {
            return Ok(ControlFlow::Break(()));
        }
        let over: Vec<Offset> =
            block.iter().filter(|(_, lease)| !is_live(lease, boot)).map(|(offset, _)| offset).collect();
        for offset in over {
            block.remove(offset);
        }
        Ok(visit(id, block))
    })
}
