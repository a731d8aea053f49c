//! What the ledger is told: the claims before they are sent, and the attachments when they are in place.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pending::{Pending, Placed};
use super::ways::Ways;
use crate::intent::{AttachmentRow, Claim, HeldAddress, Past, Purpose};
use crate::lease::OperationId;
use crate::ledger::{Journal, RowsMut, StorageError, Tables};
use crate::operations::Host;
use crate::operations::environment::Environment;
use crate::operations::proven::{Proven, skip_damaged};
use crate::operations::working::Working;
use crate::space::BlockId;
use crate::store::Store;

/// What was found out while claims were written down.
pub(super) struct Written {
    /// Requests, by their place in the batch, whose intents somebody else settles, or that nobody waits for: they have
    /// lost their right to go on.
    pub(super) superseded: BTreeSet<usize>,
    /// Blocks that must be read again: this host has seen a newer state since, or they have lost what was about to be
    /// given away.
    pub(super) outdated: BTreeSet<BlockId>,
    /// Whether a block has.
    pub(super) has_lost: bool,
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Writes down what is about to be sent, and says who must not send it.
    pub(super) fn write_claims(
        &self,
        working: &Working<'_, '_, S, J, E>,
        pending: &mut [Pending<'_>],
        is_waited_for: &dyn Fn(usize) -> bool,
    ) -> Result<Written, StorageError> {
        let written = self.journal.record(|tables| {
            let mut superseded = BTreeSet::new();
            let mut lost = BTreeSet::new();
            let proven = Proven::read(tables, &self.store_name, skip_damaged)?;
            for request in pending.iter().filter(|request| !request.is_complete()) {
                let may_go_on = if request.has_intent {
                    is_open_claim(tables, request.operation)?
                } else {
                    is_waited_for(request.at)
                };
                if !may_go_on {
                    superseded.insert(request.at);
                    continue;
                }
                let attachment = &request.request.attachment;
                for placed in
                    request.placed.iter().flatten().filter(|placed| placed.previous.is_none() && !placed.landed)
                {
                    if proven.of_others(&placed.block, attachment).any(|(offset, _)| offset == placed.offset) {
                        lost.insert(placed.block.clone());
                    }
                }
                let claim = |placed: &Placed| Claim {
                    block: placed.block.clone(),
                    offset: placed.offset,
                    expected: working.version(&placed.block),
                    previous: placed.previous.clone(),
                };
                let claims = request.placed.iter().flatten().map(claim).collect();
                let intent = self.intent(attachment, Purpose::Claim(claims));
                tables.set_intent(request.operation, &intent)?;
            }
            let has_lost = !lost.is_empty();
            lost.extend(working.outdated(tables)?);
            Ok(Written { superseded, outdated: lost, has_lost })
        })?;
        for request in pending.iter_mut() {
            request.has_intent |= !request.is_complete();
        }
        Ok(written)
    }

    /// Writes down the attachments, and closes the intents with it.
    pub(super) fn finish(
        &self,
        working: &Working<'_, '_, S, J, E>,
        pending: &[Pending<'_>],
        ways: &Ways,
        of_others: Option<u64>,
    ) -> Result<BTreeSet<usize>, StorageError> {
        let needs_intents = self.needs_intents();
        let now = self.environment.boot_clock();
        self.journal.record(|tables| {
            let mut superseded = BTreeSet::new();
            for request in pending {
                if request.has_intent && !is_open_claim(tables, request.operation)? {
                    superseded.insert(request.at);
                    continue;
                }
                let recorded = of_others.filter(|_| request.at != 0).unwrap_or(now);
                self.record_attachment(tables, request, recorded)?;
                if request.has_intent {
                    tables.close_intent(request.operation)?;
                }
            }
            for (pool, sharing) in &ways.used {
                if tables.sharing(pool)? != Some(*sharing) {
                    tables.set_sharing(pool, *sharing)?;
                }
            }
            if needs_intents {
                working.remember(tables)?;
            }
            Ok(superseded)
        })
    }

    fn record_attachment<R: RowsMut>(
        &self,
        tables: &mut Tables<R>,
        pending: &Pending<'_>,
        recorded: u64,
    ) -> Result<(), StorageError> {
        let attachment = &pending.request.attachment;
        let mut held = Vec::with_capacity(pending.placed.len());
        for placed in pending.placed.iter().flatten() {
            if let Some(previous) = &placed.previous {
                if previous.attachment != *attachment {
                    tables.forget_held(&placed.block, placed.offset, previous)?;
                    let (block, lease) = (placed.block.clone(), previous.clone());
                    tables.add_past(&Past { block, offset: placed.offset, lease, until: placed.lease.since })?;
                }
                if !previous.owner.is_same(&placed.lease.owner) {
                    tables.forget_owner(&placed.block, placed.offset, previous)?;
                }
            }
            tables.add_owner_address(&placed.block, placed.offset, &placed.lease)?;
            held.push(HeldAddress {
                block: placed.block.clone(),
                offset: placed.offset,
                operation: pending.operation,
                lease: self.needs_intents().then(|| placed.lease.clone()),
            });
        }
        // What the attachment holds beside this, because its configuration was edited, stays its own until DEL.
        if let Some(before) = tables.attachment(attachment)?.filter(|row| row.store == self.store_name) {
            let again = |old: &HeldAddress| held.iter().any(|new| new.block == old.block && new.offset == old.offset);
            let others: Vec<_> = before.held.into_iter().filter(|old| !again(old)).collect();
            held.extend(others);
        }
        let row = AttachmentRow { store: Arc::clone(&self.store_name), boot: self.boot, recorded, held };
        tables.set_attachment(attachment, &row)
    }
}

fn is_open_claim<R: RowsMut>(tables: &Tables<R>, operation: OperationId) -> Result<bool, StorageError> {
    Ok(tables.intent(operation)?.is_some_and(|intent| matches!(intent.purpose, Purpose::Claim(_))))
}
