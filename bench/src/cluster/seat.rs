//! A contender in its place before a cluster: nodes with states and kubeconfigs of their own, and the range that it is
//! asked about.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use whereabouts_testbed::{ControlPlane, SimulatedNode};

use super::{ACCOUNT, Cluster};
use crate::contender::{Contender, DATA_DIR, KUBECONFIG, Kind, RANGE};
use crate::measure::{self, Circumstances, Given};

/// A contender with nodes of its own.
#[derive(Debug)]
pub struct Seat<'a> {
    /// Who sits here.
    pub contender: &'a Contender,
    nodes: Vec<Node>,
    given: Mutex<Given>,
    /// The nodes' states; removed with the seat.
    _state: tempfile::TempDir,
}

/// A node as one contender sees it.
#[derive(Debug)]
struct Node {
    data_dir: PathBuf,
    kubeconfig: PathBuf,
    environment: Vec<(String, OsString)>,
    /// What the contender reads there.
    stdin: PathBuf,
    /// What a floor is told.
    arguments: Vec<OsString>,
}

/// What came of an ADD.
#[derive(Debug)]
pub enum Added {
    /// An address that nobody was given before, after so long.
    Address(Duration),
    /// Another plugin's failure, in its words.
    Failed(String),
}

// === impl Seat ===

impl<'a> Seat<'a> {
    /// Makes `n_nodes` nodes with states below `folder`. The range is still to be said.
    ///
    /// # Errors
    ///
    /// When a state cannot be written.
    pub fn take(contender: &'a Contender, cluster: &Cluster, n_nodes: usize, folder: &Path) -> Result<Self> {
        let state = tempfile::tempdir_in(folder).with_context(|| format!("a folder in {}", folder.display()))?;
        let nodes = (0..n_nodes)
            .map(|number| Node::new(contender, cluster, number, &state.path().join(number.to_string())))
            .collect::<Result<_>>()?;
        Ok(Self { contender, nodes, given: Mutex::default(), _state: state })
    }

    /// Every later ADD asks for an address of this range.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub fn ask_of(&mut self, range: &str) -> Result<()> {
        for node in &self.nodes {
            let path = |path: &Path| path.to_str().map(str::to_owned).context("a folder's path is not UTF-8");
            let (kubeconfig, data_dir) = (path(&node.kubeconfig)?, path(&node.data_dir)?);
            let meanings = [(KUBECONFIG, kubeconfig.as_str()), (DATA_DIR, &data_dir), (RANGE, range)];
            let config = self.contender.config_with(&meanings).unwrap_or_default();
            fs::write(&node.stdin, config.to_string())?;
        }
        Ok(())
    }

    /// The ADD that is the first one on each node, and makes the state.
    ///
    /// # Errors
    ///
    /// When one fails.
    pub fn begin(&self) -> Result<()> {
        for number in 0..self.nodes.len() {
            if let Added::Failed(words) = self.add(number)? {
                return Err(anyhow!(words)).with_context(|| format!("the first ADD of {}", self.contender.name));
            }
        }
        Ok(())
    }

    /// Runs one ADD for the sandbox of a new pod on the node of this caller, or what a floor does instead.
    ///
    /// # Errors
    ///
    /// When a floor or our own plugin fails, or our own gives what it had given before.
    pub fn add(&self, caller: usize) -> Result<Added> {
        let node = self.nodes.get(caller % self.nodes.len().max(1)).context("a seat without nodes")?;
        let circumstances = Circumstances { environment: &node.environment, is_pod: true };
        let added = measure::run_in(circumstances, &self.contender.program, &node.arguments, &node.stdin, "ADD")
            .and_then(|run| {
                if !self.contender.is_floor() {
                    let mut given = self.given.lock().map_err(|_| anyhow!("another thread panicked"))?;
                    given.note(&run.stdout).with_context(|| self.contender.name.clone())?;
                }
                Ok(Added::Address(run.took))
            });
        match (&self.contender.kind, added) {
            // How often it fails is something to be said of it.
            (Kind::Other(_), Err(error)) => Ok(Added::Failed(format!("{error:#}"))),
            (_, added) => added,
        }
    }
}

// === impl Node ===

impl Node {
    fn new(contender: &Contender, cluster: &Cluster, number: usize, folder: &Path) -> Result<Self> {
        let control_plane = cluster.control_plane();
        let data_dir = folder.join("state");
        fs::create_dir_all(&data_dir)?;
        let name = format!("node-{number}");
        let (mut environment, kubeconfig) = match &contender.kind {
            Kind::Other(_) => {
                // Which rights another plugin needs its manifests know. Those of an administrator cost it nothing: for
                // them no roles are looked at.
                let (token, name) = (control_plane.admin_token(), format!("{}-{name}", contender.name));
                (Vec::new(), control_plane.kubeconfig(&name, token, ACCOUNT.0, &control_plane.url()))
            }
            _ => {
                let mut node = SimulatedNode::new(control_plane, &name, ACCOUNT, &control_plane.url());
                node.data_dir.clone_from(&data_dir);
                (node.env(), node.kubeconfig)
            }
        };
        if environment.is_empty() {
            environment.push(("NODENAME".to_owned(), name.into()));
        }
        let arguments = match contender.kind {
            Kind::FloorCommit => vec![data_dir.join("floor.redb").into_os_string()],
            Kind::FloorRequests => floor_arguments(control_plane, folder, &data_dir)?,
            _ => Vec::new(),
        };
        Ok(Self { data_dir, kubeconfig, environment, stdin: folder.join("stdin.json"), arguments })
    }
}

/// Where the cluster is, who vouches for it, who asks, what is read and replaced, and what is committed to.
fn floor_arguments(control_plane: &ControlPlane, folder: &Path, data_dir: &Path) -> Result<Vec<OsString>> {
    let url = control_plane.url();
    let address = url.strip_prefix("https://").context("an API server has TLS")?;
    let token = folder.join("token");
    fs::write(&token, control_plane.service_account_token(ACCOUNT.0, ACCOUNT.1))?;
    Ok(vec![
        address.into(),
        control_plane.ca().into(),
        token.into(),
        Cluster::floor_path().into(),
        data_dir.join("floor.redb").into(),
    ])
}
