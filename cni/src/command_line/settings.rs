//! Which ledger a person works on.

use std::path::PathBuf;
use std::time::Duration;

use whereabouts_engine::{Access, Create, Ledger, OpenOptions};

use super::exit::Failure;
use crate::cni::Environment;
use crate::config::DEFAULT_DATA_DIR;
use crate::host::{Caller, facts, ledger_path};

/// How long a person waits for others who use the ledger.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the ledger is.
pub(super) struct Settings {
    data_dir: PathBuf,
}

impl Settings {
    /// The folder that was named, on the command line or in the environment; else root's is the plugin's, and an
    /// ordinary user's is among the user's state.
    pub(super) fn new(named: Option<PathBuf>, environment: &Environment) -> Self {
        let named = named.or_else(|| environment.surroundings().data_dir);
        let data_dir = named.unwrap_or_else(|| match environment.state_folder() {
            Some(state) if !rustix::process::geteuid().is_root() => state.join("whereabouts"),
            _ => PathBuf::from(DEFAULT_DATA_DIR),
        });
        Self { data_dir }
    }

    pub(super) fn path(&self) -> PathBuf {
        ledger_path(&self.data_dir)
    }

    /// The ledger, to be changed.
    pub(super) fn open(&self, create: Create) -> Result<Ledger, Failure> {
        self.open_as(Access::Write, create)
    }

    /// The ledger, to be read; it must be there.
    pub(super) fn read(&self) -> Result<Ledger, Failure> {
        self.open_as(Access::Read, Create::Never)
    }

    fn open_as(&self, access: Access, create: Create) -> Result<Ledger, Failure> {
        let mut options = OpenOptions::new(self.path());
        (options.access, options.create, options.wait) = (access, create, PATIENCE);
        Ok(Ledger::open(&options, facts(Caller::Person))?)
    }
}
