//! The choice: which address a want gets, by what the batch has read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pending::{Pending, Placed};
use super::ways::Ways;
use super::{Allocate, Want};
use crate::address::Address;
use crate::lease::{Lease, LeaseState, Owner};
use crate::ledger::{Journal, StorageError};
use crate::offset::Offset;
use crate::operations::Host;
use crate::operations::environment::Environment;
use crate::operations::error::AllocateError;
use crate::operations::working::Working;
use crate::space::{BlockId, Space};
use crate::store::Store;

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

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Chooses an address for every want that has none yet.
    pub(super) async fn place_all(
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
}
