//! The command line before a real API server: what people see of a cluster, from where, and what they free.

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

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::skip;
use tempfile::TempDir;
use whereabouts_testbed::ControlPlane;

use cluster::{Node, only_block, succeeded};

/// Somebody at a machine that is no node, with a ledger folder that nothing was kept in yet.
struct Person {
    home: TempDir,
    admin: PathBuf,
}

impl Person {
    fn new(control_plane: &ControlPlane) -> Self {
        Self { home: tempfile::tempdir().unwrap(), admin: cluster::admin(control_plane) }
    }

    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whereabouts"));
        command.env_clear().env("WHEREABOUTS_DATA_DIR", self.home.path());
        command
    }

    /// Without a cluster.
    fn run(&self, arguments: &[&str]) -> Output {
        self.program().args(arguments).output().unwrap()
    }

    /// With the kubeconfig of an administrator on the command line.
    fn on_cluster(&self, arguments: &[&str]) -> Output {
        self.program().arg("--kubeconfig").arg(&self.admin).args(arguments).output().unwrap()
    }

    /// With that kubeconfig in the environment.
    fn in_environment(&self, arguments: &[&str]) -> Output {
        self.program().env("KUBECONFIG", &self.admin).args(arguments).output().unwrap()
    }
}

/// A control plane of a test's own: what commands show is all that there is.
fn alone(test: &str) -> Option<ControlPlane> {
    cluster::start().map_err(|error| skip::skip(test, &error)).ok()
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[track_caller]
fn answers(output: &Output) -> Vec<Value> {
    answers_that_end_with(output, 0)
}

#[track_caller]
fn answers_that_end_with(output: &Output, code: i32) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn contains_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn a_cluster_is_shown_verified_exported_and_freed_from_anywhere() {
    let Some(control_plane) = alone("a_cluster_is_shown_verified_exported_and_freed_from_anywhere") else { return };
    let person = Person::new(&control_plane);
    let (one, two) = (Node::new(&control_plane, "one", "pods"), Node::new(&control_plane, "two", "pods"));
    one.add("web", &one.range("10.61.0.0/24")).ok();
    two.add("db", &two.range("10.61.0.0/24")).ok();
    one.add("long", &one.range("fd61::/64")).ok();
    let other = Node::new(&control_plane, "one", "storage");
    other.add("disk", &other.range("10.61.0.0/24")).ok();

    let networks = said(&person.on_cluster(&["show", "networks"]), 0);
    contains_all(&networks, &["pods  2 ranges  3 held", "storage  1 ranges  1 held"]);
    let ranges = said(&person.on_cluster(&["show", "ranges", "--network", "pods"]), 0);
    contains_all(&ranges, &["10.61.0.0/24", "2 of at most 254 held", "fd61::/64"]);
    let leases = said(&person.on_cluster(&["show", "leases", "10.61.0.0/24", "--network", "pods"]), 0);
    let lines: Vec<&str> = leases.lines().collect();
    assert_eq!(lines.len(), 2, "{leases}");
    contains_all(lines[0], &["10.61.0.1", "web/eth0", "on node one.pods"]);
    contains_all(lines[1], &["10.61.0.2", "db/eth0", "on node two.pods"]);
    contains_all(&said(&person.on_cluster(&["show", "10.61.0.0/24", "--network", "pods"]), 0), &["2 of 254 held"]);

    let who = answers(&person.on_cluster(&["who", "10.61.0.1", "--json"]));
    let nodes: Vec<&str> = who.iter().map(|lease| lease["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["one.pods", "one.storage"], "{who:?}");
    said(&person.on_cluster(&["who", "10.61.0.9"]), 3);
    contains_all(&said(&person.on_cluster(&["verify"]), 0), &["sound", "4 addresses held"]);
    contains_all(&succeeded(&one.command(&["verify"])), &["sound", "4 addresses held"]);

    // What was exported is a backup like any other.
    let backup = person.home.path().join("backup.jsonl");
    said(&person.on_cluster(&["export", backup.to_str().unwrap()]), 0);
    let elsewhere = tempfile::tempdir().unwrap();
    let data_dir = ["--data-dir", elsewhere.path().to_str().unwrap()];
    said(&person.run(&[&data_dir[..], &["import", backup.to_str().unwrap()]].concat()), 0);
    let imported = said(&person.run(&[&data_dir[..], &["show", "leases"]].concat()), 0);
    assert_eq!(imported.lines().count(), 4, "{imported}");

    // Which of two is meant must be said; what is known to its node alone is no way to name an address.
    contains_all(&said(&person.on_cluster(&["release", "10.61.0.1"]), 2), &["2 times", "--network"]);
    contains_all(&said(&person.on_cluster(&["release", "--container", "web"]), 2), &["name addresses"]);
    contains_all(
        &said(&person.on_cluster(&["release", "10.61.0.1", "--network", "pods"]), 0),
        &["10.61.0.1 was held by", "web/eth0"],
    );
    said(&person.on_cluster(&["release", "10.61.0.1", "--network", "pods"]), 3);
    assert_eq!(cluster::held(&control_plane, "storage").len(), 1, "the other network's is not freed");
    assert_eq!(two.add("next", &two.range("10.61.0.0/24")).address(), "10.61.0.1/24");
    // The node where it was freed from afar calls it neither its own nor wrong.
    one.del("web", &one.range("10.61.0.0/24")).ok();
    assert_eq!(cluster::held(&control_plane, "pods")["10.61.0.1"], "next");
    contains_all(&said(&person.on_cluster(&["verify"]), 0), &["sound"]);

    // The commands of one host say that they are that.
    contains_all(&said(&person.on_cluster(&["allocate", "10.61.0.0/24"]), 2), &["--kubeconfig", "this host alone"]);
    contains_all(
        &said(&person.on_cluster(&["import", backup.to_str().unwrap()]), 2),
        &["--kubeconfig", "this host alone"],
    );
}

/// What a node's ledger says and what the cluster says must be the same, and only that node can hold one against the other.
#[test]
fn verify_on_a_node_tells_where_its_ledger_and_the_cluster_disagree() {
    let Some(control_plane) = alone("verify_on_a_node_tells_where_its_ledger_and_the_cluster_disagree") else { return };
    let person = Person::new(&control_plane);
    let (one, two) = (Node::new(&control_plane, "one", "pods"), Node::new(&control_plane, "two", "pods"));
    let range = "10.67.0.0/24";
    one.add("web", &one.range(range)).ok();
    one.add("db", &one.range(range)).ok();
    two.add("before", &two.range(range)).ok();
    let verify = |node: &Node| node.command(&["verify"]);
    let is_sound = |output: Output| {
        let text = said(&output, 0);
        assert!(text.contains("sound:") && !text.contains("unsound"), "{text}");
    };
    is_sound(verify(&one));

    // Freed from afar: the node's ledger still claims it, and whoever looks from elsewhere cannot see that.
    said(&person.on_cluster(&["release", "10.67.0.1"]), 0);
    let verified = said(&verify(&one), 6);
    contains_all(&verified, &["attachment web/eth0", "claims 10.67.0.1", "unsound: "]);
    assert!(!verified.contains("10.67.0.2"), "what agrees is not named: {verified}");
    let lines = answers_that_end_with(&one.command(&["verify", "--json"]), 6);
    let disagreements = lines[0]["disagreements"].as_array().unwrap();
    assert_eq!(disagreements.len(), 1, "{lines:?}");
    for others in [verify(&two), person.on_cluster(&["verify"])] {
        is_sound(others);
    }
    one.del("web", &one.range(range)).ok();
    is_sound(verify(&one));

    // A ledger that was put back to an older state knows nothing of what was added since.
    let ledger = two.simulated.data_dir.join("kubernetes.redb");
    let older = std::fs::read(&ledger).unwrap();
    two.add("after", &two.range(range)).ok();
    std::fs::write(&ledger, older).unwrap();
    let verified = said(&verify(&two), 6);
    contains_all(&verified, &["10.67.0.1 is held by", "after/eth0", "does not know of it", "unsound: "]);
    assert!(!verified.contains("10.67.0.3"), "what agrees is not named: {verified}");
    is_sound(verify(&one));
    two.del("after", &two.range(range)).ok();
    is_sound(verify(&two));
    let held = cluster::held(&control_plane, "pods").into_keys().collect::<Vec<_>>();
    assert_eq!(held, ["10.67.0.2", "10.67.0.3"]);
}

#[test]
fn the_usual_environment_leads_to_a_cluster_where_there_is_no_ledger() {
    let Some(control_plane) = alone("the_usual_environment_leads_to_a_cluster_where_there_is_no_ledger") else {
        return;
    };
    let person = Person::new(&control_plane);
    let one = Node::new(&control_plane, "one", "pods");
    one.add("web", &one.range("10.62.0.0/24")).ok();

    // A machine that knows nothing, one that has KUBECONFIG, and a node that has what its plugin works with.
    said(&person.run(&["show", "leases"]), 3);
    let admin = person.admin.to_str().unwrap();
    for output in [person.in_environment(&["show", "leases"]), one.command(&["show", "leases"])] {
        let leases = said(&output, 0);
        contains_all(&leases, &["10.62.0.1", "on node one.pods", "there is no", "this is about the cluster of"]);
    }
    assert!(said(&person.in_environment(&["verify"]), 0).contains(admin));
    assert_eq!(answers(&person.in_environment(&["--json", "who", "10.62.0.1"]))[0]["container"], "web");

    // A folder that was named is not exchanged for a cluster, and a ledger that is there comes first.
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().to_str().unwrap();
    said(&person.in_environment(&["--data-dir", folder, "release", "10.62.0.1"]), 3);
    said(&person.in_environment(&["allocate", "10.63.0.0/24", "--name", "here"]), 0);
    let leases = said(&person.in_environment(&["show", "leases"]), 0);
    assert!(leases.contains("10.63.0.1") && !leases.contains("10.62.0.1"), "{leases}");
    said(&person.in_environment(&["release", "10.62.0.1"]), 3);
    assert_eq!(cluster::held(&control_plane, "pods").len(), 1);
    // A ledger that was there and is gone is missed, and nobody is told of something else in its place.
    std::fs::remove_file(person.home.path().join("ledger.redb")).unwrap();
    contains_all(&said(&person.in_environment(&["show", "leases"]), 1), &["ledger.redb", "gone"]);
}

/// Somebody who may look but not change is told so, in place of a release that is silently put off.
#[test]
fn a_release_without_the_right_to_update_says_what_the_server_said() {
    let Some(control_plane) = alone("a_release_without_the_right_to_update_says_what_the_server_said") else { return };
    let person = Person::new(&control_plane);
    let one = Node::new(&control_plane, "one", "pods");
    one.add("web", &one.range("10.68.0.0/24")).ok();

    let (namespace, name) = ("kube-system", "reader");
    control_plane.ensure_service_account(namespace, name);
    let subjects = json!([{ "kind": "ServiceAccount", "namespace": namespace, "name": name }]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let bind = |collection: &str, kind: &str, role: &str| {
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role });
        let binding = json!({ "metadata": { "name": name }, "subjects": subjects, "roleRef": role });
        control_plane.create(&format!("{rbac}/{collection}"), &binding);
    };
    let rules = json!([{
        "apiGroups": ["ipam.whereabouts.dev"], "resources": ["ipspaces", "ipblocks"], "verbs": ["get", "list"],
    }]);
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    control_plane.create(&format!("{rbac}/namespaces/{namespace}/roles"), &role);
    bind(&format!("namespaces/{namespace}/rolebindings"), "Role", name);
    bind("clusterrolebindings", "ClusterRole", "whereabouts-identity");
    let token = control_plane.service_account_token(namespace, name);
    let kubeconfig = control_plane.kubeconfig(name, &token, namespace, &control_plane.url());
    let as_reader = |arguments: &[&str]| {
        let mut command = person.program();
        command.arg("--kubeconfig").arg(&kubeconfig).args(arguments).output().unwrap()
    };
    cluster::wait_until("the role is in effect", || as_reader(&["show", "leases"]).status.success());

    let ledger = person.home.path().join("kubernetes.redb");
    let words = [
        "10.68.0.1 is still held",
        "403 Forbidden",
        "cannot update resource",
        "deploy/kubernetes/rbac.yaml",
        "queued in",
        ledger.to_str().unwrap(),
        "ADD, DEL or GC on this host",
    ];
    contains_all(&said(&as_reader(&["release", "10.68.0.1"]), 1), &words);
    contains_all(&said(&as_reader(&["release", "10.68.0.1", "--json"]), 1), &words);
    assert_eq!(cluster::held(&control_plane, "pods")["10.68.0.1"], "web");
    contains_all(&said(&person.on_cluster(&["release", "10.68.0.1"]), 0), &["10.68.0.1 was held by", "web/eth0"]);
    assert!(cluster::held(&control_plane, "pods").is_empty());
}

#[test]
fn what_is_wrong_with_a_cluster_is_told_and_the_rest_is_shown() {
    let Some(control_plane) = alone("what_is_wrong_with_a_cluster_is_told_and_the_rest_is_shown") else { return };
    let person = Person::new(&control_plane);
    let nodes = ["broken", "gone", "whole"].map(|network| Node::new(&control_plane, "one", network));
    for (node, range) in nodes.iter().zip(["10.64.0.0/24", "10.65.0.0/24", "10.66.0.0/24"]) {
        node.add("web", &node.range(range)).ok();
    }

    let block = only_block(&control_plane, "broken");
    let name = Path::new(&block).file_name().unwrap().to_str().unwrap().to_owned();
    let mut object = control_plane.get(&block).unwrap();
    object["spec"]["data"] = json!("0000000000000000000000000");
    let (status, answer) = control_plane.request("PUT", &block, Some(&object)).unwrap();
    assert_eq!(status, 200, "{answer}");
    control_plane.delete(&only_block(&control_plane, "gone"));

    let leases = said(&person.on_cluster(&["show", "leases"]), 6);
    contains_all(
        &leases,
        &["10.66.0.1", &name, "10.65.0.0/24 in IPv4 of network gone", "is gone", "whereabouts repair"],
    );
    let verified = said(&person.on_cluster(&["verify"]), 6);
    contains_all(&verified, &[&name, "10.65.0.0", "unsound"]);
    let backup = said(&person.on_cluster(&["export"]), 6);
    contains_all(&backup, &["10.66.0.1", &name]);
    // Such a backup says of itself that it is not all.
    let file = person.home.path().join("half.jsonl");
    said(&person.on_cluster(&["export", file.to_str().unwrap()]), 6);
    let elsewhere = tempfile::tempdir().unwrap();
    let imported = person.run(&["--data-dir", elsewhere.path().to_str().unwrap(), "import", file.to_str().unwrap()]);
    contains_all(&said(&imported, 0), &["warning: 2 ", "1 added"]);

    // An object under a name that is not its own is named, and the one that it was copied from stays in use.
    let spaces = cluster::objects(&control_plane, cluster::SPACES, "whole");
    let mut copy = spaces[0].clone();
    copy["metadata"] = json!({ "name": "a-copy" });
    control_plane.create(cluster::SPACES, &copy);
    contains_all(&said(&person.on_cluster(&["verify"]), 6), &["/a-copy cannot be read", "another name"]);
    nodes[2].add("db", &nodes[2].range("10.66.0.0/24")).ok();

    // A server that is away is no reason to wait for long, nor to call anything unsound.
    let away = control_plane.kubeconfig("away", control_plane.admin_token(), "kube-system", "https://127.0.0.1:1");
    let output = person.run(&["--kubeconfig", away.to_str().unwrap(), "verify"]);
    contains_all(&said(&output, 7), &["away.yaml", "cannot be reached"]);
    let nowhere = person.run(&["--kubeconfig", "/nonexistent/kubeconfig", "show", "leases"]);
    assert!(!nowhere.status.success());
    assert!(said(&nowhere, nowhere.status.code().unwrap()).contains("/nonexistent/kubeconfig"), "{nowhere:?}");
}
