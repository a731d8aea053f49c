//! Ranges that were found full. Whoever asks whether there is room asks every few seconds on every node, so the answer
//! comes from the ledger alone.
//!
//! The marks of the remembered index would not do: a block is marked when all of it is held, and of an ordinary /24 one
//! address more is never handed out.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterHost, ClusterLedger};
use crate::interval::Range;
use crate::ledger::meta::FullRow;
use crate::ledger::{Journal, StorageError};
use crate::operations::{Allocate, AllocateError, Allocated, Environment, Want};
use crate::space::Space;
use crate::store::Store;

/// For how long a range counts as full after it was found so, in milliseconds. Room that other nodes make is not seen from
/// here, and a node that is not ready for want of addresses gets no pod whose ADD would find it. In Kubernetes that must
/// end well before five minutes, after which the pods of such a node are taken off it.
const BELIEF: u64 = 60 * 1000;

/// What the ledger knows a range by.
fn place(want: &Want) -> (Space, Range) {
    (want.space(), want.range())
}

// === impl ClusterLedger ===

impl ClusterLedger {
    /// Says for each want whether an allocation would find an address, as far as this host knows without the store: a
    /// range is full for a minute after an allocation on this host found it so, unless one has got an address of it since,
    /// or this host has released some.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn has_room(
        &self,
        wants: &[Want],
        environment: &impl Environment,
    ) -> Result<Vec<Result<(), AllocateError>>, StorageError> {
        let now = environment.boot_clock();
        self.journal.look(|tables| {
            let mut answers = Vec::with_capacity(wants.len());
            for want in wants {
                let (space, range) = place(want);
                let is_full = want.view.first().is_none()
                    || tables.full(&space, range)?.is_some_and(|row| {
                        let is_recent = now.checked_sub(row.found).is_some_and(|age| age < BELIEF);
                        row.boot == self.facts.boot && is_recent && row.held == want.view.count()
                    });
                answers.push(if is_full { Err(want.full()) } else { Ok(()) });
            }
            Ok(answers)
        })
    }
}

// === impl ClusterHost ===

impl<S: Store, E: Environment> ClusterHost<'_, S, E> {
    /// Remembers which ranges were found full, and forgets it of those that had room. The answers do not depend on it.
    pub(super) fn learn_full(&self, requests: &[Allocate], answers: &[Result<Vec<Allocated>, AllocateError>]) {
        if let Err(error) = self.try_learn_full(requests, answers) {
            tracing::warn!(%error, "which ranges are full is not remembered");
        }
    }

    fn try_learn_full(
        &self,
        requests: &[Allocate],
        answers: &[Result<Vec<Allocated>, AllocateError>],
    ) -> Result<(), StorageError> {
        let mut open = BTreeSet::new();
        let mut full = BTreeMap::new();
        for (Allocate { wants, .. }, answer) in requests.iter().zip(answers) {
            match answer {
                Ok(allocated) => {
                    // What was had before, or was asked for by itself, says nothing of the rest of the range.
                    let is_new = |(want, given): &(&Want, &Allocated)| want.exactly.is_none() && !given.reused;
                    open.extend(wants.iter().zip(allocated).filter(is_new).map(|(want, _)| place(want)));
                }
                Err(error) => {
                    let found = wants.iter().filter(|want| want.full() == *error);
                    full.extend(found.map(|want| (place(want), want.view.count())));
                }
            }
        }
        // In a batch, those that got the last addresses come before those that found none.
        open.retain(|place| !full.contains_key(place));
        let journal = &self.ledger.journal;
        let mut outdated = Vec::new();
        journal.look(|tables| {
            for (space, range) in open {
                if tables.full(&space, range)?.is_some() {
                    outdated.push((space, range));
                }
            }
            Ok(())
        })?;
        if full.is_empty() && outdated.is_empty() {
            return Ok(());
        }
        let (boot, found) = (self.ledger.facts.boot, self.environment.boot_clock());
        journal.record(|tables| {
            for (space, range) in &outdated {
                tables.forget_full(space, *range)?;
            }
            for ((space, range), held) in &full {
                tables.set_full(space, *range, &FullRow { held: *held, boot, found })?;
            }
            Ok(())
        })
    }
}
