//! One host of many: a store that others use too is the truth, and the ledger of this host holds what is under way
//! ([intents](crate::intent)), what this host's attachments hold, and hints.
//!
//! The operations are those of every store ([`crate::operations`]); this is only the door to them.

mod courteous;
mod full;
mod rebuild;
mod spooled;
mod survey;
mod waiting;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use self::rebuild::Rebuilt;
pub use self::survey::{Survey, SurveyError};
pub use self::waiting::ClusterTurn;

use self::courteous::Courteous;
use crate::address::Address;
use crate::host::{HostEnvironment, HostFacts};
use crate::intent::HeldAddress;
use crate::lease::{Attachment, BootId, Lease};
use crate::ledger::meta::{IdentityRow, StoreRow};
use crate::ledger::redb_rows::SnapshotRows;
use crate::ledger::{Create, FileJournal, FileSystem, Journal, OpenOptions, StorageError, Tables};
use crate::operations::{
    AdoptError, Adopted, Allocate, AllocateError, Allocated, Check, CheckError, Collect, Environment, Host, Reinserted,
    Release, ReleaseError, Released, Settled,
};
use crate::space::Space;
use crate::store::{ReadError, Store};

/// A claim of this age, in milliseconds, is dead: its call has ended, whatever its deadline.
const LONGEST_CALL: u64 = 15 * 60 * 1000;

/// A release, a recheck or a freeze of this age, in milliseconds, is taken over: two who carry it out do no harm.
const LONGEST_CARE: u64 = 5 * 1000;

/// The ledger of a host whose addresses are arbitrated elsewhere.
///
/// It is closed while a call waits for the store, so that calls on one host wait for each other's writes only.
#[derive(Debug)]
pub struct ClusterLedger {
    journal: FileJournal,
    facts: HostFacts,
}

/// The store that a ledger belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownStore {
    /// What tells it from every other one: in Kubernetes the UID of the namespace `kube-system`.
    pub identity: Arc<str>,
    /// How it was reached last: the path of the kubeconfig.
    pub address: Arc<str>,
}

/// A ledger and its store: what a call works with.
#[derive(Debug)]
pub struct ClusterHost<'a, S, E> {
    ledger: &'a ClusterLedger,
    store: Courteous<'a, S>,
    environment: &'a E,
}

/// Whether a ledger was made for another machine: then it speaks of containers that never ran here.
fn is_of_another_machine(identity: Option<&IdentityRow>, facts: &HostFacts) -> bool {
    identity.is_some_and(|identity| {
        !identity.machine.is_empty() && !facts.machine.is_empty() && identity.machine != facts.machine
    })
}

// === impl ClusterLedger ===

impl ClusterLedger {
    /// Opens the ledger. A call that is made with it ends at `deadline`.
    ///
    /// A ledger of another machine, as a copied disk has it, is set aside, and a new one is begun.
    ///
    /// # Errors
    /// [`StorageError`] names the file and the cure.
    pub fn open(options: OpenOptions, facts: HostFacts, deadline: Instant) -> Result<Self, StorageError> {
        let mut options = options;
        if options.create == Create::IfMissing {
            // What a ledger that is gone knew of, the store knows.
            options.create = Create::EvenIfLost;
        }
        let ledger = Self { journal: FileJournal::new(options, deadline), facts };
        let mut is_signed = false;
        let is_set_aside = ledger.set_aside("of-another-machine", |tables| {
            let identity = tables.identity()?;
            is_signed = identity.is_some();
            Ok(is_of_another_machine(identity.as_ref(), &ledger.facts))
        })?;
        if is_set_aside || !is_signed {
            ledger.sign()?;
        }
        Ok(ledger)
    }

    /// Sets the ledger aside and begins a new one, which belongs to another store: what the old one knows has nothing to
    /// do with that. Where another call has done it meanwhile, that is it.
    ///
    /// # Errors
    /// [`StorageError`] names the file.
    pub fn begin_anew(&self, known: &KnownStore) -> Result<(), StorageError> {
        let is_set_aside = self.set_aside("of-another-cluster", |tables| {
            Ok(tables.store()?.is_none_or(|row| row.identity != known.identity))
        })?;
        if is_set_aside {
            self.sign()?;
            self.set_store(known)?;
        }
        Ok(())
    }

    /// Writes down whose ledger it is.
    fn sign(&self) -> Result<(), StorageError> {
        let random = u128::from(HostEnvironment.random()) << 64 | u128::from(HostEnvironment.random());
        let row = IdentityRow {
            machine: Arc::clone(&self.facts.machine),
            random: random.to_be_bytes(),
            created: HostEnvironment.now(),
        };
        self.journal.record(|tables| tables.set_identity(&row))
    }

    /// Renames the file where it is not to be used, so that a new one is begun and nothing is lost; says whether it was.
    fn set_aside(
        &self,
        why: &str,
        is_due: impl for<'t> FnOnce(&Tables<SnapshotRows<'t>>) -> Result<bool, StorageError>,
    ) -> Result<bool, StorageError> {
        let path = &self.journal.options().path;
        // While it is open, so that nobody else does the same, or has begun the new one already.
        if !self.journal.look(is_due)? {
            return Ok(false);
        }
        let aside = PathBuf::from(format!("{}.{why}-{}", path.display(), HostEnvironment.now()));
        tracing::warn!(path = %path.display(), aside = %aside.display(), why, "the ledger is set aside");
        let renamed = fs::rename(path, &aside);
        self.journal.let_go();
        renamed.map_err(|error| StorageError::io(format!("{} cannot be set aside: {error}", path.display())))?;
        Ok(true)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.journal.options().path
    }

    /// The file system that the ledger is on, for the caller to warn about.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be opened.
    pub fn file_system(&self) -> Result<FileSystem, StorageError> {
        Ok(self.journal.with(|file| Ok(file.file_system()))?)
    }

    /// The store that this ledger belongs to, once it is known.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn store(&self) -> Result<Option<KnownStore>, StorageError> {
        let row = self.journal.look(|tables| tables.store())?;
        Ok(row.map(|StoreRow { identity, address, .. }| KnownStore { identity, address }))
    }

    /// Whether the ledger knows everything that its node holds, as far as it knows. One that is new does not.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn is_complete(&self) -> Result<bool, StorageError> {
        Ok(self.journal.look(|tables| tables.store())?.is_some_and(|row| row.is_complete))
    }

    /// Remembers the store that this ledger belongs to, and how it is reached.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be written.
    pub fn set_store(&self, known: &KnownStore) -> Result<(), StorageError> {
        self.journal.record(|tables| {
            let is_complete = tables.store()?.is_some_and(|row| row.is_complete && row.identity == known.identity);
            let (identity, address) = (Arc::clone(&known.identity), Arc::clone(&known.address));
            tables.set_store(&StoreRow { identity, address, is_complete })
        })
    }

    /// Whether the ledger knows anything of this interface of a container: what it holds, or a call under way.
    ///
    /// What cannot be read the store knows better: it is taken away, and the ledger is not complete until it has learned
    /// from the store again what its node holds.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn knows(&self, container: &str, interface: &str) -> Result<bool, StorageError> {
        let holds = match self.journal.look(|tables| tables.attachments_of(container, interface)) {
            Ok(rows) => !rows.is_empty(),
            Err(error) if error.is_of_one_row() => {
                tracing::error!(%error, container, interface, "to be learned from the store again");
                self.journal.record(|tables| tables.forget_unreadable(container, interface))?;
                false
            }
            Err(error) => return Err(error),
        };
        let is_it =
            |attachment: &Attachment| &*attachment.container == container && &*attachment.interface == interface;
        let is_under_way =
            || self.journal.look(|tables| Ok(tables.intents()?.iter().any(|(_, intent)| is_it(&intent.attachment))));
        Ok(holds || is_under_way()?)
    }

    /// Whether the ledger remembers anything of a space.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn knows_space(&self, space: &Space) -> Result<bool, StorageError> {
        self.journal.look(|tables| Ok(tables.index(space)?.is_some()))
    }

    /// What an attachment holds.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn leases_of(&self, attachment: &Attachment) -> Result<Vec<(Address, Lease)>, StorageError> {
        self.journal.look(|tables| {
            let mut held = Vec::new();
            for attachment in [attachment, &attachment.without_network()] {
                held.extend(tables.attachment(attachment)?.into_iter().flat_map(|row| row.held));
            }
            Ok(held.into_iter().filter_map(|held| Some((held.address(), held.lease?))).collect())
        })
    }

    /// The spaces that this host has ever seen.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn spaces(&self) -> Result<Vec<Space>, StorageError> {
        self.journal.look(|tables| tables.spaces())
    }

    /// Everything that this node's attachments hold, by attachment.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn attachments(&self) -> Result<Vec<(Attachment, Vec<Address>)>, StorageError> {
        self.journal.look(|tables| {
            let mut all = Vec::new();
            tables.each_attachment(&[], |attachment, row| {
                all.push((attachment, row.held.iter().map(HeldAddress::address).collect()));
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(all)
        })
    }

    /// How many changes are under way or queued.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be read.
    pub fn n_under_way(&self) -> Result<usize, StorageError> {
        self.journal.look(|tables| Ok(tables.intents()?.len()))
    }

    /// This ledger and its store.
    pub fn on<'a, S: Store, E: Environment>(&'a self, store: &'a S, environment: &'a E) -> ClusterHost<'a, S, E> {
        ClusterHost { ledger: self, store: Courteous::new(store, &self.journal), environment }
    }
}

// === impl ClusterHost ===

impl<S: Store, E: Environment> ClusterHost<'_, S, E> {
    fn host(&self) -> Host<'_, Courteous<'_, S>, FileJournal, E> {
        let facts = &self.ledger.facts;
        Host {
            store: &self.store,
            journal: &self.ledger.journal,
            environment: self.environment,
            node: Arc::clone(&facts.node),
            boot: facts.boot,
            // Kept for people and for the controller: in a cluster nothing is freed by it.
            lease_boot: (facts.boot != BootId::UNKNOWN).then_some(facts.boot),
            store_name: "".into(),
        }
    }

    /// Gives each request its addresses, all or nothing. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; then nobody got anything.
    pub async fn allocate(
        &self,
        requests: &[Allocate],
    ) -> Result<Vec<Result<Vec<Allocated>, AllocateError>>, StorageError> {
        let answers = self.host().allocate(requests).await?;
        self.learn_full(requests, &answers);
        Ok(answers)
    }

    /// Frees what each request names, or queues it durably. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; then nothing was freed or queued.
    pub async fn release(&self, requests: &[Release]) -> Result<Vec<Result<Released, ReleaseError>>, StorageError> {
        self.host().release(requests).await
    }

    /// Checks that attachments hold what they should. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn check(&self, requests: &[Check]) -> Result<Vec<Result<(), CheckError>>, StorageError> {
        self.host().check(requests).await
    }

    /// Frees what this host recorded for a CNI network and the runtime no longer lists.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn collect(&self, list: &Collect) -> Result<Vec<Result<Released, ReleaseError>>, StorageError> {
        self.host().collect(list).await
    }

    /// Carries out what earlier calls on this host have left: releases that were queued while the store was away, and
    /// calls that died.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn settle_left_over(&self) -> Result<Settled, StorageError> {
        self.host().settle_left_over(LONGEST_CALL, LONGEST_CARE).await
    }

    /// Settles everything that is under way on this host, however young: for a caller who knows that no other call is.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn settle_all(&self) -> Result<Settled, StorageError> {
        self.host().settle(0).await
    }

    /// Freezes a space by an operator's word. Says whether it is done.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read.
    pub async fn freeze(&self, space: &Space, reason: &str) -> Result<bool, ReadError> {
        let epoch = self.store.read_index(space).await?.map_or(0, |stored| stored.object.epoch());
        Ok(self.host().carry_out_freeze(space, epoch, reason).await)
    }

    /// Puts back what this host's ledger proves alive and a frozen space has lost, and reports that for all.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; [`ReadError`] inside when the store does not answer.
    pub async fn reinsert(&self, space: &Space) -> Result<Result<Reinserted, ReadError>, StorageError> {
        self.host().reinsert(space).await
    }

    /// Says what [`Self::adopt`] would do now, and changes nothing.
    ///
    /// # Errors
    /// [`AdoptError`], as `adopt` would return it.
    pub async fn would_adopt(&self, space: &Space, leases: &[(Address, Lease)]) -> Result<Adopted, AdoptError> {
        self.host().would_adopt(space, leases).await
    }

    /// Takes over leases that another program gave, in a new epoch of the space. Asked again, it changes nothing.
    ///
    /// # Errors
    /// [`AdoptError`]; where another holds one of the addresses already, nothing was written.
    pub async fn adopt(&self, space: &Space, leases: &[(Address, Lease)]) -> Result<Adopted, AdoptError> {
        self.host().adopt(space, leases).await
    }

    /// Opens a frozen space again, in a new epoch.
    ///
    /// # Errors
    /// [`ReadError`] when the store does not answer, or a block of the space cannot be read.
    pub async fn thaw(&self, space: &Space) -> Result<(), ReadError> {
        self.host().thaw(space).await
    }
}
