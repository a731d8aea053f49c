//! Settle: bring changes to an end whose writer did not.

use std::collections::{BTreeMap, BTreeSet};

use super::Host;
use super::edit::{Edit, Edited};
use super::environment::Environment;
use super::release::forget_known;
use crate::intent::{Claim, HeldAddress, Intent, Past, Purpose};
use crate::lease::{Attachment, Lease, OperationId};
use crate::ledger::{Journal, StorageError};
use crate::offset::Offset;
use crate::space::BlockId;
use crate::store::Store;

/// What a call could settle.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Settled {
    /// How many changes came to their end.
    pub closed: usize,
    /// How many are still open, because the store does not answer or the space is frozen.
    pub open: usize,
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Settles what earlier calls on this host left under way: those of earlier boots, and those opened at least
    /// `older_than` milliseconds ago, by which time their writers have answered or are dead. A writer that is not, sees
    /// that its claim was settled, and fails.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn settle(&self, older_than: u64) -> Result<Settled, StorageError> {
        let now = self.environment.boot_clock();
        self.settle_those(|intent| {
            let age = now.saturating_sub(intent.opened);
            intent.boot != self.boot || age >= older_than
        })
        .await
    }

    /// Settles what earlier calls have left to whoever comes later: claims of calls that must have ended, and releases,
    /// rechecks and freezes that nobody is carrying out any more. Both ages in milliseconds.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn settle_left_over(&self, longest_call: u64, longest_care: u64) -> Result<Settled, StorageError> {
        let now = self.environment.boot_clock();
        self.settle_those(|intent| {
            let patience = if matches!(intent.purpose, Purpose::Claim(_)) { longest_call } else { longest_care };
            intent.boot != self.boot || now.saturating_sub(intent.opened) >= patience
        })
        .await
    }

    /// Settles what earlier calls for these attachments left under way. The runtime makes one call at a time for a
    /// container, so they are dead.
    pub(super) async fn settle_attachments(&self, attachments: &[&Attachment]) -> Result<Settled, StorageError> {
        self.settle_those(|intent| attachments.contains(&&intent.attachment)).await
    }

    /// Settles a claim of this very call that is not going to be answered.
    pub(super) async fn settle_own(&self, operation: OperationId) -> Result<(), StorageError> {
        if let Some(intent) = self.journal.look(|tables| tables.intent(operation))? {
            self.settle_one(operation, intent).await?;
        }
        Ok(())
    }

    async fn settle_those(&self, is_due: impl Fn(&Intent) -> bool) -> Result<Settled, StorageError> {
        let mut settled = Settled::default();
        if !self.needs_intents() {
            return Ok(settled);
        }
        let mut intents = self.journal.look(|tables| tables.intents())?;
        intents.retain(|(_, intent)| intent.store == self.store_name && is_due(intent));
        for (operation, intent) in intents {
            if self.settle_one(operation, intent).await? {
                settled.closed += 1;
            } else {
                settled.open += 1;
            }
        }
        Ok(settled)
    }

    /// Settles one intent; says whether it came to its end.
    pub(super) async fn settle_one(&self, operation: OperationId, intent: Intent) -> Result<bool, StorageError> {
        match &intent.purpose {
            Purpose::Claim(claims) => {
                let claims = claims.clone();
                // From here on the call that made the claim can no longer answer with it.
                let undo = Intent { purpose: Purpose::Undo(claims.clone()), ..intent.clone() };
                let is_ours = self.journal.record(|tables| {
                    // The claim may have been answered, or renewed, since it was read.
                    let is_same = tables.intent(operation)?.is_some_and(|now| now == intent);
                    if is_same {
                        tables.set_intent(operation, &undo)?;
                    }
                    Ok(is_same)
                })?;
                if is_ours { self.undo(operation, undo, claims).await } else { Ok(true) }
            }
            Purpose::Undo(claims) => {
                let claims = claims.clone();
                self.undo(operation, intent, claims).await
            }
            Purpose::Release(held) => {
                let freed = self.free(held, true).await;
                self.close_release(operation, &intent, held, freed)
            }
            Purpose::Recheck(blocks) => {
                // From here on the call that was to mark the blocks, should it live, marks them no more.
                let own = self.new_operation();
                let is_open = self.journal.record(|tables| {
                    let is_open = tables.intent(operation)?.is_some();
                    if is_open {
                        tables.close_intent(operation)?;
                        tables.set_intent(own, &intent)?;
                    }
                    Ok(is_open)
                })?;
                let sure = !is_open || self.recheck(blocks.clone(), true).await;
                if is_open && sure {
                    self.close(&[own])?;
                }
                Ok(sure)
            }
            Purpose::Freeze { space, epoch, reason } => {
                let frozen = self.carry_out_freeze(space, *epoch, reason).await;
                if frozen {
                    self.close(&[operation])?;
                }
                Ok(frozen)
            }
        }
    }

    /// Makes sure that a claim is not there and never will be.
    async fn undo(&self, operation: OperationId, intent: Intent, claims: Vec<Claim>) -> Result<bool, StorageError> {
        let mut edits: BTreeMap<BlockId, Vec<Edit>> = BTreeMap::new();
        for Claim { block, offset, expected, previous } in &claims {
            let edits = edits.entry(block.clone()).or_default();
            edits.push(Edit::Undo { offset: *offset, operation, previous: previous.clone().map(Box::new) });
            edits.push(Edit::Fence { expected: expected.clone() });
        }
        let blocks: Vec<BlockId> = edits.keys().cloned().collect();
        let edited = self.edit(edits).await;
        if edited.values().any(|edited| matches!(edited, Edited::Open { .. })) || !self.recheck(blocks, false).await {
            return Ok(false);
        }
        // Whoever had the address before has it again. Was it released meanwhile, its DEL found our operation there
        // and went by, so it is released here.
        let orphans = self.journal.record(|tables| {
            let mut orphans = Vec::new();
            for claim in claims {
                let Some(previous) = claim.previous.filter(|previous| previous.node == self.node) else { continue };
                let is_it = |held: &HeldAddress| {
                    held.block == claim.block && held.offset == claim.offset && held.operation == previous.operation
                };
                let row = tables.attachment(&previous.attachment)?;
                if !row.is_some_and(|row| row.held.iter().any(is_it)) {
                    let (block, offset, operation) = (claim.block, claim.offset, previous.operation);
                    orphans.push(HeldAddress { block, offset, operation, lease: Some(previous) });
                }
            }
            if orphans.is_empty() {
                tables.close_intent(operation)?;
            } else {
                let purpose = Purpose::Release(orphans.clone());
                tables.set_intent(operation, &Intent { purpose, ..intent.clone() })?;
            }
            Ok(orphans)
        })?;
        if orphans.is_empty() {
            return Ok(true);
        }
        let freed = self.free(&orphans, false).await;
        self.close_release(operation, &intent, &orphans, freed)
    }

    /// Frees addresses under their operation ids, and clears the marks of blocks that have room again. With
    /// `is_repeated`, an earlier call may have freed them already.
    pub(super) async fn free(&self, held: &[HeldAddress], is_repeated: bool) -> Freed {
        let mut edits: BTreeMap<BlockId, Vec<Edit>> = BTreeMap::new();
        for HeldAddress { block, offset, operation, .. } in held {
            edits.entry(block.clone()).or_default().push(Edit::Free { offset: *offset, operation: *operation });
        }
        let mut result = Freed::default();
        let mut recheck = Vec::new();
        for (id, edited) in self.edit(edits).await {
            match edited {
                Edited::Open { reason } => {
                    result.open.insert(id, reason);
                }
                Edited::Settled { freed, made_room, is_uncertain } => {
                    let found: BTreeSet<Offset> = freed.iter().map(|(offset, _)| *offset).collect();
                    result.freed.extend(freed.into_iter().map(|(offset, lease)| (id.clone(), offset, lease)));
                    if is_uncertain || is_repeated {
                        // What an attempt without an answer freed is not found any more; the ledger knows what it was.
                        let of_block = held.iter().filter(|held| held.block == id && !found.contains(&held.offset));
                        let known = of_block.filter_map(|held| Some((id.clone(), held.offset, held.lease.clone()?)));
                        result.freed.extend(known);
                    }
                    // What was not found any more, another call has freed, and may have died before it looked at the mark.
                    let n_held = held.iter().filter(|held| held.block == id).count();
                    if made_room || is_repeated || found.len() < n_held {
                        recheck.push(id);
                    }
                }
            }
        }
        if !self.recheck(recheck.clone(), false).await {
            result.unsure_marks = recheck;
        }
        result
    }

    /// Writes down what was freed, and what of it is left to a later call; says whether nothing is.
    pub(super) fn close_release(
        &self,
        operation: OperationId,
        intent: &Intent,
        held: &[HeldAddress],
        freed: Freed,
    ) -> Result<bool, StorageError> {
        let now = self.environment.now();
        let left: Vec<HeldAddress> = held.iter().filter(|held| freed.open.contains_key(&held.block)).cloned().collect();
        let is_settled = left.is_empty();
        self.journal.record(|tables| {
            for (block, offset, lease) in freed.freed {
                if self.needs_intents() {
                    forget_known(tables, &block, offset, &lease)?;
                    tables.remember_room(&block)?;
                } else {
                    tables.forget_lease(&block, offset, &lease)?;
                }
                tables.add_past(&Past { block, offset, lease, until: now })?;
            }
            // Where the ledger is the store there is nobody to leave anything to: what failed is in the answer.
            if !self.needs_intents() {
                return Ok(());
            }
            if !freed.unsure_marks.is_empty() {
                let recheck = Intent { purpose: Purpose::Recheck(freed.unsure_marks), ..intent.clone() };
                tables.set_intent(self.new_operation(), &recheck)?;
            }
            if is_settled {
                tables.close_intent(operation)
            } else {
                tables.set_intent(operation, &Intent { purpose: Purpose::Release(left), ..intent.clone() })
            }
        })?;
        Ok(is_settled)
    }
}

/// What became of addresses that were to be freed.
#[derive(Debug, Default)]
pub(super) struct Freed {
    /// The leases that are gone.
    pub(super) freed: Vec<(BlockId, Offset, Lease)>,
    /// The blocks that are to be tried again, and why.
    pub(super) open: BTreeMap<BlockId, String>,
    /// The blocks that the index may call fuller than they are.
    pub(super) unsure_marks: Vec<BlockId>,
}
