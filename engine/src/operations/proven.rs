//! What the containers of this node have by its ledger, whatever the store says: a store that was put back to an older
//! state may have lost it, and other nodes may have written to it since, so that nothing in it looks old.

use std::collections::BTreeMap;

use crate::intent::HeldAddress;
use crate::lease::{Attachment, Lease};
use crate::ledger::{Rows, StorageError, Tables};
use crate::offset::Offset;
use crate::space::BlockId;

/// Addresses that containers of this node have, by block.
#[derive(Debug, Default)]
pub(super) struct Proven(pub(super) BTreeMap<BlockId, Vec<HeldAddress>>);

impl Proven {
    /// Reads what containers have of the store of this name. `damaged` says what becomes of a row that cannot be read.
    pub(super) fn read<R: Rows>(
        tables: &Tables<R>,
        store: &str,
        mut damaged: impl FnMut(StorageError) -> Result<(), StorageError>,
    ) -> Result<Self, StorageError> {
        let mut proven = Self::default();
        let mut result = Ok(());
        tables.each_attachment_or_error(|read| match read {
            Ok((_, row)) if &*row.store == store => {
                for held in row.held {
                    proven.0.entry(held.block.clone()).or_default().push(held);
                }
            }
            Ok(_) => {}
            Err(error) if result.is_ok() => result = damaged(error),
            Err(_) => {}
        })?;
        result.map(|()| proven)
    }

    /// What of a block others than `asking` have.
    pub(super) fn of_others<'p>(
        &'p self,
        id: &BlockId,
        asking: &'p Attachment,
    ) -> impl Iterator<Item = (Offset, &'p Lease)> {
        let held = self.0.get(id).into_iter().flatten();
        let leases = held.filter_map(|held| Some((held.offset, held.lease.as_ref()?)));
        // Of what was on no node that a migration could learn, every node has a row, and none knows whether it is true.
        leases.filter(move |(_, lease)| !lease.node.is_empty() && !lease.attachment.is_meant_by(asking))
    }
}

/// A row that cannot be read proves nothing, and is no reason to give nobody an address.
pub(super) fn skip_damaged(error: StorageError) -> Result<(), StorageError> {
    tracing::error!(%error, "what a container has by it is not known");
    Ok(())
}
