//! A pool is private everywhere or shared everywhere: whether one may be used in the way that is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::Want;
use super::pending::Pending;
use crate::address::Address;
use crate::intent::HeldAddress;
use crate::interval::Range;
use crate::ledger::Journal;
use crate::offset::BlockNumber;
use crate::operations::Host;
use crate::operations::environment::Environment;
use crate::operations::error::AllocateError;
use crate::space::{BlockId, Pool, Sharing};
use crate::store::Store;

/// In which ways a batch uses pools.
#[derive(Default)]
pub(in crate::operations) struct Ways {
    pub(super) used: BTreeSet<(Pool, Sharing)>,
    /// Of those, the ones that this node did not remember.
    new: BTreeSet<(Pool, Sharing)>,
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Refuses an address outside its pool, and a pool that is in use in the other way.
    pub(in crate::operations) async fn check_want(&self, want: &Want, ways: &mut Ways) -> Result<(), AllocateError> {
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
    pub(super) async fn look_again(
        &self,
        pending: &[Pending<'_>],
        ways: &mut Ways,
    ) -> BTreeMap<(Pool, Sharing), AllocateError> {
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
}
