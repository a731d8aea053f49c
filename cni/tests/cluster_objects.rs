//! The custom resources themselves, on a real server: what their definitions refuse, what becomes of an index that somebody
//! edited, and what a lease costs where it is stored.
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

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::skip;
use whereabouts_engine::testing::{full_block_of_pods, index_of_full_blocks, release};
use whereabouts_engine::{Address, Family, Offset};
use whereabouts_testbed::ControlPlane;

use cluster::{
    Node, SPACES, Truth, assert_held, fails, held, objects, only_block, pack, shared_space, unpack, wait_until,
};

/// The control plane of all tests of this file.
fn shared(test: &str) -> Option<&'static ControlPlane> {
    static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    SHARED.get_or_init(cluster::start).as_ref().map_err(|error| skip::skip(test, error)).ok()
}

/// The path of the only index of a network.
#[track_caller]
fn only_space(control_plane: &ControlPlane, network: &str) -> String {
    match objects(control_plane, SPACES, network).as_slice() {
        [space] => format!("{SPACES}/{}", space["metadata"]["name"].as_str().expect("an object has a name")),
        spaces => panic!("one index was to be there, not {spaces:#?}"),
    }
}

/// A change of an object's `spec`, and the status that it is answered with.
fn patch(control_plane: &ControlPlane, path: &str, spec: &Value) -> (u16, Value) {
    control_plane.request("PATCH", path, Some(&json!({ "spec": spec }))).unwrap()
}

#[test]
fn the_definition_of_an_index_refuses_what_no_plugin_writes() {
    let Some(control_plane) = shared("the_definition_of_an_index_refuses_what_no_plugin_writes") else { return };
    let network = "index-validated";
    let node = Node::new(control_plane, "one", network);
    let (range, own_range) = ("10.70.0.0/24", "10.70.1.0/24");
    node.add("c1", &node.range(range)).ok();
    let of_all = only_space(control_plane, network);
    let private = node.config(json!({ "range": own_range, "enable_overlapping_ranges": false }));
    node.add("c2", &private).ok();
    let spaces = objects(control_plane, SPACES, network);
    let own = spaces.iter().find(|space| space["spec"]["private"] == own_range).expect("an index of the private pool");
    let own = format!("{SPACES}/{}", own["metadata"]["name"].as_str().unwrap());

    let everywhere = [
        json!({ "network": "another" }),
        json!({ "network": null }),
        json!({ "family": "IPv6" }),
        json!({ "family": "IPX" }),
        json!({ "private": "10.70.2.0/24" }),
        json!({ "frozen": "x".repeat(4097) }),
        json!({ "data": "A".repeat(1_048_577) }),
        json!({ "data": null }),
        json!({ "data": 7 }),
    ];
    let (to_all, to_own) = (json!({ "private": own_range }), json!({ "private": null }));
    let changes = everywhere.iter().flat_map(|spec| [(&of_all, spec), (&own, spec)]);
    for (path, spec) in changes.chain([(&of_all, &to_all), (&own, &to_own)]) {
        let before = control_plane.get(path).unwrap();
        let (status, answer) = patch(control_plane, path, spec);
        let spec = spec.to_string().chars().take(60).collect::<String>();
        assert_eq!(status, 422, "{path}: {spec}: {answer}");
        assert_eq!(control_plane.get(path).unwrap(), before, "{spec}");
    }
    // What is as long as it may be is taken.
    let spec = |network: String, data: String| json!({ "network": network, "family": "IPv4", "data": data });
    let at_limits = spec("n".repeat(200), "A".repeat(1_048_576));
    for (status, spec) in [
        (201, at_limits),
        (422, spec("n".repeat(201), String::new())),
        (422, json!({ "network": "n", "family": "IPv4", "private": "1".repeat(65), "data": "" })),
    ] {
        let object = json!({
            "apiVersion": "ipam.whereabouts.dev/v1alpha1", "kind": "IPSpace", "metadata": { "name": "limits" },
            "spec": spec,
        });
        let answer = control_plane.request("POST", SPACES, Some(&object)).unwrap();
        assert_eq!(answer.0, status, "{}", answer.1["message"]);
    }
    control_plane.delete(&format!("{SPACES}/limits"));

    node.del("c1", &node.range(range)).ok();
    node.del("c2", &private).ok();
    assert_eq!(held(control_plane, network).len(), 0);
}

/// As for a block: whoever reads an index that cannot be read says which one it is, and leaves it alone.
#[test]
fn an_index_that_was_edited_by_hand_is_named_and_never_overwritten() {
    let Some(control_plane) = shared("an_index_that_was_edited_by_hand_is_named_and_never_overwritten") else { return };
    let (network, range) = ("index-edited", "10.71.0.0/24");
    let (one, two) = (Node::new(control_plane, "one", network), Node::new(control_plane, "two", network));
    one.add("a", &one.range(range)).ok();
    one.add("b", &one.range(range)).ok();
    let elsewhere = one.config(json!({ "network_name": "index-whole", "range": "10.71.0.0/24" }));
    assert_eq!(one.add("z", &elsewhere).address(), "10.71.0.1/24");
    let path = only_space(control_plane, network);
    let name = format!("ipspaces.ipam.whereabouts.dev/{}", path.rsplit_once('/').unwrap().1);
    let sound = control_plane.get(&path).unwrap()["spec"]["data"].as_str().unwrap().to_owned();
    let bytes = unpack(&sound);
    let mut spoiled = bytes.clone();
    *spoiled.last_mut().unwrap() ^= 1;
    let mut newer = bytes.clone();
    newer[0] = 2;
    for (number, (data, words)) in [
        ("no base 85".to_owned(), "no base 85"),
        (String::new(), "cannot be unpacked"),
        (pack(&bytes[..16]), "cut off"),
        (pack(&spoiled), "index"),
        (pack(&newer), "use a newer one"),
    ]
    .into_iter()
    .enumerate()
    {
        let (status, answer) = patch(control_plane, &path, &json!({ "data": data }));
        assert_eq!(status, 200, "{answer}");
        let before = control_plane.get(&path).unwrap();
        let started = Instant::now();
        // Who has a hint goes by the block; who needs the index, for another block or on a node that is new, names it.
        let stranger = Node::new(control_plane, &format!("new{number}"), network);
        fails(&stranger.add("c", &stranger.range(range)), 5, &[&name, words]);
        fails(&one.add("c", &one.range("10.71.1.0/24")), 5, &[&name, words]);
        for node in [&stranger, &one, &two] {
            node.del("c", &node.range(range)).ok();
        }
        assert!(started.elapsed() < Duration::from_secs(10), "ADD and DEL took {:?}", started.elapsed());
        assert_eq!(control_plane.get(&path).unwrap(), before, "it is never overwritten");
        assert_held(control_plane, "index-whole", &[("10.71.0.1", "z")]);

        // Other networks go on: on a node that knows this one, and on one that knows nothing.
        for (node, container) in [(&one, "y"), (&stranger, "x")] {
            let config = node.config(json!({ "network_name": "index-whole", "range": "10.71.0.0/24" }));
            let added = node.add(container, &config);
            assert_eq!(added.address(), "10.71.0.2/24");
            node.check(container, &config, added.ok()).ok();
            node.del(container, &config).ok();
            assert_held(control_plane, "index-whole", &[("10.71.0.1", "z")]);
        }
    }
    // A lease's own DEL needs the block alone.
    one.del("a", &one.range(range)).ok();
    let (status, answer) = patch(control_plane, &path, &json!({ "data": sound }));
    assert_eq!(status, 200, "{answer}");
    assert_held(control_plane, network, &[("10.71.0.2", "b")]);
    wait_until("what was queued is carried out, and the next one gets the lowest", || {
        two.add("d", &two.range(range)).exit == Some(0)
    });
    assert_held(control_plane, network, &[("10.71.0.1", "d"), ("10.71.0.2", "b")]);
}

/// What etcd keeps of a full block, its key and all that the API server adds among it, once the plugin itself has written
/// it: pods as a cluster has them, with ids, boots and times that have no pattern.
#[test]
fn a_lease_costs_no_more_than_a_hundred_bytes_in_etcd() {
    let Some(control_plane) = shared("a_lease_costs_no_more_than_a_hundred_bytes_in_etcd") else { return };
    let network = "macvlan-production";
    let node = Node::new(control_plane, "worker-40.rack-3", network);
    // All of one block, and no other: in the middle of its pool it has neither the pool's first nor its last address.
    let block = node.config(json!({ "range": "10.73.0.0/16", "range_start": "10.73.7.0", "range_end": "10.73.7.255" }));
    node.add("first", &block).ok();
    node.del("first", &block).ok();
    let path = only_block(control_plane, network);
    let id = shared_space(network, Family::V4).block_of("10.73.7.0".parse::<Address>().unwrap()).unwrap();

    // All but one are there, as if somebody had added them; the last one the plugin adds, and writes all of it anew.
    let mut pods = full_block_of_pods(40);
    let last = Offset::from(203);
    let mut index = index_of_full_blocks(Family::V4, id.number, 1);
    release(&mut index, id.number, &mut pods, last).unwrap();
    let there = control_plane.get(&path).unwrap();
    let mut bytes = unpack(there["spec"]["data"].as_str().unwrap())[..17].to_vec();
    bytes.extend(pods.to_record(&id).unwrap());
    let (status, answer) = patch(control_plane, &path, &json!({ "data": pack(&bytes) }));
    assert_eq!(status, 200, "{answer}");
    let container = "3f1c8e05a9d2476bb0e49c7f5d18a6237c9e02f4b85d1a6370e4cf92ab816d5e";
    let uid = "7d0c4c52-9b1e-4f6a-8c37-51e2d9a0b6f4";
    let answer = node.call("ADD", container).pod("production", "checkout-7d9f8b6c5d-x2k4q", uid).stdin(&block).run();
    assert_eq!(answer.address(), "10.73.7.203/16");
    assert_eq!(Truth::of(control_plane, network).leases.len(), 256);

    let name = path.rsplit_once('/').unwrap().1;
    let key = format!("/registry/ipam.whereabouts.dev/ipblocks/kube-system/{name}");
    let bytes = control_plane.etcd_object_bytes(&key).expect("etcd has it");
    assert!(bytes <= 256 * 100, "{bytes} bytes, which is {} per lease", bytes.div_ceil(256));
}
