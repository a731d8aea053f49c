//! The same question gets the same answer: who keeps an address through repeated ADDs, new sandboxes and edited ranges,
//! who gets another one, and what a range never hands out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use serde_json::{Value, json};
use support::leases::{addresses, held};
use support::{Answer, Call, Plugin, at_once};

fn plugin() -> (tempfile::TempDir, Plugin) {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    (folder, plugin)
}

fn add(plugin: &Plugin, container: &str, ifname: &str, config: &Value) -> Call {
    plugin.attachment("ADD", container, ifname).stdin(config)
}

/// Adds a key beside `ipam`.
fn with(config: &Value, key: &str, value: Value) -> Value {
    let mut config = config.clone();
    config[key] = value;
    config
}

#[track_caller]
fn fails(answer: &Answer, code: u64, words: &[&str]) {
    let (got, message) = answer.error();
    assert_eq!(got, code, "{answer:#?}");
    for word in words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
}

// === Owners ===

#[test]
fn add_again_answers_the_same_bytes_and_holds_no_more() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "fd00::/64" }] }));
    let first = plugin.add("c1", "eth0", &config);
    assert_eq!(first.addresses(), ["10.0.0.1/24", "fd00::1/64"]);
    plugin.add("c2", "eth0", &config).ok();
    for _ in 0..3 {
        assert_eq!(plugin.add("c1", "eth0", &config).stdout, first.stdout);
    }
    assert_eq!(held(&plugin).len(), 4);
    // The same container asks from many processes at once.
    let answers = at_once((0..8).map(|_| add(&plugin, "c1", "eth0", &config)));
    assert!(answers.iter().all(|answer| answer.stdout == first.stdout), "{answers:?}");
    assert_eq!(held(&plugin).len(), 4);
}

#[test]
fn a_new_sandbox_of_the_same_pod_keeps_the_address() {
    for uid in ["3f2c", ""] {
        let (_folder, plugin) = plugin();
        let config = plugin.range("10.0.0.0/24");
        let pod = |container: &str| {
            let call = add(&plugin, container, "eth0", &config);
            match uid {
                "" => call.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"),
                uid => call.pod("default", "web", uid),
            }
        };
        assert_eq!(pod("old").run().address(), "10.0.0.1/24");
        assert_eq!(pod("new").run().address(), "10.0.0.1/24");
        assert_eq!(held(&plugin)["10.0.0.1"], "new", "the lease names the new container");
        // The late DEL of the old sandbox, with and without the pod's name, is a no-op.
        plugin.del("old", "eth0", &config).ok();
        plugin.attachment("DEL", "old", "eth0").pod("default", "web", uid).stdin(&config).run().ok();
        assert_eq!(addresses(&plugin), ["10.0.0.1"]);
        assert_eq!(plugin.add("other", "eth0", &config).address(), "10.0.0.2/24");
        let added = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.0.0.1/24" }] });
        plugin.check("new", "eth0", &config, &added).ok();
        fails(&plugin.check("old", "eth0", &config, &added), 102, &["10.0.0.1"]);
        plugin.del("new", "eth0", &config).ok();
        assert_eq!(addresses(&plugin), ["10.0.0.2"]);
    }
}

/// The name alone does not make it the same pod: another UID, another namespace, a UID on one side only.
#[test]
fn another_pod_gets_another_address() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let pod = |container: &str, namespace: &str, uid: &str| {
        add(&plugin, container, "eth0", &config).pod(namespace, "web", uid).run().address()
    };
    assert_eq!(pod("c1", "default", "u1"), "10.0.0.1/24");
    assert_eq!(pod("c2", "default", "u2"), "10.0.0.2/24");
    assert_eq!(pod("c3", "other", "u3"), "10.0.0.3/24");
    assert_eq!(pod("c4", "default", ""), "10.0.0.4/24");
    assert_eq!(plugin.add("c5", "eth0", &config).address(), "10.0.0.5/24");
    assert_eq!(pod("c6", "default", "u1"), "10.0.0.1/24");
    plugin.del("c2", "eth0", &config).ok();
    assert_eq!(addresses(&plugin), ["10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
}

/// An ADD that the runtime repeats after the pod was made anew under the same container id.
#[test]
fn the_same_container_under_another_pod_keeps_its_address() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
    assert_eq!(add(&plugin, "c1", "eth0", &config).pod("default", "web", "u1").run().address(), "10.0.0.1/24");
    assert_eq!(add(&plugin, "c2", "eth0", &config).pod("default", "web", "u1").run().address(), "10.0.0.1/24");
    assert_eq!(held(&plugin).len(), 1);
}

#[test]
fn each_interface_has_its_own_address() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let pod = |container: &str, ifname: &str| add(&plugin, container, ifname, &config).pod("default", "web", "u1");
    assert_eq!(pod("c1", "net1").run().address(), "10.0.0.1/24");
    assert_eq!(pod("c1", "net2").run().address(), "10.0.0.2/24");
    assert_eq!(pod("c2", "net2").run().address(), "10.0.0.2/24");
    assert_eq!(pod("c2", "net1").run().address(), "10.0.0.1/24");
    // Two networks whose ranges overlap: the Go plugin could give one address to both interfaces.
    let overlapping = plugin.range("10.0.0.0/25");
    let third = add(&plugin, "c2", "net3", &overlapping).pod("default", "web", "u1").run();
    assert_eq!(third.address(), "10.0.0.3/25");
    plugin.del("c2", "net1", &config).ok();
    assert_eq!(addresses(&plugin), ["10.0.0.2", "10.0.0.3"]);
}

#[test]
fn a_sticky_name_takes_its_address_over() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let sticky = with(&config, "args", json!({ "cni": { "podname": "db-0" } }));
    assert_eq!(plugin.add("c1", "eth0", &sticky).address(), "10.0.0.1/24");
    // Another container, another pod, even with another UID: the name is the user's promise.
    let other = add(&plugin, "c2", "eth0", &sticky).pod("default", "db-0-x", "u9").run();
    assert_eq!(other.address(), "10.0.0.1/24");
    assert_eq!(held(&plugin)["10.0.0.1"], "c2");
    plugin.del("c1", "eth0", &sticky).ok();
    assert_eq!(addresses(&plugin), ["10.0.0.1"]);
    let older_spelling = with(&config, "args", json!({ "podname": "db-0" }));
    assert_eq!(plugin.add("c3", "eth0", &older_spelling).address(), "10.0.0.1/24");
    let another = with(&config, "args", json!({ "cni": { "podname": "db-1" } }));
    assert_eq!(plugin.add("c4", "eth0", &another).address(), "10.0.0.2/24");
}

// === Ranges ===

/// In the Go plugin the second one is the first one's address again.
#[test]
fn the_same_range_twice_gives_two_addresses() {
    let (_folder, plugin) = plugin();
    let ranges = json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "10.0.0.128/24" }, { "range": "10.0.0.0/24", "range_start": "10.0.0.100" }] });
    let config = plugin.config(ranges);
    let expected = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.100/24"];
    assert_eq!(plugin.add("c1", "eth0", &config).addresses(), expected);
    assert_eq!(plugin.add("c1", "eth0", &config).addresses(), expected);
    let added = plugin.add("c1", "eth0", &config).ok().clone();
    plugin.check("c1", "eth0", &config, &added).ok();
    plugin.del("c1", "eth0", &config).ok();
    assert_eq!(held(&plugin).len(), 0);
}

/// An address outside the edited range stays until DEL; a new sandbox gets one inside.
#[test]
fn a_range_may_be_edited_while_addresses_are_held() {
    let (_folder, plugin) = plugin();
    let wide = plugin.range("10.0.0.0/24");
    let narrow = plugin.config(json!({ "range": "10.0.0.0/24", "range_start": "10.0.0.50" }));
    let wider = plugin.range("10.0.0.0/16");
    assert_eq!(plugin.add("c1", "eth0", &wide).address(), "10.0.0.1/24");
    assert_eq!(plugin.add("c2", "eth0", &narrow).address(), "10.0.0.50/24");
    assert_eq!(plugin.add("c3", "eth0", &wider).address(), "10.0.0.2/16");
    // The wider range holds the address of the narrower one: the same owner keeps it, with the prefix of the question.
    assert_eq!(plugin.add("c1", "eth0", &wider).address(), "10.0.0.1/16");
    plugin.del("c1", "eth0", &narrow).ok();
    assert_eq!(addresses(&plugin), ["10.0.0.2", "10.0.0.50"], "DEL asks for no range");
    let elsewhere = plugin.range("10.9.0.0/24");
    plugin.del("c2", "eth0", &elsewhere).ok();
    plugin.del("c3", "eth0", &elsewhere).ok();
    assert_eq!(held(&plugin).len(), 0);
}

/// CHECK compares what the last ADD gave; what an earlier one gave, before the configuration was edited, is no fault.
#[test]
fn check_after_an_edit_looks_at_what_was_given_last() {
    let (_folder, plugin) = plugin();
    let asks = |ip: &str| with(&plugin.range("10.0.0.0/24"), "args", json!({ "cni": { "ips": [ip] } }));
    let check = |config: &Value, added: &Value| plugin.check("c1", "eth0", config, added);
    let given = |config: &Value| plugin.add("c1", "eth0", config).ok().clone();
    let plain = plugin.range("10.0.0.0/24");
    let first = given(&plain);
    check(&plain, &first).ok();
    for (config, expected) in [
        (asks("10.0.0.9"), "10.0.0.9/24"),
        (plugin.range("10.1.0.0/24"), "10.1.0.1/24"),
        (plugin.range("10.1.0.0/16"), "10.1.0.1/16"),
        (plugin.config(json!({ "range": "10.2.0.0/24", "network_name": "blue" })), "10.2.0.1/24"),
    ] {
        let added = given(&config);
        assert_eq!(added["ips"][0]["address"], expected);
        check(&config, &added).ok();
        // The runtime may as well have read the configuration before the edit.
        check(&plain, &added).ok();
    }
    // Edited, and not added again: it holds what it was given.
    check(&plugin.range("10.7.0.0/24"), &json!({ "ips": [{ "address": "10.2.0.1/24" }] })).ok();
    // An edit is no excuse for what is not held.
    fails(&check(&plain, &json!({ "ips": [{ "address": "10.0.0.44/24" }] })), 102, &["10.0.0.44"]);
    plugin.del("c1", "eth0", &plain).ok();
    fails(&check(&plain, &first), 102, &["10.0.0.1"]);
}

/// The pod's sandbox is made anew after its range was edited so that its address lies outside.
#[test]
fn an_address_that_no_range_has_any_more_is_replaced_and_freed_by_del() {
    let (_folder, plugin) = plugin();
    let pod =
        |container: &str, config: &Value| add(&plugin, container, "eth0", config).pod("default", "web", "u1").run();
    assert_eq!(pod("c1", &plugin.range("10.0.0.0/24")).address(), "10.0.0.1/24");
    let moved = plugin.range("10.1.0.0/24");
    assert_eq!(pod("c2", &moved).address(), "10.1.0.1/24");
    plugin.del("c2", "eth0", &moved).ok();
    assert_eq!(addresses(&plugin), ["10.0.0.1"]);
    plugin.del("c1", "eth0", &moved).ok();
    assert_eq!(held(&plugin).len(), 0);
}

#[test]
fn all_ranges_or_nothing() {
    let (_folder, plugin) = plugin();
    let both = plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "10.1.0.0/30" }] }));
    let first = plugin.range("10.0.0.0/24");
    plugin.add("c1", "eth0", &both).ok();
    assert_eq!(plugin.add("reused", "eth0", &first).address(), "10.0.0.2/24");
    plugin.add("c3", "eth0", &both).ok();
    let before = held(&plugin);

    fails(&plugin.add("c4", "eth0", &both), 100, &["10.1.0.0/30", "2 of 2"]);
    assert_eq!(held(&plugin), before, "nothing of the first range was taken");
    // What was held before the failed ADD is held after it.
    fails(&plugin.add("reused", "eth0", &both), 100, &["10.1.0.0/30"]);
    assert_eq!(held(&plugin), before);
    plugin.del("c4", "eth0", &both).ok();
    assert_eq!(held(&plugin), before);
    plugin.del("c1", "eth0", &both).ok();
    assert_eq!(plugin.add("c4", "eth0", &both).addresses(), ["10.0.0.1/24", "10.1.0.1/30"]);
}

#[test]
fn networks_do_not_collide_and_unnamed_ones_do() {
    let (_folder, plugin) = plugin();
    let named = |name: &str| plugin.config(json!({ "range": "10.0.0.0/24", "network_name": name }));
    assert_eq!(plugin.add("c1", "eth0", &named("")).address(), "10.0.0.1/24");
    assert_eq!(plugin.add("c2", "eth0", &plugin.range("10.0.0.0/24")).address(), "10.0.0.2/24");
    assert_eq!(plugin.add("c3", "eth0", &named("blue")).address(), "10.0.0.1/24");
    assert_eq!(plugin.add("c4", "eth0", &named("green")).address(), "10.0.0.1/24");
    assert_eq!(plugin.add("c5", "eth0", &named("blue")).address(), "10.0.0.2/24");
    // The name of the CNI network is another thing: it separates nothing but GC.
    let elsewhere = with(&plugin.range("10.0.0.0/24"), "name", "elsewhere".into());
    assert_eq!(plugin.add("c6", "eth0", &elsewhere).address(), "10.0.0.3/24");
}

// === Private pools: W21, E12 ===

#[test]
fn a_private_pool_is_a_space_of_its_own() {
    let (_folder, plugin) = plugin();
    let private = |range: &str| plugin.config(json!({ "range": range, "enable_overlapping_ranges": false }));
    assert_eq!(plugin.add("c1", "eth0", &private("192.168.33.0/24")).address(), "192.168.33.1/24");
    assert_eq!(plugin.add("c2", "eth0", &private("192.168.33.0/28")).address(), "192.168.33.1/28");
    assert_eq!(plugin.add("c3", "eth0", &private("192.168.33.5/24")).address(), "192.168.33.2/24");
    // E12: one shared, another private.
    assert_eq!(plugin.add("c4", "eth0", &plugin.range("10.10.0.0/16")).address(), "10.10.0.1/16");
    assert_eq!(plugin.add("c5", "eth0", &private("10.10.0.0/17")).address(), "10.10.0.1/17");
    for container in ["c1", "c2", "c3", "c4", "c5"] {
        plugin.del(container, "eth0", &plugin.range("10.0.0.0/24")).ok();
    }
    let again = plugin.add("c6", "eth0", &private("192.168.33.0/24"));
    assert_eq!(again.address(), "192.168.33.1/24");
}

/// One pool cannot be private and shared at once, or one address would have two holders.
#[test]
fn a_pool_that_is_in_use_does_not_change_its_way() {
    let (_folder, plugin) = plugin();
    let way =
        |overlapping: bool| plugin.config(json!({ "range": "10.0.0.0/24", "enable_overlapping_ranges": overlapping }));
    for (first, second) in [(true, false), (false, true)] {
        assert_eq!(plugin.add("c1", "eth0", &way(first)).address(), "10.0.0.1/24");
        let answer = plugin.add("c2", "eth0", &way(second));
        let message = answer.error().1;
        assert!(message.contains("10.0.0.0/24") && message.contains("enable_overlapping_ranges"), "{message}");
        assert_eq!(plugin.add("c1", "eth0", &way(first)).address(), "10.0.0.1/24");
        plugin.del("c1", "eth0", &way(second)).ok();
        assert_eq!(held(&plugin).len(), 0);
        assert_eq!(plugin.add("c2", "eth0", &way(second)).address(), "10.0.0.1/24");
        plugin.del("c2", "eth0", &way(second)).ok();
    }
}

// === Requested and static addresses ===

#[test]
fn a_requested_address_replaces_the_choice() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "fd00::/64" }] }));
    let cni = |ips: Value| with(&config, "args", json!({ "cni": { "ips": ips } }));
    let runtime = |ips: Value| with(&config, "runtimeConfig", json!({ "ips": ips }));
    assert_eq!(plugin.add("c1", "eth0", &cni(json!(["10.0.0.77/24"]))).addresses(), ["10.0.0.77/24", "fd00::1/64"]);
    assert_eq!(plugin.add("c1", "eth0", &cni(json!(["10.0.0.77/24"]))).addresses(), ["10.0.0.77/24", "fd00::1/64"]);
    assert_eq!(plugin.add("c2", "eth0", &runtime(json!(["fd00::77"]))).addresses(), ["10.0.0.1/24", "fd00::77/64"]);
    let both = runtime(json!(["fd00::78", "10.0.0.78"]));
    assert_eq!(plugin.add("c3", "eth0", &both).addresses(), ["10.0.0.78/24", "fd00::78/64"]);

    let before = held(&plugin);
    fails(&plugin.add("c4", "eth0", &cni(json!(["10.0.0.77"]))), 101, &["10.0.0.77", "c1"]);
    fails(&plugin.add("c4", "eth0", &runtime(json!(["fd00::99", "10.0.0.1"]))), 101, &["10.0.0.1"]);
    fails(&plugin.add("c4", "eth0", &cni(json!(["10.9.0.1"]))), 7, &["args.cni.ips[0]", "none of the configured"]);
    fails(&plugin.add("c4", "eth0", &cni(json!(["10.0.0.0"]))), 7, &["10.0.0.0", "never assigned"]);
    fails(&plugin.add("c4", "eth0", &cni(json!(["10.0.0.80", "10.0.0.81"]))), 7, &["each range gives one address"]);
    fails(&plugin.add("c4", "eth0", &runtime(json!(["x"]))), 7, &["runtimeConfig.ips[0]", "x"]);
    assert_eq!(held(&plugin), before);

    plugin.del("c1", "eth0", &config).ok();
    assert_eq!(plugin.add("c4", "eth0", &cni(json!(["10.0.0.77"]))).addresses()[0], "10.0.0.77/24");
}

/// One address cannot be both: a request replaces the choice of a range, a static address comes on top of it.
#[test]
fn a_requested_address_that_is_static_too_is_named() {
    let (_folder, plugin) = plugin();
    let ipam = json!({ "range": "10.0.0.0/24", "addresses": [{ "address": "10.0.0.7/24" }] });
    let asks = |ip: &str| with(&plugin.config(ipam.clone()), "args", json!({ "cni": { "ips": [ip] } }));
    let answer = plugin.add("c1", "eth0", &asks("10.0.0.7"));
    fails(&answer, 7, &["args.cni.ips[0] = 10.0.0.7", "addresses[0].address = 10.0.0.7/24", "another address"]);
    assert!(!plugin.data_dir().join("ledger.redb").exists());
    assert_eq!(plugin.add("c1", "eth0", &asks("10.0.0.8")).addresses(), ["10.0.0.8/24", "10.0.0.7/24"]);
}

/// The container that has one address asks for another one.
#[test]
fn a_container_may_ask_for_another_address_than_it_has() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let asks = |ip: &str| with(&config, "args", json!({ "cni": { "ips": [ip] } }));
    assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
    assert_eq!(plugin.add("c1", "eth0", &asks("10.0.0.9")).address(), "10.0.0.9/24");
    plugin.del("c1", "eth0", &config).ok();
    assert_eq!(held(&plugin).len(), 0, "DEL frees both");
}

#[test]
fn a_static_address_inside_a_range_is_nobody_elses() {
    let (_folder, plugin) = plugin();
    let ipam = json!({ "range": "10.0.0.0/24", "addresses": [{ "address": "10.0.0.2/24", "gateway": "10.0.0.254" }, { "address": "192.0.2.7/28" }] });
    let config = plugin.config(ipam);
    let answer = plugin.add("c1", "eth0", &config);
    assert_eq!(answer.addresses(), ["10.0.0.1/24", "10.0.0.2/24", "192.0.2.7/28"]);
    assert_eq!(answer.ok()["ips"][1]["gateway"], "10.0.0.254");
    assert_eq!(plugin.add("c1", "eth0", &config).stdout, answer.stdout);
    assert_eq!(addresses(&plugin), ["10.0.0.1", "10.0.0.2"], "192.0.2.7 lies in no range");
    assert_eq!(plugin.add("c2", "eth0", &plugin.range("10.0.0.0/24")).address(), "10.0.0.3/24");
    fails(&plugin.add("c3", "eth0", &config), 101, &["10.0.0.2", "c1"]);
    assert_eq!(held(&plugin).len(), 3);
    plugin.del("c1", "eth0", &config).ok();
    assert_eq!(addresses(&plugin), ["10.0.0.3"]);
}

/// The static address is the lowest free one: the choice must step aside.
#[test]
fn the_choice_leaves_the_static_address_alone() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "addresses": [{ "address": "10.0.0.1/24" }] }));
    let answer = plugin.add("c1", "eth0", &config);
    assert_eq!(answer.addresses(), ["10.0.0.2/24", "10.0.0.1/24"]);
    assert_eq!(plugin.add("c1", "eth0", &config).stdout, answer.stdout);
    plugin.del("c1", "eth0", &config).ok();
    // An address that is held as a choice and becomes static later.
    assert_eq!(plugin.add("c2", "eth0", &plugin.range("10.0.0.0/24")).address(), "10.0.0.1/24");
    assert_eq!(plugin.add("c2", "eth0", &config).addresses(), ["10.0.0.2/24", "10.0.0.1/24"]);
    plugin.del("c2", "eth0", &config).ok();
    assert_eq!(held(&plugin).len(), 0);
}

#[test]
fn cni_args_add_static_addresses() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let arguments = "IgnoreUnknown=1;IP=192.0.2.7/24,10.0.0.9/24;GATEWAY=192.0.2.1,10.0.0.254";
    let answer = add(&plugin, "c1", "eth0", &config).env("CNI_ARGS", arguments).run();
    assert_eq!(answer.addresses(), ["10.0.0.1/24", "192.0.2.7/24", "10.0.0.9/24"]);
    let gateways: Vec<&Value> = answer.ok()["ips"].as_array().unwrap().iter().map(|ip| &ip["gateway"]).collect();
    assert_eq!(gateways, [&Value::Null, &json!("192.0.2.1"), &json!("10.0.0.254")]);
    assert_eq!(addresses(&plugin), ["10.0.0.1", "10.0.0.9"]);
    // Where the configuration asks for addresses, CNI_ARGS says nothing.
    let asks = with(&config, "args", json!({ "cni": { "ips": ["10.0.0.20"] } }));
    let answer = add(&plugin, "c2", "eth0", &asks).env("CNI_ARGS", arguments).run();
    assert_eq!(answer.addresses(), ["10.0.0.20/24"]);
    assert!(answer.stderr.contains("CNI_ARGS IP"), "{}", answer.stderr);
}

#[test]
fn the_runtimes_ranges_replace_those_of_the_configuration() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "ipRanges": [{ "range": "10.1.0.0/24" }] }));
    let sets = json!([
        [{ "subnet": "10.5.0.0/24", "rangeStart": "10.5.0.10", "rangeEnd": "10.5.0.11", "gateway": "10.5.0.1" }],
        [{ "subnet": "fd05::/64" }],
    ]);
    let config = with(&config, "runtimeConfig", json!({ "ipRanges": sets }));
    let answer = plugin.add("c1", "eth0", &config);
    assert_eq!(answer.addresses(), ["10.5.0.10/24", "fd05::1/64"]);
    assert_eq!(answer.ok()["ips"][0]["gateway"], "10.5.0.1");
    plugin.add("c2", "eth0", &config).ok();
    fails(&plugin.add("c3", "eth0", &config), 100, &["10.5.0.0/24", "2 of 2"]);
    assert_eq!(held(&plugin).len(), 4);
}

// === What is never handed out ===

/// All addresses of a range in the order in which they are given, and then its end.
#[track_caller]
fn all_of(plugin: &Plugin, ipam: Value) -> Vec<String> {
    let config = plugin.config(ipam);
    let mut given = Vec::new();
    loop {
        let answer = plugin.add(&format!("n{}", given.len()), "eth0", &config);
        if answer.exit == Some(0) {
            given.push(answer.address());
        } else {
            assert_eq!(answer.error().0, 100, "{answer:?}");
            return given;
        }
    }
}

#[test]
fn the_gateway_is_not_handed_out() {
    let (_f, p) = plugin();
    assert_eq!(
        all_of(&p, json!({ "range": "10.0.0.0/29", "gateway": "10.0.0.1", "range_end": "10.0.0.3" })),
        ["10.0.0.2/29", "10.0.0.3/29"]
    );
    let (_f, p) = plugin();
    let off =
        json!({ "range": "10.0.0.0/29", "gateway": "10.0.0.1", "range_end": "10.0.0.3", "exclude_gateway": false });
    assert_eq!(all_of(&p, off), ["10.0.0.1/29", "10.0.0.2/29", "10.0.0.3/29"]);
    let (_f, p) = plugin();
    let answer = p.add("c1", "eth0", &p.config(json!({ "range": "fd00::/64", "gateway": "fd00::1" })));
    assert_eq!((answer.address().as_str(), &answer.ok()["ips"][0]["gateway"]), ("fd00::2/64", &json!("fd00::1")));
}

/// The gateway of a static address serves somebody too, wherever it was named.
#[test]
fn the_gateway_of_a_static_address_is_not_handed_out() {
    let ipam = |exclude_gateway: bool| {
        json!({
            "range": "10.0.0.0/29", "range_end": "10.0.0.3", "exclude_gateway": exclude_gateway,
            "addresses": [{ "address": "10.9.0.7/8", "gateway": "10.0.0.1" }],
        })
    };
    let first = |plugin: &Plugin, exclude_gateway: bool| {
        plugin.add("c1", "eth0", &plugin.config(ipam(exclude_gateway))).addresses()
    };
    let (_f, p) = plugin();
    assert_eq!(first(&p, true), ["10.0.0.2/29", "10.9.0.7/8"]);
    let asks = with(&p.config(ipam(true)), "args", json!({ "cni": { "ips": ["10.0.0.1"] } }));
    fails(&p.add("c2", "eth0", &asks), 7, &["args.cni.ips[0] = 10.0.0.1", "a gateway"]);
    let (_f, p) = plugin();
    assert_eq!(first(&p, false), ["10.0.0.1/29", "10.9.0.7/8"]);
    let (_f, p) = plugin();
    let config = p.range("10.0.0.0/29");
    let arguments = "IgnoreUnknown=1;IP=10.9.0.7/8;GATEWAY=10.0.0.1";
    let answer = add(&p, "c1", "eth0", &config).env("CNI_ARGS", arguments).run();
    assert_eq!(answer.addresses(), ["10.0.0.2/29", "10.9.0.7/8"]);
}

#[test]
fn addresses_that_end_in_zero_are_not_handed_out() {
    let (_f, p) = plugin();
    let across = json!({ "range": "10.0.0.254-10.0.1.1/16" });
    assert_eq!(all_of(&p, across), ["10.0.0.254/16", "10.0.0.255/16", "10.0.1.1/16"]);
    let (_f, p) = plugin();
    let six = json!({ "range": "fd00::fe-fd00::101/64" });
    assert_eq!(all_of(&p, six), ["fd00::fe/64", "fd00::ff/64", "fd00::100/64", "fd00::101/64"]);
    let (_f, p) = plugin();
    let l3 = json!({ "range": "10.0.0.254-10.0.1.1/16", "enable_l3": true });
    assert_eq!(all_of(&p, l3), ["10.0.0.254/16", "10.0.0.255/16", "10.0.1.0/16", "10.0.1.1/16"]);
}

#[test]
fn f1_to_f8_enable_l3_makes_every_address_usable() {
    for (id, ipam, expected) in [
        (
            "F1",
            json!({ "range": "192.168.0.0/24", "range_end": "192.168.0.1" }),
            vec!["192.168.0.0/24", "192.168.0.1/24"],
        ),
        (
            "F4",
            json!({ "range": "192.168.0.0/30" }),
            vec!["192.168.0.0/30", "192.168.0.1/30", "192.168.0.2/30", "192.168.0.3/30"],
        ),
        (
            "F6",
            json!({ "range": "10.0.0.0/24", "range_start": "10.0.0.10", "range_end": "10.0.0.11" }),
            vec!["10.0.0.10/24", "10.0.0.11/24"],
        ),
        ("F7", json!({ "range": "10.0.0.0/30", "exclude": ["10.0.0.0/31"] }), vec!["10.0.0.2/30", "10.0.0.3/30"]),
        ("F8", json!({ "range": "10.0.0.5/32" }), vec!["10.0.0.5/32"]),
        ("/31", json!({ "range": "10.0.0.4/31" }), vec!["10.0.0.4/31", "10.0.0.5/31"]),
        ("/127", json!({ "range": "fd00::4/127" }), vec!["fd00::4/127", "fd00::5/127"]),
        ("/128", json!({ "range": "fd00::5/128" }), vec!["fd00::5/128"]),
        ("::", json!({ "range": "::/127" }), vec!["::/127", "::1/127"]),
        (
            "entry",
            json!({ "ipRanges": [{ "range": "10.0.0.0/31", "enable_l3": true }], "enable_l3": false }),
            vec!["10.0.0.0/31", "10.0.0.1/31"],
        ),
    ] {
        let (_folder, plugin) = plugin();
        let mut ipam = ipam;
        if id != "entry" {
            ipam["enable_l3"] = true.into();
        }
        assert_eq!(all_of(&plugin, ipam), expected, "{id}");
    }
    let (_f, p) = plugin();
    assert_eq!(all_of(&p, json!({ "range": "192.168.0.0/30" })), ["192.168.0.1/30", "192.168.0.2/30"], "F3");
}

/// The whole of a family, and a /64 above its first half, where the Go plugin loses track.
#[test]
fn the_largest_ranges_work() {
    let (_folder, plugin) = plugin();
    assert_eq!(plugin.add("c1", "eth0", &plugin.range("::/0")).address(), "::1/0");
    assert_eq!(plugin.add("c2", "eth0", &plugin.range("0.0.0.0/0")).address(), "0.0.0.1/0");
    let upper = plugin.config(json!({ "range": "fd00::/64", "exclude": ["fd00::/65"] }));
    assert_eq!(plugin.add("c3", "eth0", &upper).address(), "fd00::8000:0:0:0/64");
    assert_eq!(plugin.add("c4", "eth0", &upper).address(), "fd00::8000:0:0:1/64");
    plugin.del("c3", "eth0", &upper).ok();
    assert_eq!(plugin.add("c5", "eth0", &upper).address(), "fd00::8000:0:0:0/64");
    let last = plugin.config(json!({ "range": "ffff::/16", "range_start": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd" }));
    assert_eq!(plugin.add("c6", "eth0", &last).address(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd/16");
    assert_eq!(plugin.add("c7", "eth0", &last).address(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/16");
    fails(&plugin.add("c8", "eth0", &last), 100, &["ffff::/16"]);
}
