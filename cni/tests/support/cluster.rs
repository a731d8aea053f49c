//! Nodes of a real control plane, and what its objects say, read past the plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use whereabouts::stores::kubernetes::{IPBlockSpec, IPSpaceSpec, base85};
use whereabouts_engine::{
    Address, Block, BlockId, BlockNumber, Family, Fullness, Index, IpNet, Lease, Network, Pool, Sharing, Space,
};
use whereabouts_testbed::{ControlPlane, FaultProxy, Seen, SimulatedNode};

use crate::support::{Answer, Call, Plugin};

/// The namespace and the name of the service account in deploy/kubernetes/rbac.yaml.
pub const ACCOUNT: (&str, &str) = ("kube-system", "whereabouts");

/// Where the blocks are.
pub const BLOCKS: &str = "/apis/ipam.whereabouts.dev/v1alpha1/namespaces/kube-system/ipblocks";

/// Where the indexes are.
pub const SPACES: &str = "/apis/ipam.whereabouts.dev/v1alpha1/namespaces/kube-system/ipspaces";

/// How long something is waited for that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the manifests are that users apply.
pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes")
}

/// A control plane with the definitions and the rights that users give it.
///
/// # Errors
///
/// Says in words for people why there is none here.
pub fn start() -> Result<ControlPlane, String> {
    let control_plane = ControlPlane::start()?;
    control_plane.apply(&manifests());
    Ok(control_plane)
}

/// A kubeconfig of an administrator who works where the plugin's objects are.
pub fn admin(control_plane: &ControlPlane) -> PathBuf {
    control_plane.kubeconfig("admin-of-addresses", control_plane.admin_token(), ACCOUNT.0, &control_plane.url())
}

/// A node with the plugin on it. Its way to the API server leads through a proxy of its own.
#[derive(Debug)]
pub struct Node {
    pub plugin: Plugin,
    pub simulated: SimulatedNode,
    pub proxy: FaultProxy,
    network: String,
}

/// What the objects of one network say.
#[derive(Debug, Default)]
pub struct Truth {
    /// Every lease by its address, and by its space.
    pub leases: BTreeMap<(String, String), Lease>,
    indexes: BTreeMap<Space, Index>,
    blocks: BTreeMap<BlockId, Block>,
}

// === impl Node ===

impl Node {
    /// A new node whose ranges are in this network: each test has one for itself, and nodes that are named after it, since
    /// the rebuilt ledger of a node, and its GC, know all that is of its name.
    #[track_caller]
    pub fn new(control_plane: &ControlPlane, name: &str, network: &str) -> Self {
        Self::with_account(control_plane, name, network, ACCOUNT)
    }

    /// The same with the rights of another service account.
    #[track_caller]
    pub fn with_account(control_plane: &ControlPlane, name: &str, network: &str, account: (&str, &str)) -> Self {
        let name = format!("{name}.{network}");
        let proxy = FaultProxy::before(control_plane).expect("a loopback port");
        let simulated = SimulatedNode::new(control_plane, &name, account, proxy.url());
        let plugin = Plugin::new(&simulated.data_dir).launched_by(simulated.launcher());
        Self { plugin, simulated, proxy, network: network.to_owned() }
    }

    /// A network configuration that names the cluster, with these keys of `ipam` beside.
    pub fn config(&self, ipam: Value) -> Value {
        let mut section = json!({
            "datastore": "kubernetes",
            "kubernetes": { "kubeconfig": self.simulated.kubeconfig },
            "network_name": self.network,
            "log_level": "debug",
        });
        let (Value::Object(into), Value::Object(from)) = (&mut section, ipam) else {
            panic!("the ipam section is an object");
        };
        into.extend(from);
        self.plugin.config(section)
    }

    /// [`Node::config`] with nothing but a range.
    pub fn range(&self, range: &str) -> Value {
        self.config(json!({ "range": range }))
    }

    /// A call of a verb for a container's `eth0` on this node.
    pub fn call(&self, verb: &str, container: &str) -> Call {
        self.on_node(self.plugin.attachment(verb, container, "eth0"))
    }

    /// A call as it comes on this node.
    pub fn on_node(&self, call: Call) -> Call {
        self.simulated.env().into_iter().fold(call, |call, (key, value)| call.env(&key, value))
    }

    pub fn add(&self, container: &str, config: &Value) -> Answer {
        self.call("ADD", container).stdin(config).run()
    }

    pub fn del(&self, container: &str, config: &Value) -> Answer {
        self.call("DEL", container).stdin(config).run()
    }

    pub fn check(&self, container: &str, config: &Value, added: &Value) -> Answer {
        let mut config = config.clone();
        config["prevResult"] = added.clone();
        self.call("CHECK", container).stdin(&config).run()
    }

    /// GC that lists these containers' `eth0` as the valid ones.
    pub fn gc(&self, config: &Value, valid: &[&str]) -> Answer {
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] =
            valid.iter().map(|container| json!({ "containerID": container, "ifname": "eth0" })).collect();
        self.on_node(self.plugin.verb("GC")).stdin(&config).run()
    }

    pub fn status(&self, config: &Value) -> Answer {
        self.on_node(self.plugin.verb("STATUS")).stdin(config).run()
    }

    /// The program as a person calls it on this node.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.plugin.command().envs(self.simulated.env()).args(arguments).output().expect("the program starts")
    }

    /// `repair` without `--open`, which must succeed: it puts back what this node holds. What it says.
    #[track_caller]
    pub fn repair(&self) -> String {
        succeeded(&self.command(&["repair"]))
    }

    /// `repair --open` with the kubeconfig of an administrator, which must succeed. What it says.
    #[track_caller]
    pub fn open(&self, control_plane: &ControlPlane) -> String {
        let admin = admin(control_plane);
        succeeded(&self.command(&["repair", "--open", "--kubeconfig", admin.to_str().expect("a path of UTF-8")]))
    }

    /// The requests that a piece of work makes, as `METHOD resource/name`.
    pub fn requests_of<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<String>) {
        self.proxy.clear_requests();
        let result = work();
        (result, self.proxy.requests().iter().map(in_short).collect())
    }
}

/// A request without what all of them have in common.
pub fn in_short(seen: &Seen) -> String {
    let path = seen.path.rsplit_once("/kube-system/").map_or(seen.path.as_str(), |(_, path)| path);
    format!("{} {path}", seen.method)
}

/// Standard output and error of a program that must succeed.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "ended with {}: {said}", output.status);
    said
}

/// Code of an error, all of whose words must be in its message.
#[track_caller]
pub fn fails(answer: &Answer, code: u64, words: &[&str]) {
    let (got, message) = answer.error();
    assert_eq!(got, code, "{answer:#?}");
    for word in words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
}

/// Asks again until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        // There is no event by which a server says that it has learned something.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The space of a network that its ranges share.
pub fn shared_space(network: &str, family: Family) -> Space {
    Space::shared(Network::new(network).expect("a network's name"), family)
}

/// Version byte, cluster and record in a field `data`.
#[track_caller]
pub fn unpack(data: &str) -> Vec<u8> {
    let packed = base85::decode(data).expect("data is base 85");
    let mut bytes = Vec::new();
    ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).expect("data is compressed");
    bytes
}

/// A field `data` with these bytes.
pub fn pack(bytes: &[u8]) -> String {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).expect("memory");
    base85::encode(&encoder.finish().expect("memory"))
}

/// The objects of a network, as they are stored.
#[track_caller]
pub fn objects(control_plane: &ControlPlane, collection: &str, network: &str) -> Vec<Value> {
    let list = control_plane.get(collection).expect("the definitions are there");
    let items = list["items"].as_array().expect("a list has items");
    items.iter().filter(|item| item["spec"]["network"] == network).cloned().collect()
}

/// The path of the only block of a network.
#[track_caller]
pub fn only_block(control_plane: &ControlPlane, network: &str) -> String {
    match objects(control_plane, BLOCKS, network).as_slice() {
        [block] => format!("{BLOCKS}/{}", block["metadata"]["name"].as_str().expect("an object has a name")),
        blocks => panic!("one block was to be there, not {blocks:#?}"),
    }
}

// === impl Truth ===

impl Truth {
    /// Reads what is stored, and checks what must be true of it once all is settled: an index calls no block fuller than it is,
    /// and what is shown to people is what is meant.
    #[track_caller]
    pub fn of(control_plane: &ControlPlane, network: &str) -> Self {
        let mut truth = Self::default();
        for item in objects(control_plane, SPACES, network) {
            let spec: IPSpaceSpec = serde_json::from_value(item["spec"].clone()).expect("an IPSpace");
            let family =
                if spec.network == network && item["spec"]["family"] == "IPv4" { Family::V4 } else { Family::V6 };
            let space = space(network, family, spec.private.as_deref());
            let index = Index::from_record(&space, &unpack(&spec.data)[17..]).expect("a sound index");
            assert_eq!(index.frozen().is_some(), spec.frozen.is_some(), "{item}");
            truth.indexes.insert(space, index);
        }
        for item in objects(control_plane, BLOCKS, network) {
            let spec: IPBlockSpec = serde_json::from_value(item["spec"].clone()).expect("an IPBlock");
            let cidr: IpNet = spec.cidr.parse().expect("a CIDR");
            let family = if cidr.addr().is_ipv4() { Family::V4 } else { Family::V6 };
            let space = space(network, family, spec.private.as_deref());
            let id = space.block_of(cidr.addr().into()).expect("a block of the space");
            let block = Block::from_record(&id, &unpack(&spec.data)[17..]).expect("a sound block");
            assert_eq!((spec.used, spec.free), (block.n_used(), 256 - block.n_used()), "{item}");
            for (offset, lease) in block.iter() {
                let place = (space.to_string(), id.address_at(offset).to_string());
                truth.leases.insert(place, lease.clone());
            }
            let mark = truth.indexes.get(&space).map(|index| index.mark(id.number));
            assert!(mark.is_none_or(|mark| mark <= block.fullness()), "{id} is marked {mark:?} and has room");
            truth.blocks.insert(id, block);
        }
        truth
    }

    /// Address and container of every lease.
    pub fn held(&self) -> BTreeMap<String, String> {
        let each = |((_, address), lease): (&(String, String), &Lease)| {
            (address.clone(), lease.attachment.container.to_string())
        };
        self.leases.iter().map(each).collect()
    }

    /// Whether the index calls the shared block of this address full.
    #[track_caller]
    pub fn is_marked_full(&self, address: &str) -> bool {
        self.mark_of(address) == Fullness::Full
    }

    /// Whether the index says that the shared block of this address has no room but for its .0.
    #[track_caller]
    pub fn is_marked_full_but_zero(&self, address: &str) -> bool {
        self.mark_of(address) == Fullness::FullButZero
    }

    fn mark_of(&self, address: &str) -> Fullness {
        let address: Address = address.parse().expect("an address");
        let (space, index) =
            self.indexes.iter().find(|(space, _)| space.family() == address.family()).expect("an index");
        index.mark(space.block_of(address).expect("a block of the space").number)
    }

    /// Every block that is there, and none beside, is listed.
    #[track_caller]
    pub fn assert_listed(&self) {
        for (space, index) in &self.indexes {
            let listed: BTreeSet<BlockNumber> = index.existing().iter().collect();
            let there = self.blocks.keys().filter(|id| id.space == *space).map(|id| id.number).collect();
            assert_eq!(listed, there, "{space}");
        }
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.held().iter().try_for_each(|(address, container)| writeln!(f, "{address} {container}"))
    }
}

fn space(network: &str, family: Family, private: Option<&str>) -> Space {
    match private {
        None => shared_space(network, family),
        Some(cidr) => {
            let network = Network::new(network).expect("a network's name");
            Pool::new(network, cidr.parse().expect("a CIDR")).space(Sharing::Private)
        }
    }
}

/// What a network's leases are: address and container.
#[track_caller]
pub fn held(control_plane: &ControlPlane, network: &str) -> BTreeMap<String, String> {
    Truth::of(control_plane, network).held()
}

/// The same as text, for a comparison with what was expected.
#[track_caller]
pub fn assert_held(control_plane: &ControlPlane, network: &str, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(address, container)| ((*address).to_owned(), (*container).to_owned())).collect();
    assert_eq!(held(control_plane, network), expected);
}
