//! A cluster that is away, put back to an older state, robbed of its objects, or another one than before: nobody gets
//! an address twice, DEL succeeds, and `whereabouts repair` brings back what was lost.
//!
//! The tests take turns on one control plane: each does something to it that others would notice.

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

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use support::skip;
use whereabouts_testbed::{ControlPlane, Fault, Rule};

use cluster::{
    ACCOUNT, BLOCKS, Node, PATIENCE, SPACES, Truth, assert_held, fails, held, manifests, objects, only_block, pack,
    succeeded, unpack, wait_until,
};

/// What holds the leases.
const DEFINITIONS: [&str; 2] = ["ipspaces.ipam.whereabouts.dev", "ipblocks.ipam.whereabouts.dev"];

/// Where definitions are.
const COLLECTION_OF_DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The control plane of all tests of this file, for one of them at a time.
fn alone(test: &str) -> Option<MutexGuard<'static, ControlPlane>> {
    static ALONE: OnceLock<Result<Mutex<ControlPlane>, String>> = OnceLock::new();
    let control_plane = ALONE.get_or_init(|| cluster::start().map(Mutex::new));
    // A test that failed leaves a control plane that the others can still use, if what it made is taken away.
    let control_plane = control_plane.as_ref().map(|alone| alone.lock().unwrap_or_else(PoisonError::into_inner));
    let control_plane = control_plane.map_err(|error| skip::skip(test, error)).ok()?;
    for collection in ["/api/v1/nodes", BLOCKS, SPACES] {
        control_plane.delete(collection);
    }
    Some(control_plane)
}

/// A node of which the cluster knows.
fn node(control_plane: &ControlPlane, name: &str, network: &str) -> Node {
    let node = Node::new(control_plane, name, network);
    control_plane.create_node(&node.simulated.name);
    node
}

/// Two nodes of one network.
fn two_nodes(control_plane: &ControlPlane, network: &str) -> [Node; 2] {
    [node(control_plane, "one", network), node(control_plane, "two", network)]
}

/// Deletes both definitions, as deploy/README.md says, and with them all leases.
#[track_caller]
fn delete_definitions(control_plane: &ControlPlane) {
    control_plane
        .kubectl_ok(&[&["annotate", "crd"], &DEFINITIONS[..], &["ipam.whereabouts.dev/delete=all-leases"]].concat());
    control_plane.kubectl_ok(&["delete", "-f", manifests().join("crds.yaml").to_str().unwrap()]);
}

/// Waits until the API server keeps to the policy that guards the definitions: it does so a moment after it was applied.
#[track_caller]
fn wait_for_guard(control_plane: &ControlPlane) {
    for definition in DEFINITIONS {
        wait_until("the policy is in force", || {
            let path = format!("{COLLECTION_OF_DEFINITIONS}/{definition}?dryRun=All");
            control_plane.request("DELETE", &path, None).unwrap().0 == 403
        });
    }
}

#[track_caller]
fn is_frozen(node: &Node, range: &str) {
    fails(&node.add("while-frozen", &node.range(range)), 5, &["frozen", "whereabouts repair"]);
}

fn frozen_column(control_plane: &ControlPlane, network: &str) -> Vec<String> {
    let spaces = objects(control_plane, SPACES, network);
    spaces.iter().filter_map(|space| Some(space["spec"]["frozen"].as_str()?.to_owned())).collect()
}

// === Away ===

#[test]
fn while_the_api_server_is_away_del_succeeds_and_add_says_try_again() {
    let Some(control_plane) = alone("while_the_api_server_is_away_del_succeeds_and_add_says_try_again") else { return };
    let network = "away";
    let node = Node::new(&control_plane, "one", network);
    let config = node.config(json!({ "range": "10.30.0.0/24", "deadline": 3 }));
    let added = node.add("c1", &config);
    node.add("c2", &config).ok();
    control_plane.kill_apiserver();

    let started = Instant::now();
    node.del("c1", &node.range("10.30.0.0/24")).ok();
    assert!(started.elapsed() < Duration::from_secs(5), "DEL took {:?}", started.elapsed());
    let started = Instant::now();
    fails(&node.add("c3", &config), 11, &["cannot be reached", "kubeconfigs"]);
    assert!(started.elapsed() < Duration::from_secs(5), "a deadline of 3 s was over after {:?}", started.elapsed());
    node.status(&config).ok();
    // One that comes without a configuration is queued as well.
    node.call("DEL", "c2").stdin_bytes("").run().ok();
    fails(&node.check("c1", &config, added.ok()), 102, &["10.30.0.1"]);

    control_plane.start_apiserver();
    assert_held(&control_plane, network, &[("10.30.0.1", "c1"), ("10.30.0.2", "c2")]);
    wait_until("the next call carries out what was queued", || {
        node.del("nobody", &config).ok();
        held(&control_plane, network).is_empty()
    });
    assert_eq!(node.add("c4", &config).address(), "10.30.0.1/24");
}

#[test]
fn a_server_that_has_stopped_keeps_nobody_longer_than_allowed() {
    let Some(control_plane) = alone("a_server_that_has_stopped_keeps_nobody_longer_than_allowed") else { return };
    let network = "stopped";
    let node = Node::new(&control_plane, "one", network);
    let config = node.config(json!({ "range": "10.31.0.0/24", "deadline": 3 }));
    node.add("c1", &config).ok();
    control_plane.pause_apiserver();
    let started = Instant::now();
    fails(&node.add("c2", &config), 11, &["did not answer in time"]);
    node.del("c1", &config).ok();
    assert!(started.elapsed() < Duration::from_secs(9), "ADD and DEL took {:?}", started.elapsed());
    control_plane.resume_apiserver();
    wait_until("the next call carries out what was queued", || {
        node.del("nobody", &config).ok();
        held(&control_plane, network).is_empty()
    });
}

/// The ledger of the node is lost while the API server is away: what is deleted then is known to the cluster alone.
#[test]
fn a_release_that_waits_is_carried_out_though_the_ledger_was_lost() {
    let Some(control_plane) = alone("a_release_that_waits_is_carried_out_though_the_ledger_was_lost") else { return };
    let (network, range) = ("forgotten", "10.46.0.0/24");
    let node = Node::new(&control_plane, "one", network);
    for container in ["a", "b", "c"] {
        node.add(container, &node.range(range)).ok();
    }
    control_plane.kill_apiserver();
    std::fs::remove_file(node.simulated.data_dir.join("kubernetes.redb")).unwrap();
    node.del("a", &node.range(range)).ok();
    node.del("b", &node.range(range)).ok();

    control_plane.start_apiserver();
    wait_until("the next ADD carries out what was queued", || {
        node.add("d", &node.config(json!({ "range": range, "deadline": 3 })));
        !held(&control_plane, network).contains_key("10.46.0.2")
    });
    assert_held(&control_plane, network, &[("10.46.0.1", "d"), ("10.46.0.3", "c")]);
    node.del("c", &node.range(range)).ok();
    assert_held(&control_plane, network, &[("10.46.0.1", "d")]);
}

/// One call carries out what waits in the spool, and the API server keeps it waiting: whoever has something to queue
/// meanwhile does not wait for that.
#[test]
fn a_release_is_queued_while_another_call_carries_out_what_waits() {
    let Some(control_plane) = alone("a_release_is_queued_while_another_call_carries_out_what_waits") else { return };
    let (network, range) = ("queueing", "10.48.0.0/24");
    let node = Node::new(&control_plane, "one", network);
    for container in ["a", "b"] {
        node.add(container, &node.range(range)).ok();
    }
    let short = node.config(json!({ "range": range, "deadline": 1 }));
    let while_in_use = |container: &str| {
        let lock = File::open(node.simulated.data_dir.join("kubernetes.redb.lock")).unwrap();
        flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
        node.del(container, &short)
    };
    while_in_use("a").ok();
    node.proxy.set([Rule::new(Fault::Silence { lands_after: None })]);
    let seen = node.proxy.requests().len();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| node.add("c", &node.config(json!({ "range": range, "deadline": 10 }))));
        let is_under_way = node.proxy.wait_until(PATIENCE, |requests| requests.len() > seen);
        assert!(is_under_way, "the ADD carries out what waits first");
        while_in_use("b").ok();
        assert!(!slow.is_finished(), "it waits for the API server all the time");
        node.proxy.set([]);
        slow.join().unwrap();
    });
    wait_until("a later call carries out both", || {
        node.del("nobody", &node.range(range)).ok();
        let held = held(&control_plane, network);
        !held.contains_key("10.48.0.2") && !held.values().any(|container| container == "a")
    });
}

// === Older, or robbed ===

#[test]
fn a_block_that_was_deleted_is_put_back_by_the_nodes() {
    let Some(control_plane) = alone("a_block_that_was_deleted_is_put_back_by_the_nodes") else { return };
    let (network, range) = ("deleted-block", "10.32.0.0/24");
    let [one, two] = two_nodes(&control_plane, network);
    for (node, container) in [(&one, "a"), (&two, "b"), (&one, "c"), (&two, "d")] {
        node.add(container, &node.range(range)).ok();
    }
    control_plane.delete(&only_block(&control_plane, network));
    for node in [&one, &two] {
        is_frozen(node, range);
    }
    let frozen = frozen_column(&control_plane, network);
    assert!(matches!(frozen.as_slice(), [reason] if reason.contains("gone")), "{frozen:?}");
    let stranger = Node::new(&control_plane, "three", network);
    is_frozen(&stranger, range);
    let started = Instant::now();
    two.del("d", &two.range(range)).ok();
    assert!(started.elapsed() < Duration::from_secs(5), "DEL took {:?}", started.elapsed());

    assert!(one.repair().contains("put back 10.32.0.1"), "what one holds");
    let admin = cluster::admin(&control_plane);
    let open = one.command(&["repair", "--open", "--kubeconfig", admin.to_str().unwrap()]);
    assert_eq!(open.status.code(), Some(6), "{open:?}");
    assert!(String::from_utf8_lossy(&open.stdout).contains("stays frozen: two.deleted-block"), "{open:?}");
    two.repair();
    assert!(one.open(&control_plane).contains("is open again"));
    assert!(one.repair().contains("no space is frozen"));

    assert_eq!(stranger.add("e", &stranger.range(range)).address(), "10.32.0.4/24");
    assert_eq!(one.add("a", &one.range(range)).address(), "10.32.0.1/24");
    let all = [("10.32.0.1", "a"), ("10.32.0.2", "b"), ("10.32.0.3", "c"), ("10.32.0.4", "e")];
    assert_held(&control_plane, network, &all);
    Truth::of(&control_plane, network).assert_listed();
}

#[test]
fn a_block_that_is_deleted_under_a_write_does_not_come_back_by_it() {
    let Some(control_plane) = alone("a_block_that_is_deleted_under_a_write_does_not_come_back_by_it") else { return };
    let (network, range) = ("deleted-under", "10.33.0.0/24");
    let one = node(&control_plane, "one", network);
    one.add("a", &one.range(range)).ok();
    let block = only_block(&control_plane, network);
    one.proxy.clear();
    one.proxy.set([Rule::new(Fault::Delay(Duration::from_secs(2))).method("PUT").path("ipblocks").times(1)]);
    let mut add = one.call("ADD", "b").stdin(&one.range(range)).start();
    add.feed();
    assert!(one.proxy.wait_until(cluster::PATIENCE, |seen| seen.iter().any(|seen| seen.method == "PUT")));
    control_plane.delete(&block);
    fails(&add.wait(), 5, &["frozen", "whereabouts repair"]);
    assert!(one.proxy.requests().iter().any(|seen| seen.method == "PUT" && seen.status == Some(404)));
    assert_eq!(objects(&control_plane, BLOCKS, network), [Value::Null; 0]);
    one.repair();
    one.open(&control_plane);
    assert_held(&control_plane, network, &[("10.33.0.1", "a")]);
    assert_eq!(one.add("b", &one.range(range)).address(), "10.33.0.2/24");
}

#[test]
fn after_a_backup_was_restored_nobody_gets_what_a_live_container_has() {
    let Some(control_plane) = alone("after_a_backup_was_restored_nobody_gets_what_a_live_container_has") else {
        return;
    };
    let (network, range) = ("restored", "10.34.0.0/24");
    let [one, two] = two_nodes(&control_plane, network);
    let three = Node::new(&control_plane, "three", network);
    one.add("a", &one.range(range)).ok();
    two.add("b", &two.range(range)).ok();
    let snapshot = control_plane.snapshot_etcd();
    one.add("c", &one.range(range)).ok();
    two.add("d", &two.range(range)).ok();
    one.del("a", &one.range(range)).ok();
    control_plane.restore_etcd(&snapshot);
    assert_held(&control_plane, network, &[("10.34.0.1", "a"), ("10.34.0.2", "b")]);

    is_frozen(&two, range);
    is_frozen(&one, range);
    is_frozen(&three, range);
    two.del("b", &two.range(range)).ok();
    assert!(one.repair().contains("put back 10.34.0.3"));
    assert!(two.repair().contains("put back 10.34.0.4"));
    one.open(&control_plane);

    assert_eq!(three.add("e", &three.range(range)).address(), "10.34.0.5/24");
    assert_eq!(one.add("c", &one.range(range)).address(), "10.34.0.3/24");
    wait_until("the release of b is carried out", || {
        two.add("d", &two.range(range)).ok();
        !held(&control_plane, network).contains_key("10.34.0.2")
    });
    // What the backup brought back and no container has, is for GC.
    let no_grace = one.config(json!({ "range": range, "gc_grace": 0 }));
    one.gc(&no_grace, &["c"]).ok();
    assert_held(&control_plane, network, &[("10.34.0.3", "c"), ("10.34.0.4", "d"), ("10.34.0.5", "e")]);
}

/// Other nodes have written so much since the restore that the block does not look old to the node that knows better.
#[test]
fn what_a_container_has_is_not_given_away_though_the_store_has_lost_it() {
    let Some(control_plane) = alone("what_a_container_has_is_not_given_away_though_the_store_has_lost_it") else {
        return;
    };
    let (network, range) = ("unnoticed", "10.47.0.0/29");
    let [one, two] = two_nodes(&control_plane, network);
    two.add("a", &two.range(range)).ok();
    let snapshot = control_plane.snapshot_etcd();
    one.add("b", &one.range(range)).ok();
    control_plane.restore_etcd(&snapshot);
    for _ in 0..2 {
        two.add("c", &two.range(range)).ok();
        two.del("c", &two.range(range)).ok();
    }
    assert_held(&control_plane, network, &[("10.47.0.1", "a")]);

    assert_eq!(one.add("d", &one.range(range)).address(), "10.47.0.3/29", "the ledger says that b has 10.47.0.2");
    let this_one = one.config(json!({ "range": "10.47.0.2-10.47.0.2/29" }));
    fails(&one.add("e", &this_one), 101, &["10.47.0.2", "container b", "whereabouts repair --restored"]);
    // Asked again, b has what it had.
    assert_eq!(one.add("b", &this_one).address(), "10.47.0.2/29");
    one.del("b", &one.range(range)).ok();
    assert_eq!(one.add("e", &this_one).address(), "10.47.0.2/29");
}

#[test]
fn two_who_prove_the_same_address_are_named() {
    let Some(control_plane) = alone("two_who_prove_the_same_address_are_named") else { return };
    let (network, range) = ("contradiction", "10.35.0.0/24");
    let [one, two] = two_nodes(&control_plane, network);
    one.add("a", &one.range(range)).ok();
    let snapshot = control_plane.snapshot_etcd();
    one.add("b", &one.range(range)).ok();
    one.add("b", &one.range(range)).ok();
    control_plane.restore_etcd(&snapshot);
    // Who has never seen the newer state cannot know that this one is older.
    assert_eq!(two.add("c", &two.range(range)).address(), "10.35.0.2/24");
    is_frozen(&one, range);
    let repair = one.command(&["repair"]);
    let said = String::from_utf8_lossy(&repair.stdout);
    assert_eq!(repair.status.code(), Some(6), "{said}");
    for words in ["10.35.0.2", "b", "c", "delete the one that is here", "not reported"] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    two.repair();
    let admin = cluster::admin(&control_plane);
    let open = one.command(&["repair", "--open", "--kubeconfig", admin.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&open.stdout).contains("stays frozen: one.contradiction"), "{open:?}");
    one.del("b", &one.range(range)).ok();
    one.repair();
    one.open(&control_plane);
    assert_held(&control_plane, network, &[("10.35.0.1", "a"), ("10.35.0.2", "c")]);
    assert_eq!(one.add("b", &one.range(range)).address(), "10.35.0.3/24");
}

/// Whoever restores a backup repairs before anybody has noticed.
#[test]
fn a_restored_cluster_is_frozen_by_an_operators_word() {
    let Some(control_plane) = alone("a_restored_cluster_is_frozen_by_an_operators_word") else { return };
    let (network, range, later) = ("told", "10.44.0.0/24", "fd44::/64");
    let [one, two] = two_nodes(&control_plane, network);
    one.add("a", &one.range(range)).ok();
    one.add("gone", &one.range(range)).ok();
    let snapshot = control_plane.snapshot_etcd();
    one.del("gone", &one.range(range)).ok();
    one.add("b", &one.range(range)).ok();
    two.add("c", &two.range(range)).ok();
    two.add("d", &two.range(later)).ok();
    control_plane.restore_etcd(&snapshot);

    for node in [&one, &two] {
        succeeded(&node.command(&["repair", "--restored"]));
    }
    // What an old image says of a container of this node that is gone is no contradiction.
    assert_eq!(held(&control_plane, network)["10.44.0.2"], "b");
    one.open(&control_plane);
    assert_held(
        &control_plane,
        network,
        &[("10.44.0.1", "a"), ("10.44.0.2", "b"), ("10.44.0.3", "c"), ("fd44::1", "d")],
    );
    // Nor does a GC free what the old image said of it.
    one.gc(&one.config(json!({ "range": range, "gc_grace": 0 })), &["a", "b"]).ok();
    let three = node(&control_plane, "three", network);
    assert_eq!(three.add("e", &three.range(range)).address(), "10.44.0.4/24");
    assert_eq!(three.add("f", &three.range(later)).address(), "fd44::2/64");
}

#[test]
fn a_ledger_that_knows_nothing_of_its_node_has_not_reported() {
    let Some(control_plane) = alone("a_ledger_that_knows_nothing_of_its_node_has_not_reported") else { return };
    let (network, range) = ("nothing", "10.45.0.0/24");
    let [one, two] = two_nodes(&control_plane, network);
    one.add("a", &one.range(range)).ok();
    two.add("c", &two.range(range)).ok();
    let snapshot = control_plane.snapshot_etcd();
    one.add("b", &one.range(range)).ok();
    control_plane.restore_etcd(&snapshot);
    succeeded(&two.command(&["repair", "--restored"]));
    // Somebody runs it on the node without saying where the plugin has its ledger.
    let elsewhere = tempfile::tempdir().unwrap();
    let repair = one.command(&[
        "--data-dir",
        elsewhere.path().to_str().unwrap(),
        "repair",
        "--kubeconfig",
        one.simulated.kubeconfig.to_str().unwrap(),
    ]);
    assert_eq!(repair.status.code(), Some(6), "{repair:?}");
    assert!(String::from_utf8_lossy(&repair.stdout).contains("not reported"), "{repair:?}");
    let admin = cluster::admin(&control_plane);
    let open = two.command(&["repair", "--open", "--kubeconfig", admin.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&open.stdout).contains("stays frozen: one.nothing"), "{open:?}");
    assert!(one.repair().contains("put back 10.45.0.3"));
    two.open(&control_plane);
    assert_held(&control_plane, network, &[("10.45.0.1", "a"), ("10.45.0.2", "c"), ("10.45.0.3", "b")]);
}

#[test]
fn an_index_that_cannot_be_read_stops_no_other_network() {
    let Some(control_plane) = alone("an_index_that_cannot_be_read_stops_no_other_network") else { return };
    let (damaged, sound) = (("damaged-index", "10.46.0.0/24"), ("sound", "10.47.0.0/24"));
    let (one, two) = (node(&control_plane, "one", damaged.0), node(&control_plane, "one", sound.0));
    one.add("a", &one.range(damaged.1)).ok();
    two.add("b", &two.range(sound.1)).ok();
    two.add("c", &two.range(sound.1)).ok();
    let index =
        format!("{SPACES}/{}", objects(&control_plane, SPACES, damaged.0)[0]["metadata"]["name"].as_str().unwrap());
    let mut edited = control_plane.get(&index).unwrap();
    edited["spec"]["data"] = json!("0000000000000000000000000");
    let (status, answer) = control_plane.request("PUT", &index, Some(&edited)).unwrap();
    assert_eq!(status, 200, "{answer}");

    two.gc(&two.config(json!({ "range": sound.1, "gc_grace": 0 })), &["b"]).ok();
    let log = two.del("c", &two.range(sound.1));
    log.ok();
    assert!(!log.stderr.contains("queued"), "{}", log.stderr);
    assert_held(&control_plane, sound.0, &[("10.47.0.1", "b")]);
    control_plane.delete(&only_block(&control_plane, sound.0));
    is_frozen(&two, sound.1);
    let repair = two.command(&["repair"]);
    let said = String::from_utf8_lossy(&[repair.stdout, repair.stderr].concat()).into_owned();
    assert!(said.contains("put back 10.47.0.1") && said.contains(index.rsplit('/').next().unwrap()), "{said}");
    assert_eq!(repair.status.code(), Some(6));
    // What cannot be read is as it was.
    assert_eq!(control_plane.get(&index).unwrap()["spec"], edited["spec"]);
}

#[test]
fn definitions_are_not_deleted_before_somebody_says_that_all_leases_may_go() {
    let Some(control_plane) = alone("definitions_are_not_deleted_before_somebody_says_that_all_leases_may_go") else {
        return;
    };
    let (network, range) = ("guarded", "10.48.0.0/24");
    let one = node(&control_plane, "one", network);
    one.add("a", &one.range(range)).ok();
    let (folder, definitions) = (manifests(), manifests().join("crds.yaml"));
    let (folder, definitions) = (folder.to_str().unwrap(), definitions.to_str().unwrap());
    wait_for_guard(&control_plane);
    let denied = |arguments: &[&str]| {
        let output = control_plane.kubectl(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        for words in ["every lease of the cluster", "kubectl annotate crd", "(Forbidden)"] {
            assert!(stderr.contains(words), "{words} is not in: {stderr}");
        }
        assert_held(&control_plane, network, &[("10.48.0.1", "a")]);
        stderr
    };
    let said = denied(&["delete", "-f", definitions]);
    assert!(DEFINITIONS.iter().all(|name| said.contains(&format!("{name}\" is forbidden"))), "{said}");
    denied(&["delete", "crd", DEFINITIONS[1]]);
    denied(&["delete", "crd", "--all"]);
    let (status, answer) = control_plane.request("DELETE", COLLECTION_OF_DEFINITIONS, None).unwrap();
    assert_eq!(status, 403, "{answer}");
    let annotate = |value: &str| {
        let annotation = format!("ipam.whereabouts.dev/delete={value}");
        control_plane.kubectl_ok(&[&["annotate", "--overwrite", "crd"], &DEFINITIONS[..], &[&annotation]].concat());
    };
    annotate("no");
    denied(&["delete", "-f", definitions]);

    // Nothing else is in the way: newer definitions, those of others, namespaces.
    control_plane.apply(&manifests());
    control_plane.kubectl_ok(&["label", "crd", DEFINITIONS[0], "newer=yes"]);
    let go_plugin = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/go-plugin-crds.yaml");
    control_plane.apply(Path::new(go_plugin));
    control_plane.kubectl_ok(&["delete", "-f", go_plugin]);
    control_plane.kubectl_ok(&["create", "namespace", network]);
    control_plane.kubectl_ok(&["delete", "namespace", network, "--wait=false"]);
    assert_eq!(one.add("b", &one.range(range)).address(), "10.48.0.2/24");
    one.del("b", &one.range(range)).ok();

    // Whoever takes everything away that was applied is asked before the policy goes with the rest.
    denied(&["delete", "-f", folder]);
    control_plane.apply(&manifests());
    wait_for_guard(&control_plane);

    // What the message says is what helps.
    let command = said.split('`').nth(1).unwrap().strip_prefix("kubectl ").unwrap();
    let command: Vec<&str> = command.split(' ').chain(["--overwrite"]).collect();
    control_plane.kubectl_ok(&command);
    control_plane.kubectl_ok(&["delete", "-f", definitions]);
    assert_eq!(control_plane.get(SPACES), None);
    control_plane.apply(&manifests());
    assert_held(&control_plane, network, &[]);
}

#[test]
fn definitions_that_were_deleted_and_made_again_lose_nobody_an_address() {
    let Some(control_plane) = alone("definitions_that_were_deleted_and_made_again_lose_nobody_an_address") else {
        return;
    };
    let (network, range) = ("definitions", "10.36.0.0/24");
    let [one, two] = two_nodes(&control_plane, network);
    // It has never had an address of the network, and cannot know that others have.
    let three = node(&control_plane, "three", network);
    one.add("a", &one.range(range)).ok();
    two.add("b", &two.range(range)).ok();
    two.add("late", &two.range(range)).ok();
    delete_definitions(&control_plane);
    let short = one.config(json!({ "range": range, "deadline": 5 }));
    fails(
        &one.add("c", &short),
        5,
        &["the API server has no ipblocks", "deploy/kubernetes/crds.yaml", "deploy/README.md"],
    );
    two.del("late", &two.range(range)).ok();

    control_plane.kubectl_ok(&["-n", ACCOUNT.0, "delete", "rolebinding", ACCOUNT.1]);
    let says = |words: &str| three.add("c", &three.range(range)).error().1.contains(words);
    wait_until("the nodes have no rights", || says("403 Forbidden"));
    control_plane.apply(&manifests().join("crds.yaml"));
    assert!(says("403 Forbidden"));
    let admin = cluster::admin(&control_plane);
    for node in [&one, &two, &three] {
        succeeded(&node.command(&["repair", "--restored", "--kubeconfig", admin.to_str().unwrap()]));
    }
    control_plane.apply(&manifests().join("rbac.yaml"));
    wait_until("the nodes have their rights, and the space is frozen", || says("frozen"));
    one.open(&control_plane);

    assert_held(&control_plane, network, &[("10.36.0.1", "a"), ("10.36.0.2", "b")]);
    assert_eq!(three.add("c", &three.range(range)).address(), "10.36.0.3/24");
    assert_eq!(one.add("a", &one.range(range)).address(), "10.36.0.1/24");
    Truth::of(&control_plane, network).assert_listed();
}

/// Without the rights taken away: what comes of it is a second holder, whom the repair finds.
#[test]
fn a_node_that_begins_a_space_anew_after_its_deletion_is_found_by_the_repair() {
    let Some(control_plane) = alone("a_node_that_begins_a_space_anew_after_its_deletion_is_found_by_the_repair") else {
        return;
    };
    let (network, range) = ("anew", "10.49.0.0/24");
    let [one, two] = two_nodes(&control_plane, network);
    let three = node(&control_plane, "three", network);
    one.add("a", &one.range(range)).ok();
    two.add("b", &two.range(range)).ok();
    delete_definitions(&control_plane);
    control_plane.apply(&manifests().join("crds.yaml"));
    assert_eq!(three.add("c", &three.range(range)).address(), "10.49.0.1/24", "it knows nothing of a");

    // Whoever knows better stops all, asked or not.
    is_frozen(&two, range);
    is_frozen(&three, range);
    let repair = one.command(&["repair", "--restored"]);
    let said = String::from_utf8_lossy(&repair.stdout);
    assert_eq!(repair.status.code(), Some(6), "{said}");
    assert!(said.contains("10.49.0.1: this host proves that container a/eth0") && said.contains("c/eth0"), "{said}");
    for node in [&two, &three] {
        succeeded(&node.command(&["repair", "--restored"]));
    }
    one.del("a", &one.range(range)).ok();
    one.repair();
    one.open(&control_plane);
    assert_held(&control_plane, network, &[("10.49.0.1", "c"), ("10.49.0.2", "b")]);
    assert_eq!(one.add("a", &one.range(range)).address(), "10.49.0.3/24");
}

/// What a restore into the wrong cluster does, or a pipe from one `kubectl` to another.
#[test]
fn a_block_of_another_cluster_is_never_taken_for_ones_own() {
    let Some(control_plane) = alone("a_block_of_another_cluster_is_never_taken_for_ones_own") else { return };
    let copy_in = |block: &str, foreign: &Value| {
        let patch = control_plane.request("PATCH", block, Some(&json!({ "spec": foreign }))).unwrap();
        assert_eq!(patch.0, 200);
    };
    foreign_block(&control_plane, "foreign", "10.37.0.0/24", copy_in);
}

#[test]
fn a_block_of_another_cluster_in_place_of_one_that_was_deleted_is_not_taken_for_it_either() {
    let test = "a_block_of_another_cluster_in_place_of_one_that_was_deleted_is_not_taken_for_it_either";
    let Some(control_plane) = alone(test) else { return };
    let copy_in = |block: &str, foreign: &Value| {
        let (folder, name) = block.rsplit_once('/').unwrap();
        control_plane.delete(block);
        control_plane.create(folder, &object("IPBlock", name, foreign));
    };
    foreign_block(&control_plane, "foreign-anew", "10.43.0.0/24", copy_in);
}

/// An object as it was in another cluster.
fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "ipam.whereabouts.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

#[track_caller]
fn foreign_block(control_plane: &ControlPlane, network: &str, range: &str, copy_in: impl Fn(&str, &Value)) {
    let there = cluster::start().unwrap();
    let stranger = node(&there, "stranger", network);
    stranger.add("theirs", &stranger.range(range)).ok();
    let [one, two] = two_nodes(control_plane, network);
    one.add("a", &one.range(range)).ok();
    two.add("b", &two.range(range)).ok();
    let block = only_block(control_plane, network);
    assert_eq!(block, only_block(&there, network), "both clusters call it the same");
    let foreign = there.get(&block).unwrap()["spec"].clone();
    copy_in(&block, &foreign);

    let name = block.rsplit_once('/').unwrap().1;
    fails(&one.add("c", &one.range(range)), 5, &["frozen", "of another cluster", name, "whereabouts repair"]);
    is_frozen(&two, range);
    let started = Instant::now();
    two.del("b", &two.range(range)).ok();
    assert!(started.elapsed() < Duration::from_secs(5), "DEL took {:?}", started.elapsed());
    assert_eq!(control_plane.get(&block).unwrap()["spec"], foreign, "it is never overwritten");
    let admin = cluster::admin(control_plane);
    let repair = one.command(&["repair", "--kubeconfig", admin.to_str().unwrap()]);
    assert!(!repair.status.success());
    let said = String::from_utf8_lossy(&repair.stderr);
    assert!(said.contains(name) && said.contains("of another cluster"), "{said}");
    // The operator takes it away.
    control_plane.delete(&block);
    one.repair();
    two.repair();
    one.open(control_plane);
    assert_eq!(one.add("a", &one.range(range)).address().rsplit_once('.').unwrap().1, "1/24", "as before");
    wait_until("the release of b is carried out", || {
        two.add("d", &two.range(range)).ok();
        !held(control_plane, network).into_values().any(|container| container == "b")
    });
    assert_held(&there, network, &[(range.replace("0/24", "1").as_str(), "theirs")]);
}

/// All of a network, where nobody has anything of it yet: only what is in the objects tells that they are not of here.
#[test]
fn a_network_of_another_cluster_is_not_gone_on_with() {
    let Some(control_plane) = alone("a_network_of_another_cluster_is_not_gone_on_with") else { return };
    let there = cluster::start().unwrap();
    let (network, range) = ("foreign-whole", "10.44.0.0/24");
    let stranger = node(&there, "stranger", network);
    stranger.add("theirs", &stranger.range(range)).ok();
    let block = only_block(&there, network);
    let spaces = there.get(SPACES).unwrap();
    let is_of_network = |space: &&Value| space["spec"]["network"] == network;
    let space = spaces["items"].as_array().unwrap().iter().find(is_of_network).unwrap();
    for (kind, folder, theirs) in [("IPSpace", SPACES, space), ("IPBlock", BLOCKS, &there.get(&block).unwrap())] {
        control_plane.create(folder, &object(kind, theirs["metadata"]["name"].as_str().unwrap(), &theirs["spec"]));
    }
    let node = node(&control_plane, "one", network);
    for _ in 0..2 {
        let answer = node.add("a", &node.range(range));
        assert_ne!(answer.exit, Some(0), "{}", answer.stdout);
        assert!(answer.stdout.contains("of another cluster"), "{}", answer.stdout);
    }
    assert_eq!(
        control_plane.get(&block).unwrap()["spec"],
        there.get(&block).unwrap()["spec"],
        "it is as it was copied"
    );
}

#[test]
fn an_object_that_was_edited_by_hand_is_named_and_never_overwritten() {
    let Some(control_plane) = alone("an_object_that_was_edited_by_hand_is_named_and_never_overwritten") else { return };
    let (network, range) = ("edited", "10.38.0.0/24");
    let [one, two] = two_nodes(&control_plane, network);
    one.add("a", &one.range(range)).ok();
    two.add("b", &two.range(range)).ok();
    let block = only_block(&control_plane, network);
    let name = block.rsplit_once('/').unwrap().1;
    let sound = control_plane.get(&block).unwrap()["spec"]["data"].as_str().unwrap().to_owned();
    let mut bytes = unpack(&sound);
    *bytes.last_mut().unwrap() ^= 1;
    for (data, words) in [
        ("no base 85".to_owned(), "no base 85"),
        (sound[..sound.len() / 2 / 4 * 4].to_owned(), "cannot be unpacked"),
        (String::new(), "cannot be unpacked"),
        (pack(&bytes), name),
        (pack(&unpack(&sound)[..16]), "cut off"),
    ] {
        let patch = control_plane.request("PATCH", &block, Some(&json!({ "spec": { "data": data } }))).unwrap();
        assert_eq!(patch.0, 200);
        let started = Instant::now();
        fails(&one.add("c", &one.range(range)), 5, &[&format!("ipblocks.ipam.whereabouts.dev/{name}"), words]);
        one.del("c", &one.range(range)).ok();
        assert!(started.elapsed() < Duration::from_secs(5), "ADD and DEL took {:?}", started.elapsed());
        assert_eq!(control_plane.get(&block).unwrap()["spec"]["data"], data, "it is never overwritten");
    }
    let started = Instant::now();
    one.del("a", &one.range(range)).ok();
    assert!(started.elapsed() < Duration::from_secs(5), "DEL took {:?}", started.elapsed());
    // Put right again, everything is as before; what was queued meanwhile is carried out.
    let patch = control_plane.request("PATCH", &block, Some(&json!({ "spec": { "data": sound } }))).unwrap();
    assert_eq!(patch.0, 200);
    wait_until("the release of a is carried out", || {
        two.del("nobody", &two.range(range)).ok();
        one.del("nobody", &one.range(range)).ok();
        held(&control_plane, network) == BTreeMap::from([("10.38.0.2".to_owned(), "b".to_owned())])
    });
    // What cannot be put right is taken away, and made again from what the nodes know.
    control_plane.request("PATCH", &block, Some(&json!({ "spec": { "data": "" } }))).unwrap();
    control_plane.delete(&block);
    is_frozen(&one, range);
    one.repair();
    two.repair();
    one.open(&control_plane);
    assert_eq!(one.add("c", &one.range(range)).address(), "10.38.0.1/24");
    assert_held(&control_plane, network, &[("10.38.0.1", "c"), ("10.38.0.2", "b")]);
}

#[test]
fn a_node_of_the_cluster_that_has_not_reported_holds_the_opening_up_until_it_is_given_up() {
    let Some(control_plane) =
        alone("a_node_of_the_cluster_that_has_not_reported_holds_the_opening_up_until_it_is_given_up")
    else {
        return;
    };
    let (network, range) = ("reported", "10.39.0.0/24");
    let one = node(&control_plane, "one", network);
    one.add("a", &one.range(range)).ok();
    control_plane.create_node("gone-for-good");
    control_plane.delete(&only_block(&control_plane, network));
    is_frozen(&one, range);
    one.repair();
    // The kubeconfig of the node may not see which nodes there are.
    let open = one.command(&["repair", "--open"]);
    assert_eq!(open.status.code(), Some(1), "{open:?}");
    assert!(String::from_utf8_lossy(&open.stderr).contains("kubeconfig of an administrator"), "{open:?}");
    let admin = cluster::admin(&control_plane);
    let admin = admin.to_str().unwrap();
    let open = one.command(&["repair", "--open", "--kubeconfig", admin]);
    assert!(String::from_utf8_lossy(&open.stdout).contains("stays frozen: gone-for-good"), "{open:?}");
    is_frozen(&one, range);
    let open = one.command(&["repair", "--open", "--kubeconfig", admin, "--lost", "gone-for-good"]);
    assert!(open.status.success(), "{open:?}");
    assert_eq!(one.add("b", &one.range(range)).address(), "10.39.0.2/24");
}

// === Another one ===

#[test]
fn a_kubeconfig_that_leads_to_another_cluster_begins_another_ledger() {
    let Some(here) = alone("a_kubeconfig_that_leads_to_another_cluster_begins_another_ledger") else { return };
    let there = cluster::start().unwrap();
    let (network, range) = ("moved", "10.40.0.0/24");
    let node = Node::new(&here, "one", network);
    let original = std::fs::read(&node.simulated.kubeconfig).unwrap();
    there.ensure_service_account(ACCOUNT.0, ACCOUNT.1);
    let token = there.service_account_token(ACCOUNT.0, ACCOUNT.1);
    let path_of_other = there.kubeconfig("other", &token, ACCOUNT.0, &there.url());
    let other = std::fs::read(&path_of_other).unwrap();
    let lead_to = |kubeconfig: &[u8]| std::fs::write(&node.simulated.kubeconfig, kubeconfig).unwrap();
    let set_aside = || -> Vec<PathBuf> {
        let files = std::fs::read_dir(&node.simulated.data_dir).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.to_string_lossy().contains("of-another-cluster")).collect()
    };
    for container in ["a", "b", "c"] {
        node.add(container, &node.range(range)).ok();
    }

    // Whoever looks at another cluster from here, or frees something there, leaves the plugin its ledger.
    let (stranger, admin) = (Node::new(&there, "stranger", network), cluster::admin(&there));
    stranger.add("theirs", &stranger.range(range)).ok();
    for command in [["show", "leases"].as_slice(), &["release", "10.40.0.1"]] {
        let refused = node.command(&[command, &["--kubeconfig", admin.to_str().unwrap()]].concat());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains("another cluster") && said.contains("--data-dir"), "{command:?}: {said}");
    }
    assert_eq!(set_aside().len(), 0);
    assert_held(&there, network, &[("10.40.0.1", "theirs")]);
    stranger.del("theirs", &stranger.range(range)).ok();

    lead_to(&other);
    // Neither a DEL nor an ADD takes what the ledger knows for the state of the other cluster, nor freezes its spaces.
    node.del("a", &node.range(range)).ok();
    assert_eq!(node.add("d", &node.range(range)).address(), "10.40.0.1/24");
    assert_held(&there, network, &[("10.40.0.1", "d")]);
    assert_eq!(set_aside().len(), 1);
    assert_eq!(frozen_column(&there, network), [""; 0]);

    // Back again the node learns from the cluster what it holds, and both clusters have a block of one name.
    lead_to(&original);
    node.del("b", &node.range(range)).ok();
    assert_held(&here, network, &[("10.40.0.1", "a"), ("10.40.0.3", "c")]);
    assert_eq!(set_aside().len(), 2);
    assert_eq!(node.add("e", &node.range(range)).address(), "10.40.0.2/24");
    node.del("a", &node.range(range)).ok();
    node.del("c", &node.range(range)).ok();
    assert_held(&here, network, &[("10.40.0.2", "e")]);
    assert_held(&there, network, &[("10.40.0.1", "d")]);
    for cluster in [&*here, &there] {
        assert_eq!(frozen_column(cluster, network), [""; 0]);
    }
}
