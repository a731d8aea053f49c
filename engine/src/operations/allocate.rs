//! Allocate: give each request an address of every range that it wants, or nothing.

mod landed;
mod pending;
mod place;
mod record;
mod ways;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::pending::Pending;
use self::record::Written;
pub(super) use self::ways::Ways;
use super::Host;
use super::environment::{Backoff, Environment};
use super::error::AllocateError;
use super::working::{Swapped, Working};
use crate::address::Address;
use crate::interval::Range;
use crate::lease::{Attachment, OperationId, Owner};
use crate::ledger::{Journal, StorageError};
use crate::space::{Pool, Sharing, Space};
use crate::store::Store;
use crate::view::View;

/// A request for addresses: one for each want, all or nothing.
///
/// Asked again for the same owner and interface in the same view, it gets the same addresses.
#[derive(Clone, Debug)]
pub struct Allocate {
    /// Through which attachment the addresses are held.
    pub attachment: Attachment,
    /// Who keeps them across sandboxes.
    pub owner: Owner,
    /// One for each address.
    pub wants: Vec<Want>,
}

/// One address that is wanted.
#[derive(Clone, Debug)]
pub struct Want {
    /// The pool of the configured range.
    pub pool: Pool,
    /// Whether the pool shares its network's space.
    pub sharing: Sharing,
    /// What of the range may be handed out.
    pub view: Arc<View>,
    /// This very address instead of the lowest free one. It must lie in the pool's CIDR; whether it must be in the
    /// view, the caller decides.
    pub exactly: Option<Address>,
}

/// An address that was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocated {
    /// The address.
    pub address: Address,
    /// The operation that wrote its lease.
    pub operation: OperationId,
    /// Whether the owner had it before.
    pub reused: bool,
}

type Answer = Result<Vec<Allocated>, AllocateError>;

/// Requests, each with its place in the batch.
type Numbered<'r> = Vec<(usize, &'r Allocate)>;

/// Requests of which no two have an attachment or an owner in common, and the rest.
fn distinct(requests: Numbered<'_>) -> (Numbered<'_>, Numbered<'_>) {
    let mut busy = BTreeSet::new();
    requests.into_iter().partition(|(_, request)| {
        let owner = match &request.owner {
            Owner::Container => None,
            // It is the name that has the address, whatever pod comes with it.
            Owner::Sticky { name, .. } => Some(Owner::Sticky { name: Arc::clone(name), pod: None }),
            owner => Some(owner.clone()),
        };
        let owner = owner.map(|owner| (owner, Arc::clone(&request.attachment.interface)));
        let attachment_is_new = busy.insert((Some(request.attachment.clone()), None));
        let owner_is_new = owner.is_none() || busy.insert((None, owner));
        attachment_is_new && owner_is_new
    })
}

fn all_answered(answers: Vec<Option<Answer>>) -> Vec<Answer> {
    let unanswered = || Err(AllocateError::Busy { reason: "the request was not reached".to_owned() });
    answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Gives each request its addresses, or says why not. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; then nobody got anything.
    pub async fn allocate(&self, requests: &[Allocate]) -> Result<Vec<Answer>, StorageError> {
        let mut answers = vec![None; requests.len()];
        let mut put_off: Numbered<'_> = requests.iter().enumerate().collect();
        // Two requests of one owner in one batch are answered one after the other, as two calls would be.
        while !put_off.is_empty() {
            let (now, later) = distinct(put_off);
            self.allocate_distinct(now, None, &mut answers).await?;
            put_off = later;
        }
        Ok(all_answered(answers))
    }

    /// Gives the first request its addresses, and on the way the others theirs, which other callers wait with. Each of
    /// these looks itself where it gets nothing: when the first one is done earlier, when it has an owner in common with
    /// one before it, or when it is not waited for any more.
    ///
    /// Whether it is, by its place in the batch, is asked inside the transaction that writes its claim down. So whoever
    /// looks into the journal after a caller is gone finds the claim, or there will be none.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; then nobody got anything.
    pub async fn allocate_for_all(
        &self,
        requests: &[Allocate],
        is_waited_for: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Answer>, StorageError> {
        let mut answers = vec![None; requests.len()];
        let (now, _) = distinct(requests.iter().enumerate().collect());
        self.allocate_distinct(now, Some(is_waited_for), &mut answers).await?;
        Ok(all_answered(answers))
    }

    /// Requests of which no two have an attachment or an owner in common. With `waited_for`, all but the first are of
    /// other callers.
    async fn allocate_distinct(
        &self,
        mut requests: Numbered<'_>,
        waited_for: Option<&dyn Fn(usize) -> bool>,
        answers: &mut [Option<Answer>],
    ) -> Result<(), StorageError> {
        let is_waited_for = |at| waited_for.is_none_or(|is_waited_for| is_waited_for(at));
        // Taken before they are seen waiting: what somebody asks for after their end is younger.
        let of_others = waited_for.map(|_| self.environment.boot_clock());
        requests.retain(|(at, _)| is_waited_for(*at));
        if self.needs_intents() {
            let attachments: Vec<_> = requests.iter().map(|(_, request)| &request.attachment).collect();
            self.settle_attachments(&attachments).await?;
        }
        let mut working = Working::new(self);
        let mut ways = Ways::default();
        let mut pending: Vec<Pending<'_>> =
            requests.into_iter().map(|(at, request)| Pending::new(at, request, self.new_operation())).collect();
        let mut failed: Vec<(Pending<'_>, AllocateError)> = Vec::new();
        let mut backoff = Backoff::default();
        loop {
            if waited_for.is_some() {
                let own_is_done = !pending.iter().any(|request| request.at == 0 && !request.is_complete());
                let is_left =
                    |request: &mut Pending<'_>| !request.is_complete() && (own_is_done || !is_waited_for(request.at));
                for request in pending.extract_if(.., is_left) {
                    let reason = "it is left to its own caller".to_owned();
                    failed.push((request.taken_back(&mut working), AllocateError::Busy { reason }));
                }
            }
            let mut planned: Vec<Pending<'_>> = Vec::with_capacity(pending.len());
            let mut waiting = Vec::new();
            for mut request in pending {
                match self.place_all(&mut working, &mut request, &mut ways).await {
                    Ok(()) => planned.push(request),
                    Err(AllocateError::Storage(error)) if !error.is_of_one_row() => return Err(error),
                    // What another request of the batch is about to take may yet be refused.
                    Err(AllocateError::RangeFull { .. } | AllocateError::AlreadyHeld { .. })
                        if !planned.iter().all(Pending::is_complete) =>
                    {
                        waiting.push(request.taken_back(&mut working));
                    }
                    Err(error) => failed.push((request.taken_back(&mut working), error)),
                }
            }
            pending = planned;
            if self.needs_intents() {
                let Written { superseded, outdated, has_lost } =
                    self.write_claims(&working, &mut pending, &is_waited_for)?;
                for request in pending.extract_if(.., |request| superseded.contains(&request.at)) {
                    failed.push((request.taken_back(&mut working), AllocateError::Superseded));
                }
                if !superseded.is_empty() || !outdated.is_empty() {
                    // The others were placed around it: what it leaves may be lower.
                    waiting.extend(pending.into_iter().map(|request| request.taken_back(&mut working)));
                    pending = waiting;
                    working.forget_blocks(&outdated);
                    if has_lost {
                        working.look_for_lost();
                    }
                    continue;
                }
            }
            let Swapped { refused, in_doubt, rejected, mut unknown } = working.swap_changed().await;
            if !self.needs_intents()
                && let Some((_, error)) = unknown.pop_first()
            {
                return Err(StorageError::io(error));
            }
            for request in &mut pending {
                request.mark_landed(|block| !refused.contains(block) && !unknown.contains_key(block));
            }
            self.keep_in_doubt(&mut working, in_doubt, &mut unknown).await;
            self.look_for_landed(&mut working, &mut pending, &refused, &rejected, &mut unknown).await;
            for request in pending.extract_if(.., |request| request.unknown(&unknown).is_some()) {
                let error = request.unknown(&unknown).cloned().unwrap_or(AllocateError::Superseded);
                failed.push((request, error));
            }
            let is_contended = !pending.iter().all(Pending::is_complete);
            if !is_contended && waiting.is_empty() {
                break;
            }
            pending.append(&mut waiting);
            if is_contended && !backoff.pause(self.environment).await {
                let late = pending.extract_if(.., |request| !request.is_complete());
                let busy = || AllocateError::Busy { reason: "other writers were faster".to_owned() };
                failed.extend(late.map(|request| (request, busy())));
                break;
            }
        }
        let in_both_ways = self.look_again(&pending, &mut ways).await;
        let refused =
            |request: &Pending<'_>| request.request.wants.iter().find_map(|want| in_both_ways.get(&want.way()));
        for request in pending.extract_if(.., |request| refused(request).is_some()) {
            let error = refused(&request).cloned().unwrap_or(AllocateError::Superseded);
            failed.push((request, error));
        }
        let superseded = match self.finish(&working, &pending, &ways, of_others) {
            // Nobody got anything, and why is known; what was seen of the store is only good to know.
            Err(error) if self.needs_intents() && pending.is_empty() => {
                tracing::warn!(%error, "what was seen of the store is not remembered");
                BTreeSet::new()
            }
            finished => finished?,
        };
        let gone = pending.extract_if(.., |request| superseded.contains(&request.at));
        failed.extend(gone.map(|request| (request, AllocateError::Superseded)));
        for request in pending {
            if let Some(answer) = answers.get_mut(request.at) {
                *answer = Some(Ok(request.addresses()));
            }
        }
        for (request, error) in failed {
            // What cannot be settled now is left to the DEL that follows; why there is no address is what counts.
            if request.has_intent
                && !matches!(error, AllocateError::Superseded)
                && let Err(error) = self.settle_own(request.operation).await
            {
                tracing::warn!(%error, attachment = %request.request.attachment, "left to a later call to undo");
            }
            if let Some(answer) = answers.get_mut(request.at) {
                *answer = Some(Err(error));
            }
        }
        // By now all answers are durable, and nobody depends on a mark.
        if let Err(error) = self.mark_full(working.take_unmarked()).await {
            tracing::warn!(%error, "left to a later call to mark what is full");
        }
        Ok(())
    }
}

// === impl Want ===

impl Want {
    /// The space that the address is taken from.
    #[must_use]
    pub fn space(&self) -> Space {
        self.pool.space(self.sharing)
    }

    /// The pool, and in which way it is used.
    fn way(&self) -> (Pool, Sharing) {
        (self.pool.clone(), self.sharing)
    }

    /// From the first to the last address that may be handed out, or all of the pool where there is none.
    pub(crate) fn range(&self) -> Range {
        let ends = self.view.first().zip(self.view.last()).and_then(|(first, last)| Range::new(first, last));
        ends.unwrap_or_else(|| Range::from(self.pool.cidr()))
    }

    /// What is said where nothing of it is free.
    pub(crate) fn full(&self) -> AllocateError {
        AllocateError::RangeFull { pool: self.pool.clone(), range: self.range(), held: self.view.count() }
    }
}
