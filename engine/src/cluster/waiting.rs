//! The turns of those on this host who want addresses of the same spaces: a block that is swapped once for all of them is
//! not fought for by each.
//!
//! Those who want other spaces, or more or fewer of them, do not wait here, and nobody waits longer than a part of its
//! time. Whoever stops waiting works alone, beside the one whose turn it is; the journal sees to it that a request is not
//! carried out twice.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{ClusterHost, ClusterLedger};
use crate::codec::WaitingRequest;
use crate::ledger::{Lockable, Share, StorageError, lock, with_suffix};
use crate::operations::{Allocate, AllocateError, Allocated, Environment, Want};
use crate::space::Space;
use crate::store::Store;
use crate::waiting::{Asked, Posted, Waited};

/// Which part of its time a call waits for its turn. The one whose turn it is may be waiting for a store that is silent,
/// and then the others must have time to find that out for themselves.
const PART: u32 = 4;

/// A turn with some spaces of a store, for one call of this host after the other.
#[derive(Debug)]
pub struct ClusterTurn {
    folder: PathBuf,
    store: Arc<str>,
    spaces: BTreeSet<Space>,
    /// `None` for one who works beside the one whose turn it is.
    lock: RefCell<Option<Arc<Lockable>>>,
}

/// The file that is locked by the one whose turn it is with what waits in a folder.
fn turn_file(folder: &Path) -> io::Result<Arc<Lockable>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut open = File::options();
    open.read(true).write(true).create(true).truncate(false).mode(0o600);
    Ok(Arc::new(Lockable::new(open.open(with_suffix(folder, ".turn"))?)))
}

fn spaces_of(request: &Allocate) -> BTreeSet<Space> {
    request.wants.iter().map(Want::space).collect()
}

// === impl ClusterLedger ===

impl ClusterLedger {
    /// Waits for a turn with the spaces of a request, in a store that is reached in this way (see
    /// [`KnownStore::address`](super::KnownStore::address)). While others have it, the request waits where they see it,
    /// and one of them may carry it out.
    #[must_use]
    pub fn wait_to_allocate(&self, request: &Allocate, store: &str) -> Waited<ClusterTurn> {
        // Whoever has the turn needs the ledger.
        self.journal.let_go();
        let turn = ClusterTurn::new(self, spaces_of(request), store);
        match turn.wait(self, request) {
            Ok(Some(allocated)) => return Waited::Served(allocated),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "works alone"),
        }
        Waited::Turn(turn)
    }

    /// The turn with the releases that wait in the spool, for as long as the file is kept; `None` while another call has
    /// it. Nobody waits for it.
    pub(super) fn turn_with_spool(&self) -> io::Result<Option<Arc<Lockable>>> {
        let file = turn_file(&self.waiting_folder().join("spool"))?;
        Ok(lock(&file, Share::Alone, Instant::now())?.then_some(file))
    }

    fn waiting_folder(&self) -> PathBuf {
        with_suffix(&self.journal.options().path, ".waiting")
    }
}

// === impl ClusterTurn ===

impl ClusterTurn {
    fn new(ledger: &ClusterLedger, spaces: BTreeSet<Space>, store: &str) -> Self {
        // Two that get the same name wait for each other without need; what is carried out is compared.
        let mut name = crc32fast::Hasher::new();
        name.update(store.as_bytes());
        for space in &spaces {
            name.update(space.to_string().as_bytes());
        }
        let folder = ledger.waiting_folder().join(format!("{:08x}", name.finalize()));
        Self { folder, store: store.into(), spaces, lock: RefCell::new(None) }
    }

    /// Takes the turn, or the answer of one who had it.
    fn wait(&self, ledger: &ClusterLedger, request: &Allocate) -> io::Result<Option<Vec<Allocated>>> {
        let until = Instant::now() + ledger.journal.left() / PART;
        let file = turn_file(&self.folder)?;
        if lock(&file, Share::Alone, Instant::now())? {
            self.lock.replace(Some(file));
            return Ok(None);
        }
        let (facts, store) = (ledger.facts.clone(), Arc::clone(&self.store));
        let posted = Posted::leave(&self.folder, &WaitingRequest { facts, store, request: request.clone() });
        if lock(&file, Share::Alone, until)? {
            self.lock.replace(Some(file));
            return Ok(posted.and_then(Posted::take_answer));
        }
        // The request is withdrawn here: whoever has read it does not claim anything for it from now on.
        tracing::debug!("waits no longer for another call on this host");
        Ok(None)
    }

    /// What others wait with, for one whose turn it is.
    fn asked(&self, lock: Option<&Arc<Lockable>>, ledger: &ClusterLedger) -> Asked {
        if lock.is_none() {
            return Asked::default();
        }
        Asked::in_folder(&self.folder, |waiting| {
            waiting.facts == ledger.facts && waiting.store == self.store && spaces_of(&waiting.request) == self.spaces
        })
    }
}

// === impl ClusterHost ===

impl<S: Store, E: Environment> ClusterHost<'_, S, E> {
    /// Gives a request its addresses, and those who wait for a turn with its spaces theirs. Then the turn is over.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; then nobody got anything.
    pub async fn allocate_for_all(
        &self,
        request: &Allocate,
        turn: &ClusterTurn,
    ) -> Result<Result<Vec<Allocated>, AllocateError>, StorageError> {
        let lock = turn.lock.take();
        let asked = turn.asked(lock.as_ref(), self.ledger);
        let is_waited_for = |at: usize| asked.is_waited_for(at);
        let requests = asked.after(request);
        let answers = match self.host().allocate_for_all(&requests, &is_waited_for).await {
            // What is odd about another's request must not cost this one its addresses.
            Err(error) if !asked.is_empty() => {
                tracing::warn!(%error, "not carried out for those who wait");
                self.allocate(std::slice::from_ref(request)).await?
            }
            answers => {
                let answers = answers?;
                self.learn_full(&requests, &answers);
                answers
            }
        };
        asked.deliver(answers).ok_or_else(|| StorageError::io("an allocation without an answer"))
    }
}
