//! One host: the ledger as the store, with nothing beside it.
//!
//! Each call is one transaction: it is answered when what it changed is durable, and a call that fails changed
//! nothing.

mod repair;
mod report;
mod spooled;
mod transfer;
mod verify;
mod waiting;

use std::cell;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub use self::repair::{RepairError, Repaired};
pub use self::report::{Cell, Holding, Holdings, Occupancy};
pub use self::transfer::{ImportConflict, ImportError, Imported};
pub use self::verify::{Disagreement, Verified};

use self::spooled::carry_out_in;
use crate::host::{FIRST_PID_NAMESPACE, HostEnvironment, HostFacts};
use crate::lease::BootId;
use crate::ledger::meta::{HostRow, IdentityRow};
use crate::ledger::redb_rows::{SnapshotRows, TransactionRows};
use crate::ledger::{Access, LedgerFile, LedgerFileError, OpenOptions, Outcome, RowsMut, StorageError, Tables};
use crate::operations::{
    Allocate, AllocateError, Allocated, Check, CheckError, Collect, Environment, Host, Release, ReleaseError, Released,
    Want,
};
use crate::spooled::waiting_releases;
use crate::store::local::Unit;

/// The ledger of a host, open: addresses that are unique on this host, durable before they are seen.
///
/// ```
/// use whereabouts_engine::{Allocate, Attachment, HostFacts, Ledger, Network, OpenOptions, Owner, Pool, Sharing};
/// use whereabouts_engine::{View, ViewSpec, Want};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("ledger.redb");
/// let ledger = Ledger::open(&OpenOptions::new(path), HostFacts::read())?;
/// let range = "10.0.0.0/24".parse()?;
/// let want = Want {
///     pool: Pool::new(Network::unnamed(), range),
///     sharing: Sharing::Shared,
///     view: View::new(&ViewSpec::new(range))?.into(),
///     exactly: None,
/// };
/// let request = Allocate { attachment: Attachment::named("web"), owner: Owner::Named("web".into()), wants: vec![want] };
/// for answer in ledger.allocate(&[request])? {
///     assert_eq!(answer?[0].address.to_string(), "10.0.0.1");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Ledger {
    file: LedgerFile,
    facts: HostFacts,
}

/// The ledger could not be opened, read or written. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file.
    #[error(transparent)]
    File(#[from] LedgerFileError),
    /// What is in it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// This host as it works on one transaction of its ledger.
type LocalHost<'u, R> = Host<'u, Unit<R>, Unit<R>, HostEnvironment>;

// === impl Ledger ===

impl Ledger {
    /// Opens the ledger, and waits for others who have it open. A handle that writes carries out the releases that were
    /// spooled while nobody could write.
    ///
    /// # Errors
    /// [`LedgerError`] names the file and the cure.
    pub fn open(options: &OpenOptions, facts: HostFacts) -> Result<Self, LedgerError> {
        match options.access {
            Access::Write => Self::open_and_carry_out(options, facts),
            Access::Read => Ok(Self { file: LedgerFile::open(options)?, facts }),
        }
    }

    /// A ledger on a file that is open already: for tests that count and crash.
    #[doc(hidden)]
    #[must_use]
    pub fn on(file: LedgerFile, facts: HostFacts) -> Self {
        Self { file, facts }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &LedgerFile {
        &self.file
    }

    /// The host.
    #[must_use]
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Gives each request its addresses, all or nothing, in one commit for all of them. The answers are in the order
    /// of the requests.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be used; then nobody got anything.
    pub fn allocate(&self, requests: &[Allocate]) -> Result<Vec<Result<Vec<Allocated>, AllocateError>>, LedgerError> {
        // What was read and found full or over on the way is not worth two syncs to those who get nothing.
        self.write(async |host| host.allocate(requests).await, |answers| answers.iter().any(Result::is_ok))
    }

    /// Frees what each request names, in one commit for all of them. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be used; then nothing was freed.
    pub fn release(&self, requests: &[Release]) -> Result<Vec<Result<Released, ReleaseError>>, LedgerError> {
        self.change(async |host| host.release(requests).await)
    }

    /// Checks that attachments hold what they should. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be used.
    pub fn check(&self, requests: &[Check]) -> Result<Vec<Result<(), CheckError>>, LedgerError> {
        self.look(async |host| host.check(requests).await)
    }

    /// Frees what this host recorded for a CNI network and the runtime no longer lists.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be used; then nothing was freed.
    pub fn collect(&self, list: &Collect) -> Result<Vec<Result<Released, ReleaseError>>, LedgerError> {
        self.change(async |host| host.collect(list).await)
    }

    /// Says for each want whether an allocation would be allowed and find an address now, without taking it. In a handle
    /// that only reads, too; what waits in the spool counts as released, as it will be before the allocation.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be used.
    pub fn has_room(&self, wants: &[Want]) -> Result<Vec<Result<(), AllocateError>>, LedgerError> {
        self.look(async |host| {
            carry_out_in(&host, &waiting_releases(self.file.path())).await?;
            host.has_room(wants).await
        })
    }

    /// Whether an attachment of this interface of a container is known. For one who could not release it.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be read.
    pub fn knows(&self, container: &str, interface: &str) -> Result<bool, LedgerError> {
        self.read(|tables| Ok(!tables.attachments_of(container, interface)?.is_empty()))
    }

    /// Runs an operation and commits what it changed, if it changed anything.
    fn change<T>(
        &self,
        operation: impl AsyncFnOnce(LocalHost<'_, TransactionRows<'_>>) -> Result<T, StorageError>,
    ) -> Result<T, LedgerError> {
        self.write(operation, |_| true)
    }

    /// Runs an operation and commits what it changed, if its answer is worth that.
    fn write<T>(
        &self,
        operation: impl AsyncFnOnce(LocalHost<'_, TransactionRows<'_>>) -> Result<T, StorageError>,
        is_worth_it: impl FnOnce(&T) -> bool,
    ) -> Result<T, LedgerError> {
        let answer = self.file.write(|transaction| {
            let changed = cell::Cell::new(false);
            let tables = Tables(TransactionRows::new(transaction, &changed));
            let answer = run(tables, &self.facts, operation);
            Ok(if changed.get() && answer.as_ref().is_ok_and(is_worth_it) {
                Outcome::Commit(answer)
            } else {
                Outcome::Abandon(answer)
            })
        })?;
        Ok(answer?)
    }

    /// Runs an operation and leaves the ledger as it was, whatever it did.
    fn look<T>(
        &self,
        operation: impl AsyncFnOnce(LocalHost<'_, TransactionRows<'_>>) -> Result<T, StorageError>,
    ) -> Result<T, LedgerError> {
        let answer = self.file.try_out(|transaction| {
            let changed = cell::Cell::new(false);
            Ok(run(Tables(TransactionRows::new(transaction, &changed)), &self.facts, operation))
        })?;
        Ok(answer?)
    }

    /// Changes rows as such, in one transaction.
    pub(crate) fn write_rows(
        &self,
        change: impl FnOnce(&mut Tables<TransactionRows<'_>>) -> Result<(), StorageError>,
    ) -> Result<(), LedgerError> {
        let changed = cell::Cell::new(false);
        let answer = self.file.write(|transaction| {
            let answer = change(&mut Tables(TransactionRows::new(transaction, &changed)));
            Ok(if answer.is_ok() { Outcome::Commit(answer) } else { Outcome::Abandon(answer) })
        })?;
        Ok(answer?)
    }

    /// Reads the tables in one snapshot.
    fn read<T>(
        &self,
        look: impl FnOnce(&Tables<SnapshotRows<'_>>) -> Result<T, StorageError>,
    ) -> Result<T, LedgerError> {
        Ok(self.file.read(|transaction| Ok(look(&Tables(SnapshotRows(transaction)))))??)
    }
}

/// Runs an operation on one transaction of a ledger.
pub(crate) fn run<R: RowsMut, T>(
    mut tables: Tables<R>,
    facts: &HostFacts,
    operation: impl AsyncFnOnce(LocalHost<'_, R>) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let environment = HostEnvironment;
    let (boot, lease_boot) = know_host(&mut tables, facts, environment.now())?;
    let unit = Unit::new(tables, boot, environment.now());
    let host = Host {
        store: &unit,
        journal: &unit,
        environment: &environment,
        node: Arc::clone(&facts.node),
        boot,
        lease_boot,
        store_name: "".into(),
    };
    let answer = now_or_never(operation(host))?;
    unit.failure().map_or(Ok(answer), Err)
}

/// The boot that the ledger knows, and the one that new leases die with.
///
/// Where an earlier boot is over, its leases are. That costs one write: the marks of the indexes are cleared, and each
/// block is cleaned when it is read next.
pub(crate) fn know_host<R: RowsMut>(
    tables: &mut Tables<R>,
    facts: &HostFacts,
    now: u64,
) -> Result<(BootId, Option<BootId>), StorageError> {
    let here = HostRow { boot: facts.boot, pid_namespace: facts.pid_namespace };
    let Some(known) = tables.host()? else {
        if !tables.has_identity()? {
            let random = u128::from(HostEnvironment.random()) << 64 | u128::from(HostEnvironment.random());
            let machine = Arc::clone(&facts.machine);
            tables.set_identity(&IdentityRow { machine, random: random.to_be_bytes(), created: now })?;
        }
        // Only a runtime says which pid namespace is the host's: a command may have been run inside a container.
        let lease_boot = (facts.may_end_boots && facts.knows_its_boot()).then_some(here.boot);
        if lease_boot.is_some() {
            tables.set_host(&here)?;
        }
        return Ok((here.boot, lease_boot));
    };
    if !facts.knows_its_boot() {
        return Ok((known.boot, None));
    }
    if known.boot == here.boot {
        return Ok((here.boot, Some(here.boot)));
    }
    // A host that is a container itself gets another pid namespace whenever it starts. That of any other host stays the
    // same, and whoever comes from elsewhere is in a container on it, perhaps one that was given a boot id of its own.
    let is_here = known.pid_namespace == here.pid_namespace || known.pid_namespace != FIRST_PID_NAMESPACE;
    if !is_here || !facts.may_end_boots {
        // Nobody here can tell when the boot that the ledger knows ends, so what is leased here outlives it: a DEL, a
        // GC or an operator frees it.
        return Ok((known.boot, None));
    }
    for space in tables.spaces()? {
        match tables.index(&space) {
            Ok(Some(mut index)) => {
                if index.clear_marks() {
                    tables.set_index(&space, &index)?;
                }
            }
            Ok(None) => {}
            // The other spaces are served; whoever asks for this one is told.
            Err(error) if error.is_of_one_row() => tracing::error!(%space, %error, "this space cannot be served"),
            Err(error) => return Err(error),
        }
    }
    tables.set_host(&here)?;
    Ok((here.boot, Some(here.boot)))
}

/// Drives a future that never waits.
pub(crate) fn now_or_never<T>(future: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(StorageError::io("an operation on the ledger waited for something")),
    }
}
