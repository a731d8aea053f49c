//! Which ledger a person works on.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use whereabouts_engine::{Access, Create, HostFacts, Ledger, OpenOptions, Survey};

use super::exit::Failure;
use super::output::Output;
use crate::cni::Environment;
use crate::config::DEFAULT_DATA_DIR;
use crate::host::{Caller, facts, ledger_path};
use crate::stores::kubernetes::{KubernetesHost, SILENCE};
use crate::stores::{ArbiterError, kubernetes_ledger_path};

/// How long a person waits for others who use the ledger.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the ledger is.
pub(super) struct Settings {
    data_dir: PathBuf,
    /// The name of this node in its cluster, if somebody says.
    node: Option<String>,
    /// The cluster that the command works on, if it does.
    kubeconfig: Option<PathBuf>,
    /// The cluster that those commands work on which work on nothing else.
    usual_kubeconfig: Option<PathBuf>,
    n_unreadable: Cell<usize>,
}

impl Settings {
    /// The folder that was named, on the command line or in the environment; else root's is the plugin's, and an
    /// ordinary user's is among the user's state.
    pub(super) fn new(named: Option<PathBuf>, kubeconfig: Option<PathBuf>, environment: &Environment) -> Self {
        let surroundings = environment.surroundings();
        // Where the plugin finds it: in the environment, or beside the flat file.
        let node = surroundings.node_name();
        let named = named.or(surroundings.data_dir);
        let data_dir = named.unwrap_or_else(|| match environment.state_folder() {
            Some(state) if !rustix::process::geteuid().is_root() => state.join("whereabouts"),
            _ => PathBuf::from(DEFAULT_DATA_DIR),
        });
        Self { data_dir, node, kubeconfig, usual_kubeconfig: environment.kubeconfig(), n_unreadable: Cell::new(0) }
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The ledger of this host, to be changed.
    pub(super) fn open(&self, create: Create) -> Result<Ledger, Failure> {
        if let Some(kubeconfig) = &self.kubeconfig {
            return Err(Failure::usage(format_args!(
                "--kubeconfig {}: this command works on the ledger of this host alone; leave it out",
                kubeconfig.display()
            )));
        }
        self.open_as(Access::Write, create)
    }

    /// What is to be read: the ledger of this host, which must be there, or what the cluster holds. What of that cannot be
    /// read is told, and then the command does not end as a success.
    pub(super) fn read(&self, output: &Output) -> Result<Ledger, Failure> {
        if self.kubeconfig.is_none() {
            return self.open_as(Access::Read, Create::Never);
        }
        let Survey { ledger, unreadable, .. } = self.cluster()?.survey()?;
        for error in &unreadable {
            output.error(&format!("stepped over what cannot be read: {error}"));
        }
        self.n_unreadable.set(unreadable.len());
        Ok(ledger)
    }

    /// Whether the command works on a cluster.
    pub(super) fn is_of_cluster(&self) -> bool {
        self.kubeconfig.is_some()
    }

    /// How many objects of the cluster could not be read.
    pub(super) fn n_unreadable(&self) -> usize {
        self.n_unreadable.get()
    }

    /// This host as one of a cluster: with the kubeconfig that was named, else the one that its ledger knows.
    pub(super) fn cluster(&self) -> Result<KubernetesHost, Failure> {
        Ok(self.member(&self.known_kubeconfig()?)?)
    }

    fn member(&self, kubeconfig: &Path) -> Result<KubernetesHost, ArbiterError> {
        let mut options = OpenOptions::new(kubernetes_ledger_path(&self.data_dir));
        (options.create, options.wait) = (Create::IfMissing, PATIENCE);
        let mut facts = facts(Caller::Person);
        if let Some(node) = &self.node {
            facts.node = node.as_str().into();
        }
        KubernetesHost::open(options, facts, kubeconfig, PATIENCE, SILENCE)
    }

    /// The kubeconfig that was named, on the command line or in the environment, else the one that the ledger of this host
    /// knows.
    pub(super) fn known_kubeconfig(&self) -> Result<PathBuf, Failure> {
        if let Some(named) = self.kubeconfig.as_ref().or(self.usual_kubeconfig.as_ref()) {
            return Ok(named.clone());
        }
        let path = kubernetes_ledger_path(&self.data_dir);
        let known = if path.exists() { self.member(Path::new(""))?.known_kubeconfig()? } else { None };
        known.ok_or_else(|| {
            Failure::usage(format_args!("{} knows no cluster; name its kubeconfig with --kubeconfig", path.display()))
        })
    }

    /// A host of a cluster that holds nothing itself, with a ledger of its own in a folder: with the kubeconfig that was
    /// named, else the one that this host's ledger knows.
    pub(super) fn cluster_of(&self, folder: &Path, patience: Duration) -> Result<KubernetesHost, Failure> {
        let kubeconfig = self.known_kubeconfig()?;
        let options = OpenOptions::new(kubernetes_ledger_path(folder));
        let facts = HostFacts { node: "".into(), ..facts(Caller::Person) };
        Ok(KubernetesHost::open(options, facts, &kubeconfig, patience, SILENCE)?)
    }

    fn open_as(&self, access: Access, create: Create) -> Result<Ledger, Failure> {
        let mut options = OpenOptions::new(ledger_path(&self.data_dir));
        (options.access, options.create, options.wait) = (access, create, PATIENCE);
        Ok(Ledger::open(&options, facts(Caller::Person))?)
    }
}
