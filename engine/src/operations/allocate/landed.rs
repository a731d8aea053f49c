//! After a swap: what of it is in place, and of what nobody knows.

use std::collections::{BTreeMap, BTreeSet};

use super::pending::Pending;
use crate::ledger::Journal;
use crate::operations::Host;
use crate::operations::environment::Environment;
use crate::operations::error::AllocateError;
use crate::operations::working::Working;
use crate::space::BlockId;
use crate::store::{Store, Version};

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// A swap that was refused without the version having moved leaves an attempt before it as unknown as it was: that
    /// one may still land, so the intent must go on naming it until it is fenced.
    pub(super) async fn keep_in_doubt(
        &self,
        working: &mut Working<'_, '_, S, J, E>,
        in_doubt: BTreeMap<BlockId, Version>,
        unknown: &mut BTreeMap<BlockId, AllocateError>,
    ) {
        let mut unmoved = BTreeSet::new();
        let mut has_moved = false;
        for (id, expected) in in_doubt {
            match working.open(&id).await.map(drop) {
                Ok(()) if working.version(&id) == expected => drop(unmoved.insert(id)),
                Ok(()) => has_moved = true,
                Err(error) => {
                    unknown.insert(id, error);
                }
            }
        }
        if has_moved && self.promises().several_at_once {
            // Swaps of several blocks that go together have landed or are dead together. Which of the two, only a read
            // after that can tell: one of these may have been read before.
            working.forget_blocks(&unmoved);
        } else {
            let error = || AllocateError::Busy { reason: "an attempt before may still be on its way".to_owned() };
            unknown.extend(unmoved.into_iter().map(|id| (id, error())));
        }
    }

    /// A refused swap says nothing about the one whose reply was lost before it: the operation id in the block does.
    pub(super) async fn look_for_landed(
        &self,
        working: &mut Working<'_, '_, S, J, E>,
        pending: &mut [Pending<'_>],
        refused: &[BlockId],
        rejected: &BTreeMap<BlockId, String>,
        unknown: &mut BTreeMap<BlockId, AllocateError>,
    ) {
        for id in refused {
            if unknown.contains_key(id) {
                continue;
            }
            let block = match working.open(id).await {
                Ok(block) => block,
                // Whether an earlier swap landed is not known, so the intent must go on naming it.
                Err(error) => {
                    unknown.insert(id.clone(), error);
                    continue;
                }
            };
            for request in pending.iter_mut() {
                for place in &mut request.placed {
                    let Some(placed) = place.as_mut().filter(|placed| placed.block == *id && !placed.landed) else {
                        continue;
                    };
                    let found = block.get(placed.offset);
                    if found.is_some_and(|lease| lease.operation == request.operation) {
                        placed.landed = true;
                    } else if block
                        .covered()
                        .any(|(at, lease)| at == placed.offset && lease.operation == request.operation)
                    {
                        // It landed, and another node has taken it over since: to be undone like what nobody knows of, or
                        // it would come back to nobody should that node give it up.
                        let reason = "another node has taken the address over meanwhile".to_owned();
                        unknown.insert(id.clone(), AllocateError::Busy { reason });
                    } else if let Some(reason) = rejected.get(id) {
                        unknown.insert(id.clone(), AllocateError::Rejected { reason: reason.clone() });
                    } else {
                        *place = None;
                    }
                }
            }
        }
    }
}
