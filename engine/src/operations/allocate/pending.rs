//! A request on its way, and the addresses that were chosen for it.

use std::collections::BTreeMap;

use super::{Allocate, Allocated};
use crate::lease::{Lease, OperationId};
use crate::ledger::Journal;
use crate::offset::Offset;
use crate::operations::environment::Environment;
use crate::operations::error::AllocateError;
use crate::operations::working::Working;
use crate::space::BlockId;
use crate::store::Store;

/// A request on its way.
pub(super) struct Pending<'r> {
    pub(super) at: usize,
    pub(super) request: &'r Allocate,
    pub(super) operation: OperationId,
    pub(super) placed: Vec<Option<Placed>>,
    pub(super) has_intent: bool,
}

/// An address that was chosen for a want.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) block: BlockId,
    pub(super) offset: Offset,
    pub(super) lease: Lease,
    pub(super) previous: Option<Lease>,
    pub(super) landed: bool,
}

// === impl Pending ===

impl<'r> Pending<'r> {
    pub(super) fn new(at: usize, request: &'r Allocate, operation: OperationId) -> Self {
        Self { at, request, operation, placed: vec![None; request.wants.len()], has_intent: false }
    }

    pub(super) fn has_place(&self, block: &BlockId, offset: Offset) -> bool {
        self.placed.iter().flatten().any(|placed| placed.block == *block && placed.offset == offset)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.placed.iter().all(|placed| placed.as_ref().is_some_and(|placed| placed.landed))
    }

    /// Why nobody knows what became of one of its places, if so.
    pub(super) fn unknown<'u>(&self, unknown: &'u BTreeMap<BlockId, AllocateError>) -> Option<&'u AllocateError> {
        self.placed.iter().flatten().filter(|placed| !placed.landed).find_map(|placed| unknown.get(&placed.block))
    }

    /// Marks what is in place now.
    pub(super) fn mark_landed(&mut self, is_in_place: impl Fn(&BlockId) -> bool) {
        for placed in self.placed.iter_mut().flatten() {
            placed.landed |= is_in_place(&placed.block);
        }
    }

    /// Takes what did not land out of the working set again.
    pub(super) fn taken_back<S: Store, J: Journal, E: Environment>(
        mut self,
        working: &mut Working<'_, '_, S, J, E>,
    ) -> Self {
        for place in &mut self.placed {
            if let Some(placed) = place.take_if(|placed| !placed.landed) {
                working.take_back(&placed.block, placed.offset, placed.previous.as_ref());
            }
        }
        self
    }

    pub(super) fn addresses(&self) -> Vec<Allocated> {
        let allocated = |placed: &Placed| Allocated {
            address: placed.block.address_at(placed.offset),
            operation: self.operation,
            reused: placed.previous.is_some(),
        };
        self.placed.iter().flatten().map(allocated).collect()
    }
}
