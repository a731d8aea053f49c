//! A Kubernetes cluster decides: real processes of several nodes before a real API server, and what they ask of it.
//!
//! All tests share one control plane; each has a network and nodes of its own.

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
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{at_once, skip};
use whereabouts_testbed::{ControlPlane, Fault, Rule, SimulatedNode};

use cluster::{BLOCKS, Node, PATIENCE, SPACES, Truth, assert_held, fails, held, objects, only_block, wait_until};

/// Longer than a request takes.
const MOMENT: Duration = Duration::from_millis(300);

/// The control plane of all tests of this file.
fn shared(test: &str) -> Option<&'static ControlPlane> {
    static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    SHARED.get_or_init(cluster::start).as_ref().map_err(|error| skip::skip(test, error)).ok()
}

fn is_write(request: &str) -> bool {
    !request.starts_with("GET ")
}

/// A GET of a collection.
fn is_list(request: &str) -> bool {
    request.starts_with("GET ") && request.contains('?')
}

// === The verbs ===

#[test]
fn two_nodes_share_a_range() {
    let Some(control_plane) = shared("two_nodes_share_a_range") else { return };
    let network = "verbs";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let ranges = json!({ "ipRanges": [{ "range": "10.1.0.0/24" }, { "range": "fd01::/64" }] });
    let (on_one, on_two) = (one.config(ranges.clone()), two.config(ranges));

    let first = one.add("c1", &on_one);
    assert_eq!(first.addresses(), ["10.1.0.1/24", "fd01::1/64"]);
    let second = two.add("c2", &on_two);
    assert_eq!(second.addresses(), ["10.1.0.2/24", "fd01::2/64"]);
    assert_eq!(one.add("c1", &on_one).stdout, first.stdout, "the same question gets the same answer");

    one.check("c1", &on_one, first.ok()).ok();
    fails(&one.check("c3", &on_one, first.ok()), 102, &["c3", "10.1.0.1"]);
    fails(&one.check("c1", &on_one, second.ok()), 102, &["10.1.0.2"]);
    one.status(&on_one).ok();

    // What another node holds is none of this node's business.
    two.del("c1", &on_two).ok();
    two.gc(&on_two, &[]).ok();
    let all = [("10.1.0.1", "c1"), ("10.1.0.2", "c2"), ("fd01::1", "c1"), ("fd01::2", "c2")];
    assert_held(control_plane, network, &all);

    one.del("c1", &on_one).ok();
    one.del("c1", &on_one).ok();
    assert_held(control_plane, network, &[("10.1.0.2", "c2"), ("fd01::2", "c2")]);
    assert_eq!(two.add("c4", &on_two).addresses(), ["10.1.0.1/24", "fd01::1/64"], "the lowest free ones");
    fails(&one.check("c1", &on_one, first.ok()), 102, &["10.1.0.1"]);
    Truth::of(control_plane, network).assert_listed();
}

#[test]
fn a_new_sandbox_of_a_pod_keeps_its_address_on_its_node() {
    let Some(control_plane) = shared("a_new_sandbox_of_a_pod_keeps_its_address_on_its_node") else { return };
    let network = "owners";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let add = |node: &Node, container: &str, name: &str, uid: &str| {
        node.call("ADD", container).pod("default", name, uid).stdin(&node.range("10.2.0.0/24")).run()
    };
    assert_eq!(add(&one, "old", "web", "u1").address(), "10.2.0.1/24");
    assert_eq!(add(&one, "new", "web", "u1").address(), "10.2.0.1/24");
    one.del("old", &one.range("10.2.0.0/24")).ok();
    assert_held(control_plane, network, &[("10.2.0.1", "new")]);
    // Elsewhere, or another one of the same name, it is another one.
    assert_eq!(add(&two, "elsewhere", "web", "u1").address(), "10.2.0.2/24");
    assert_eq!(add(&one, "another", "web", "u2").address(), "10.2.0.3/24");
    let lease = Truth::of(control_plane, network).leases.into_values().next().unwrap();
    assert_eq!((&*lease.node, &*lease.attachment.network), ("one.owners", "test"));
}

#[test]
fn gc_frees_what_the_runtime_of_its_node_no_longer_lists() {
    let Some(control_plane) = shared("gc_frees_what_the_runtime_of_its_node_no_longer_lists") else { return };
    let network = "collect";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let keys = json!({ "range": "10.3.0.0/24", "gc_grace": 0 });
    for container in ["a", "b", "c"] {
        one.add(container, &one.config(keys.clone())).ok();
    }
    two.add("d", &two.config(keys.clone())).ok();
    one.gc(&one.config(keys.clone()), &["b"]).ok();
    assert_held(control_plane, network, &[("10.3.0.2", "b"), ("10.3.0.4", "d")]);
    // A node whose ledger is gone learns from the cluster what is its own.
    std::fs::remove_file(one.simulated.data_dir.join("kubernetes.redb")).unwrap();
    one.gc(&one.config(keys), &[]).ok();
    assert_held(control_plane, network, &[("10.3.0.4", "d")]);
}

/// A virtual machine that is copied, or a disk that is put into another one, brings a ledger along that speaks of containers
/// which never ran there.
#[test]
fn a_ledger_that_came_with_a_copied_disk_is_set_aside() {
    let test = "a_ledger_that_came_with_a_copied_disk_is_set_aside";
    let Some(control_plane) = shared(test) else { return };
    if !SimulatedNode::can_have_machine_id() {
        return skip::skip(test, "nothing can be mounted over /etc/machine-id");
    }
    let network = "copied";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let keys = json!({ "range": "10.4.0.0/24", "gc_grace": 0 });
    for container in ["a", "b"] {
        one.add(container, &one.config(keys.clone())).ok();
    }
    let copy_to = |node: &Node| {
        let name = "kubernetes.redb";
        std::fs::copy(one.simulated.data_dir.join(name), node.simulated.data_dir.join(name)).unwrap();
    };
    copy_to(&two);
    // Its runtime knows none of the containers, and says so.
    two.gc(&two.config(keys.clone()), &[]).ok();
    two.del("a", &two.config(keys.clone())).ok();
    assert_held(control_plane, network, &[("10.4.0.1", "a"), ("10.4.0.2", "b")]);
    assert_eq!(two.add("c", &two.config(keys.clone())).address(), "10.4.0.3/24");
    let files = std::fs::read_dir(&two.simulated.data_dir).unwrap();
    let aside = files.filter(|file| {
        file.as_ref().unwrap().file_name().to_string_lossy().starts_with("kubernetes.redb.of-another-machine-")
    });
    assert_eq!(aside.count(), 1, "nothing is lost");

    // A new machine that has the node's name takes over what is of that name, from the cluster and not from the disk.
    let again = Node::new(control_plane, "one", network);
    copy_to(&again);
    one.del("b", &one.config(keys.clone())).ok();
    one.add("d", &one.config(keys.clone())).ok();
    again.del("a", &again.config(keys.clone())).ok();
    again.gc(&again.config(keys), &["d"]).ok();
    assert_held(control_plane, network, &[("10.4.0.2", "d"), ("10.4.0.3", "c")]);
}

#[test]
fn people_see_networks_and_blocks_with_kubectl() {
    let Some(control_plane) = shared("people_see_networks_and_blocks_with_kubectl") else { return };
    let node = Node::new(control_plane, "one", "seen");
    for container in ["a", "b", "c"] {
        node.add(container, &node.range("10.4.0.0/16")).ok();
    }
    let row = |resource: &str| {
        let table = control_plane.kubectl_ok(&["get", resource, "-n", "kube-system"]);
        let (head, rows) = table.split_once('\n').unwrap();
        let row =
            rows.lines().find(|row| row.split_whitespace().nth(1) == Some("seen")).unwrap_or_else(|| panic!("{table}"));
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        (cells(head), cells(row))
    };
    let (head, cells) = row("ipblocks");
    assert_eq!(head, ["NAME", "NETWORK", "CIDR", "USED", "FREE", "AGE"]);
    assert!(cells[0].starts_with("seen-ipv4-10-4-0-0-"), "{cells:?}");
    assert_eq!(cells[1..5], ["seen", "10.4.0.0/24", "3", "253"]);
    let (head, cells) = row("ipspaces");
    assert_eq!(head, ["NAME", "NETWORK", "FAMILY", "PRIVATE", "FROZEN", "AGE"]);
    assert!(cells[0].starts_with("seen-ipv4-"), "{cells:?}");
    assert_eq!(cells[1..3], ["seen", "IPv4"]);
    for (field, words) in [
        ("ipblock", "do not edit or delete it"),
        ("ipb.spec.cidr", "The addresses of the block"),
        ("ipspace.spec.frozen", "whereabouts repair"),
        ("ips.spec.private", "enable_overlapping_ranges"),
    ] {
        let text = control_plane.kubectl_ok(&["explain", field]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{field}: {text}");
    }
}

#[test]
fn del_needs_no_configuration() {
    let Some(control_plane) = shared("del_needs_no_configuration") else { return };
    let network = "lossy";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.5.0.0/24");
    let lost_kubeconfig = node.plugin.config(json!({ "datastore": "kubernetes", "range": "10.5.0.0/24" }));
    let broken = [
        "".to_owned(),
        "{}".to_owned(),
        "{ broken".to_owned(),
        json!({ "cniVersion": "1.1.0", "name": "test", "type": "bridge" }).to_string(),
        lost_kubeconfig.to_string(),
        node.plugin.range("10.5.0.0/24").to_string(),
    ];
    for stdin in broken {
        assert_eq!(node.add("c1", &config).address(), "10.5.0.1/24");
        node.call("DEL", "c1").stdin_bytes(stdin.clone()).run().ok();
        assert_eq!(held(control_plane, network).len(), 0, "DEL with {stdin:?}");
    }
}

#[test]
fn del_without_a_configuration_goes_by_the_kubeconfig_of_the_last_add() {
    let Some(control_plane) = shared("del_without_a_configuration_goes_by_the_kubeconfig_of_the_last_add") else {
        return;
    };
    let network = "moved-kubeconfig";
    let node = Node::new(control_plane, "one", network);
    node.add("c1", &node.range("10.26.0.0/24")).ok();
    let moved = node.simulated.data_dir.join("kubeconfig");
    std::fs::rename(&node.simulated.kubeconfig, &moved).unwrap();
    let config = node.config(json!({ "range": "10.26.0.0/24", "kubernetes": { "kubeconfig": moved } }));
    node.add("c2", &config).ok();
    node.call("DEL", "c1").stdin_bytes("").run().ok();
    assert_held(control_plane, network, &[("10.26.0.2", "c2")]);
}

/// Neither the call nor this host knows any more that there is a cluster, but that there was one is still to be seen.
#[test]
fn del_without_a_configuration_where_the_ledger_is_lost_is_carried_out_by_the_next_add() {
    let test = "del_without_a_configuration_where_the_ledger_is_lost_is_carried_out_by_the_next_add";
    let Some(control_plane) = shared(test) else { return };
    let (network, range) = ("lost-and-unnamed", "10.49.0.0/24");
    let node = Node::new(control_plane, "one", network);
    node.add("c1", &node.range(range)).ok();
    node.add("c2", &node.range(range)).ok();
    std::fs::remove_file(node.simulated.data_dir.join("kubernetes.redb")).unwrap();
    // Whoever says that addresses are local does not mean a cluster that this host has left.
    let local = node.del("c1", &node.plugin.range(range));
    assert!(!local.stderr.contains("queued"), "{}", local.stderr);
    local.ok();
    let gone = node.call("DEL", "c1").stdin_bytes("").run();
    assert!(gone.stderr.contains("queued: a later ADD, DEL or GC frees it"), "{}", gone.stderr);
    gone.ok();
    assert_held(control_plane, network, &[("10.49.0.1", "c1"), ("10.49.0.2", "c2")]);
    node.add("c3", &node.range(range)).ok();
    let mut containers: Vec<String> = held(control_plane, network).into_values().collect();
    containers.sort();
    assert_eq!(containers, ["c2", "c3"]);
}

/// A runtime asks for the status before anything else, and that begins the ledger anew.
#[test]
fn del_without_a_configuration_finds_what_a_ledger_that_was_begun_anew_does_not_know() {
    let test = "del_without_a_configuration_finds_what_a_ledger_that_was_begun_anew_does_not_know";
    let Some(control_plane) = shared(test) else { return };
    let (network, range) = ("begun-anew", "10.50.0.0/24");
    let node = Node::new(control_plane, "one", network);
    for container in ["c1", "c2", "c3"] {
        node.add(container, &node.range(range)).ok();
    }
    let lose_ledger = || std::fs::remove_file(node.simulated.data_dir.join("kubernetes.redb")).unwrap();
    let containers = || -> BTreeSet<String> { held(control_plane, network).into_values().collect() };

    lose_ledger();
    node.status(&node.range(range)).ok();
    let gone = node.call("DEL", "c1").stdin_bytes("").run();
    assert!(gone.stderr.contains("queued: a later ADD, DEL or GC frees it"), "{}", gone.stderr);
    gone.ok();
    node.add("c4", &node.range(range)).ok();
    assert_eq!(containers(), ["c2", "c3", "c4"].map(str::to_owned).into());

    lose_ledger();
    node.add("c5", &node.range(range)).ok();
    node.call("DEL", "c2").stdin_bytes("").run().ok();
    node.add("c6", &node.range(range)).ok();
    assert_eq!(containers(), ["c3", "c4", "c5", "c6"].map(str::to_owned).into());
}

#[test]
fn del_finds_what_was_added_before_the_datastore_was_changed() {
    let Some(control_plane) = shared("del_finds_what_was_added_before_the_datastore_was_changed") else { return };
    let network = "switched";
    let node = Node::new(control_plane, "one", network);
    let (local, kubernetes) = (node.plugin.range("10.6.0.0/24"), node.range("10.6.0.0/24"));
    node.add("before", &local).ok();
    node.add("after", &kubernetes).ok();
    node.del("before", &kubernetes).ok();
    assert_eq!(support::leases::held(&node.plugin).len(), 0, "the local lease was freed");
    assert_held(control_plane, network, &[("10.6.0.1", "after")]);
    // And back.
    node.add("local", &local).ok();
    node.del("after", &local).ok();
    assert_eq!(held(control_plane, network).len(), 0, "the cluster's lease was freed");
    assert_eq!(support::leases::addresses(&node.plugin), ["10.6.0.1"]);
}

// === What it costs ===

#[test]
fn a_steady_add_takes_two_requests_and_a_steady_del_two() {
    let Some(control_plane) = shared("a_steady_add_takes_two_requests_and_a_steady_del_two") else { return };
    let network = "counted";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let range = "10.7.0.0/24";
    one.add("first", &one.range(range)).ok();
    let block = only_block(control_plane, network).rsplit_once('/').unwrap().1.to_owned();
    let [read, write] = [format!("GET ipblocks/{block}"), format!("PUT ipblocks/{block}")];

    for container in ["second", "third"] {
        let (answer, requests) = one.requests_of(|| one.add(container, &one.range(range)));
        answer.ok();
        assert_eq!(requests, [read.clone(), write.clone()], "the hint was right");
    }
    let (answer, requests) = one.requests_of(|| one.add("third", &one.range(range)));
    answer.ok();
    assert_eq!(requests, [read.clone(), write.clone()], "an ADD that is repeated");
    let (answer, requests) = one.requests_of(|| one.del("second", &one.range(range)));
    answer.ok();
    assert_eq!(requests, [read.clone(), write.clone()]);
    // A ledger that is new learns once what its node holds.
    one.del("nobody", &one.range(range)).ok();
    let (_, requests) = one.requests_of(|| one.del("second", &one.range(range)).ok().clone());
    // Whether a migration has brought something for this node is read from all the spaces at once, however many they are.
    assert!(matches!(&requests[..], [list] if list.starts_with("GET ipspaces?")), "DEL again: {requests:?}");
    let (_, requests) = one.requests_of(|| one.status(&one.range(range)).ok().clone());
    assert_eq!(requests, [""; 0], "STATUS comes every few seconds from every node");

    // Another node fills the block up, so that the hint of this one becomes wrong.
    let narrow = "10.7.0.0/29";
    for container in ["a", "b", "c", "d"] {
        two.add(container, &two.range(narrow)).ok();
    }
    fails(&two.add("e", &two.range(narrow)), 100, &["full"]);
}

#[test]
fn an_add_in_the_second_block_costs_no_more_than_one_in_the_first() {
    let test = "an_add_in_the_second_block_costs_no_more_than_one_in_the_first";
    let Some(control_plane) = shared(test) else { return };
    let network = "second-block";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.26.0.0/23");
    for batch in 0..5 {
        let calls = (0..51).map(|at| node.call("ADD", &format!("c{batch}-{at}")).stdin(&config));
        for answer in at_once(calls) {
            answer.ok();
        }
    }
    assert_eq!(held(control_plane, network).len(), 255, "the first block is full, but for its .0");
    // This one finds that out, and says so to all.
    assert_eq!(node.add("first", &config).address(), "10.26.1.1/23");
    assert!(Truth::of(control_plane, network).is_marked_full_but_zero("10.26.0.1"));
    for container in ["second", "third"] {
        let (_, requests) = node.requests_of(|| node.add(container, &config).ok().clone());
        let verbs: Vec<&str> = requests.iter().map(|request| request.split(' ').next().unwrap()).collect();
        assert_eq!(verbs, ["GET", "PUT"], "{requests:?}");
    }
    // The room that it makes itself it finds at once.
    let freed = node.add("c0-0", &config).address().to_owned();
    node.del("c0-0", &config).ok();
    assert_eq!(node.add("next", &config).address(), freed);
}

#[test]
fn neither_add_nor_del_lists() {
    let Some(control_plane) = shared("neither_add_nor_del_lists") else { return };
    let network = "unlisted";
    let node = Node::new(control_plane, "one", network);
    let config = node.config(json!({ "ipRanges": [{ "range": "10.8.0.0/24" }, { "range": "fd08::/120" }] }));
    let (_, requests) = node.requests_of(|| node.add("c1", &config).ok().clone());
    // The pools of the Go plugin, and spaces that were handed over to it, are looked for once for each space.
    let lists: Vec<&String> = requests.iter().filter(|request| is_list(request)).collect();
    let is_of_the_go_plugin = |request: &&String| {
        ["GET ippools?", "GET nodeslicepools?", "GET ipspaces?"].iter().any(|list| request.starts_with(list))
    };
    assert!(lists.iter().all(is_of_the_go_plugin) && lists.len() <= 6, "{requests:?}");
    for _ in 0..2 {
        let (_, requests) = node.requests_of(|| {
            node.add("c2", &config).ok();
            node.del("c2", &config).ok();
            node.del("c1", &config).ok();
            node.add("c1", &config).ok();
        });
        assert!(!requests.iter().any(|request| is_list(request)), "{requests:?}");
    }
}

// === Rights ===

#[test]
fn the_token_of_a_node_can_do_no_more_than_it_must() {
    let Some(control_plane) = shared("the_token_of_a_node_can_do_no_more_than_it_must") else { return };
    let network = "rights";
    let node = Node::new(control_plane, "one", network);
    node.add("c1", &node.range("10.9.0.0/24")).ok();
    control_plane.create_pod("kube-system", "somebody", "one");
    let token = control_plane.service_account_token(cluster::ACCOUNT.0, cluster::ACCOUNT.1);
    let status = |method: &str, path: &str, body: Option<&Value>| {
        control_plane.request_as(&token, method, path, body).unwrap().0
    };
    let (block, [space]) = (only_block(control_plane, network), &objects(control_plane, SPACES, network)[..]) else {
        panic!("one index")
    };
    let space = format!("{SPACES}/{}", space["metadata"]["name"].as_str().unwrap());
    for path in [&block, &space] {
        assert_eq!(status("GET", path, None), 200);
        assert_eq!(status("DELETE", path, None), 403, "{path}");
        assert_eq!(status("PATCH", path, Some(&json!({ "metadata": { "labels": { "a": "b" } } }))), 403, "{path}");
    }
    for collection in [BLOCKS, SPACES] {
        assert_eq!(status("DELETE", collection, None), 403);
    }
    for path in [
        "/api/v1/namespaces/kube-system/pods/somebody",
        "/api/v1/namespaces/kube-system/pods",
        "/api/v1/namespaces/kube-system/secrets",
        "/api/v1/namespaces/default",
        "/api/v1/namespaces",
        "/api/v1/nodes",
        "/apis/ipam.whereabouts.dev/v1alpha1/namespaces/default/ipblocks",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    ] {
        assert_eq!(status("GET", path, None), 403, "{path}");
    }
    assert_held(control_plane, network, &[("10.9.0.1", "c1")]);
}

#[test]
fn the_definitions_refuse_what_no_plugin_writes() {
    let Some(control_plane) = shared("the_definitions_refuse_what_no_plugin_writes") else { return };
    let network = "validated";
    let node = Node::new(control_plane, "one", network);
    node.add("c1", &node.range("10.10.0.0/24")).ok();
    let block = only_block(control_plane, network);
    let patch = |spec: Value| control_plane.request("PATCH", &block, Some(&json!({ "spec": spec }))).unwrap();
    for spec in [
        json!({ "network": "another" }),
        json!({ "cidr": "10.10.1.0/24" }),
        json!({ "private": "10.10.0.0/24" }),
        json!({ "used": 257 }),
        json!({ "free": -1 }),
        json!({ "data": "A".repeat(131_073) }),
        json!({ "data": null }),
    ] {
        let (status, answer) = patch(spec.clone());
        assert_eq!(status, 422, "{spec}: {answer}");
    }
    assert_held(control_plane, network, &[("10.10.0.1", "c1")]);
    node.del("c1", &node.range("10.10.0.0/24")).ok();
    assert_eq!(held(control_plane, network).len(), 0);
}

// === Exactness ===

#[test]
fn a_range_is_filled_exactly_by_many_processes_of_many_nodes() {
    let Some(control_plane) = shared("a_range_is_filled_exactly_by_many_processes_of_many_nodes") else { return };
    let network = "exact";
    let nodes: Vec<Node> = (0..8).map(|number| Node::new(control_plane, &format!("n{number}"), network)).collect();
    let config = |node: &Node| node.range("10.11.0.0/24");
    let mut given = BTreeSet::new();
    for round in [0..100, 100..200, 200..254] {
        let calls = round.clone().map(|number: usize| {
            let node = &nodes[number % nodes.len()];
            node.call("ADD", &format!("c{number}")).stdin(&config(node))
        });
        for answer in at_once(calls) {
            assert!(given.insert(answer.address()), "{} was given twice", answer.address());
        }
    }
    assert_eq!(given.len(), 254);
    let strict = |node: &Node| node.config(json!({ "range": "10.11.0.0/24", "exhausted_status": "error" }));
    for node in &nodes {
        node.status(&strict(node)).ok();
        fails(&node.add("c254", &config(node)), 100, &["10.11.0.0/24", "is full", "254 of 254"]);
        let (answer, requests) = node.requests_of(|| node.status(&strict(node)));
        fails(&answer, 50, &["10.11.0.0/24", "is full", "254 of 254"]);
        assert_eq!(requests, [""; 0], "STATUS comes every few seconds from every node");
    }
    let spared = nodes[3].status(&config(&nodes[3]));
    spared.ok();
    for word in ["WARN", "10.11.0.0/24", "is full"] {
        assert!(spared.stderr.contains(word), "the log tells of it: {}", spared.stderr);
    }
    let truth = Truth::of(control_plane, network);
    assert_eq!(truth.leases.len(), 254);
    truth.assert_listed();
    // One that is freed on a node is found by another.
    nodes[3].del("c3", &config(&nodes[3])).ok();
    nodes[3].status(&strict(&nodes[3])).ok();
    nodes[5].add("c254", &config(&nodes[5])).ok();
    nodes[5].status(&strict(&nodes[5])).ok();
    fails(&nodes[3].add("c3", &config(&nodes[3])), 100, &["is full"]);
}

/// One call carries out what the others of its node wait for: a block is swapped once for all of them.
#[test]
fn calls_that_meet_on_a_node_share_a_swap() {
    let Some(control_plane) = shared("calls_that_meet_on_a_node_share_a_swap") else { return };
    let network = "meeting";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.20.0.0/24");
    node.add("before", &config).ok();
    node.proxy.clear();
    // While the first one's swap is on its way, all the others come.
    node.proxy.set([Rule::new(Fault::Delay(Duration::from_secs(3))).method("PUT").path("ipblocks").times(1)]);
    let mut given = BTreeSet::new();
    for answer in at_once((0..24).map(|number| node.call("ADD", &format!("c{number}")).stdin(&config))) {
        assert!(given.insert(answer.address()), "{} was given twice", answer.address());
    }
    let swaps = node.proxy.requests().iter().filter(|seen| seen.method == "PUT").count();
    assert!(swaps <= 6, "{swaps} swaps for 24 calls");
    assert_eq!(Truth::of(control_plane, network).leases.len(), 25);
    // Each is recorded as its own: CHECK finds it, and DEL frees it.
    for number in 0..24 {
        node.del(&format!("c{number}"), &config).ok();
    }
    assert_held(control_plane, network, &[("10.20.0.1", "before")]);
}

/// Whoever carries out the requests of others may be killed at any moment, and so may they.
#[test]
fn calls_that_are_killed_while_they_meet_leave_nothing_behind() {
    let Some(control_plane) = shared("calls_that_are_killed_while_they_meet_leave_nothing_behind") else { return };
    let network = "meeting-killed";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.21.0.0/24");
    node.add("before", &config).ok();
    for round in 0..6 {
        node.proxy.clear();
        node.proxy.set([Rule::new(Fault::Delay(Duration::from_secs(1))).method("PUT").path("ipblocks").times(1)]);
        let calls: Vec<_> = (0..12)
            .map(|number| {
                let mut call = node.call("ADD", &format!("r{round}-{number}")).stdin(&config).start();
                call.feed();
                call
            })
            .collect();
        assert!(node.proxy.wait_until(PATIENCE, |seen| seen.iter().any(|seen| seen.method == "PUT")));
        // In even rounds the first few, whoever carries out among them, in odd ones the last few, who wait.
        let is_killed = |number: usize| if round % 2 == 0 { number < 8 } else { number >= 4 };
        let mut answered = BTreeSet::new();
        for (number, mut call) in calls.into_iter().enumerate() {
            if is_killed(number) {
                call.kill();
                call.wait();
                // A runtime calls DEL for what it killed, whatever became of it.
                node.del(&format!("r{round}-{number}"), &config).ok();
            } else {
                assert!(answered.insert(call.wait().address()), "given twice");
            }
        }
        let containers: BTreeSet<_> = held(control_plane, network).into_values().collect();
        let expected = (0..12).filter(|number| !is_killed(*number)).map(|number| format!("r{round}-{number}"));
        assert_eq!(containers, expected.chain(["before".to_owned()]).collect(), "round {round}");
        for number in (0..12).filter(|number| !is_killed(*number)) {
            node.del(&format!("r{round}-{number}"), &config).ok();
        }
    }
    assert_held(control_plane, network, &[("10.21.0.1", "before")]);
}

#[test]
fn all_ranges_or_nothing() {
    let Some(control_plane) = shared("all_ranges_or_nothing") else { return };
    let network = "all-or-nothing";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let both = json!({ "ipRanges": [{ "range": "10.12.0.0/24" }, { "range": "fd0c::/126" }] });
    for container in ["a", "b"] {
        one.add(container, &one.config(both.clone())).ok();
    }
    for node in [&one, &two] {
        fails(&node.add("d", &node.config(both.clone())), 100, &["fd0c::/126", "is full"]);
    }
    assert_eq!(held(control_plane, network).len(), 4);
    assert!(!held(control_plane, network).into_values().any(|container| container == "d"), "nothing of the first");
}

// === What gets lost on the way ===

/// Everything after which a client is to try again by itself, and gets an answer in the end.
fn passing_faults() -> Vec<Fault> {
    vec![
        Fault::DropReply,
        Fault::DropRequest,
        Fault::LandLate(MOMENT),
        Fault::Cut,
        Fault::TooManyRequests { retry_after_seconds: 1 },
        Fault::ServerError(500),
        Fault::ServerError(408),
        Fault::ServerError(503),
        Fault::ServerError(504),
    ]
}

/// Waits until all that was to land late has landed.
#[track_caller]
fn wait_for_late(node: &Node) {
    let has_landed = node.proxy.wait_until(PATIENCE, |seen| {
        seen.iter().all(|seen| !matches!(seen.fault, Some(Fault::LandLate(_))) || seen.served.is_some())
    });
    assert!(has_landed, "{:#?}", node.proxy.requests());
}

#[test]
fn an_add_outlasts_a_fault_of_any_of_its_requests() {
    let Some(control_plane) = shared("an_add_outlasts_a_fault_of_any_of_its_requests") else { return };
    let node = Node::new(control_plane, "one", "faults");
    let requests = [
        ("POST", "ipblocks"),
        ("POST", "ipspaces"),
        ("PUT", "ipspaces"),
        ("PUT", "ipblocks"),
        ("GET", "ipblocks"),
        ("GET", "ipspaces"),
    ];
    for (at, (method, resource)) in requests.into_iter().enumerate() {
        for (number, fault) in passing_faults().into_iter().enumerate() {
            let network = format!("fault-{at}-{number}");
            let config = |range: &str| node.config(json!({ "network_name": network, "range": range }));
            let is_first = method == "POST" && resource == "ipspaces";
            if !is_first {
                // The index is there, and does not list the next block yet.
                node.add("before", &config("10.13.0.0/24")).ok();
            }
            node.proxy.clear();
            node.proxy.set([Rule::new(fault.clone()).method(method).path(resource).times(1)]);
            let answer = node.add("c1", &config("10.13.1.0/24"));
            assert_eq!(answer.address(), "10.13.1.1/24", "{fault:?} of {method} {resource}");
            assert!(node.proxy.requests().iter().any(|seen| seen.fault.is_some()), "nothing happened");
            wait_for_late(&node);
            let truth = Truth::of(control_plane, &network);
            assert_eq!(truth.leases.len(), if is_first { 1 } else { 2 }, "{fault:?} of {method} {resource}: {truth}");
            truth.assert_listed();
        }
    }
}

#[test]
fn a_del_outlasts_a_fault_of_any_of_its_requests() {
    let Some(control_plane) = shared("a_del_outlasts_a_fault_of_any_of_its_requests") else { return };
    let network = "fault-del";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.14.0.0/24");
    node.add("other", &config).ok();
    for method in ["GET", "PUT"] {
        for fault in passing_faults() {
            assert_eq!(node.add("c1", &config).address(), "10.14.0.2/24", "before {fault:?} of {method}");
            node.proxy.set([Rule::new(fault.clone()).method(method).path("ipblocks").times(1)]);
            node.del("c1", &config).ok();
            assert!(node.proxy.requests().iter().any(|seen| seen.fault.is_some()), "nothing happened");
            wait_for_late(&node);
            node.proxy.clear();
            assert_held(control_plane, network, &[("10.14.0.1", "other")]);
        }
    }
}

#[test]
fn marks_are_right_whatever_gets_lost() {
    let Some(control_plane) = shared("marks_are_right_whatever_gets_lost") else { return };
    for (number, fault) in passing_faults().into_iter().enumerate() {
        let network = format!("marks-{number}");
        let (one, two) = (Node::new(control_plane, "one", &network), Node::new(control_plane, "two", &network));
        // One ADD for half of a block.
        let half = vec![json!({ "range": "10.15.0.0/24", "enable_l3": true }); 128];
        let half = |node: &Node| node.config(json!({ "ipRanges": half.clone(), "enable_l3": true }));
        let any = |node: &Node| node.config(json!({ "range": "10.15.0.0/23", "enable_l3": true }));
        one.add("a", &half(&one)).ok();
        one.add("b", &half(&one)).ok();
        one.proxy.set([Rule::new(fault.clone()).method("PUT").path("ipspaces").after(1).times(1)]);
        assert_eq!(one.add("c", &any(&one)).address(), "10.15.1.0/23");
        wait_for_late(&one);
        one.proxy.clear();
        assert!(Truth::of(control_plane, &network).is_marked_full("10.15.0.0"), "{fault:?}");
        one.proxy.set([Rule::new(fault.clone()).method("PUT").path("ipspaces").times(1)]);
        one.del("a", &half(&one)).ok();
        wait_for_late(&one);
        // Nobody is kept from what is free by a mark.
        let truth = Truth::of(control_plane, &network);
        assert!(!truth.is_marked_full("10.15.0.0"), "{fault:?}");
        assert_eq!(two.add("d", &any(&two)).address(), "10.15.0.0/23", "{fault:?}");
        assert_eq!(truth.leases.len(), 129);
    }
}

/// Whatever a write is answered, what the plugin makes of it is what the server has made of it: the rows of the table in
/// `stores/kubernetes/outcomes.rs` that no server gives away by chance. The others are with the faults above, and where
/// a server turns something away for good.
#[test]
fn an_answer_to_a_write_means_what_the_table_says() {
    let Some(control_plane) = shared("an_answer_to_a_write_means_what_the_table_says") else { return };
    let network = "answers";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.22.0.0/24");
    node.add("other", &config).ok();
    let statuses = |node: &Node| -> Vec<u16> {
        let seen = node.proxy.requests();
        seen.iter().filter(|seen| seen.method == "PUT").filter_map(|seen| seen.status).collect()
    };
    // Refused: read again, and tried again with what is read. The forged refusals hide a server that took nothing.
    for status in [404, 409, 410] {
        node.proxy.clear();
        node.proxy.set([Rule::new(Fault::ServerError(status)).method("PUT").times(1)]);
        assert_eq!(node.add("c1", &config).address(), "10.22.0.2/24", "{status}");
        assert_eq!(statuses(&node), [status, 200]);
        node.proxy.clear();
        node.del("c1", &config).ok();
        assert_held(control_plane, network, &[("10.22.0.1", "other")]);
    }
    // Unknown: a write that the server took, under a version that nobody knows, is found and not made twice.
    for (verb, after) in [("ADD", 2), ("DEL", 1)] {
        node.proxy.clear();
        node.proxy.set([Rule::new(Fault::Garble).method("PUT").times(1)]);
        node.call(verb, "c1").stdin(&config).run().ok();
        assert!(node.proxy.requests().iter().any(|seen| seen.fault == Some(Fault::Garble)), "nothing happened");
        node.proxy.clear();
        assert_eq!(held(control_plane, network).len(), after, "{verb}");
        let sequence = |node: &Node| node.requests_of(|| node.add("other", &config)).1;
        assert_eq!(sequence(&node).len(), 2, "nothing of it is left to be settled");
    }
}

#[test]
fn a_server_that_wants_to_be_left_alone_is() {
    let Some(control_plane) = shared("a_server_that_wants_to_be_left_alone_is") else { return };
    let node = Node::new(control_plane, "one", "busy");
    let config = node.range("10.16.0.0/24");
    node.add("other", &config).ok();
    for method in ["GET", "PUT"] {
        node.proxy.clear();
        node.proxy.set([Rule::new(Fault::TooManyRequests { retry_after_seconds: 2 }).method(method).times(1)]);
        node.add(&format!("c-{method}"), &config).ok();
        let seen = node.proxy.requests();
        let refused = seen.iter().position(|seen| seen.status == Some(429)).unwrap();
        let waited = seen[refused + 1].at - seen[refused].at;
        assert!(waited >= Duration::from_secs(2), "{method} again after {waited:?}");
    }
}

#[test]
fn a_write_into_silence_is_undone_by_the_next_call_whenever_it_lands() {
    let Some(control_plane) = shared("a_write_into_silence_is_undone_by_the_next_call_whenever_it_lands") else {
        return;
    };
    for (network, lands_after) in [("silence-before", 4), ("silence-after", 8), ("silence-never", 0)] {
        let node = Node::new(control_plane, "one", network);
        let config = node.config(json!({ "range": "10.17.0.0/24", "deadline": 3 }));
        node.add("other", &config).ok();
        let lands_after = (lands_after > 0).then(|| Duration::from_secs(lands_after));
        node.proxy.clear();
        node.proxy.set([Rule::new(Fault::Silence { lands_after }).method("PUT").times(1)]);
        let started = Instant::now();
        fails(&node.add("c1", &config), 11, &["try again"]);
        assert!(started.elapsed() < Duration::from_secs(5), "a deadline of 3 s was over after {:?}", started.elapsed());
        let landed = |node: &Node| {
            assert!(node.proxy.wait_until(PATIENCE, |seen| {
                seen.iter().any(|seen| matches!(seen.fault, Some(Fault::Silence { .. })) && seen.served.is_some())
            }));
        };
        if network == "silence-before" {
            landed(&node);
            assert_held(control_plane, network, &[("10.17.0.1", "other"), ("10.17.0.2", "c1")]);
        }
        node.del("c1", &config).ok();
        assert_held(control_plane, network, &[("10.17.0.1", "other")]);
        if network == "silence-after" {
            landed(&node);
            assert_held(control_plane, network, &[("10.17.0.1", "other")]);
        }
        assert_eq!(node.add("c2", &config).address(), "10.17.0.2/24");
    }
}

#[test]
fn who_is_overtaken_takes_the_next_address() {
    let Some(control_plane) = shared("who_is_overtaken_takes_the_next_address") else { return };
    let network = "rivals";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let range = "10.18.0.0/24";
    one.add("other", &one.range(range)).ok();
    one.proxy.clear();
    one.proxy.set([Rule::new(Fault::Delay(Duration::from_secs(2))).method("PUT").times(1)]);
    let mut slow = one.call("ADD", "slow").stdin(&one.range(range)).start();
    slow.feed();
    assert!(one.proxy.wait_until(PATIENCE, |seen| seen.iter().any(|seen| seen.method == "PUT")));
    assert_eq!(two.add("fast", &two.range(range)).address(), "10.18.0.2/24");
    assert_eq!(slow.wait().address(), "10.18.0.3/24");
    let statuses: Vec<_> =
        one.proxy.requests().iter().filter(|seen| seen.method == "PUT").map(|seen| seen.status).collect();
    assert_eq!(statuses, [Some(409), Some(200)]);
    assert_held(control_plane, network, &[("10.18.0.1", "other"), ("10.18.0.2", "fast"), ("10.18.0.3", "slow")]);
}

#[test]
fn what_the_server_turns_away_for_good_is_said_at_once_and_leaves_nothing() {
    let Some(control_plane) = shared("what_the_server_turns_away_for_good_is_said_at_once_and_leaves_nothing") else {
        return;
    };
    let network = "turned-away";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.19.0.0/24");
    node.add("other", &config).ok();
    for status in [400, 403, 405, 413, 415, 422, 451] {
        for (method, range) in [("PUT", "10.19.0.0/24"), ("POST", "10.19.1.0/24")] {
            node.proxy.set([Rule::new(Fault::ServerError(status)).method(method)]);
            let started = Instant::now();
            let answer = node.add("c1", &node.range(range));
            fails(&answer, 5, &[&status.to_string()]);
            assert!(started.elapsed() < Duration::from_secs(5), "{status} {method}: {:?}", started.elapsed());
            node.proxy.clear();
            node.del("c1", &config).ok();
            assert_held(control_plane, network, &[("10.19.0.1", "other")]);
        }
        // What cannot be freed now is queued, and freed by who comes when it can be.
        node.add("c2", &config).ok();
        node.proxy.set([Rule::new(Fault::ServerError(status)).method("PUT")]);
        let started = Instant::now();
        node.del("c2", &config).ok();
        assert!(started.elapsed() < Duration::from_secs(5), "DEL after {status}: {:?}", started.elapsed());
        node.proxy.clear();
        assert_eq!(held(control_plane, network).len(), 2);
        wait_until("the queued release is carried out", || {
            node.add("other", &config).ok();
            held(control_plane, network).len() == 1
        });
    }
}

#[test]
fn rights_that_were_taken_away_are_named_and_work_again_when_they_are_back() {
    let Some(control_plane) = shared("rights_that_were_taken_away_are_named_and_work_again_when_they_are_back") else {
        return;
    };
    let (network, account) = ("forbidden", ("kube-system", "limited"));
    let subjects = json!([{ "kind": "ServiceAccount", "namespace": account.0, "name": account.1 }]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = format!("{rbac}/namespaces/kube-system/roles");
    let rules = |verbs: &[&str]| {
        json!([
            { "apiGroups": ["ipam.whereabouts.dev"], "resources": ["ipspaces", "ipblocks"], "verbs": verbs },
            { "apiGroups": ["whereabouts.cni.cncf.io"], "resources": ["ippools", "nodeslicepools"], "verbs": ["list"] },
        ])
    };
    let all = ["get", "list", "create", "update"];
    control_plane.create(&role, &json!({ "metadata": { "name": "limited" }, "rules": rules(&all) }));
    let binding = json!({
        "metadata": { "name": "limited" }, "subjects": subjects,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited" },
    });
    control_plane.create(&format!("{rbac}/namespaces/kube-system/rolebindings"), &binding);
    let identity = json!({
        "metadata": { "name": "limited" }, "subjects": subjects,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "whereabouts-identity" },
    });
    control_plane.create(&format!("{rbac}/clusterrolebindings"), &identity);
    let node = Node::with_account(control_plane, "one", network, account);
    let token = control_plane.service_account_token(account.0, account.1);
    // The server learns of a role a moment later; a PUT with an empty body is told by 400 where it is allowed.
    let grant = |verbs: &[&str], method: &str, is_allowed: bool| {
        let answer =
            control_plane.request("PATCH", &format!("{role}/limited"), Some(&json!({ "rules": rules(verbs) })));
        assert_eq!(answer.unwrap().0, 200);
        let nothing = json!({});
        let body = (method == "PUT").then_some(&nothing);
        wait_until("the role is in effect", || {
            let answer = control_plane.request_as(&token, method, &format!("{BLOCKS}/none"), body);
            (answer.unwrap().0 != 403) == is_allowed
        });
    };
    let config = node.range("10.20.0.0/24");
    grant(&all, "PUT", true);
    node.add("other", &config).ok();
    grant(&["get", "list", "create"], "PUT", false);
    let started = Instant::now();
    fails(&node.add("c1", &config), 5, &["403 Forbidden", "cannot update resource", "deploy/kubernetes/rbac.yaml"]);
    let queued = node.del("other", &config);
    let says_why =
        |line: &str| line.contains("queued: a later ADD, DEL or GC frees it") && line.contains("403 Forbidden");
    assert!(queued.stderr.lines().any(says_why), "{}", queued.stderr);
    queued.ok();
    assert!(started.elapsed() < Duration::from_secs(9), "after {:?}", started.elapsed());
    assert_held(control_plane, network, &[("10.20.0.1", "other")]);
    grant(&["create"], "GET", false);
    fails(&node.add("c1", &config), 5, &["403 Forbidden", "cannot get resource", "deploy/kubernetes/rbac.yaml"]);
    grant(&all, "PUT", true);
    wait_until("what was queued is carried out", || {
        node.add("c1", &config).ok();
        !held(control_plane, network).into_values().any(|container| container == "other")
    });
    assert_eq!(held(control_plane, network).len(), 1);
}

#[test]
fn under_faults_of_every_kind_each_answered_add_has_one_lease_and_no_other_has_any() {
    let Some(control_plane) = shared("under_faults_of_every_kind_each_answered_add_has_one_lease_and_no_other_has_any")
    else {
        return;
    };
    let network = "chaos";
    let nodes: Vec<Node> = (0..4).map(|number| Node::new(control_plane, &format!("n{number}"), network)).collect();
    let keys = json!({ "ipRanges": [{ "range": "10.21.0.0/26" }, { "range": "fd15::/122" }], "deadline": 10 });
    for (seed, node) in nodes.iter().enumerate() {
        let some = |fault: Fault| (0.02, fault);
        let faults = [
            some(Fault::DropReply),
            some(Fault::DropRequest),
            some(Fault::LandLate(MOMENT)),
            some(Fault::LandLate(MOMENT * 8)),
            some(Fault::Delay(MOMENT)),
            some(Fault::Silence { lands_after: Some(MOMENT * 10) }),
            some(Fault::Cut),
            some(Fault::TooManyRequests { retry_after_seconds: 1 }),
            some(Fault::ServerError(500)),
            some(Fault::ServerError(503)),
        ];
        node.proxy.set([Rule::random(seed as u64, faults)]);
    }
    let mut held_by: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut failed: Vec<(usize, String)> = Vec::new();
    for round in 0..3 {
        let asked: Vec<(usize, String)> =
            (0..8).map(|number| (number % nodes.len(), format!("c{round}-{number}"))).collect();
        let adds = asked
            .iter()
            .map(|(at, container)| nodes[*at].call("ADD", container).stdin(&nodes[*at].config(keys.clone())));
        for ((at, container), answer) in asked.iter().zip(at_once(adds)) {
            match answer.exit {
                Some(0) => drop(held_by.insert(container.clone(), answer.addresses())),
                _ => {
                    fails(&answer, 11, &[]);
                    failed.push((*at, container.clone()));
                }
            }
        }
        // Half of them leave again.
        let leave: Vec<_> = asked.iter().filter(|(_, container)| held_by.contains_key(container)).step_by(2).collect();
        let dels = leave
            .iter()
            .map(|(at, container)| nodes[*at].call("DEL", container).stdin(&nodes[*at].config(keys.clone())));
        for ((_, container), answer) in leave.iter().zip(at_once(dels)) {
            answer.ok();
            held_by.remove(container);
        }
    }
    let late = Duration::from_secs(20);
    let mut n_faults = 0;
    for node in &nodes {
        let has_landed = node.proxy.wait_until(late, |seen| {
            seen.iter().all(|seen| match seen.fault {
                Some(Fault::LandLate(_) | Fault::Silence { .. }) => seen.served.is_some(),
                _ => true,
            })
        });
        assert!(has_landed);
        n_faults += node.proxy.requests().iter().filter(|seen| seen.fault.is_some()).count();
        node.proxy.clear();
    }
    // The runtime deletes what it could not add, and the next call on each node carries out what was queued.
    for (at, container) in &failed {
        nodes[*at].del(container, &nodes[*at].config(keys.clone())).ok();
    }
    wait_until("what was queued is carried out", || {
        nodes.iter().for_each(|node| drop(node.del("nobody", &node.config(keys.clone()))));
        Truth::of(control_plane, network).leases.len() == 2 * held_by.len()
    });
    let truth = Truth::of(control_plane, network).held();
    let answered: BTreeMap<String, String> = held_by
        .iter()
        .flat_map(|(container, addresses)| addresses.iter().map(move |address| (address, container)))
        .map(|(address, container)| (address.split('/').next().unwrap().to_owned(), container.clone()))
        .collect();
    assert_eq!(truth, answered);
    // How many calls fail in the end depends on the moment; most get through.
    assert!(n_faults > 10 && answered.len() > 8, "{n_faults} faults; failed: {failed:?}");
}

// === Kubeconfigs that change ===

#[test]
fn a_token_that_is_no_longer_accepted_is_read_again() {
    let Some(control_plane) = shared("a_token_that_is_no_longer_accepted_is_read_again") else { return };
    let network = "rotated";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.22.0.0/24");
    let good = std::fs::read(&node.simulated.kubeconfig).unwrap();
    let name = node.simulated.kubeconfig.file_stem().unwrap().to_str().unwrap();
    let revoke = || drop(control_plane.kubeconfig(name, "revoked", "kube-system", node.proxy.url()));
    node.add("other", &config).ok();
    for verb in ["ADD", "DEL"] {
        revoke();
        node.proxy.clear();
        // While the first request waits, whoever deploys the plugin writes another token.
        node.proxy.set([Rule::new(Fault::Delay(MOMENT * 3)).times(1)]);
        let mut call = node.call(verb, "c1").stdin(&config).start();
        call.feed();
        assert!(node.proxy.wait_until(PATIENCE, |seen| !seen.is_empty()));
        std::fs::write(&node.simulated.kubeconfig, &good).unwrap();
        call.wait().ok();
        assert_eq!(node.proxy.requests()[0].served, Some(401), "{verb}");
    }
    assert_held(control_plane, network, &[("10.22.0.1", "other")]);
    // No other comes.
    revoke();
    node.proxy.clear();
    let short = node.config(json!({ "range": "10.22.0.0/24", "deadline": 2 }));
    fails(&node.add("c1", &short), 11, &["401 Unauthorized"]);
    let started = Instant::now();
    node.del("other", &config).ok();
    assert!(started.elapsed() < Duration::from_secs(5), "DEL took {:?}", started.elapsed());
    std::fs::write(&node.simulated.kubeconfig, &good).unwrap();
    wait_until("the queued release is carried out", || {
        node.del("nobody", &config).ok();
        held(control_plane, network).is_empty()
    });
}

#[test]
fn a_kubeconfig_that_is_half_written_is_read_again() {
    let Some(control_plane) = shared("a_kubeconfig_that_is_half_written_is_read_again") else { return };
    let network = "half-written";
    let node = Node::new(control_plane, "one", network);
    let config = node.range("10.23.0.0/24");
    let good = std::fs::read(&node.simulated.kubeconfig).unwrap();
    for (number, half) in [&good[..0], &good[..good.len() / 2]].into_iter().enumerate() {
        std::fs::write(&node.simulated.kubeconfig, half).unwrap();
        let mut call = node.call("ADD", &format!("c{number}")).stdin(&config).start();
        call.feed();
        // Nobody tells when a file was read.
        std::thread::sleep(MOMENT);
        std::fs::write(&node.simulated.kubeconfig, &good).unwrap();
        call.wait().ok();
    }
    // One that stays as it is, or is not there, is named within seconds.
    std::fs::write(&node.simulated.kubeconfig, &good[..good.len() / 2]).unwrap();
    for _ in 0..2 {
        let started = Instant::now();
        fails(&node.add("c2", &config), 11, &["kubernetes.kubeconfig", node.simulated.kubeconfig.to_str().unwrap()]);
        node.del("c0", &config).ok();
        assert!(started.elapsed() < Duration::from_secs(8), "after {:?}", started.elapsed());
        std::fs::remove_file(&node.simulated.kubeconfig).ok();
    }
    std::fs::write(&node.simulated.kubeconfig, &good).unwrap();
    wait_until("the queued release is carried out", || {
        node.del("nobody", &config).ok();
        held(control_plane, network).len() == 1
    });
}

// === Private pools, and the Go plugin ===

#[test]
fn a_private_pool_is_a_space_of_its_own_and_never_shared_as_well() {
    let Some(control_plane) = shared("a_private_pool_is_a_space_of_its_own_and_never_shared_as_well") else { return };
    let network = "private";
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    let private = |node: &Node, range: &str| node.config(json!({ "range": range, "enable_overlapping_ranges": false }));
    assert_eq!(one.add("shared", &one.range("10.24.0.0/16")).address(), "10.24.0.1/16");
    // Overlapping ranges share their addresses, but for the private ones.
    assert_eq!(two.add("also-shared", &two.range("10.24.0.0/24")).address(), "10.24.0.2/24");
    assert_eq!(two.add("private", &private(&two, "10.24.0.0/28")).address(), "10.24.0.1/28");
    assert_eq!(one.add("private-too", &private(&one, "10.24.0.0/28")).address(), "10.24.0.2/28", "the same pool");
    let spaces = objects(control_plane, SPACES, network);
    let mut shown: Vec<&str> = spaces.iter().filter_map(|space| space["spec"]["private"].as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, ["10.24.0.0/28"]);
    // Both ways at once is an error that names both.
    fails(
        &one.add("c1", &one.range("10.24.0.0/28")),
        7,
        &["10.24.0.0/28", "shared", "private", "enable_overlapping_ranges"],
    );
    fails(&two.add("c1", &private(&two, "10.24.0.0/24")), 7, &["10.24.0.0/24", "10.24.0.2", "shared", "private"]);
    one.del("private-too", &one.range("10.24.0.0/28")).ok();
    two.del("private", &two.range("10.24.0.0/28")).ok();
    assert_eq!(one.add("c1", &one.range("10.24.0.0/28")).address(), "10.24.0.3/28", "once it is free");
}

/// The pools of the Go plugin, as its chart defines them.
const GO_POOLS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: ippools.whereabouts.cni.cncf.io }
spec:
  group: whereabouts.cni.cncf.io
  scope: Namespaced
  names: { kind: IPPool, listKind: IPPoolList, plural: ippools, singular: ippool }
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [allocations, range]
            properties:
              range: { type: string }
              allocations:
                type: object
                additionalProperties:
                  type: object
                  required: [id, podref]
                  properties: { id: { type: string }, podref: { type: string }, ifname: { type: string } }
";

#[test]
fn a_network_in_which_the_go_plugin_holds_addresses_is_to_be_migrated_first() {
    let Some(control_plane) = shared("a_network_in_which_the_go_plugin_holds_addresses_is_to_be_migrated_first") else {
        return;
    };
    let network = "migrated";
    let definition = control_plane.folder().join("go-pools.yaml");
    std::fs::write(&definition, GO_POOLS).unwrap();
    control_plane.apply(&definition);
    let node = Node::new(control_plane, "one", network);
    let pools = "/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/kube-system/ippools";
    let pool = |name: &str, range: &str, held: Value| {
        let version = "whereabouts.cni.cncf.io/v1alpha1";
        let spec = json!({ "range": range, "allocations": held });
        let pool = json!({ "apiVersion": version, "kind": "IPPool", "metadata": { "name": name }, "spec": spec });
        control_plane.create(pools, &pool);
    };
    let held_one = json!({ "1": { "id": "c0", "podref": "default/web", "ifname": "eth0" } });
    pool("10.25.0.0-24", "10.25.0.0/24", held_one.clone());
    pool("another-10.25.0.0-24", "10.25.0.0/24", held_one.clone());
    pool("migrated-10.25.0.0-24", "10.25.0.0/24", held_one.clone());
    pool("migrated-fd19---64", "fd19::/64", json!({}));
    let words = ["migrated-10.25.0.0-24", "Go plugin", "whereabouts migrate"];
    for range in ["10.25.0.0/24", "10.99.0.0/24"] {
        fails(&node.add("c1", &node.range(range)), 5, &words);
    }
    assert_eq!(held(control_plane, network).len(), 0);
    // The other family, and another network, have nothing to do with it.
    assert_eq!(node.add("c1", &node.range("fd19::/64")).address(), "fd19::1/64");
    let elsewhere = node.config(json!({ "network_name": "migrated-not", "range": "10.25.0.0/24" }));
    assert_eq!(node.add("c2", &elsewhere).address(), "10.25.0.1/24");
    // Emptied, or gone, it is in nobody's way.
    let empty = json!({ "spec": { "allocations": { "1": null } } });
    control_plane.request("PATCH", &format!("{pools}/migrated-10.25.0.0-24"), Some(&empty)).unwrap();
    assert_eq!(node.add("c1", &node.range("10.25.0.0/24")).address(), "10.25.0.1/24");
    // Asked once for each space.
    let (_, requests) = node.requests_of(|| node.add("c3", &node.range("10.25.0.0/24")).ok().clone());
    assert!(!requests.iter().any(|request| request.contains("ippools")), "{requests:?}");
}
