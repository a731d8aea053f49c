//! What a store is: the place that keeps blocks and indexes, and swaps them.
//!
//! The algorithm in [`operations`](crate::operations) is written once, against this trait. A store brings only
//! reads, swaps and lists; it never decides who gets an address.
//!
//! **What a store must promise.** All correctness rests on these, and nothing else is assumed:
//!
//! 1. A read returns a state that was current at some moment between its call and its return, with the version of
//!    that state. It never answers from a cache.
//! 2. A swap whose `expected` version is not the current one changes nothing, now or later.
//! 3. A version never comes back: once it has moved, a swap that expects the old one can never be accepted.
//!    Creating is a swap that expects [`Version::absent`].
//! 4. [`Outcome::Accepted`], [`Outcome::Refused`] and [`Outcome::Rejected`] are the truth. Whatever is not known for
//!    certain is [`Outcome::Unknown`], and may land at any later moment for as long as its version has not moved.
//! 5. With [`Promises::several_at_once`], the swaps of one call are all accepted or all refused.
//! 6. Where objects can be deleted, [`Stored::identity`] tells one that was made anew from the one before.
//! 7. [`Store::confirm`] succeeds only where the store is the one that the ledger belongs to.

pub(crate) mod local;
#[cfg(feature = "testing")]
pub mod memory;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::block::Block;
use crate::index::Index;
use crate::offset::BlockNumber;
use crate::space::{BlockId, Space};

/// The version of an object as its store gives it: opaque bytes, compared for equality only.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Version(Box<[u8]>);

/// An object as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    /// The version to expect when it is swapped.
    pub version: Version,
    /// What tells an object from another one that was made later under the same name; empty where a store has no
    /// such thing.
    pub identity: Vec<u8>,
    /// The object.
    pub object: T,
}

/// What a swap puts in place. A swap is repeated and passed on, so it shares what it carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A block.
    Block(BlockId, Arc<Block>),
    /// The index of a space.
    Index(Space, Arc<Index>),
}

/// Puts an object in the place of the version that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Swap {
    /// The version that was read; [`Version::absent`] where nothing was there.
    pub expected: Version,
    /// What is put in its place.
    pub object: Object,
}

/// What became of a swap.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is in place.
    Accepted {
        /// Its new version.
        version: Version,
        /// The object's identity: see [`Stored::identity`].
        identity: Vec<u8>,
    },
    /// It changed nothing and never will: the version has moved, so that another attempt may succeed.
    Refused,
    /// It changed nothing and never will, and neither would another attempt, though the version may be the right one: a
    /// right is missing, or the store has a rule against it.
    Rejected {
        /// What the store says, for people.
        reason: String,
    },
    /// Nobody can say: the reply was lost, or the store broke down. It may still land for as long as the version
    /// has not moved.
    Unknown {
        /// What went wrong, for people.
        reason: String,
    },
}

/// What a store promises beyond the trait's own rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Promises {
    /// The swaps of one call are all accepted or all refused.
    pub several_at_once: bool,
    /// Swaps become durable in the same transaction as the journal's records, so that a change is whole or was
    /// never there, and needs no intent.
    pub one_transaction_with_journal: bool,
}

/// A read that failed. It changed nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store cannot be reached, or did not answer in time; ask again.
    #[error("the store cannot be read: {reason}")]
    Unavailable {
        /// What went wrong, for people.
        reason: String,
    },
    /// The store does not let it be read, and will not when it is asked again either.
    #[error("the store cannot be read: {reason}")]
    Rejected {
        /// What the store says, for people.
        reason: String,
    },
    /// What was read is no sound object. It is never overwritten.
    #[error("{object} cannot be read: {reason}")]
    Unsound {
        /// Which object.
        object: String,
        /// What is wrong with it, for people.
        reason: String,
    },
    /// What was read is an object of another store that was copied here. It is never overwritten, and its space is
    /// frozen.
    #[error("{object} is of another cluster: {reason}")]
    Foreign {
        /// Which object.
        object: String,
        /// Whose it is, for people.
        reason: String,
    },
}

/// An object of a list and which one it is, or what is wrong with it.
pub type Listed<K, T> = (K, Result<Stored<T>, ReadError>);

/// Keeps blocks and indexes, and swaps them against the version that was read.
pub trait Store {
    /// What this store promises beyond the trait's own rules.
    fn promises(&self) -> Promises;

    /// Reads the index of a space; `None` where there is none.
    ///
    /// # Errors
    /// [`ReadError`] when the store does not answer, or what it holds is unsound.
    fn read_index(&self, space: &Space) -> impl Future<Output = Result<Option<Stored<Index>>, ReadError>>;

    /// Reads a block; `None` where there is none.
    ///
    /// # Errors
    /// [`ReadError`] when the store does not answer, or what it holds is unsound.
    fn read_block(&self, block: &BlockId) -> impl Future<Output = Result<Option<Stored<Block>>, ReadError>>;

    /// Swaps objects, each at most once per call, and answers for each in the same order.
    fn swap(&self, swaps: Vec<Swap>) -> impl Future<Output = Vec<Outcome>>;

    /// Reads all blocks of a space, ascending, those that are unsound or foreign as the error that they are. For
    /// repairs, rebuilding and people, never on the way of an ADD or DEL.
    ///
    /// # Errors
    /// [`ReadError`] when the store does not answer.
    fn list_blocks(&self, space: &Space) -> impl Future<Output = Result<Vec<Listed<BlockNumber, Block>>, ReadError>>;

    /// Reads all indexes, in the order of their spaces, those that are unsound or foreign as the error that they are. For
    /// rebuilding and people; a DEL asks for them only when its attachment is not known to the ledger.
    ///
    /// # Errors
    /// [`ReadError`] when the store does not answer, or holds what does not say of which space it is.
    fn list_indexes(&self) -> impl Future<Output = Result<Vec<Listed<Space, Index>>, ReadError>>;

    /// Makes sure that this is the store that the ledger of this host belongs to. Asked before a space is frozen: a
    /// configuration that was pointed at another cluster must not freeze that cluster's spaces.
    ///
    /// # Errors
    /// [`ReadError`] when it is another one, or when it does not answer.
    fn confirm(&self) -> impl Future<Output = Result<(), ReadError>>;
}

// === impl Version ===

impl Version {
    /// What is expected where nothing is there yet.
    #[must_use]
    pub fn absent() -> Self {
        Self(Box::default())
    }

    /// The version with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it stands for nothing being there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl Object ===

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(block, _) => write!(f, "block {block}"),
            Self::Index(space, _) => write!(f, "the index of {space}"),
        }
    }
}
