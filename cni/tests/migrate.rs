//! A cluster that the Go plugin has used moves over: before, nobody gets an address; after, everybody keeps his, and what
//! contradicts itself is nobody's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a driver of tests that cannot go on ends the test"
)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use support::skip::skip;
use support::{Answer, Plugin};
use whereabouts_testbed::{ControlPlane, Fault, FaultProxy, Rule, Seen, SimulatedNode, UNDEFINED};

/// One for all tests: each has a namespace of its own.
fn control_plane(test: &str) -> Option<&'static ControlPlane> {
    static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let control_plane = ControlPlane::start()?;
        for path in ["tests/fixtures/go-plugin-crds.yaml", "../deploy/kubernetes/crds.yaml"] {
            control_plane.apply(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        }
        Ok(control_plane)
    });
    shared.as_ref().map_err(|error| skip(test, error)).ok()
}

/// A cluster in which the Go plugin was at work, as far as one namespace goes.
struct Cluster {
    control_plane: &'static ControlPlane,
    namespace: &'static str,
    folder: tempfile::TempDir,
}

/// What `whereabouts migrate` left behind.
#[derive(Debug)]
struct Migrated {
    exit: i32,
    report: Value,
    stdout: String,
    stderr: String,
}

/// A node with this plugin.
struct Node {
    plugin: Plugin,
    simulated: SimulatedNode,
}

impl Cluster {
    /// With the rights that deploy/ gives to nodes and operators.
    fn start(test: &str, namespace: &'static str) -> Option<Self> {
        let control_plane = control_plane(test)?;
        let folder = tempfile::tempdir().unwrap();
        for account in ["whereabouts", "operator", "go-plugin"] {
            control_plane.ensure_service_account(namespace, account);
        }
        let bindings = format!(
            r"
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{ name: operator-{namespace} }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: whereabouts-migrate }}
subjects: [{{ kind: ServiceAccount, name: operator, namespace: {namespace} }}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{ name: operator, namespace: {namespace} }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: whereabouts-migrate }}
subjects: [{{ kind: ServiceAccount, name: operator, namespace: {namespace} }}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{ name: go-plugin, namespace: {namespace} }}
rules: [{{ apiGroups: [whereabouts.cni.cncf.io], resources: ['*'], verbs: ['*'] }}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{ name: go-plugin, namespace: {namespace} }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: go-plugin }}
subjects: [{{ kind: ServiceAccount, name: go-plugin, namespace: {namespace} }}]
"
        );
        let mut manifests = String::new();
        for name in ["rbac.yaml", "migrate-rbac.yaml"] {
            let path = format!("{}/../deploy/kubernetes/{name}", env!("CARGO_MANIFEST_DIR"));
            manifests.push_str(&std::fs::read_to_string(path).unwrap());
        }
        let manifests = manifests
            .replace("namespace: kube-system", &format!("namespace: {namespace}"))
            .replace("whereabouts-identity", &format!("whereabouts-identity-{namespace}"));
        let path = folder.path().join("rights.yaml");
        std::fs::write(&path, manifests + &bindings).unwrap();
        // All tests apply the same ClusterRole, and two at once would both want to make it.
        static APPLYING: Mutex<()> = Mutex::new(());
        let applying = APPLYING.lock().unwrap_or_else(PoisonError::into_inner);
        control_plane.apply(&path);
        drop(applying);
        Some(Self { control_plane, namespace, folder })
    }

    fn objects(&self, plural: &str) -> String {
        format!("/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{}/{plural}", self.namespace)
    }

    /// A pool of the Go plugin; the allocations are key, container, pod and interface.
    fn pool(&self, name: &str, range: &str, held: &[(&str, &str, &str, &str)]) {
        let allocation = |(key, id, pod, interface): &(&str, &str, &str, &str)| {
            let mut allocation = json!({ "id": id, "podref": pod });
            if !interface.is_empty() {
                allocation["ifname"] = json!(interface);
            }
            ((*key).to_owned(), allocation)
        };
        let allocations: serde_json::Map<String, Value> = held.iter().map(allocation).collect();
        let object = json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "IPPool",
            "metadata": { "name": name }, "spec": { "range": range, "allocations": allocations },
        });
        self.control_plane.create(&self.objects("ippools"), &object);
    }

    fn reservation(&self, name: &str, pod: &str, interface: &str) {
        let object = json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "OverlappingRangeIPReservation",
            "metadata": { "name": name }, "spec": { "podref": pod, "ifname": interface },
        });
        self.control_plane.create(&self.objects("overlappingrangeipreservations"), &object);
    }

    /// A pod on a node; its UID.
    fn pod(&self, name: &str, node: &str) -> String {
        self.control_plane.create_pod(self.namespace, name, node)["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// As the Go plugin would write a pool.
    fn write_as_the_go_plugin(&self, name: &str) -> (u16, Value) {
        let token = self.control_plane.service_account_token(self.namespace, "go-plugin");
        let object = json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "IPPool",
            "metadata": { "name": name }, "spec": { "range": "192.0.2.0/24", "allocations": {} },
        });
        self.control_plane.request_as(&token, "POST", &self.objects("ippools"), Some(&object)).unwrap()
    }

    /// How many addresses are held, by the CIDR of the block and its network.
    fn used(&self) -> Vec<(String, u64)> {
        let path = format!("/apis/ipam.whereabouts.dev/v1alpha1/namespaces/{}/ipblocks", self.namespace);
        let list = self.control_plane.get(&path).unwrap();
        let mut used: Vec<(String, u64)> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| {
                let spec = &block["spec"];
                let name = format!("{} {}", spec["cidr"].as_str().unwrap(), spec["network"].as_str().unwrap());
                (name.trim_end().to_owned(), spec["used"].as_u64().unwrap())
            })
            .collect();
        used.sort();
        used
    }

    fn migrate(&self, arguments: &[&str]) -> Migrated {
        self.run(&[&["--quiet", "1"], arguments].concat())
    }

    /// `whereabouts --json migrate` by the operator.
    fn run(&self, arguments: &[&str]) -> Migrated {
        self.run_as("--json", arguments)
    }

    /// The same without `--json`: what people read.
    fn read(&self, arguments: &[&str]) -> String {
        self.run_as("migrate", arguments).stdout
    }

    fn run_as(&self, first: &str, arguments: &[&str]) -> Migrated {
        self.run_through(&self.control_plane.url(), first, arguments)
    }

    /// The same by another way to the API server.
    fn run_through(&self, url: &str, first: &str, arguments: &[&str]) -> Migrated {
        let verb: &[&str] = if first == "migrate" { &[first] } else { &[first, "migrate"] };
        let token = self.control_plane.service_account_token(self.namespace, "operator");
        let name = format!("operator-{}", self.namespace);
        let kubeconfig = self.control_plane.kubeconfig(&name, &token, self.namespace, url);
        let output = Command::new(env!("CARGO_BIN_EXE_whereabouts"))
            .env_clear()
            .env("TMPDIR", self.folder.path())
            .args(verb)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(arguments)
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["rights.yaml"], "something was left behind");
        Migrated {
            exit: output.status.code().unwrap(),
            report: serde_json::from_str(&stdout).unwrap_or_default(),
            stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn node(&self, name: &str) -> Node {
        let url = self.control_plane.url();
        let simulated = SimulatedNode::new(self.control_plane, name, (self.namespace, "whereabouts"), &url);
        Node { plugin: Plugin::new(&simulated.data_dir).launched_by(simulated.launcher()), simulated }
    }
}

impl Migrated {
    #[track_caller]
    fn ended(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "{}{}", self.stdout, self.stderr);
        self
    }

    /// How many were added and present in all spaces.
    fn counts(&self) -> (u64, u64) {
        let sum = |key: &str| {
            self.report["spaces"].as_array().unwrap().iter().map(|space| space[key].as_u64().unwrap()).sum()
        };
        (sum("added"), sum("present"))
    }

    /// Address and fate of each finding.
    fn findings(&self) -> Vec<(String, String)> {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("-").to_owned();
        let findings = self.report["findings"].as_array().unwrap();
        let mut findings: Vec<_> =
            findings.iter().map(|finding| (text(finding, "address"), text(finding, "fate"))).collect();
        findings.sort();
        findings
    }
}

impl Node {
    fn config(&self, ipam: &Value) -> Value {
        let mut section = json!({ "type": "whereabouts", "kubernetes": { "kubeconfig": self.simulated.kubeconfig } });
        section.as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
        json!({ "cniVersion": "1.1.0", "name": "test", "type": "bridge", "ipam": section })
    }

    fn call(&self, verb: &str, container: &str, interface: &str, config: &Value) -> support::Call {
        let mut call = self.plugin.attachment(verb, container, interface).stdin(config);
        for (key, value) in self.simulated.env() {
            call = call.env(&key, value);
        }
        call
    }

    /// ADD of a pod; an empty UID is one that the runtime does not give.
    fn add(&self, container: &str, pod: (&str, &str, &str), ipam: &Value) -> Answer {
        let (namespace, name, uid) = pod;
        let mut arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        if !uid.is_empty() {
            arguments.push_str(&format!(";K8S_POD_UID={uid}"));
        }
        self.call("ADD", container, "net1", &self.config(ipam)).env("CNI_ARGS", arguments).run()
    }

    #[track_caller]
    fn del(&self, container: &str, ipam: &Value) {
        let answer = self.call("DEL", container, "net1", &self.config(ipam)).run();
        assert_eq!(answer.exit, Some(0), "{}{}", answer.stdout, answer.stderr);
    }
}

#[test]
fn everybody_keeps_his_address() {
    let Some(cluster) = Cluster::start("everybody_keeps_his_address", "keeps") else { return };
    let a = cluster.pod("a", "node-1");
    cluster.pod("b", "node-2");
    cluster.pod("c", "node-1");
    cluster.pool(
        "10.10.0.0-16",
        "10.10.0.0/16",
        &[("1", "sandbox-a", "keeps/a", "net1"), ("2", "sandbox-b", "keeps/b", "net1")],
    );
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("3", "sandbox-c", "keeps/c", "net1")]);
    cluster.pool("fd00---64", "fd00::/64", &[("1", "sandbox-a", "keeps/a", "net1")]);
    cluster.pool("blue-10.10.0.0-16", "10.10.0.0/16", &[("1", "sandbox-c", "keeps/c", "net2")]);
    for (name, pod, interface) in [
        ("10.10.0.1", "keeps/a", "net1"),
        ("10.10.0.2", "keeps/b", "net1"),
        ("10.10.0.3", "keeps/c", "net1"),
        ("fd00--1", "keeps/a", "net1"),
        ("blue-10.10.0.1", "keeps/c", "net2"),
    ] {
        cluster.reservation(name, pod, interface);
    }
    let (one, two) = (cluster.node("node-1"), cluster.node("node-2"));
    let both = json!({ "ipRanges": [{ "range": "10.10.0.0/16" }, { "range": "fd00::/64" }] });
    let small = json!({ "range": "10.10.0.0/24" });
    let blue = json!({ "range": "10.10.0.0/16", "network_name": "blue" });

    let early = one.add("early", ("keeps", "early", "u1"), &small);
    assert_ne!(early.exit, Some(0));
    assert!(early.stdout.contains("whereabouts migrate"), "{}", early.stdout);

    let migrated = cluster.migrate(&[]).ended(0);
    assert_eq!(migrated.counts(), (5, 0), "{}", migrated.stdout);
    assert_eq!(migrated.findings(), []);
    assert_eq!(
        cluster.used(),
        [("10.10.0.0/24".to_owned(), 3), ("10.10.0.0/24 blue".to_owned(), 1), ("fd00::/120".to_owned(), 1)]
    );
    let pools = migrated.report["pools"].as_array().unwrap();
    let numbers: Vec<_> =
        pools.iter().map(|pool| (pool["name"].as_str().unwrap(), &pool["allocations"], &pool["reserved"])).collect();
    assert_eq!(numbers[0], ("10.10.0.0-16", &json!(2), &json!(2)));

    // The Go plugin is kept out.
    let (status, answer) = cluster.write_as_the_go_plugin("late");
    assert_eq!(status, 403, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("whereabouts migrate"), "{answer}");

    // Who is new gets what nobody has, in ranges that overlap too.
    assert_eq!(two.add("new", ("keeps", "new", "u2"), &small).address(), "10.10.0.4/24");
    assert_eq!(two.add("new-blue", ("keeps", "new", "u2"), &blue).address(), "10.10.0.2/16");
    // A new sandbox of a pod gets what the pod has; the DEL of the old one frees nothing.
    assert_eq!(one.add("sandbox-a2", ("keeps", "a", &a), &both).addresses(), ["10.10.0.1/16", "fd00::1/64"]);
    one.del("sandbox-a", &both);
    assert_eq!(one.add("sandbox-a2", ("keeps", "a", &a), &both).addresses(), ["10.10.0.1/16", "fd00::1/64"]);
    // A runtime that gives no UIDs names the pod.
    assert_eq!(one.add("sandbox-c2", ("keeps", "c", ""), &small).address(), "10.10.0.3/24");
    // The DEL of an imported container frees it, without an ADD before, and with a configuration that lost its ranges.
    two.del("sandbox-b", &json!({}));
    assert_eq!(two.add("next", ("keeps", "next", "u3"), &small).address(), "10.10.0.2/24");
}

#[test]
fn an_imported_container_that_is_added_again_keeps_its_address() {
    let test = "an_imported_container_that_is_added_again_keeps_its_address";
    let Some(cluster) = Cluster::start(test, "again") else { return };
    let uid = cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("7", "sandbox-a", "again/a", "net1")]);
    cluster.migrate(&[]).ended(0);
    let (node, range) = (cluster.node("node-1"), json!({ "range": "10.10.0.0/24" }));
    let added = node.add("sandbox-a", ("again", "a", &uid), &range);
    assert_eq!(added.address(), "10.10.0.7/24");
    node.del("sandbox-a", &range);
    assert_eq!(cluster.used(), [("10.10.0.0/24".to_owned(), 0)]);
}

#[test]
fn check_knows_an_imported_container() {
    let Some(cluster) = Cluster::start("check_knows_an_imported_container", "check") else { return };
    cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("7", "sandbox-a", "check/a", "net1")]);
    cluster.migrate(&[]).ended(0);
    let node = cluster.node("node-1");
    let mut config = node.config(&json!({ "range": "10.10.0.0/24" }));
    for (address, exit) in [("10.10.0.7/24", Some(0)), ("10.10.0.8/24", Some(1))] {
        config["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [{ "address": address }] });
        let answer = node.call("CHECK", "sandbox-a", "net1", &config).run();
        assert_eq!(answer.exit, exit, "{address}: {}{}", answer.stdout, answer.stderr);
    }
}

#[test]
fn a_container_whose_pod_is_gone_is_freed_by_its_del_on_whatever_node() {
    let test = "a_container_whose_pod_is_gone_is_freed_by_its_del_on_whatever_node";
    let Some(cluster) = Cluster::start(test, "gone") else { return };
    cluster.pool(
        "10.10.0.0-24",
        "10.10.0.0/24",
        &[("1", "sandbox-x", "gone/x", "net1"), ("2", "sandbox-y", "gone/y", "net1")],
    );
    let migrated = cluster.migrate(&[]).ended(0);
    let held = |address: &str| (address.to_owned(), "held".to_owned());
    assert_eq!(migrated.findings(), [held("10.10.0.1"), held("10.10.0.2")]);
    let (one, two) = (cluster.node("node-1"), cluster.node("node-2"));
    let range = json!({ "range": "10.10.0.0/24" });
    // Both nodes know of it by now; nobody is given what it holds, not even another pod of that name.
    assert_eq!(one.add("n1", ("gone", "x", "u1"), &range).address(), "10.10.0.3/24");
    assert_eq!(two.add("n2", ("gone", "n2", "u2"), &range).address(), "10.10.0.4/24");
    two.del("sandbox-x", &range);
    one.del("sandbox-x", &range);
    assert_eq!(one.add("n3", ("gone", "n3", "u3"), &range).address(), "10.10.0.1/24");
    // Another DEL of it, on the node that has heard nothing, frees nothing.
    one.del("sandbox-x", &range);
    two.del("sandbox-x", &range);
    assert_eq!(two.add("n4", ("gone", "n4", "u4"), &range).address(), "10.10.0.5/24");
    // What is known to be over is freed by the command that the report names.
    let command = migrated.report["findings"][1]["free"].as_str().unwrap();
    let arguments: Vec<&str> = command.split(' ').skip_while(|word| *word != "--free").collect();
    assert_eq!(arguments, ["--free", "10.10.0.2"]);
    cluster.run(&arguments).ended(0);
    cluster.run(&arguments).ended(3);
    assert_eq!(two.add("n5", ("gone", "n5", "u5"), &range).address(), "10.10.0.2/24");
}

#[test]
fn what_contradicts_itself_is_nobodys() {
    let Some(cluster) = Cluster::start("what_contradicts_itself_is_nobodys", "odd") else { return };
    for pod in ["a", "b", "c", "d", "e", "f", "g"] {
        cluster.pod(pod, "node-1");
    }
    cluster.pool(
        "10.10.0.0-16",
        "10.10.0.0/16",
        &[
            ("1", "sandbox-a", "odd/a", "net1"),
            ("2", "sandbox-b", "odd/b", "net1"),
            ("5", "sandbox-d", "odd/d", ""),
            ("6", "sandbox-e", "nonsense", "net1"),
            ("7", "sandbox-f", "odd/f", "net1"),
            ("seven", "sandbox-g", "odd/g", "net1"),
        ],
    );
    // Beside another pool's entry, a reservation for another, and a reservation alone.
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-c", "odd/c", "net1")]);
    cluster.reservation("10.10.0.2", "odd/c", "net1");
    cluster.reservation("10.10.0.7", "odd/f", "net1");
    cluster.reservation("10.10.0.3", "odd/c", "net1");
    // Beyond the range, and no range at all.
    cluster.pool("10.10.0.0-30", "10.10.0.0/30", &[("4", "sandbox-g", "odd/g", "net1")]);
    cluster.pool("anything", "10.10.0.0/28", &[("9", "sandbox-h", "odd/h", "net1")]);

    let text = cluster.read(&["--dry-run"]);
    for line in [
        "pool 10.10.0.0-16 (10.10.0.0/16 of the unnamed network): 6 addresses, 2 of them reserved across pools\n",
        "10.10.0.1: quarantined: several hold it (ippools.whereabouts.cni.cncf.io/10.10.0.0-16)\n",
        "  pod \"odd/c\", container sandbox-c, interface net1 (pool 10.10.0.0-24)\n",
        "no address: not imported: its key \"seven\" leads to no address (ippools.whereabouts.cni.cncf.io/10.10.0.0-16)\n",
        " --free 10.10.0.1\n",
        "IPv4 of network (unnamed): 7 would be imported, 0 were there already\n",
        "5 quarantined, 1 held without a pod on a node, 2 not imported\n",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    let migrated = cluster.migrate(&[]).ended(6);
    let found = |address: &str, fate: &str| (address.to_owned(), fate.to_owned());
    let expected = [
        found("-", "not imported"),
        found("-", "not imported"),
        found("10.10.0.1", "quarantined"),
        found("10.10.0.2", "quarantined"),
        found("10.10.0.3", "quarantined"),
        found("10.10.0.4", "quarantined"),
        found("10.10.0.5", "quarantined"),
        found("10.10.0.6", "held"),
    ];
    assert_eq!(migrated.findings(), expected, "{}", migrated.stdout);
    let of = |address: &str| {
        let findings = migrated.report["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["address"] == address).unwrap()
    };
    let holders = of("10.10.0.1")["holders"].to_string();
    assert!(holders.contains("odd/a") && holders.contains("odd/c"), "both are named: {holders}");

    let (node, range) = (cluster.node("node-1"), json!({ "range": "10.10.0.0/24" }));
    // The DEL of one of two holders frees nothing.
    node.del("sandbox-a", &range);
    node.del("sandbox-b", &range);
    assert_eq!(node.add("n1", ("odd", "n1", "u1"), &range).address(), "10.10.0.8/24");
    // One whose pod nobody can name is freed by its container.
    node.del("sandbox-e", &range);
    assert_eq!(node.add("n2", ("odd", "n2", "u2"), &range).address(), "10.10.0.6/24");
    // A quarantined one is freed by the command; what the plugin gave itself is not.
    cluster.run(&["--free", "10.10.0.1"]).ended(0);
    assert_eq!(node.add("n3", ("odd", "n3", "u3"), &range).address(), "10.10.0.1/24");
    cluster.run(&["--free", "10.10.0.1"]).ended(5);
}

#[test]
fn a_second_time_changes_nothing() {
    let Some(cluster) = Cluster::start("a_second_time_changes_nothing", "twice") else { return };
    cluster.pod("a", "node-1");
    cluster.pod("b", "node-1");
    cluster.pool(
        "10.10.0.0-24",
        "10.10.0.0/24",
        &[("1", "sandbox-a", "twice/a", "net1"), ("2", "sandbox-b", "twice/b", "net1")],
    );
    cluster.reservation("10.10.0.9", "twice/z", "net1");
    cluster.migrate(&[]).ended(6);
    let blocks = format!("/apis/ipam.whereabouts.dev/v1alpha1/namespaces/{}/ipblocks", cluster.namespace);
    let spaces = blocks.replace("ipblocks", "ipspaces");
    let state = || {
        [&blocks, &spaces]
            .map(|path| cluster.control_plane.get(path).unwrap()["items"][0]["metadata"]["resourceVersion"].clone())
    };
    let before = state();
    let again = cluster.migrate(&[]).ended(0);
    assert_eq!((again.counts(), again.findings()), ((0, 0), vec![]), "{}", again.stdout);
    assert_eq!(state(), before);
    // Nor when addresses have gone from hand to hand since.
    let (node, range) = (cluster.node("node-1"), json!({ "range": "10.10.0.0/24" }));
    node.del("sandbox-a", &range);
    node.del("sandbox-b", &range);
    assert_eq!(node.add("new", ("twice", "new", "u1"), &range).address(), "10.10.0.1/24");
    let before = state();
    cluster.migrate(&[]).ended(0);
    assert_eq!(state(), before);
    assert_eq!(cluster.used(), [("10.10.0.0/24".to_owned(), 2)]);
}

#[test]
fn a_dry_run_writes_nothing() {
    let Some(cluster) = Cluster::start("a_dry_run_writes_nothing", "dry") else { return };
    cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-a", "dry/a", "net1")]);
    let dry = cluster.migrate(&["--dry-run"]).ended(0);
    assert_eq!(dry.counts(), (1, 0));
    assert_eq!(cluster.used(), []);
    assert_eq!(cluster.write_as_the_go_plugin("late").0, 201);
    let maps = format!("/api/v1/namespaces/{}/configmaps/whereabouts-migrate", cluster.namespace);
    assert_eq!(cluster.control_plane.get(&maps), None);
}

#[test]
fn addresses_of_others_are_not_taken() {
    let Some(cluster) = Cluster::start("addresses_of_others_are_not_taken", "held") else { return };
    let (node, range) = (cluster.node("node-1"), json!({ "range": "fd00::/64" }));
    assert_eq!(node.add("mine", ("held", "mine", "u1"), &range).address(), "fd00::1/64");
    cluster.pod("a", "node-1");
    cluster.pod("b", "node-1");
    let held = [("1", "sandbox-a", "held/a", "net1"), ("2", "sandbox-b", "held/b", "net1")];
    cluster.pool("fd00---64", "fd00::/64", &held);
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &held[..1]);
    let refused = cluster.migrate(&[]).ended(5);
    assert!(refused.stderr.contains("fd00::1") && refused.stderr.contains("held/mine"), "{}", refused.stderr);
    assert_eq!(cluster.used(), [("fd00::/120".to_owned(), 1)], "something was imported all the same");
    // With the one that is in the way gone, the rest goes beside what has begun, and is found by its node.
    node.del("mine", &range);
    assert_eq!(cluster.migrate(&[]).ended(0).counts(), (3, 0));
    node.del("sandbox-a", &range);
    node.del("sandbox-b", &range);
    assert_eq!(cluster.used(), [("10.10.0.0/24".to_owned(), 0), ("fd00::/120".to_owned(), 0)]);
}

#[test]
fn a_node_that_was_at_work_before_learns_what_came_since() {
    let test = "a_node_that_was_at_work_before_learns_what_came_since";
    let Some(cluster) = Cluster::start(test, "learns") else { return };
    let (node, green) = (cluster.node("node-1"), json!({ "range": "10.20.0.0/24", "network_name": "green" }));
    // It knows all that it holds: nothing is left for it to ask.
    node.add("g", ("learns", "g", "u1"), &green).address();
    node.del("unknown", &green);
    cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-a", "learns/a", "net1")]);
    cluster.migrate(&[]).ended(0);
    node.del("sandbox-a", &json!({ "range": "10.10.0.0/24" }));
    assert_eq!(cluster.used(), [("10.10.0.0/24".to_owned(), 0), ("10.20.0.0/24 green".to_owned(), 1)]);
}

/// An ADD looks at the index that the migration has changed, and that is not all that there is to learn.
#[test]
fn an_add_after_a_migration_does_not_pass_for_having_learned() {
    let test = "an_add_after_a_migration_does_not_pass_for_having_learned";
    let Some(cluster) = Cluster::start(test, "looks") else { return };
    let (node, range) = (cluster.node("node-1"), json!({ "range": "10.10.0.0/24" }));
    node.add("g", ("looks", "g", "u1"), &json!({ "range": "10.20.0.0/24" })).address();
    node.del("unknown", &range);
    cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-a", "looks/a", "net1")]);
    cluster.migrate(&[]).ended(0);
    assert_eq!(node.add("n", ("looks", "n", "u2"), &range).address(), "10.10.0.2/24");
    node.del("sandbox-a", &range);
    assert_eq!(cluster.used(), [("10.10.0.0/24".to_owned(), 1), ("10.20.0.0/24".to_owned(), 1)]);
}

#[test]
fn a_private_pool_becomes_a_space_of_its_own() {
    let Some(cluster) = Cluster::start("a_private_pool_becomes_a_space_of_its_own", "private") else { return };
    let a = cluster.pod("a", "node-1");
    cluster.pod("b", "node-1");
    cluster.pool("10.10.0.0-16", "10.10.0.0/16", &[("1", "sandbox-a", "private/a", "net1")]);
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-b", "private/b", "net1")]);
    let wrong = cluster.migrate(&["--private", "10.10.0.0"]).ended(2);
    assert!(wrong.stderr.contains("no pool 10.10.0.0;"), "{}", wrong.stderr);
    cluster.migrate(&["--private", "10.10.0.0-16"]).ended(0);
    let (node, alone) =
        (cluster.node("node-1"), json!({ "range": "10.10.0.0/16", "enable_overlapping_ranges": false }));
    assert_eq!(node.add("sandbox-a2", ("private", "a", &a), &alone).address(), "10.10.0.1/16");
    assert_eq!(node.add("n", ("private", "n", "u1"), &alone).address(), "10.10.0.2/16");
    assert_eq!(node.add("n", ("private", "n", "u1"), &json!({ "range": "10.10.0.0/24" })).address(), "10.10.0.2/24");
}

#[test]
fn slices_become_one_range() {
    let Some(cluster) = Cluster::start("slices_become_one_range", "slices") else { return };
    cluster.pod("a", "node-1");
    cluster.pod("b", "node-2");
    cluster.control_plane.create(
        &cluster.objects("nodeslicepools"),
        &json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "NodeSlicePool", "metadata": { "name": "test" },
            "spec": { "range": "10.10.0.0/16", "sliceSize": "/24" },
            "status": { "allocations": [
                { "nodeName": "node-1", "sliceRange": "10.10.0.0/24" }, { "nodeName": "node-2", "sliceRange": "10.10.1.0/24" },
            ] },
        }),
    );
    cluster.pool("node-1-10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-a", "slices/a", "net1")]);
    cluster.pool("node-2-10.10.1.0-24", "10.10.1.0/24", &[("1", "sandbox-b", "slices/b", "net1")]);
    let (node, range) = (cluster.node("node-2"), json!({ "range": "10.10.0.0/16" }));
    let early = node.add("early", ("slices", "early", "u1"), &range);
    assert!(early.stdout.contains("whereabouts migrate"), "{}", early.stdout);
    cluster.migrate(&[]).ended(0);
    assert_eq!(cluster.used(), [("10.10.0.0/24".to_owned(), 1), ("10.10.1.0/24".to_owned(), 1)]);
    assert_eq!(node.add("n", ("slices", "n", "u1"), &range).address(), "10.10.0.2/16");
}

#[test]
fn it_waits_for_a_leader_that_is_still_at_work() {
    let Some(cluster) = Cluster::start("it_waits_for_a_leader_that_is_still_at_work", "leader") else { return };
    cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-a", "leader/a", "net1")]);
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", cluster.namespace);
    let lease = |second: u32| {
        json!({
            "metadata": { "name": "whereabouts" },
            "spec": {
                "holderIdentity": "leader/b", "acquireTime": "2026-01-01T00:00:00.000000Z",
                "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z"), "leaseDurationSeconds": 1,
            },
        })
    };
    cluster.control_plane.create(&leases, &lease(0));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Renewals are what the wait is for, so they take their time.
            for second in 1..10 {
                std::thread::sleep(Duration::from_millis(400));
                let path = format!("{leases}/whereabouts");
                cluster.control_plane.request("PATCH", &path, Some(&lease(second))).unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        cluster.migrate(&[]).ended(0);
        assert!(is_over.load(Ordering::SeqCst), "it did not wait for the leader");
    });
    // One that became leader behind the fence is turned away whatever it does, and need not be waited for.
    let unfenced = cluster.run(&["--unfence"]).ended(0);
    assert_eq!(unfenced.report["unfenced"], true);
}

#[test]
fn the_fence_comes_down_by_command() {
    let Some(cluster) = Cluster::start("the_fence_comes_down_by_command", "fence") else { return };
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[]);
    // Rights that were taken away otherwise are no business of this.
    cluster.migrate(&["--fenced"]).ended(0);
    assert_eq!(cluster.write_as_the_go_plugin("one").0, 201);
    cluster.migrate(&[]).ended(0);
    assert_eq!(cluster.write_as_the_go_plugin("two").0, 403);
    cluster.run(&["--unfence"]).ended(0);
    let mut is_open = false;
    for attempt in 0..100 {
        // The API server takes a moment to forget a policy, and says nothing when it has.
        is_open = cluster.write_as_the_go_plugin(&format!("three-{attempt}")).0 == 201;
        if is_open {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(is_open, "the fence is still up");
    assert_eq!(cluster.run(&["--unfence"]).ended(0).report["unfenced"], false);
}

/// An API server that has no policies, as one before Kubernetes 1.30.
#[test]
fn where_there_can_be_no_fence_it_says_which_rights_to_take_away_and_writes_nothing() {
    let test = "where_there_can_be_no_fence_it_says_which_rights_to_take_away_and_writes_nothing";
    let Some(cluster) = Cluster::start(test, "unfenceable") else { return };
    cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-a", "unfenceable/a", "net1")]);
    // What the proxy says is what a server says that knows the group of a resource and not the resource.
    let unknown = "/apis/admissionregistration.k8s.io/v1/validatingadmissionrumours";
    let unknown = cluster.control_plane.request("GET", unknown, None).unwrap();
    assert_eq!(unknown, (404, serde_json::from_str(UNDEFINED).unwrap()));
    let proxy = FaultProxy::before(cluster.control_plane).unwrap();
    proxy.set([Rule::new(Fault::Undefined).path("/validatingadmissionpolic")]);
    let migrate =
        |arguments: &[&str]| cluster.run_through(proxy.url(), "migrate", &[&["--quiet", "1"], arguments].concat());
    let namespace = cluster.namespace;
    let written = || -> Vec<Value> {
        let of_plugin = format!("/apis/ipam.whereabouts.dev/v1alpha1/namespaces/{namespace}");
        let (pools, config_maps) = (cluster.objects("ippools"), format!("/api/v1/namespaces/{namespace}/configmaps"));
        let paths = [pools, config_maps, format!("{of_plugin}/ipspaces"), format!("{of_plugin}/ipblocks")];
        paths.iter().map(|path| cluster.control_plane.get(path).unwrap()["items"].clone()).collect()
    };
    let says_what_to_do = |migrated: &Migrated| {
        for words in [
            "no ValidatingAdmissionPolicy (Kubernetes 1.30 or newer)",
            "kubectl edit clusterrole whereabouts-cni",
            "ippools and overlappingrangeipreservations of whereabouts.cni.cncf.io",
            "remove the verbs create, update, patch and delete",
            "leave get, list and watch",
            "run this again with --fenced",
        ] {
            assert!(migrated.stderr.contains(words), "{words} is not in: {}", migrated.stderr);
        }
        assert_eq!(migrated.stdout, "");
        // Nor did it try to: what a server without policies turned away was the policy.
        let writes = |seen: &&Seen| seen.method != "GET" && seen.handed_on && !seen.path.contains("selfsubjectreviews");
        assert_eq!(proxy.requests().iter().filter(writes).count(), 0, "{:#?}", proxy.requests());
    };

    let before = written();
    says_what_to_do(&migrate(&[]).ended(1));
    assert_eq!(written(), before);
    migrate(&["--dry-run"]).ended(0);
    assert_eq!(written(), before);
    // It is done by hand.
    let fenced = migrate(&["--fenced"]).ended(0);
    assert!(fenced.stderr.contains("the fence is yours"), "{}", fenced.stderr);
    assert_eq!(cluster.used(), [("10.10.0.0/24".to_owned(), 1)]);
    assert_eq!(proxy.count("POST", "/validatingadmissionpolic"), 1, "what cannot be is tried once");

    // The way back is no other.
    proxy.clear_requests();
    let before = written();
    says_what_to_do(&migrate(&["--back"]).ended(1));
    assert_eq!(written(), before, "nothing is frozen");
    migrate(&["--back", "--fenced"]).ended(0);
    let spaces = written().swap_remove(2);
    assert!(spaces[0]["spec"]["frozen"].is_string(), "{spaces}");
    assert!(migrate(&["--unfence"]).ended(0).stdout.contains("there is no fence"));
}

#[test]
fn pools_that_are_elsewhere_are_named() {
    let Some(cluster) = Cluster::start("pools_that_are_elsewhere_are_named", "elsewhere") else { return };
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[]);
    let wrong = cluster.migrate(&["--namespace", "default"]);
    // The operator has no rights there; an administrator gets the hint.
    assert_ne!(wrong.exit, 0);
    let output = Command::new(env!("CARGO_BIN_EXE_whereabouts"))
        .env_clear()
        .args(["migrate", "--kubeconfig"])
        .arg(cluster.control_plane.admin_kubeconfig())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("namespace default has none") && stderr.contains("elsewhere"), "{stderr}");
}

// === The way back ===

impl Cluster {
    /// What a pool holds: by offset, the container, the pod and the interface.
    fn allocations(&self, name: &str) -> BTreeMap<String, (String, String, String)> {
        let pool = self.control_plane.get(&format!("{}/{name}", self.objects("ippools"))).unwrap_or_default();
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let held = pool["spec"]["allocations"].as_object().cloned().unwrap_or_default();
        held.into_iter()
            .map(|(offset, one)| (offset, (text(&one, "id"), text(&one, "podref"), text(&one, "ifname"))))
            .collect()
    }

    #[track_caller]
    fn assert_pool(&self, name: &str, expected: &[(&str, &str, &str, &str)]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(offset, id, pod, interface)| {
                ((*offset).to_owned(), ((*id).to_owned(), (*pod).to_owned(), (*interface).to_owned()))
            })
            .collect();
        assert_eq!(self.allocations(name), expected, "pool {name}");
    }

    /// All reservations: name, pod and interface.
    fn reservations(&self) -> Vec<(String, String, String)> {
        let list = self.control_plane.get(&self.objects("overlappingrangeipreservations")).unwrap();
        let text = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let items = list["items"].as_array().unwrap().iter();
        items.map(|one| (text(one, "/metadata/name"), text(one, "/spec/podref"), text(one, "/spec/ifname"))).collect()
    }

    #[track_caller]
    fn assert_reservations(&self, expected: &[(&str, &str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, pod, interface)| ((*name).to_owned(), (*pod).to_owned(), (*interface).to_owned()))
            .collect();
        assert_eq!(self.reservations(), expected);
    }

    /// Adds an allocation to a pool as the Go plugin does, under an account; the status of the answer.
    fn allocate_as(&self, account: &str, pool: &str, offset: &str, id: &str) -> u16 {
        let token = self.control_plane.service_account_token(self.namespace, account);
        let path = format!("{}/{pool}", self.objects("ippools"));
        let mut object = self.control_plane.get(&path).unwrap();
        object["spec"]["allocations"][offset] = json!({ "id": id, "podref": "go/pod", "ifname": "net1" });
        self.control_plane.request_as(&token, "PUT", &path, Some(&object)).unwrap().0
    }

    /// The same, once the API server has heard that the fence is gone.
    #[track_caller]
    fn allocate_as_the_go_plugin(&self, pool: &str, offset: &str, id: &str) {
        for _ in 0..100 {
            if self.allocate_as("go-plugin", pool, offset, id) == 200 {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the fence is still up");
    }

    /// Whether the Go plugin may write now; nothing is written.
    fn is_open_for_the_go_plugin(&self) -> bool {
        let token = self.control_plane.service_account_token(self.namespace, "go-plugin");
        let object = json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "IPPool",
            "metadata": { "name": "probe" }, "spec": { "range": "192.0.2.0/24", "allocations": {} },
        });
        let path = format!("{}?dryRun=All", self.objects("ippools"));
        self.control_plane.request_as(&token, "POST", &path, Some(&object)).unwrap().0 == 201
    }
}

/// The error of an ADD that went nowhere because the addresses are the Go plugin's again.
#[track_caller]
fn is_handed_over(answer: &Answer) {
    assert_ne!(answer.exit, Some(0), "{}", answer.stdout);
    assert!(answer.stdout.contains("handed over to another program"), "{}", answer.stdout);
    assert!(answer.stdout.contains("call that program"), "{}", answer.stdout);
}

#[test]
fn there_and_back_again() {
    let Some(cluster) = Cluster::start("there_and_back_again", "back") else { return };
    let a = cluster.pod("a", "node-1");
    for pod in ["b", "c", "d"] {
        cluster.pod(pod, "node-2");
    }
    cluster.pool(
        "10.10.0.0-16",
        "10.10.0.0/16",
        &[("1", "sandbox-a", "back/a", "net1"), ("2", "sandbox-b", "back/b", "net1")],
    );
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("3", "sandbox-c", "back/c", "net1")]);
    cluster.pool("fd00---64", "fd00::/64", &[("1", "sandbox-d", "back/d", "net1")]);
    cluster.pool("blue-10.10.0.0-16", "10.10.0.0/16", &[]);
    // Of no network of ours, and of no range at all: both stay as they are.
    cluster.pool("anything", "10.10.0.0/28", &[("9", "sandbox-z", "back/z", "net1")]);
    for (name, pod) in
        [("10.10.0.1", "back/a"), ("10.10.0.2", "back/b"), ("10.10.0.3", "back/c"), ("fd00--1", "back/d")]
    {
        cluster.reservation(name, pod, "net1");
    }
    cluster.migrate(&[]).ended(6);
    let (one, two) = (cluster.node("node-1"), cluster.node("node-2"));
    let large = json!({ "range": "10.10.0.0/16" });
    let small = json!({ "range": "10.10.0.0/24" });
    let blue = json!({ "range": "10.10.0.0/16", "network_name": "blue" });
    let both = json!({ "ipRanges": [{ "range": "10.10.0.0/16" }, { "range": "fd00::/64" }] });
    // Released, given to another, added, and made anew.
    two.del("sandbox-b", &large);
    two.del("sandbox-d", &json!({ "range": "fd00::/64" }));
    assert_eq!(two.add("e", ("back", "e", "u-e"), &small).address(), "10.10.0.2/24");
    assert_eq!(two.add("f", ("back", "f", "u-f"), &both).addresses(), ["10.10.0.4/16", "fd00::1/64"]);
    assert_eq!(one.add("g", ("back", "g", "u-g"), &both).addresses(), ["10.10.0.5/16", "fd00::2/64"]);
    assert_eq!(one.add("h", ("back", "h", "u-h"), &blue).address(), "10.10.0.1/16");
    assert_eq!(one.add("sandbox-a2", ("back", "a", &a), &large).address(), "10.10.0.1/16");

    let dry = cluster.read(&["--back", "--dry-run"]);
    for line in [
        "pool 10.10.0.0-16 (10.10.0.0/16 of the unnamed network): 3 addresses, 2 would be added, 1 would be changed, \
         1 would be removed\n",
        "pool blue-10.10.0.0-16 (10.10.0.0/16 of network blue): 1 addresses, 1 would be added, 0 would be changed, \
         0 would be removed\n",
        "reservations: 4 would be made, 2 would be changed, 0 would be deleted\n",
        "IPv4 of network (unnamed): 5 held, to be frozen\n",
        "0 quarantined, 0 without a place, 0 written since they were imported\n",
    ] {
        assert!(dry.contains(line), "no {line:?} in\n{dry}");
    }
    cluster.assert_pool("blue-10.10.0.0-16", &[]);
    assert_eq!(one.add("g", ("back", "g", "u-g"), &both).exit, Some(0), "a dry run froze it");
    two.del("f", &both);

    let back = cluster.migrate(&["--back"]).ended(0);
    assert_eq!(back.report["back"], true);
    assert_eq!(back.report["reservations"], json!({ "made": 3, "changed": 1, "deleted": 1 }), "{}", back.stdout);
    cluster.assert_pool("10.10.0.0-16", &[("1", "sandbox-a2", "back/a", "net1"), ("5", "g", "back/g", "net1")]);
    cluster.assert_pool("10.10.0.0-24", &[("2", "e", "back/e", "net1"), ("3", "sandbox-c", "back/c", "net1")]);
    cluster.assert_pool("fd00---64", &[("2", "g", "back/g", "net1")]);
    cluster.assert_pool("blue-10.10.0.0-16", &[("1", "h", "back/h", "net1")]);
    cluster.assert_pool("anything", &[("9", "sandbox-z", "back/z", "net1")]);
    cluster.assert_reservations(&[
        ("10.10.0.1", "back/a", "net1"),
        ("10.10.0.2", "back/e", "net1"),
        ("10.10.0.3", "back/c", "net1"),
        ("10.10.0.5", "back/g", "net1"),
        ("blue-10.10.0.1", "back/h", "net1"),
        ("fd00--2", "back/g", "net1"),
    ]);

    // Nobody is given anything here any more: not in these spaces, nor in one that has not begun, nor after a repair.
    is_handed_over(&one.add("late", ("back", "late", "u-late"), &small));
    is_handed_over(&one.add("g", ("back", "g", "u-g"), &both));
    let green = json!({ "range": "10.20.0.0/24", "network_name": "green" });
    is_handed_over(&one.add("late", ("back", "late", "u-late"), &green));
    is_handed_over(&two.add(
        "late",
        ("back", "late", "u-late"),
        &json!({ "range": "10.10.0.0/24", "network_name": "x" }),
    ));
    let token = cluster.control_plane.admin_token();
    let admin = cluster.control_plane.kubeconfig("admin-back", token, cluster.namespace, &cluster.control_plane.url());
    let repaired = one
        .plugin
        .command()
        .envs(one.simulated.env())
        .args(["repair", "--open", "--lost", "node-1", "--lost", "node-2", "--kubeconfig"])
        .arg(admin)
        .output()
        .unwrap();
    let stderr = String::from_utf8(repaired.stderr).unwrap();
    assert!(stderr.contains("stays frozen") && stderr.contains("no space is frozen"), "{stderr}");
    is_handed_over(&one.add("late", ("back", "late", "u-late"), &small));
    // What is deleted here succeeds, and is for the Go plugin's reconciler.
    one.del("h", &blue);
    cluster.assert_pool("blue-10.10.0.0-16", &[("1", "h", "back/h", "net1")]);

    // The Go plugin is at work again, and another run leaves alone what it does.
    cluster.allocate_as_the_go_plugin("10.10.0.0-16", "6", "go-sandbox");
    let again = cluster.migrate(&["--back"]).ended(0);
    assert_eq!(again.report["isBackAlready"], true, "{}", again.stdout);
    let refused = cluster.migrate(&[]);
    assert_ne!(refused.exit, 0);
    assert!(refused.stderr.contains("went back to the Go plugin"), "{}", refused.stderr);
    assert!(cluster.is_open_for_the_go_plugin(), "a migration that was refused raised the fence");
    assert_eq!(cluster.allocations("10.10.0.0-16").len(), 3);
}

#[test]
fn wherever_the_way_back_is_interrupted_it_goes_on() {
    let test = "wherever_the_way_back_is_interrupted_it_goes_on";
    let Some(cluster) = Cluster::start(test, "cut") else { return };
    cluster.pod("a", "node-1");
    cluster.pod("b", "node-1");
    cluster.pool(
        "10.10.0.0-16",
        "10.10.0.0/16",
        &[("1", "sandbox-a", "cut/a", "net1"), ("2", "sandbox-b", "cut/b", "net1")],
    );
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[]);
    cluster.reservation("10.10.0.1", "cut/a", "net1");
    cluster.reservation("10.10.0.2", "cut/b", "net1");
    cluster.migrate(&[]).ended(0);
    let (node, small) = (cluster.node("node-1"), json!({ "range": "10.10.0.0/24" }));
    node.del("sandbox-a", &small);
    assert_eq!(node.add("c", ("cut", "c", "u-c"), &small).address(), "10.10.0.1/24");
    assert_eq!(node.add("d", ("cut", "d", "u-d"), &small).address(), "10.10.0.3/24");
    node.del("sandbox-b", &small);
    let pools = || (cluster.allocations("10.10.0.0-16"), cluster.allocations("10.10.0.0-24"), cluster.reservations());
    let before = pools();

    // Killed at its first write, then at its second, and so on: when nothing of it has arrived, and when it has and
    // nobody knows.
    let proxy = FaultProxy::before(cluster.control_plane).unwrap();
    let token = cluster.control_plane.service_account_token(cluster.namespace, "operator");
    let kubeconfig = cluster.control_plane.kubeconfig("operator-cut", &token, cluster.namespace, proxy.url());
    let (mut n_killed, mut is_fence_ours) = (0, false);
    for run in 0.. {
        assert!(run < 60, "it never comes to an end");
        let lands_after = (run % 2 == 1).then_some(Duration::ZERO);
        let silence = |method: &str| Rule::new(Fault::Silence { lands_after }).method(method);
        let passes = |part: &str| Rule::new(Fault::Delay(Duration::ZERO)).path(part);
        proxy.clear();
        // Who one is, and whether the fence holds, is asked by POST.
        let mut rules = vec![passes("selfsubjectreviews"), passes("dryRun")];
        if run > 3 {
            // Each run raises the fence anew.
            rules.extend(["PUT", "POST"].map(|method| passes("validatingadmissionpolic").method(method)));
        } else if run > 1 {
            rules.push(passes("validatingadmissionpolicies"));
        }
        if run > 5 {
            // While a block is not stamped, the index is written anew.
            rules.push(passes("ipspaces"));
        }
        if run > 21 {
            // What is gone already is deleted anew.
            rules.push(passes("validatingadmissionpolicybindings"));
        }
        if run > 23 {
            rules.push(passes("validatingadmissionpolicies"));
        }
        rules.extend([silence("PUT"), silence("POST"), silence("DELETE")]);
        proxy.set(rules);
        let folder = tempfile::tempdir().unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_whereabouts"))
            .env_clear()
            .env("TMPDIR", folder.path())
            .args(["migrate", "--back", "--quiet", "0", "--kubeconfig"])
            .arg(&kubeconfig)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let is_silent = |one: &Seen| matches!(one.fault, Some(Fault::Silence { .. }));
        let is_stuck = |seen: &[Seen]| seen.iter().any(is_silent);
        let ended = loop {
            if proxy.wait_until(Duration::from_millis(50), is_stuck) {
                let has_landed = |seen: &[Seen]| seen.iter().any(|one| is_silent(one) && one.served.is_some());
                assert!(lands_after.is_none() || proxy.wait_until(Duration::from_secs(5), has_landed));
                program.kill().unwrap();
                program.wait().unwrap();
                break None;
            }
            if let Some(status) = program.try_wait().unwrap() {
                break Some(status);
            }
        };
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(0));
            break;
        }
        n_killed += 1;
        let is_untouched = pools() == before;
        let again = node.add("c", ("cut", "c", "u-c"), &small);
        assert!(is_untouched || again.exit != Some(0), "run {run}: both give addresses away");
        if again.exit != Some(0) {
            is_handed_over(&again);
        }
        if cluster.is_open_for_the_go_plugin() {
            assert!(!is_untouched, "run {run}: the fence is down and nothing is written");
            assert_is_cut(&cluster);
        } else if !is_untouched && !is_fence_ours {
            is_fence_ours = true;
            // Behind the fence nobody is let through who writes as the Go plugin does, under no account.
            assert_eq!(cluster.allocate_as("operator", "10.10.0.0-16", "9", "other"), 403);
        }
    }
    assert!(n_killed > 20 && is_fence_ours, "only {n_killed} were interrupted");
    assert_is_cut(&cluster);
    cluster.allocate_as_the_go_plugin("10.10.0.0-16", "6", "go-sandbox");
    is_handed_over(&node.add("late", ("cut", "late", "u-late"), &small));
}

#[track_caller]
fn assert_is_cut(cluster: &Cluster) {
    cluster.assert_pool("10.10.0.0-16", &[]);
    cluster.assert_pool("10.10.0.0-24", &[("1", "c", "cut/c", "net1"), ("3", "d", "cut/d", "net1")]);
    cluster.assert_reservations(&[("10.10.0.1", "cut/c", "net1"), ("10.10.0.3", "cut/d", "net1")]);
}

#[test]
fn what_has_no_place_in_the_go_plugins_pools_is_named_before_anything_changes() {
    let test = "what_has_no_place_in_the_go_plugins_pools_is_named_before_anything_changes";
    let Some(cluster) = Cluster::start(test, "unfit") else { return };
    let nothing = cluster.migrate(&["--back"]).ended(2);
    assert!(nothing.stderr.contains("no IPSpaces") && nothing.stderr.contains("--unfence"), "{}", nothing.stderr);
    cluster.pool("fd00---64", "fd00::/64", &[]);
    cluster.migrate(&[]).ended(0);
    let node = cluster.node("node-1");
    let new = json!({ "range": "10.30.0.0/24", "network_name": "green" });
    let high = json!({ "range": "fd00::/64", "range_start": "fd00::8000:0:0:5" });
    assert_eq!(node.add("new", ("unfit", "new", "u1"), &new).address(), "10.30.0.1/24");
    assert_eq!(node.add("high", ("unfit", "high", "u2"), &high).address(), "fd00::8000:0:0:5/64");

    let refused = cluster.migrate(&["--back"]).ended(6);
    let found = |address: &str, fate: &str| (address.to_owned(), fate.to_owned());
    let expected = [found("10.30.0.1", "does not fit"), found("fd00::8000:0:0:5", "does not fit")];
    assert_eq!(refused.findings(), expected, "{}", refused.stdout);
    assert!(refused.stdout.contains("--make-pools makes green-10.30.0.0-24"), "{}", refused.stdout);
    assert!(refused.stdout.contains("pod unfit/new (container new/net1"), "{}", refused.stdout);
    assert!(refused.stderr.contains("nothing was written"), "{}", refused.stderr);
    assert_eq!(node.add("more", ("unfit", "more", "u3"), &new).address(), "10.30.0.2/24");
    assert_eq!(cluster.reservations(), []);

    node.del("high", &high);
    cluster.migrate(&["--back"]).ended(6);
    let back = cluster.migrate(&["--back", "--make-pools"]).ended(0);
    assert_eq!(back.findings(), [], "{}", back.stdout);
    cluster
        .assert_pool("green-10.30.0.0-24", &[("1", "new", "unfit/new", "net1"), ("2", "more", "unfit/more", "net1")]);
    cluster.assert_reservations(&[("green-10.30.0.1", "unfit/new", "net1"), ("green-10.30.0.2", "unfit/more", "net1")]);
    is_handed_over(&node.add("late", ("unfit", "late", "u4"), &new));
}

#[test]
fn what_the_go_plugin_wrote_since_is_not_overwritten() {
    let test = "what_the_go_plugin_wrote_since_is_not_overwritten";
    let Some(cluster) = Cluster::start(test, "since") else { return };
    cluster.pod("a", "node-1");
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-a", "since/a", "net1")]);
    cluster.migrate(&[]).ended(0);
    cluster.run(&["--unfence"]).ended(0);
    cluster.allocate_as_the_go_plugin("10.10.0.0-24", "7", "go-sandbox");
    cluster.reservation("10.10.0.7", "go/pod", "net1");
    let refused = cluster.migrate(&["--back"]).ended(6);
    let changed = ("-".to_owned(), "changed since".to_owned());
    assert_eq!(refused.findings(), [changed.clone(), changed], "{}", refused.stdout);
    assert!(refused.stdout.contains("10.10.0.7: pod") && refused.stdout.contains("go-sandbox"), "{}", refused.stdout);
    // Imported first, it goes back.
    cluster.migrate(&[]).ended(0);
    cluster.migrate(&["--back"]).ended(0);
    cluster
        .assert_pool("10.10.0.0-24", &[("1", "sandbox-a", "since/a", "net1"), ("7", "go-sandbox", "go/pod", "net1")]);
    cluster.assert_reservations(&[("10.10.0.1", "since/a", "net1"), ("10.10.0.7", "go/pod", "net1")]);
}

#[test]
fn what_contradicts_itself_goes_back_as_it_came() {
    let test = "what_contradicts_itself_goes_back_as_it_came";
    let Some(cluster) = Cluster::start(test, "came") else { return };
    for pod in ["a", "b", "c"] {
        cluster.pod(pod, "node-1");
    }
    let held = [
        ("1", "sandbox-a", "came/a", "net1"),
        ("2", "sandbox-b", "came/b", ""),
        ("3", "sandbox-e", "nonsense", "net1"),
        ("seven", "sandbox-g", "came/g", "net1"),
    ];
    cluster.pool("10.10.0.0-16", "10.10.0.0/16", &held);
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[("1", "sandbox-c", "came/c", "net1")]);
    cluster.pool("10.10.0.0-30", "10.10.0.0/30", &[("5", "sandbox-h", "came/h", "net1")]);
    cluster.reservation("10.10.0.1", "came/c", "net1");
    cluster.reservation("10.10.0.4", "came/x", "net1");
    cluster.migrate(&[]).ended(6);
    let back = cluster.migrate(&["--back"]).ended(6);
    let found = |address: &str| (address.to_owned(), "quarantined".to_owned());
    let expected = ["10.10.0.1", "10.10.0.2", "10.10.0.4", "10.10.0.5"].map(found);
    assert_eq!(back.findings(), expected, "{}", back.stdout);
    cluster.assert_pool("10.10.0.0-16", &held);
    cluster.assert_pool("10.10.0.0-24", &[("1", "sandbox-c", "came/c", "net1")]);
    cluster.assert_pool("10.10.0.0-30", &[("5", "sandbox-h", "came/h", "net1")]);
    let names: Vec<String> = cluster.reservations().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["10.10.0.1", "10.10.0.2", "10.10.0.3", "10.10.0.4", "10.10.0.5"]);
    assert_eq!(cluster.reservations()[2].1, "nonsense");
    cluster.allocate_as_the_go_plugin("10.10.0.0-16", "6", "go-sandbox");
}

#[test]
fn private_pools_and_slices_go_back_into_their_own() {
    let test = "private_pools_and_slices_go_back_into_their_own";
    let Some(cluster) = Cluster::start(test, "own") else { return };
    cluster.control_plane.create(
        &cluster.objects("nodeslicepools"),
        &json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "NodeSlicePool", "metadata": { "name": "blue" },
            "spec": { "range": "10.20.0.0/16", "sliceSize": "/24" },
            "status": { "allocations": [
                { "nodeName": "node-1", "sliceRange": "10.20.0.0/24" }, { "nodeName": "node-2", "sliceRange": "10.20.1.0/24" },
            ] },
        }),
    );
    cluster.pool("blue-node-1-10.20.0.0-24", "10.20.0.0/24", &[]);
    cluster.pool("blue-old-10.20.0.0-24", "10.20.0.0/24", &[]);
    cluster.pool("blue-node-2-10.20.1.0-24", "10.20.1.0/24", &[]);
    cluster.pool("10.10.0.0-16", "10.10.0.0/16", &[]);
    cluster.pool("10.10.0.0-24", "10.10.0.0/24", &[]);
    cluster.migrate(&["--private", "10.10.0.0-16"]).ended(0);
    let node = cluster.node("node-1");
    let alone = json!({ "range": "10.10.0.0/16", "enable_overlapping_ranges": false });
    let cut = json!({ "range": "10.20.0.0/16", "network_name": "blue" });
    assert_eq!(node.add("p", ("own", "p", "u1"), &alone).address(), "10.10.0.1/16");
    assert_eq!(node.add("s", ("own", "s", "u2"), &json!({ "range": "10.10.0.0/24" })).address(), "10.10.0.1/24");
    assert_eq!(node.add("n", ("own", "n", "u3"), &cut).address(), "10.20.0.1/16");
    cluster.migrate(&["--back"]).ended(0);
    cluster.assert_pool("10.10.0.0-16", &[("1", "p", "own/p", "net1")]);
    cluster.assert_pool("10.10.0.0-24", &[("1", "s", "own/s", "net1")]);
    cluster.assert_pool("blue-node-1-10.20.0.0-24", &[("1", "n", "own/n", "net1")]);
    cluster.assert_pool("blue-old-10.20.0.0-24", &[]);
    cluster.assert_pool("blue-node-2-10.20.1.0-24", &[]);
    cluster.assert_reservations(&[("10.10.0.1", "own/s", "net1"), ("blue-10.20.0.1", "own/n", "net1")]);
}
