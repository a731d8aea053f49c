//! The cluster of a history: real servers, a proxy before them, and nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use whereabouts::stores::kubernetes::read_object;
use whereabouts::stores::kubernetes_ledger_path;
use whereabouts_engine::{Block, BlockId, ClusterLedger, HostFacts, Index, Lease, Object, OpenOptions, Space};
use whereabouts_testbed::{ControlPlane, FaultProxy, SimulatedNode};

use super::events::Snapshot;
use crate::support::Plugin;

/// Namespace and service account that the manifests give the rights to.
const ACCOUNT: (&str, &str) = ("kube-system", "whereabouts");

/// Where the objects of the plugin are.
const COLLECTIONS: [&str; 2] = [
    "/apis/ipam.whereabouts.dev/v1alpha1/namespaces/kube-system/ipspaces",
    "/apis/ipam.whereabouts.dev/v1alpha1/namespaces/kube-system/ipblocks",
];

/// Seconds after which a call gives up: less than the longest outage.
const DEADLINE: u64 = 6;

pub struct Cluster {
    pub control_plane: ControlPlane,
    pub proxy: FaultProxy,
    pub nodes: Vec<Node>,
    /// The UID of the namespace `kube-system`.
    uid: String,
}

pub struct Node {
    pub simulated: SimulatedNode,
    pub plugin: Plugin,
}

/// All that the plugin keeps in the cluster.
#[derive(Debug, Default)]
pub struct Contents {
    pub blocks: BTreeMap<BlockId, Block>,
    pub indexes: BTreeMap<Space, Index>,
}

// === impl Cluster ===

impl Cluster {
    /// # Errors
    /// Says in words for people why there is none here.
    pub fn start(n_nodes: usize) -> Result<Self, String> {
        let control_plane = ControlPlane::start()?;
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
        control_plane.apply(&manifests);
        let proxy = FaultProxy::before(&control_plane)?;
        let namespace = control_plane.get("/api/v1/namespaces/kube-system").expect("a namespace of every cluster");
        let uid = namespace["metadata"]["uid"].as_str().expect("an object has a UID").to_owned();
        let node = |number| {
            let name = format!("node-{number}");
            let simulated = SimulatedNode::new(&control_plane, &name, ACCOUNT, proxy.url());
            let plugin = Plugin::new(&simulated.data_dir).launched_by(simulated.launcher());
            Node { simulated, plugin }
        };
        let nodes = (0..n_nodes).map(node).collect();
        Ok(Self { control_plane, proxy, nodes, uid })
    }

    /// What is in the cluster now.
    ///
    /// # Errors
    /// There was no answer.
    ///
    /// # Panics
    /// When an object is not sound.
    pub fn contents(&self) -> Result<Contents, String> {
        let mut contents = Contents::default();
        for collection in COLLECTIONS {
            let list = match self.control_plane.request("GET", collection, None)? {
                (200, list) => list,
                (status, body) => return Err(format!("{status} {body}")),
            };
            for object in list["items"].as_array().expect("a list has items") {
                match read_object(&self.uid, object).unwrap_or_else(|error| panic!("{error}")) {
                    Object::Block(id, block) => drop(contents.blocks.insert(id, Arc::unwrap_or_clone(block))),
                    Object::Index(space, index) => drop(contents.indexes.insert(space, Arc::unwrap_or_clone(index))),
                }
            }
        }
        Ok(contents)
    }

    /// Who holds what now, unless there is no answer.
    pub fn look(&self, since: Instant) -> Option<Snapshot> {
        let begun = since.elapsed();
        let contents = self.contents().ok()?;
        let ended = since.elapsed();
        let container = |lease: &Lease| lease.attachment.container.to_string();
        let leases = contents.leases().map(|(address, lease)| (address, container(lease))).collect();
        let frozen = |(space, index): (&Space, &Index)| Some(format!("{space}: {}", index.frozen()?));
        Some(Snapshot { begun, ended, leases, frozen: contents.indexes.iter().filter_map(frozen).collect() })
    }
}

// === impl Node ===

impl Node {
    /// The configuration of a network on this node.
    pub fn config(&self, network: &str, ranges: &[&str]) -> Value {
        let ranges: Vec<Value> = ranges.iter().map(|range| json!({ "range": range })).collect();
        let mut config = self.plugin.config(json!({
            "datastore": "kubernetes",
            "kubernetes": { "kubeconfig": self.simulated.kubeconfig },
            "ipRanges": ranges,
            "deadline": DEADLINE,
            "log_level": "debug",
        }));
        config["name"] = network.into();
        config
    }

    /// The ledger beside the cluster.
    pub fn ledger(&self) -> ClusterLedger {
        let options = OpenOptions::new(kubernetes_ledger_path(&self.simulated.data_dir));
        let deadline = Instant::now() + Duration::from_secs(30);
        // Whose machine it is of is not asked here: this one is none of the nodes.
        let facts = HostFacts { machine: "".into(), ..HostFacts::read() };
        ClusterLedger::open(options, facts, deadline).expect("a ledger can be opened after every death")
    }
}

// === impl Contents ===

impl Contents {
    /// Every lease with its address.
    pub fn leases(&self) -> impl Iterator<Item = (IpAddr, &Lease)> {
        let of_block = |(id, block)| {
            let (id, block): (&BlockId, &Block) = (id, block);
            block.iter().map(move |(offset, lease)| (id.address_at(offset).to_ip(), lease))
        };
        self.blocks.iter().flat_map(of_block)
    }

    /// In words for people where an index says of a block what is not so. A mark may be missing, which costs a read.
    pub fn contradictions(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (space, index) in &self.indexes {
            let numbers = |(id, _): (&BlockId, &Block)| (id.space == *space).then_some(id.number);
            let there: BTreeSet<_> = self.blocks.iter().filter_map(numbers).collect();
            let listed: BTreeSet<_> = index.existing().iter().collect();
            if there != listed {
                wrong.push(format!("the index of {space} lists the blocks {listed:?}, and there are {there:?}"));
            }
        }
        for (id, block) in &self.blocks {
            match self.indexes.get(&id.space) {
                None => wrong.push(format!("block {id} has no index")),
                Some(index) if index.mark(id.number) > block.fullness() => {
                    let (mark, fullness) = (index.mark(id.number), block.fullness());
                    wrong.push(format!("block {id} is {fullness:?}, and the index marks it {mark:?}"));
                }
                Some(_) => {}
            }
        }
        wrong
    }
}
