//! Nodes with a kubelet and a containerd, whose pods get their addresses from the plugin: what Kubernetes says of its
//! pods, what runs, and what is leased are the same, whatever becomes of a Deployment.
//!
//! A containerd that is killed while it makes sandboxes leaves plugin processes behind, whose leases nobody hears of, and
//! the pods may be gone before it runs again. The containerd of these nodes (1.6.20) writes a sandbox down before it calls
//! the plugin, and the kubelet has every sandbox stopped that belongs to no pod, so the DEL comes and no GC has to: these
//! runtimes do not call it. That GC would find nothing to free is seen at the end.
//!
//! kubelets, scheduler and controllers are those of Kubernetes, and the plugin is the IPAM of bridge with the rights of
//! deploy/ on every node, with nothing configured but its kubeconfig. Where a machine cannot do that (it takes root, Go
//! and the distribution's containerd), the test is named as skipped; under `CI=true` it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    dead_code,
    reason = "a story that cannot go on fails"
)]

#[path = "support/cluster.rs"]
mod cluster;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{CNI_VERSION, peers, skip};
use whereabouts_engine::{Lease, Owner};
use whereabouts_testbed::{ControlPlane, Controllers, Fault, RealNode, Rule, Seen};

use cluster::{ACCOUNT, Truth};

/// How many pods the Deployment has.
const PODS: usize = 40;

/// Longer than any step takes: 40 pods are there within 20 s on two cores.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks. Each is a list of all pods and of all blocks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// How late the API server hears of what a killed containerd had asked for: by then containerd runs again.
const SLOW: Duration = Duration::from_secs(3);

const NETWORK: &str = "real";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const ALL_PODS: &str = "/api/v1/namespaces/default/pods";

/// A cluster of nodes on which pods run.
struct Cluster {
    nodes: Vec<RealNode>,
    controllers: Controllers,
    control_plane: ControlPlane,
}

/// A pod as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pod {
    name: String,
    uid: String,
    node: String,
    address: String,
    revision: String,
    is_ready: bool,
    is_going: bool,
}

/// Who has an address on which node: the name of a pod and its UID.
type Holders = BTreeMap<String, (String, String, String)>;

#[test]
fn every_ready_pod_has_the_address_of_its_lease_and_nobody_else_has_one() {
    let test = "every_ready_pod_has_the_address_of_its_lease_and_nobody_else_has_one";
    match Cluster::start() {
        Ok(mut cluster) => tell(&mut cluster),
        Err(why) => skip::skip(test, &why),
    }
}

fn tell(cluster: &mut Cluster) {
    cluster.deploy();
    cluster.until_rolled_out("0");
    cluster.settle("a first rollout");

    cluster.roll_out("1");
    cluster.until_rolled_out("1");
    cluster.settle("a rolling update");

    cluster.change(&json!({ "spec": { "replicas": 0 } }));
    cluster.settle("scaling to nothing");
    cluster.change(&json!({ "spec": { "replicas": PODS } }));
    cluster.until_rolled_out("1");
    cluster.settle("scaling back");

    // Those of the API are gone at once, and their successors on the way, long before a kubelet has ended them.
    let ready = cluster.pods().into_iter().filter(|pod| pod.is_ready).step_by(5);
    ready.for_each(|pod| cluster.delete(&pod));
    cluster.delete_while_being_made(|_| true);
    cluster.until_rolled_out("1");
    cluster.settle("forced deletions");

    cluster.roll_out("2");
    cluster.kill_containerd_in_a_call();
    let of_two = cluster.ready_of("2", "two");
    cluster.wait_until("the other node goes on", || cluster.ready_of("2", "two") > of_two);
    cluster.nodes[0].start_containerd();
    cluster.until_rolled_out("2");
    cluster.settle("an end of containerd");

    cluster.roll_out("3");
    cluster.kill_containerd_in_a_call();
    cluster.delete_while_being_made(|pod| pod.node == "one");
    cluster.nodes[0].start_containerd();
    cluster.until_rolled_out("3");
    cluster.settle("an end of containerd and of the pods that it was making");

    let leases = cluster.leases();
    cluster.nodes.iter().for_each(|node| cluster.collect(node));
    assert_eq!(cluster.leases(), leases, "there is nothing for a runtime of CNI 1.1 to collect");
}

// === impl Cluster ===

impl Cluster {
    /// Two nodes that are ready.
    fn start() -> Result<Self, String> {
        let peers = peers::folder()?;
        let control_plane = cluster::start()?;
        let controllers = Controllers::start(&control_plane)?;
        let plugins = control_plane.folder().join("cni-bin");
        std::fs::create_dir(&plugins).expect("a folder in a new folder");
        for peer in ["bridge", "loopback"] {
            symlink(peers.join(peer), plugins.join(peer)).expect("a link in a new folder");
        }
        symlink(env!("CARGO_BIN_EXE_whereabouts"), plugins.join("whereabouts")).expect("a link in a new folder");
        let mut nodes = Vec::new();
        for (name, address) in [("one", Ipv4Addr::new(192, 0, 2, 1)), ("two", Ipv4Addr::new(192, 0, 2, 2))] {
            let mut node = RealNode::boot(&control_plane, name, address)?;
            node.start(&control_plane, &plugins, &conflist(&control_plane, &node))?;
            nodes.push(node);
        }
        let cluster = Self { nodes, controllers, control_plane };
        cluster.wait_until("both nodes are ready", || {
            let nodes = cluster.list("/api/v1/nodes");
            nodes.len() == cluster.nodes.len() && nodes.iter().all(is_ready)
        });
        Ok(cluster)
    }

    #[track_caller]
    fn list(&self, path: &str) -> Vec<Value> {
        let list = self.control_plane.get(path).expect("a collection of the core");
        list["items"].as_array().expect("a list has items").clone()
    }

    fn deploy(&self) {
        let container = json!({ "name": "pause", "image": RealNode::IMAGE, "imagePullPolicy": "Never" });
        let deployment = json!({
            "metadata": { "name": "web" },
            "spec": {
                "replicas": PODS,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" }, "annotations": { "revision": "0" } },
                    "spec": {
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "containers": [container],
                    },
                },
            },
        });
        self.control_plane.create("/apis/apps/v1/namespaces/default/deployments", &deployment);
    }

    #[track_caller]
    fn change(&self, patch: &Value) {
        let answer = self.control_plane.request("PATCH", DEPLOYMENT, Some(patch));
        assert!(matches!(answer, Ok((200, _))), "{answer:?}");
    }

    /// Begins a rolling update.
    #[track_caller]
    fn roll_out(&self, revision: &str) {
        let annotations = json!({ "revision": revision });
        self.change(&json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } }));
    }

    /// Deletes a pod by force: nobody waits for its node.
    #[track_caller]
    fn delete(&self, pod: &Pod) {
        self.control_plane.delete(&format!("{ALL_PODS}/{}", pod.name.trim_start_matches("default/")));
    }

    /// Deletes by force those that a node makes just now; there are some.
    #[track_caller]
    fn delete_while_being_made(&self, which: impl Fn(&Pod) -> bool) {
        let being_made = || self.pods().into_iter().filter(|pod| !pod.node.is_empty() && !pod.is_ready && which(pod));
        self.wait_until("pods are being made", || being_made().next().is_some());
        being_made().for_each(|pod| self.delete(&pod));
    }

    /// Kills the containerd of the first node while several of its calls of the plugin wait for the API server, which
    /// carries out what they ask for all the same.
    #[track_caller]
    fn kill_containerd_in_a_call(&mut self) {
        let node = &mut self.nodes[0];
        node.proxy.clear_requests();
        let slow = Rule::new(Fault::Delay(SLOW)).method("PUT").path("/ipblocks/");
        node.proxy.add(slow);
        let is_write = |seen: &Seen| seen.method == "PUT" && seen.path.contains("/ipblocks/");
        let is_called = node.proxy.wait_until(PATIENCE, |seen| seen.iter().filter(|seen| is_write(seen)).count() >= 3);
        assert!(is_called, "the plugin was not called on this node");
        node.kill_containerd();
        node.proxy.set([]);
    }

    /// How many pods of this revision are Ready on this node.
    fn ready_of(&self, revision: &str, node: &str) -> usize {
        let is_it = |pod: &&Pod| pod.is_ready && pod.revision == revision && pod.node == node;
        self.pods().iter().filter(is_it).count()
    }

    /// Asks again until it is so. What was true of the Ready pods stays true meanwhile.
    #[track_caller]
    fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            if started.elapsed() > PATIENCE {
                let words: Vec<String> = self.nodes.iter().map(RealNode::last_words).collect();
                let (ready, held) = (self.ready(), holders(&self.leases()));
                let (running, added) = (self.running(), containers(&self.leases()));
                panic!(
                    "not within {PATIENCE:?}: {what}\nReady and not leased: {:#?}\nleased and not Ready: {:#?}\n\
                     runs without a lease: {:#?}\nleased and does not run: {:#?}\n{}\n{}",
                    ready.iter().filter(|pod| !held.contains_key(pod.0)).collect::<Vec<_>>(),
                    held.iter().filter(|pod| !ready.contains_key(pod.0)).collect::<Vec<_>>(),
                    running.difference(&added).collect::<Vec<_>>(),
                    added.difference(&running).collect::<Vec<_>>(),
                    words.join("\n"),
                    self.controllers.last_words()
                );
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn pods(&self) -> Vec<Pod> {
        self.list(ALL_PODS).iter().map(Pod::read).collect()
    }

    fn leases(&self) -> BTreeMap<String, Lease> {
        let truth = Truth::of(&self.control_plane, NETWORK);
        truth.leases.into_iter().map(|((_, address), lease)| (address, lease)).collect()
    }

    /// No two Ready pods have one address, and who was Ready before and after the leases were read holds his.
    #[track_caller]
    fn assert_ready_pods_hold(&self) -> usize {
        let before = self.ready();
        let held = holders(&self.leases());
        let after = self.ready();
        for (address, pod) in &before {
            if after.get(address) == Some(pod) {
                assert_eq!(held.get(address), Some(pod), "{address} is not leased to the pod that has it");
            }
        }
        after.len()
    }

    /// The pods that are Ready and stay, by their addresses.
    #[track_caller]
    fn ready(&self) -> Holders {
        let mut ready = Holders::new();
        for pod in self.pods().into_iter().filter(|pod| pod.is_ready && !pod.is_going) {
            let twice = ready.insert(pod.address.clone(), pod.holder());
            assert_eq!(twice, None, "{} is also the address of {pod:?}", pod.address);
        }
        ready
    }

    /// Waits until all pods are of this revision, and Ready.
    #[track_caller]
    fn until_rolled_out(&self, revision: &str) {
        let started = Instant::now();
        self.wait_until(&format!("{PODS} pods of revision {revision} are Ready"), || {
            self.assert_ready_pods_hold();
            let pods = self.pods();
            let staying = pods.iter().filter(|pod| !pod.is_going);
            staying.clone().count() == PODS && staying.clone().all(|pod| pod.is_ready && pod.revision == revision)
        });
        say(&format!("revision {revision} rolled out in {:?}", started.elapsed()));
    }

    /// Waits until nothing is under way. Then what is leased is what the pods have, and what runs on each node.
    #[track_caller]
    fn settle(&self, after: &str) {
        let started = Instant::now();
        self.wait_until(&format!("the leases are those of the pods after {after}"), || {
            let pods = self.pods();
            let ready = self.ready();
            let leases = self.leases();
            ready.len() == pods.len() && holders(&leases) == ready && self.running() == containers(&leases)
        });
        say(&format!("settled after {after} in {:?}", started.elapsed()));
    }

    /// GC as a runtime calls it that knows the verb.
    #[track_caller]
    fn collect(&self, node: &RealNode) {
        let valid = node.sandboxes().into_iter().map(|id| json!({ "containerID": id, "ifname": "eth0" }));
        let list = conflist(&self.control_plane, node);
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = json!(CNI_VERSION);
        config["name"] = list["name"].clone();
        config["ipam"]["gc_grace"] = json!(0);
        config["cni.dev/valid-attachments"] = valid.collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = env!("CARGO_BIN_EXE_whereabouts");
        let mut command = node.command(program);
        command.env_clear().env("PATH", path).env("CNI_COMMAND", "GC").env("CNI_PATH", "/opt/cni/bin");
        let mut gc = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the plugin starts");
        let written = gc.stdin.take().expect("a pipe").write_all(config.to_string().as_bytes());
        written.expect("the plugin reads its configuration");
        let output = gc.wait_with_output().expect("a child can be waited for");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    /// Node and id of every sandbox that runs.
    fn running(&self) -> BTreeSet<(String, String)> {
        let on_node = |node: &RealNode| {
            let name = node.name.clone();
            node.sandboxes().into_iter().map(move |id| (name.clone(), id))
        };
        self.nodes.iter().flat_map(on_node).collect()
    }
}

/// The network of a node: as users write it, for a bridge, with the node's own kubeconfig.
fn conflist(control_plane: &ControlPlane, node: &RealNode) -> Value {
    let ipam = json!({
        "type": "whereabouts",
        "ipRanges": [{ "range": "10.77.0.0/24" }],
        "network_name": NETWORK,
        "datastore": "kubernetes",
        "kubernetes": { "kubeconfig": node.kubeconfig(control_plane, ACCOUNT) },
    });
    let bridge = json!({ "type": "bridge", "bridge": "cni0", "ipam": ipam });
    json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [bridge] })
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn holders(leases: &BTreeMap<String, Lease>) -> Holders {
    let holder = |lease: &Lease| match &lease.owner {
        Owner::Pod(pod) => {
            let uid = pod.uid.as_deref().unwrap_or("").to_owned();
            (lease.node.to_string(), format!("{}/{}", pod.namespace, pod.name), uid)
        }
        owner => (lease.node.to_string(), format!("{owner:?}"), String::new()),
    };
    leases.iter().map(|(address, lease)| (address.clone(), holder(lease))).collect()
}

/// Node and container of every lease.
fn containers(leases: &BTreeMap<String, Lease>) -> BTreeSet<(String, String)> {
    leases.values().map(|lease| (lease.node.to_string(), lease.attachment.container.to_string())).collect()
}

fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

// === impl Pod ===

impl Pod {
    fn read(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let metadata = &object["metadata"];
        Self {
            name: format!("default/{}", text(&metadata["name"])),
            uid: text(&metadata["uid"]),
            node: text(&object["spec"]["nodeName"]),
            address: text(&object["status"]["podIP"]),
            revision: text(&metadata["annotations"]["revision"]),
            is_ready: is_ready(object),
            is_going: !metadata["deletionTimestamp"].is_null(),
        }
    }

    fn holder(&self) -> (String, String, String) {
        (self.node.clone(), self.name.clone(), self.uid.clone())
    }
}
