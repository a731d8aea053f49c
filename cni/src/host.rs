//! The ledger of this host, as the configuration and the environment name it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use whereabouts_engine::{
    Access, Allocate, AllocateError, Allocated, Create, HostFacts, Ledger, LedgerError, OpenOptions, Trust, Waited,
};

use crate::config::HostSettings;

/// After how long an ADD gives up. Runtimes wait for two to four minutes, and try again.
pub const ADD_DEADLINE: Duration = Duration::from_secs(30);
/// After how long a DEL stops waiting and queues what it is to free.
pub const DEL_DEADLINE: Duration = Duration::from_secs(20);

/// Who opens a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A CNI call: it may conclude that an earlier boot, and what was leased in it, is over.
    Runtime,
    /// A person, who may be inside a container.
    Person,
}

/// The ledger in a data folder.
#[must_use]
pub fn ledger_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger.redb")
}

/// What the ledger wants to know of this host.
#[must_use]
pub fn facts(caller: Caller) -> HostFacts {
    HostFacts { may_end_boots: caller == Caller::Runtime, ..HostFacts::read() }
}

/// As [`facts`], with the name of the node that the configuration knows.
#[must_use]
pub fn facts_of(settings: &HostSettings, caller: Caller) -> HostFacts {
    let facts = facts(caller);
    match &settings.node {
        Some(node) => HostFacts { node: node.as_str().into(), ..facts },
        None => facts,
    }
}

/// Assigns addresses to one attachment; while other calls have the ledger, one of them may do it.
///
/// # Errors
/// [`LedgerError`] names the file and the cure.
pub fn allocate(
    settings: &HostSettings,
    request: &Allocate,
) -> Result<Result<Vec<Allocated>, AllocateError>, LedgerError> {
    let options = options(settings, Create::IfMissing, ADD_DEADLINE);
    match Ledger::open_to_allocate(&options, facts(Caller::Runtime), request)? {
        Waited::Served(allocated) => Ok(Ok(allocated)),
        Waited::Turn(ledger) => {
            warn_of_risk(&ledger);
            ledger.allocate_for_all(request)
        }
    }
}

/// Opens the ledger for a verb that needs one: it is made if there is none.
///
/// # Errors
/// [`LedgerError`] names the file and the cure.
pub fn open(settings: &HostSettings, caller: Caller) -> Result<Ledger, LedgerError> {
    open_with(settings, caller, Create::IfMissing, ADD_DEADLINE)
}

/// Opens the ledger for a verb that only takes away, or only looks: without a ledger there is nothing to find.
///
/// # Errors
/// [`LedgerError`] names the file and the cure.
pub fn open_existing(settings: &HostSettings, caller: Caller) -> Result<Ledger, LedgerError> {
    open_with(settings, caller, Create::Never, DEL_DEADLINE)
}

/// Opens the ledger for a runtime's call that only looks: nothing is written, nor is what was queued carried out.
///
/// # Errors
/// [`LedgerError`] names the file and the cure.
pub fn open_to_look(settings: &HostSettings) -> Result<Ledger, LedgerError> {
    let mut options = options(settings, Create::Never, ADD_DEADLINE);
    options.access = Access::Read;
    Ledger::open(&options, facts(Caller::Runtime))
}

/// Whether a ledger knows anything of this interface of a container; `None` when it cannot be read just now.
#[must_use]
pub fn knows(ledger: &Path, container: &str, interface: &str) -> Option<bool> {
    let mut options = OpenOptions::new(ledger);
    // Whoever had it for so long that a call gave up has it still.
    (options.create, options.access, options.wait) = (Create::Never, Access::Read, Duration::ZERO);
    Ledger::open(&options, facts(Caller::Runtime)).ok()?.knows(container, interface).ok()
}

fn options(settings: &HostSettings, create: Create, deadline: Duration) -> OpenOptions {
    let mut options = OpenOptions::new(ledger_path(&settings.data_dir));
    options.wait = settings.deadline.unwrap_or(deadline);
    options.create = create;
    options
}

fn open_with(
    settings: &HostSettings,
    caller: Caller,
    create: Create,
    deadline: Duration,
) -> Result<Ledger, LedgerError> {
    let options = options(settings, create, deadline);
    let ledger = Ledger::open(&options, facts(caller))?;
    warn_of_risk(&ledger);
    Ok(ledger)
}

/// Says what the file system may do to the ledger.
fn warn_of_risk(ledger: &Ledger) {
    let file_system = ledger.file().file_system();
    let risk = match file_system.trust() {
        Trust::Layered => "what is written may vanish together with the container",
        Trust::Userspace => "only its program knows whether what is written survives a crash",
        // Leases of a runtime die with the boot as memory does. The others are refused, or fine.
        _ => return,
    };
    let path = ledger.file().path().display();
    tracing::warn!(%path, %file_system, "{risk}; set data_dir to a folder on a disk of this host");
}
