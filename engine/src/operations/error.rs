//! Why a request got no address.

use crate::address::Address;
use crate::index::HANDED_OVER;
use crate::interval::Range;
use crate::lease::Lease;
use crate::ledger::StorageError;
use crate::space::{Pool, Sharing, Space};
use crate::store::ReadError;

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
    #[error("{space} is frozen: {reason}; {}", cure(reason))]
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

fn range_full(pool: &Pool, range: &Range, held: u128) -> String {
    if held == 0 {
        return format!(
            "range {pool} has no address to give: all of them are excluded, or gateways; take excludes away, or widen \
             the range"
        );
    }
    format!("range {pool} is full: {held} of {held} addresses ({range}) are held; free some, or widen the range")
}

/// What to do about a space that is frozen for this reason.
pub(super) fn cure(reason: &str) -> &'static str {
    match reason {
        HANDED_OVER => "call that program in place of this one",
        _ => "run `whereabouts repair`",
    }
}
