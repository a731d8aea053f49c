//! Allocate: give each request an address of every range that it wants, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::Host;
use super::environment::{Backoff, Environment};
use super::frozen;
use super::proven::{Proven, skip_damaged};
use super::working::{Swapped, Working};
use crate::address::Address;
use crate::intent::{AttachmentRow, Claim, HeldAddress, Past, Purpose};
use crate::interval::Range;
use crate::lease::{Attachment, Lease, LeaseState, OperationId, Owner};
use crate::ledger::{Journal, RowsMut, StorageError, Tables};
use crate::offset::{BlockNumber, Offset};
use crate::space::{BlockId, Pool, Sharing, Space};
use crate::store::{ReadError, Store, Version};
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

/// Why a request got nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// Every assignable address of the range is held.
    #[error("{}", range_full(pool, range, *held))]
    RangeFull {
        /// The pool.
        pool: Pool,
        /// From the first to the last assignable address.
        range: Range,
        /// How many addresses are held, which is all that can be.
        held: u128,
    },
    /// The address that was asked for is held by another.
    #[error("address {asked} is held by {held_by} ({}); ask for another, or release it", held_by.state)]
    AlreadyHeld {
        /// The address.
        asked: Address,
        /// Who holds it.
        held_by: Box<Lease>,
    },
    /// The only address that could be given is one that the store has lost.
    #[error(
        "address {address} is not given away: by the ledger of this node it is held by {held_by}, and the store has lost \
         that; if it was put back to an older state, run `whereabouts repair --restored` on every node, and if not, \
         delete that container: its DEL, or the next GC, forgets it"
    )]
    Lost {
        /// The address.
        address: Address,
        /// Who holds it by the ledger.
        held_by: Box<Lease>,
    },
    /// The address that was asked for is not in the range.
    #[error("address {asked} is not in range {pool}; ask for one that is")]
    NotInPool {
        /// The address.
        asked: Address,
        /// The pool.
        pool: Pool,
    },
    /// Nobody gets an address of this space before it is repaired.
    #[error("{space} is frozen: {reason}; {}", frozen::cure(reason))]
    Frozen {
        /// The space.
        space: Space,
        /// Why.
        reason: String,
    },
    /// A pool cannot be private and shared at once.
    #[error(
        "pool {pool} is asked for as {asked} (enable_overlapping_ranges: {}), but {address} and perhaps others of it \
         are still held as {}; release them first, or configure it as {} everywhere",
        *asked == Sharing::Shared, asked.other(), asked.other()
    )]
    Sharing {
        /// The pool.
        pool: Pool,
        /// How it is asked for.
        asked: Sharing,
        /// An address that is held in the other way.
        address: Address,
    },
    /// A batch asks for one pool in both ways; the first request that was served decides.
    #[error(
        "pool {pool} is asked for as private and as shared at once (enable_overlapping_ranges); configure it in one way \
         everywhere"
    )]
    BothWays {
        /// The pool.
        pool: Pool,
    },
    /// The store is in contention or does not answer, and time is up. Nothing is left behind that the next call does
    /// not settle.
    #[error("no answer in time: {reason}; try again")]
    Busy {
        /// What was in the way.
        reason: String,
    },
    /// The store would not have the change, and will not have it when it is asked again either.
    #[error("the store does not take the change: {reason}")]
    Rejected {
        /// What the store says, for people.
        reason: String,
    },
    /// Another call of the same attachment settled this one as dead, or its caller does not wait any more.
    #[error("another call for the same container and interface has taken over; try again")]
    Superseded,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A request on its way.
struct Pending<'r> {
    at: usize,
    request: &'r Allocate,
    operation: OperationId,
    placed: Vec<Option<Placed>>,
    has_intent: bool,
}

/// An address that was chosen for a want.
#[derive(Clone)]
struct Placed {
    block: BlockId,
    offset: Offset,
    lease: Lease,
    previous: Option<Lease>,
    landed: bool,
}

/// Why a lease that is held already may answer a want, the best reason first.
#[derive(Clone, Copy)]
enum Match {
    /// It is the very address that is asked for.
    Exactly,
    /// It was given from this pool, and could be given from it again.
    PoolAndView,
    /// It was given to this attachment from this pool as it was configured then.
    Pool,
    /// It could be given from this pool.
    View,
}

/// In which ways a batch uses pools.
#[derive(Default)]
pub(super) struct Ways {
    used: BTreeSet<(Pool, Sharing)>,
    /// Of those, the ones that this node did not remember.
    new: BTreeSet<(Pool, Sharing)>,
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

fn range_full(pool: &Pool, range: &Range, held: u128) -> String {
    if held == 0 {
        return format!(
            "range {pool} has no address to give: all of them are excluded, or gateways; take excludes away, or widen \
             the range"
        );
    }
    format!("range {pool} is full: {held} of {held} addresses ({range}) are held; free some, or widen the range")
}

/// What was found out while claims were written down.
struct Written {
    /// Requests, by their place in the batch, whose intents somebody else settles, or that nobody waits for: they have
    /// lost their right to go on.
    superseded: BTreeSet<usize>,
    /// Blocks that must be read again: this host has seen a newer state since, or they have lost what was about to be
    /// given away.
    outdated: BTreeSet<BlockId>,
    /// Whether a block has.
    has_lost: bool,
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

    /// Chooses an address for every want that has none yet.
    async fn place_all(
        &self,
        working: &mut Working<'_, '_, S, J, E>,
        pending: &mut Pending<'_>,
        ways: &mut Ways,
    ) -> Result<(), AllocateError> {
        let request = pending.request;
        if pending.is_complete() {
            return Ok(());
        }
        if pending.placed.iter().all(Option::is_none) {
            for want in &request.wants {
                self.check_want(want, ways).await?;
            }
        }
        // In every round: what another want of the request got says nothing of the one that met a conflict.
        self.place_known(working, pending).await?;
        // Addresses that are asked for come first, or the choice of another want might take them.
        for exactly in [true, false] {
            for (at, want) in request.wants.iter().enumerate() {
                if want.exactly.is_some() != exactly || pending.placed.get(at).is_none_or(Option::is_some) {
                    continue;
                }
                let space = want.space();
                let (block, offset) = match want.exactly {
                    Some(address) => self.open_exactly(working, pending, &space, address).await?,
                    None => {
                        let free = working.lowest_free(&space, &want.view, &request.attachment).await?;
                        free.ok_or_else(|| want.full())?
                    }
                };
                self.place(working, pending, at, block, offset);
            }
        }
        Ok(())
    }

    /// Refuses an address outside its pool, and a pool that is in use in the other way.
    pub(super) async fn check_want(&self, want: &Want, ways: &mut Ways) -> Result<(), AllocateError> {
        if let Some(asked) = want.exactly
            && !want.pool.cidr().contains(&asked.to_ip())
        {
            return Err(AllocateError::NotInPool { asked, pool: want.pool.clone() });
        }
        if ways.used.contains(&want.way()) {
            return Ok(());
        }
        if ways.used.contains(&(want.pool.clone(), want.sharing.other())) {
            return Err(AllocateError::BothWays { pool: want.pool.clone() });
        }
        if self.journal.look(|tables| tables.sharing(&want.pool))? != Some(want.sharing) {
            self.refuse_other_way(want).await?;
            ways.new.insert(want.way());
        }
        ways.used.insert(want.way());
        Ok(())
    }

    /// Looks, once the addresses are there for all to see, whether other nodes have addresses of the same pools in the
    /// other way: of two that begin in the same moment at least one sees the other. What is refused is not remembered.
    ///
    /// A node that has had an address of the pool all the time need not look: the others have seen that.
    async fn look_again(&self, pending: &[Pending<'_>], ways: &mut Ways) -> BTreeMap<(Pool, Sharing), AllocateError> {
        let mut refused = BTreeMap::new();
        let mut seen = BTreeSet::new();
        // In one transaction nobody comes between.
        for want in pending.iter().flat_map(|request| &request.request.wants).filter(|_| self.needs_intents()) {
            let may_be_new = seen.insert(want.way()) && (ways.new.contains(&want.way()) || !self.has_any_of(want));
            if may_be_new && let Err(error) = self.refuse_other_way(want).await {
                ways.used.remove(&want.way());
                refused.insert(want.way(), error);
            }
        }
        refused
    }

    /// Whether the ledger says that a container of this node has an address of the pool in this way.
    fn has_any_of(&self, want: &Want) -> bool {
        let (space, pool) = (want.space(), want.pool.cidr());
        let is_of_pool = |held: &HeldAddress| {
            held.block.space == space && held.lease.as_ref().is_some_and(|lease| lease.pool == pool)
        };
        let mut has_any = false;
        let looked = self.journal.look(|tables| {
            tables.each_attachment(&[], |_, row| {
                has_any = row.store == self.store_name && row.held.iter().any(is_of_pool);
                Ok(if has_any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
        });
        looked.is_ok() && has_any
    }

    async fn refuse_other_way(&self, want: &Want) -> Result<(), AllocateError> {
        let Want { pool, sharing, .. } = want;
        match self.live_in(pool, sharing.other()).await? {
            Some(address) => Err(AllocateError::Sharing { pool: pool.clone(), asked: *sharing, address }),
            None => Ok(()),
        }
    }

    /// An address of the pool that is held while the pool is used in this way, if there is one.
    async fn live_in(&self, pool: &Pool, sharing: Sharing) -> Result<Option<Address>, AllocateError> {
        let space = pool.space(sharing);
        let Some(index) = self.store.read_index(&space).await? else { return Ok(None) };
        let range = Range::from(pool.cidr());
        let (first, last) = (BlockNumber::of(range.first()), BlockNumber::of(range.last()));
        for number in index.object.existing().iter_between(first, last) {
            let id = BlockId { space: space.clone(), number };
            let Some(stored) = self.store.read_block(&id).await? else { continue };
            if let Some((offset, _)) = stored.object.iter().find(|(_, lease)| lease.pool == pool.cidr()) {
                return Ok(Some(id.address_at(offset)));
            }
        }
        Ok(None)
    }

    /// Gives wants the addresses that the attachment or the owner already has on this node: those that are asked for
    /// first, or the choice of another want might take them; then by equal pool, then by containment.
    async fn place_known(
        &self,
        working: &mut Working<'_, '_, S, J, E>,
        pending: &mut Pending<'_>,
    ) -> Result<(), AllocateError> {
        let request = pending.request;
        let mut kept = Vec::new();
        for (block, offset) in self.known_places(request)? {
            if pending.has_place(&block, offset) {
                continue;
            }
            let lease = working.open(&block).await?.get(offset);
            let Some(lease) = lease.filter(|lease| self.keeps(request, lease)).cloned() else { continue };
            self.settle_before(&lease).await?;
            kept.push((block, offset, lease));
        }
        // Its own come before those of other sandboxes of its owner.
        kept.sort_by_key(|(_, _, lease)| !lease.attachment.is_meant_by(&request.attachment));
        for match_by in [Match::Exactly, Match::PoolAndView, Match::Pool, Match::View] {
            for (at, want) in request.wants.iter().enumerate() {
                if pending.placed.get(at).is_none_or(Option::is_some) {
                    continue;
                }
                let space = want.space();
                let fits = |(block, offset, lease): &(BlockId, Offset, Lease)| {
                    let address = block.address_at(*offset);
                    let (in_pool, in_view) = (lease.pool == want.pool.cidr(), want.view.contains(address));
                    block.space == space
                        && match (want.exactly, match_by) {
                            (Some(exactly), Match::Exactly) => exactly == address,
                            (None, Match::PoolAndView) => in_pool && in_view,
                            // After a range was edited the same container keeps what it has; a new one does not.
                            (None, Match::Pool) => in_pool && lease.attachment.is_meant_by(&request.attachment),
                            (None, Match::View) => in_view,
                            _ => false,
                        }
                };
                if let Some(found) = kept.iter().position(fits) {
                    // The rest stays in order: the same wants get the same addresses, each its own.
                    let (block, offset, _) = kept.remove(found);
                    self.place(working, pending, at, block, offset);
                }
            }
        }
        Ok(())
    }

    /// Settles the call that wrote a lease and has not answered yet. Who takes over from it would leave it with an
    /// answer that is not true, or, should both fail, give the address back to nobody. The block moves by it, so the
    /// swap that was planned on what is known now is refused, and the next round sees what is left.
    async fn settle_before(&self, lease: &Lease) -> Result<(), AllocateError> {
        if !self.needs_intents() {
            return Ok(());
        }
        let Some(intent) = self.journal.look(|tables| tables.intent(lease.operation))? else { return Ok(()) };
        if self.settle_one(lease.operation, intent).await? {
            return Ok(());
        }
        Err(AllocateError::Busy { reason: format!("an earlier call for {lease} could not be settled") })
    }

    /// Where the ledger says that this attachment or owner has addresses. It may be wrong; the blocks tell.
    fn known_places(&self, request: &Allocate) -> Result<Vec<(BlockId, Offset)>, StorageError> {
        self.journal.look(|tables| {
            let mut places = Vec::new();
            for attachment in [&request.attachment, &request.attachment.without_network()] {
                if let Some(row) = tables.attachment(attachment)?
                    && row.store == self.store_name
                {
                    places.extend(row.held.into_iter().map(|held| (held.block, held.offset)));
                }
            }
            let spaces: BTreeSet<Space> = request.wants.iter().map(Want::space).collect();
            for space in spaces {
                for known in tables.owner(&space, &request.owner, &request.attachment.interface)?.addresses {
                    if let Some(address) = Address::new(space.family(), known.address)
                        && let Some(block) = space.block_of(address)
                    {
                        places.push((block, Offset::of(address)));
                    }
                }
            }
            places.sort();
            places.dedup();
            Ok(places)
        })
    }

    /// Whether a lease is this request's to keep.
    fn keeps(&self, request: &Allocate, lease: &Lease) -> bool {
        let same_attachment = lease.attachment.is_meant_by(&request.attachment);
        let same_owner = lease.is_kept_by(&request.owner) && lease.attachment.interface == request.attachment.interface;
        // A host's own ledger has nobody else's leases, whatever the host was called when it wrote them. A container is
        // on one node only, so where that is not known, the container that calls says it.
        let here = !self.needs_intents()
            || lease.node == self.node
            || matches!(request.owner, Owner::Sticky { .. })
            || lease.node.is_empty() && same_attachment;
        lease.state == LeaseState::Active && here && (same_owner || same_attachment)
    }

    async fn open_exactly(
        &self,
        working: &mut Working<'_, '_, S, J, E>,
        pending: &Pending<'_>,
        space: &Space,
        asked: Address,
    ) -> Result<(BlockId, Offset), AllocateError> {
        let offset = Offset::of(asked);
        let Some(block) = space.block_of(asked) else {
            let reason = "the address is not of the space's family".to_owned();
            return Err(AllocateError::Busy { reason });
        };
        match working.open(&block).await?.get(offset).cloned() {
            // One address does not serve two wants of a request either.
            Some(lease) if !self.keeps(pending.request, &lease) || lease.operation == pending.operation => {
                Err(AllocateError::AlreadyHeld { asked, held_by: Box::new(lease) })
            }
            Some(lease) => {
                self.settle_before(&lease).await?;
                Ok((block, offset))
            }
            None => {
                let lost = working.lost_leases(&block, &pending.request.attachment)?;
                match lost.into_iter().find(|(at, _)| *at == offset) {
                    Some((_, lease)) => Err(AllocateError::Lost { address: asked, held_by: Box::new(lease) }),
                    None => Ok((block, offset)),
                }
            }
        }
    }

    /// Gives an address of the working set to a want.
    fn place(
        &self,
        working: &mut Working<'_, '_, S, J, E>,
        pending: &mut Pending<'_>,
        at: usize,
        block: BlockId,
        offset: Offset,
    ) {
        let request = pending.request;
        let (Some(want), Some(place)) = (request.wants.get(at), pending.placed.get_mut(at)) else { return };
        let previous = working.block(&block).and_then(|block| block.get(offset)).cloned();
        let lease = Lease {
            state: LeaseState::Active,
            operation: pending.operation,
            attachment: request.attachment.clone(),
            owner: request.owner.clone(),
            node: Arc::clone(&self.node),
            boot: self.lease_boot.filter(|_| !request.owner.outlives_boots()),
            pool: want.pool.cidr(),
            provider: None,
            since: match &previous {
                Some(lease) if lease.attachment == request.attachment => lease.since,
                _ => self.environment.now(),
            },
        };
        working.put(&block, offset, lease.clone());
        *place = Some(Placed { block, offset, lease, previous, landed: false });
    }

    /// Writes down what is about to be sent, and says who must not send it.
    fn write_claims(
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

    /// A swap that was refused without the version having moved leaves an attempt before it as unknown as it was: that
    /// one may still land, so the intent must go on naming it until it is fenced.
    async fn keep_in_doubt(
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
    async fn look_for_landed(
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

    /// Writes down the attachments, and closes the intents with it.
    fn finish(
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

    pub(super) fn full(&self) -> AllocateError {
        let range = Range::from(self.pool.cidr());
        let ends = self.view.first().zip(self.view.last()).and_then(|(first, last)| Range::new(first, last));
        AllocateError::RangeFull { pool: self.pool.clone(), range: ends.unwrap_or(range), held: self.view.count() }
    }
}

// === impl Pending ===

impl<'r> Pending<'r> {
    fn new(at: usize, request: &'r Allocate, operation: OperationId) -> Self {
        Self { at, request, operation, placed: vec![None; request.wants.len()], has_intent: false }
    }

    fn has_place(&self, block: &BlockId, offset: Offset) -> bool {
        self.placed.iter().flatten().any(|placed| placed.block == *block && placed.offset == offset)
    }

    fn is_complete(&self) -> bool {
        self.placed.iter().all(|placed| placed.as_ref().is_some_and(|placed| placed.landed))
    }

    /// Why nobody knows what became of one of its places, if so.
    fn unknown<'u>(&self, unknown: &'u BTreeMap<BlockId, AllocateError>) -> Option<&'u AllocateError> {
        self.placed.iter().flatten().filter(|placed| !placed.landed).find_map(|placed| unknown.get(&placed.block))
    }

    /// Marks what is in place now.
    fn mark_landed(&mut self, is_in_place: impl Fn(&BlockId) -> bool) {
        for placed in self.placed.iter_mut().flatten() {
            placed.landed |= is_in_place(&placed.block);
        }
    }

    /// Takes what did not land out of the working set again.
    fn taken_back<S: Store, J: Journal, E: Environment>(mut self, working: &mut Working<'_, '_, S, J, E>) -> Self {
        for place in &mut self.placed {
            if let Some(placed) = place.take_if(|placed| !placed.landed) {
                working.take_back(&placed.block, placed.offset, placed.previous.as_ref());
            }
        }
        self
    }

    fn addresses(&self) -> Vec<Allocated> {
        let allocated = |placed: &Placed| Allocated {
            address: placed.block.address_at(placed.offset),
            operation: self.operation,
            reused: placed.previous.is_some(),
        };
        self.placed.iter().flatten().map(allocated).collect()
    }
}
