//! Which ledger, or which cluster, a person works on.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use whereabouts_engine::{Access, Create, HostFacts, Ledger, LedgerError, LedgerFileError, OpenOptions, Survey};

use super::exit::Failure;
use super::output::Output;
use crate::cni::Environment;
use crate::config::DEFAULT_DATA_DIR;
use crate::host::{Caller, facts, ledger_path};
use crate::stores::kubernetes::{KubernetesHost, SILENCE};
use crate::stores::{ArbiterError, kubernetes_ledger_path};

/// How long a person waits for others who use the ledger.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the addresses are that a command works on.
pub(super) enum Source {
    /// In the ledger of this host alone.
    Host(Ledger),
    /// In a cluster.
    Cluster(Box<KubernetesHost>),
}

/// Where the ledger is.
pub(super) struct Settings {
    data_dir: PathBuf,
    /// Whether the folder was named on the command line.
    is_data_dir_named: bool,
    /// The name of this node in its cluster, if somebody says.
    node: Option<String>,
    /// The cluster that the command works on, if it does.
    kubeconfig: Option<PathBuf>,
    /// The cluster of the environment.
    usual_kubeconfig: Option<PathBuf>,
    n_unreadable: Cell<usize>,
}

impl Settings {
    /// The folder that was named: on the command line, in the environment, or in the flat file that the environment
    /// names. Else root's is the plugin's, and an ordinary user's is among the user's state.
    pub(super) fn new(
        named: Option<PathBuf>,
        kubeconfig: Option<PathBuf>,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let surroundings = environment.surroundings();
        // Where the plugin finds it: in the environment, or beside the flat file.
        let node = surroundings.node_name();
        let is_data_dir_named = named.is_some();
        let data_dir = match named.or_else(|| surroundings.data_dir.clone()) {
            Some(named) => named,
            None => {
                let own = environment.state_folder().filter(|_| !rustix::process::geteuid().is_root());
                // A flat file in the usual places is the plugin's.
                let counts = own.is_none() || surroundings.flat_files.is_named();
                let of_flat_file = if counts { surroundings.data_dir_of_flat_file()? } else { None };
                let own = || own.map(|state| state.join("whereabouts"));
                of_flat_file.or_else(own).unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR))
            }
        };
        let (usual_kubeconfig, n_unreadable) = (environment.kubeconfig(), Cell::new(0));
        Ok(Self { data_dir, is_data_dir_named, node, kubeconfig, usual_kubeconfig, n_unreadable })
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
        Ok(self.open_as(Access::Write, create)?)
    }

    /// The cluster that was named; else the ledger of this host. Where there has never been one, it is the cluster of the
    /// environment, unless a folder was named to look into; else the one that the plugin on this host works with.
    pub(super) fn source(&self, access: Access, output: &Output) -> Result<Source, Failure> {
        if self.kubeconfig.is_some() {
            return Ok(Source::Cluster(Box::new(self.cluster()?)));
        }
        let missing = match self.open_as(access, Create::Never) {
            Err(LedgerError::File(error @ LedgerFileError::Missing { .. })) => error,
            opened => return Ok(Source::Host(opened?)),
        };
        let known = if self.is_data_dir_named { self.cluster_of_plugin() } else { self.usual_cluster() };
        let Some(kubeconfig) = known? else { return Err(LedgerError::File(missing).into()) };
        let (ledger, kubeconfig_path) = (ledger_path(&self.data_dir), kubeconfig.display());
        output.note(format_args!("there is no {}: this is about the cluster of {kubeconfig_path}", ledger.display()));
        Ok(Source::Cluster(Box::new(self.member(&kubeconfig)?)))
    }

    /// What is to be read: the ledger of this host, which must be there, or what the cluster holds. What of that cannot be
    /// read is told, and then the command does not end as a success.
    pub(super) fn read(&self, output: &Output) -> Result<Ledger, Failure> {
        match self.source(Access::Read, output)? {
            Source::Host(ledger) => Ok(ledger),
            Source::Cluster(host) => self.read_cluster(&host, output),
        }
    }

    /// What a cluster holds, as [`Settings::read`] has it.
    pub(super) fn read_cluster(&self, host: &KubernetesHost, output: &Output) -> Result<Ledger, Failure> {
        let Survey { ledger, unreadable, missing, .. } = host.survey()?;
        for error in &unreadable {
            output.error(&format!("stepped over what cannot be read: {error}"));
        }
        for block in &missing {
            let cure = "run `whereabouts repair` on every node";
            output.error(&format!("the block {block} is gone, and who holds its addresses is not known: {cure}"));
        }
        self.n_unreadable.set(unreadable.len() + missing.len());
        Ok(ledger)
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
        let mut options = OpenOptions::new(self.cluster_ledger());
        (options.create, options.wait) = (Create::IfMissing, PATIENCE);
        let mut facts = facts(Caller::Person);
        if let Some(node) = &self.node {
            facts.node = node.as_str().into();
        }
        Ok(KubernetesHost::open(options, facts, kubeconfig, PATIENCE, SILENCE)?.for_person())
    }

    /// The kubeconfig that was named, on the command line or in the environment, else the one that the ledger of this host
    /// knows.
    pub(super) fn known_kubeconfig(&self) -> Result<PathBuf, Failure> {
        let known = match &self.kubeconfig {
            Some(named) => Some(named.clone()),
            None => self.usual_cluster()?,
        };
        known.ok_or_else(|| {
            let path = self.cluster_ledger();
            Failure::usage(format_args!("{} knows no cluster; name its kubeconfig with --kubeconfig", path.display()))
        })
    }

    /// What this host keeps of its cluster.
    pub(super) fn cluster_ledger(&self) -> PathBuf {
        kubernetes_ledger_path(&self.data_dir)
    }

    fn usual_cluster(&self) -> Result<Option<PathBuf>, Failure> {
        match &self.usual_kubeconfig {
            Some(usual) => Ok(Some(usual.clone())),
            None => self.cluster_of_plugin(),
        }
    }

    /// The kubeconfig that the plugin on this host worked with last.
    fn cluster_of_plugin(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(if self.cluster_ledger().exists() { self.member(Path::new(""))?.known_kubeconfig()? } else { None })
    }

    /// A host of a cluster that holds nothing itself, with a ledger of its own in a folder: with the kubeconfig that was
    /// named, else the one that this host's ledger knows.
    pub(super) fn cluster_of(&self, folder: &Path, patience: Duration) -> Result<KubernetesHost, Failure> {
        let kubeconfig = self.known_kubeconfig()?;
        let options = OpenOptions::new(kubernetes_ledger_path(folder));
        let facts = HostFacts { node: "".into(), ..facts(Caller::Person) };
        Ok(KubernetesHost::open(options, facts, &kubeconfig, patience, SILENCE)?.for_person())
    }

    fn open_as(&self, access: Access, create: Create) -> Result<Ledger, LedgerError> {
        let mut options = OpenOptions::new(ledger_path(&self.data_dir));
        (options.access, options.create, options.wait) = (access, create, PATIENCE);
        Ledger::open(&options, facts(Caller::Person))
    }
}
