//! The algorithm, once, for any store: allocate, release, check, collect, settle, freeze and repair, and adopt what
//! another program gave.
//!
//! *Take the first block of the view that the index does not call full, read it, choose the lowest offset in
//! view − used, swap the block in.*
//!
//! Every operation takes a batch: many requests go in, one write per touched block comes out, each request gets its
//! own answer. Nothing here knows which store is behind [`Store`], or what runs the futures.

mod adopt;
mod allocate;
mod check;
mod collect;
mod edit;
mod environment;
mod error;
mod frozen;
mod marks;
mod proven;
mod release;
mod settle;
mod working;

use std::sync::Arc;

pub use self::adopt::{AdoptConflict, AdoptError, Adopted};
pub use self::allocate::{Allocate, Allocated, Want};
pub use self::check::{Check, CheckError};
pub use self::collect::Collect;
pub use self::environment::{Environment, Pauses};
pub use self::error::AllocateError;
pub use self::frozen::{Contradiction, Reinserted};
pub(crate) use self::release::forget_known;
pub use self::release::{Release, ReleaseError, Released};
pub use self::settle::Settled;

use crate::intent::{Intent, Purpose, Seen};
use crate::lease::{Attachment, BootId, OperationId};
use crate::ledger::{Journal, StorageError};
use crate::store::{Promises, Store};

/// A host that works on a store: what every operation needs.
#[derive(Debug)]
pub struct Host<'a, S, J, E> {
    /// Where the blocks are.
    pub store: &'a S,
    /// Where this host writes down what it does.
    pub journal: &'a J,
    /// Clock, randomness and patience.
    pub environment: &'a E,
    /// The name of this node.
    pub node: Arc<str>,
    /// This boot of the host.
    pub boot: BootId,
    /// The boot that leases made now die with; `None` where nobody could tell its end.
    pub lease_boot: Option<BootId>,
    /// What tells `store` from the other stores that this host uses; empty for the ledger itself.
    pub store_name: Arc<str>,
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    pub(crate) fn promises(&self) -> Promises {
        self.store.promises()
    }

    /// Whether changes must be written down before they are sent. A store that shares the journal's transaction
    /// changes all or nothing.
    pub(crate) fn needs_intents(&self) -> bool {
        !self.promises().one_transaction_with_journal
    }

    pub(crate) fn new_operation(&self) -> OperationId {
        OperationId::from_bytes(self.environment.random().to_be_bytes())
    }

    pub(crate) fn intent(&self, attachment: &Attachment, purpose: Purpose) -> Intent {
        Intent {
            attachment: attachment.clone(),
            store: Arc::clone(&self.store_name),
            boot: self.boot,
            opened: self.environment.boot_clock(),
            purpose,
        }
    }

    /// Closes intents that have come to their end.
    pub(crate) fn close(&self, operations: &[OperationId]) -> Result<(), StorageError> {
        if operations.is_empty() {
            return Ok(());
        }
        self.journal.record(|tables| operations.iter().try_for_each(|&operation| tables.close_intent(operation)))
    }
}

impl Seen {
    /// What was seen of a block.
    pub(crate) fn of_block(stored: &crate::store::Stored<crate::Block>) -> Self {
        Self { epoch: stored.object.epoch(), sequence: stored.object.sequence(), identity: stored.identity.clone() }
    }

    /// What was seen of an index.
    pub(crate) fn of_index(stored: &crate::store::Stored<crate::Index>) -> Self {
        Self { epoch: stored.object.epoch(), sequence: stored.object.sequence(), identity: stored.identity.clone() }
    }
}
