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

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::skip::skip;
use support::{Answer, Plugin};
use whereabouts_testbed::{ControlPlane, SimulatedNode};

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
        control_plane.apply(&path);
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
        let verb: &[&str] = if first == "migrate" { &[first] } else { &[first, "migrate"] };
        let token = self.control_plane.service_account_token(self.namespace, "operator");
        let name = format!("operator-{}", self.namespace);
        let kubeconfig = self.control_plane.kubeconfig(&name, &token, self.namespace, &self.control_plane.url());
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
        Node { plugin: Plugin::new(&simulated.data_dir), simulated }
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
