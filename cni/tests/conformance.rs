//! What the tests of the Go plugin and of its fork assert, asked of this plugin through the protocol, with
//! `datastore: local` where their configuration names a kubeconfig.
//!
//! The ids are those of `docs/compatibility.md`, which says of every row whether it is the same here. Rows about
//! functions inside the Go code are asked through the configuration that reaches them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::leases::{addresses, held};
use support::{Answer, Plugin, at_once};

/// A plugin with a fresh ledger, which lives as long as the folder.
fn fresh() -> (tempfile::TempDir, Plugin) {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path().join("ledger"));
    (folder, plugin)
}

/// The Go plugin's tests run with 0.3.1.
fn config(plugin: &Plugin, ipam: Value) -> Value {
    let mut config = plugin.config(ipam);
    config["cniVersion"] = "0.3.1".into();
    config
}

/// After `taken` ADDs of others, the next one is answered with `expected`; an error must have its words.
#[track_caller]
fn check(id: &str, ipam: Value, taken: usize, expected: Result<&str, &str>) {
    let (_folder, plugin) = fresh();
    let config = config(&plugin, ipam);
    for number in 0..taken {
        plugin.add(&format!("taken{number}"), "eth0", &config).ok();
    }
    let answer = plugin.add("dummy", "eth0", &config);
    match expected {
        Ok(address) => assert_eq!(answer.address(), address, "{id}"),
        Err(words) => {
            let message = answer.error().1;
            assert!(message.contains(words), "{id}: {words} is not in: {message}");
        }
    }
}

/// The first address is assigned, the last one can be, and the ones around them cannot.
#[track_caller]
fn check_ends(id: &str, ipam: Value, first: &str, last: &str, outside: &[&str]) {
    let (_folder, plugin) = fresh();
    let config = config(&plugin, ipam);
    let asks = |ip: &str| {
        let mut config = config.clone();
        config["args"] = json!({ "cni": { "ips": [ip] } });
        config
    };
    let plain = |answer: &Answer| answer.address().split('/').next().unwrap_or_default().to_owned();
    assert_eq!(plain(&plugin.add("first", "eth0", &config)), first, "{id}");
    if last != first {
        assert_eq!(plain(&plugin.add("last", "eth0", &asks(last))), last, "{id}");
    }
    for ip in outside {
        let answer = plugin.add("outside", "eth0", &asks(ip));
        assert_eq!(answer.error().0, 7, "{id}: {ip} was assigned");
    }
}

// === 5.1 pkg/allocate ===

#[test]
fn a_rows_the_lowest_that_is_free() {
    let net = |range: &str, start: &str| json!({ "range": range, "range_start": start });
    check("A1", net("192.168.1.1/24", "192.168.1.0"), 0, Ok("192.168.1.1/24"));
    check("A2", net("caa5::0/112", "caa5::"), 0, Ok("caa5::1/112"));
    check("A3", net("::1/126", "::"), 0, Ok("::1/126"));
    check("A4", net("fd::1/116", "fd::"), 0, Ok("fd::1/116"));
    let excluding = |range: &str, exclude: &[&str]| json!({ "range": range, "exclude": exclude });
    check("A6", excluding("192.168.0.0/29", &["192.168.0.0/30"]), 0, Ok("192.168.0.4/29"));
    check("A7", excluding("192.168.0.0/29", &["192.168.0.1"]), 0, Ok("192.168.0.2/29"));
    check("A8", excluding("192.168.0.0/29", &["192.168.0.1/123"]), 0, Err("could not parse exclude range"));
    check("A10", excluding("100::2:1/125", &["100::2:1"]), 0, Ok("100::2:2/125"));
    check("A11", excluding("100::2:1/125", &["100::2::1"]), 0, Err("could not parse exclude range"));
    let all_over = ["192.168.0.0/30", "192.168.0.6/31", "192.168.0.8/31", "192.168.0.4/30"];
    check("A13", excluding("192.168.0.0/28", &all_over), 0, Ok("192.168.0.10/28"));
    let mut a15 = excluding("192.168.0.0/29", &["192.168.0.0/30"]);
    a15["range_start"] = "192.168.0.0".into();
    check("A15", a15, 3, Err("192.168.0.0/29"));
    check("A16", excluding("192.168.0.0/29", &["192.168.0.4/30"]), 3, Err("192.168.0.0/29"));
    check("A18", net("192.168.0.0/29", "192.168.0.0"), 0, Ok("192.168.0.1/29"));
    let a19 = json!({ "range": "192.168.0.0/29", "range_start": "192.168.0.0", "range_end": "192.168.0.8" });
    check("A19", a19, 0, Ok("192.168.0.1/29"));
    let a21 = json!({ "range": "192.168.0.0/28", "range_start": "192.168.0.1", "range_end": "192.168.0.6" });
    check("A21", a21.clone(), 0, Ok("192.168.0.1/28"));
    check("A22", a21, 3, Ok("192.168.0.4/28"));
}

// === 5.2 pkg/iphelpers, as far as a configuration reaches it ===

#[test]
fn g_rows_first_and_last() {
    let of = |range: &str| json!({ "range": range });
    let bounds = |range: &str, start: Option<&str>, end: Option<&str>| json!({ "range": range, "range_start": start, "range_end": end });
    check_ends(
        "G1",
        of("192.168.21.100/30"),
        "192.168.21.101",
        "192.168.21.102",
        &["192.168.21.100", "192.168.21.103"],
    );
    let g2 = bounds("192.168.2.200/24", Some("192.168.2.23"), None);
    check_ends("G2", g2, "192.168.2.23", "192.168.2.254", &["192.168.2.22", "192.168.2.255"]);
    check_ends("G3", of("192.168.2.200/27"), "192.168.2.193", "192.168.2.222", &["192.168.2.192", "192.168.2.223"]);
    let g5 = bounds("192.168.2.200/24", None, Some("192.168.2.100"));
    check_ends("G5", g5, "192.168.2.1", "192.168.2.100", &["192.168.2.101"]);
    let g6 = bounds("192.168.2.200/24", Some("192.168.2.50"), Some("192.168.2.100"));
    check_ends("G6", g6, "192.168.2.50", "192.168.2.100", &["192.168.2.49", "192.168.2.101"]);
    let g8 = bounds("192.168.2.200/24", Some("192.168.2.100"), Some("192.168.2.50"));
    check_ends("G8", g8, "192.168.2.100", "192.168.2.254", &["192.168.2.99"]);
    let g9 = bounds("192.168.2.200/24", Some("192.168.2.50"), Some("192.168.2.50"));
    check_ends("G9", g9, "192.168.2.50", "192.168.2.50", &["192.168.2.49", "192.168.2.51"]);
    let g11 = of("fd:db8:abcd:12::0/96");
    check_ends("G11", g11, "fd:db8:abcd:12::1", "fd:db8:abcd:12::ffff:fffe", &["fd:db8:abcd:12::ffff:ffff"]);
    let g12 = of("2001:db8:abcd:12::0/96");
    check_ends("G12", g12, "2001:db8:abcd:12::1", "2001:db8:abcd:12::ffff:fffe", &["2001:db8:abcd:12::"]);
    let (g13, last) = (of("2001:db8:abcd:12::0/64"), "2001:db8:abcd:12:ffff:ffff:ffff:fffe");
    check_ends("G13", g13, "2001:db8:abcd:12::1", last, &["2001:db8:abcd:12:ffff:ffff:ffff:ffff"]);
    let six = "2001:db8:abcd:12::0/64";
    let [p50, p100] = ["2001:db8:abcd:12::50", "2001:db8:abcd:12::100"];
    check_ends("G14", bounds(six, None, Some(p100)), "2001:db8:abcd:12::1", p100, &["2001:db8:abcd:12::101"]);
    check_ends("G15", bounds(six, Some(p50), Some(p100)), p50, p100, &["2001:db8:abcd:12::4f"]);
    check_ends("G17", bounds(six, Some(p100), Some(p50)), p100, last, &[p50]);
    check_ends("G18", bounds(six, Some(p100), Some(p100)), p100, p100, &["2001:db8:abcd:12::101"]);
    check("G20", of("192.168.21.100/30"), 1, Ok("192.168.21.102/30"));
    check("G20", of("192.168.21.100/31"), 0, Err("net mask is too short"));
}

#[test]
fn h_rows_edges_of_networks() {
    let of = |range: &str| json!({ "range": range });
    for (id, range) in [
        ("H15", "192.168.0.0/32"),
        ("H15", "192.168.0.0/31"),
        ("H15", "2000::/128"),
        ("H15", "2000::/127"),
        ("H18", "10.0.0.0/31"),
    ] {
        check(id, of(range), 0, Err("net mask is too short"));
    }
    check("H12 H16", of("192.168.0.0/30"), 0, Ok("192.168.0.1/30"));
    check("H12 H16", of("192.168.0.0/23"), 0, Ok("192.168.0.1/23"));
    check("H16", of("2000::/126"), 0, Ok("2000::1/126"));
    check("H16", of("2000::/64"), 0, Ok("2000::1/64"));
    // H13: the broadcast address is the end.
    check("H13", of("192.168.0.0/30"), 2, Err("192.168.0.0/30"));
    let across = |range: &str, start: &str| json!({ "range": range, "range_start": start });
    // H19, H20: the next address across a boundary of bytes; `.0` is never given here.
    check("H19", across("192.168.2.0/24", "192.168.2.23"), 1, Ok("192.168.2.24/24"));
    check("H19", across("ff02::/64", "ff02::ff"), 1, Ok("ff02::100/64"));
    check("H20 differs", across("192.168.0.0/16", "192.168.2.255"), 1, Ok("192.168.3.1/16"));
    check("H20", across("ff02::/64", "ff02::ffff"), 1, Ok("ff02::1:0/64"));
    check("H20", across("ff02::/64", "ff02::ffff:ffff"), 1, Ok("ff02::1:0:0/64"));
}

/// A nil address exists inside the Go code only; what a user can leave empty is an address that is asked for.
#[test]
fn h7_an_empty_address() {
    let (_folder, plugin) = fresh();
    for (range, empty) in [("10.0.0.0/24", ""), ("10.0.0.0/24", "/24"), ("fd00::/64", "")] {
        for key in ["args", "runtimeConfig"] {
            let mut config = config(&plugin, json!({ "range": range }));
            config[key] = if key == "args" { json!({ "cni": { "ips": [empty] } }) } else { json!({ "ips": [empty] }) };
            let answer = plugin.add("h7", "eth0", &config);
            let (code, message) = answer.error();
            assert_eq!(code, 7, "H7: {answer:?}");
            assert!(message.contains("ips[0]") && message.contains("not an IP address"), "H7: {message}");
        }
    }
    assert!(!plugin.data_dir().exists(), "H7: nothing was written");
}

/// Distances are seen by how many addresses a range has, where its every address counts.
#[test]
fn o_rows_distances_and_sums() {
    let (folder, plugin) = fresh();
    let check_config = |range: &str| {
        let file = folder.path().join("o.conf");
        let config = config(&plugin, json!({ "range": range, "enable_l3": true }));
        fs::write(&file, config.to_string()).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_whereabouts"));
        let output = command.env_clear().args(["check-config", "--json"]).arg(file).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    for (id, range, n_addresses) in [
        ("O1", "192.168.1.0-192.168.1.1/24", 2),
        ("O2", "192.168.3.0-192.168.4.0/16", 257),
        ("O2", "192.168.1.0-192.168.2.255/16", 512),
        ("O4", "192.168.2.1-192.168.3.0/16", 256),
        ("O4", "ff02::1-ff02::100/64", 256),
        ("O4", "ff02::1-ff02::1:0/64", 65536),
        ("O7", "192.168.1.1-192.168.2.1/16", 257),
        ("O7", "2000::1-2000::1:0/64", 65536),
        ("O8", "fd00::101-fd00::b0b/64", 0x0a0a + 1),
        ("O8", "fd00::ffff-fd00::1:0/64", 2),
        ("O10", "fd00::-fd00::1:ffff/64", 0x1_ffff + 1),
    ] {
        let told = check_config(range);
        assert_eq!(told["ranges"][0]["count"], n_addresses.to_string(), "{id}: {told}");
        let ends = format!(
            "{}-{}/",
            told["ranges"][0]["first"].as_str().unwrap(),
            told["ranges"][0]["last"].as_str().unwrap()
        );
        assert!(range.starts_with(&ends), "{id}: {ends}");
    }
    for (id, range) in [("O5", "192.168.3.0-ff02::1/64"), ("O6", "ff02::1-192.168.3.0/24")] {
        let told = check_config(range);
        let error = told["error"].as_str().unwrap();
        assert!(error.contains("invalid range start for CIDR") && error.contains("range = "), "{id}: {error}");
        let answer = plugin.add("o", "eth0", &config(&plugin, json!({ "range": range })));
        assert_eq!(answer.error().0, 7, "{id}");
    }
}

// === 5.3 pkg/config ===

#[test]
fn k_rows_configuration() {
    let (folder, plugin) = fresh();
    let flat = folder.path().join("flat.conf");
    let write = |value: Value| fs::write(&flat, value.to_string()).unwrap();
    let add = |name: &str, ipam: Value| {
        let call = plugin.attachment("ADD", name, "eth0");
        let call = if flat.exists() { call.env("WHEREABOUTS_CONFIGURATION", &flat) } else { call };
        call.stdin(&config(&plugin, ipam)).run()
    };
    let log = folder.path().join("whereabouts.log");

    // K1, except that the datastore is local.
    let k1 = json!({ "range": "192.168.1.5-192.168.1.25/24", "gateway": "192.168.10.1", "log_level": "debug", "log_file": log });
    let answer = add("k1", k1);
    assert_eq!(answer.address(), "192.168.1.5/24", "K1");
    assert_eq!(answer.ok()["ips"][0]["gateway"], "192.168.10.1", "K1");
    assert!(log.exists(), "K1, L1");
    // K2: the flat file is optional here.
    assert!(!flat.exists());
    assert_eq!(add("k2", json!({ "range": "10.2.0.0/24" })).address(), "10.2.0.1/24", "K2 differs");
    // K3: the network's configuration goes before the flat file.
    let configured = folder.path().join("configured.conf");
    let file = json!({ "log_file": log, "log_level": "debug", "gateway": "192.168.5.5", "range_end": "192.168.2.240" });
    fs::write(&configured, file.to_string()).unwrap();
    let k3 = json!({
        "configuration_path": configured, "range": "192.168.2.230/24", "range_start": "192.168.2.223",
        "gateway": "192.168.10.1", "leader_lease_duration": 3000, "leader_renew_deadline": 2000,
        "leader_retry_period": 1000,
    });
    let answer = add("k3", k3);
    assert_eq!(answer.address(), "192.168.2.223/24", "K3");
    assert_eq!(answer.ok()["ips"][0]["gateway"], "192.168.10.1", "K3");
    assert_eq!(answer.stderr, "", "K3: log_file comes from the flat file");

    // K4, K5: whether ranges share their addresses is told by whether a second one collides.
    for (id, flat_value, own, expected) in [("K4", false, true, "10.4.0.2/25"), ("K5", true, false, "10.5.0.1/25")] {
        let net = if id == "K4" { "10.4.0.0" } else { "10.5.0.0" };
        write(json!({ "enable_overlapping_ranges": flat_value }));
        add(&format!("{id}-a"), json!({ "range": format!("{net}/24"), "enable_overlapping_ranges": own })).ok();
        let answer = add(&format!("{id}-b"), json!({ "range": format!("{net}/25"), "enable_overlapping_ranges": own }));
        assert_eq!(answer.address(), expected, "{id}");
    }
    // Differs: the flat file's value counts where the network has none, with a warning.
    write(json!({ "enable_overlapping_ranges": false }));
    add("k6-a", json!({ "range": "10.6.0.0/24" })).ok();
    let answer = add("k6-b", json!({ "range": "10.6.0.0/25" }));
    assert_eq!(answer.address(), "10.6.0.1/25");
    assert!(answer.stderr.contains("enable_overlapping_ranges"), "{}", answer.stderr);
    fs::remove_file(&flat).unwrap();

    check("K10", json!({ "range": "00192.00168.1.0/24" }), 0, Ok("192.168.1.1/24"));
    check("K13", json!({ "range": "10.0.0.0/24", "reconciler_cron_expression": "30 4 * * *" }), 0, Ok("10.0.0.1/24"));
    let refused = |id: &str, stdin: String, words: &str| {
        let answer = plugin.attachment("ADD", "k", "eth0").stdin_bytes(stdin).run();
        let message = answer.error().1;
        assert!(message.contains(words), "{id}: {message}");
    };
    let other = "only interested in networks whose IPAM type is 'whereabouts'. This one was: static";
    refused("K7", json!({ "name": "n", "ipam": { "type": "static" } }).to_string(), other);
    refused("K8", json!({ "name": "n" }).to_string(), "IPAM config missing 'ipam' key");
    let k15 = r#"{"cniVersion": "0.3.1", "name": "n", "ipam": {asdf:"hi","type": "whereabouts"}}"#;
    refused("K15", k15.to_owned(), "LoadIPAMConfig - JSON Parsing Error: ");
}

#[test]
fn l_rows_logging() {
    for (level, is_debug) in [("debug", true), ("DEBUG", true), ("Error", false), ("VERbose", false), ("PANIC", false)]
    {
        let (folder, plugin) = fresh();
        let log = folder.path().join("foobar.logging");
        let ipam = json!({ "range": "10.0.0.0/24", "gateway": "fd00::1", "log_file": log, "log_level": level });
        plugin.add("c1", "eth0", &config(&plugin, ipam)).ok();
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text.contains("allocated"), is_debug || level == "VERbose", "L1 L2 {level}: {text}");
        assert_eq!(text.is_empty(), level == "PANIC", "L2 {level}: {text}");
    }
    let (_folder, plugin) = fresh();
    let answer = plugin.add("c1", "eth0", &config(&plugin, json!({ "range": "10.0.0.0/24", "log_level": "XXXX" })));
    answer.ok();
    assert!(answer.stderr.contains("XXXX") && answer.stderr.contains("allocated"), "L2: {}", answer.stderr);
    assert_eq!(answer.stderr.matches("XXXX").count(), 1, "L2: told once: {}", answer.stderr);
}

// === 5.5 cmd/whereabouts_test ===

/// ADD, DEL, ADD: the address is the same both times.
#[track_caller]
fn check_again(id: &str, ipam: Value, expected: &str, gateway: Option<&str>) {
    let (_folder, plugin) = fresh();
    let mut ipam = ipam;
    // The Go plugin's tests set these, and they must not be refused.
    ipam["leader_lease_duration"] = 10.into();
    ipam["leader_renew_deadline"] = 5.into();
    ipam["leader_retry_period"] = 2.into();
    let config = config(&plugin, ipam);
    for _ in 0..2 {
        let add = plugin.attachment("ADD", "dummy-0", "eth0").pod("dummyNS", "dummyPOD-0", "u0").stdin(&config).run();
        assert_eq!(add.address(), expected, "{id}");
        let ip = &add.ok()["ips"][0];
        let family = if expected.contains(':') { "6" } else { "4" };
        assert_eq!(ip["version"], family, "{id}");
        assert_eq!(ip["gateway"].as_str(), gateway, "{id}");
        let del = plugin.attachment("DEL", "dummy-0", "eth0").pod("dummyNS", "dummyPOD-0", "u0").stdin(&config).run();
        del.ok();
        assert_eq!(held(&plugin).len(), 0, "{id}");
    }
}

#[test]
fn w_rows_add_and_del() {
    let v4 = Some("192.168.10.1");
    let of = |range: &str, gateway: &str| json!({ "range": range, "gateway": gateway });
    check_again("W2", of("192.168.1.0/24", "192.168.10.1"), "192.168.1.1/24", v4);
    check_again("W3", of("2001::1/116", "2001::f:1"), "2001::1/116", Some("2001::f:1"));
    check_again("W5", of("fd::1/116", "fd::f:1"), "fd::1/116", Some("fd::f:1"));
    let w8 = of("fd00:0:0:10:0:0:3:1-fd00:0:0:10:0:0:3:6/64", "2001::f:1");
    check_again("W8", w8, "fd00::10:0:0:3:1/64", Some("2001::f:1"));
    let mut w9 = of("192.168.1.0/24", "192.168.10.1");
    w9["exclude"] = json!(["192.168.1.0/28", "192.168.1.16/28"]);
    w9["routes"] = json!([{ "dst": "0.0.0.0/0" }]);
    check_again("W9", w9, "192.168.1.32/24", v4);
    let mut w11 = of("caa5::0/112", "2001::f:1");
    w11["exclude"] = json!(["caa5::0/113"]);
    check_again("W11", w11, "caa5::8000/112", Some("2001::f:1"));
    check_again("W13", json!({ "ipRanges": [{ "range": "192.168.10.1/24" }] }), "192.168.10.1/24", None);
    check_again("W16", of("192.168.1.5-192.168.1.25/24", "192.168.10.1"), "192.168.1.5/24", v4);
    let mut w17 = of("192.168.1.0/24", "192.168.10.1");
    w17["range_start"] = "192.168.1.5".into();
    check_again("W17", w17, "192.168.1.5/24", v4);
}

#[test]
fn w1_the_pod_keeps_what_it_had() {
    let (_folder, plugin) = fresh();
    let config = config(&plugin, json!({ "range": "192.168.1.0/24", "gateway": "192.168.10.1" }));
    let add = |container: &str, pod: &str| {
        plugin.attachment("ADD", container, "eth0").pod("dummyNS", pod, "").stdin(&config).run()
    };
    assert_eq!(add("before", "dummyPOD").address(), "192.168.1.1/24");
    assert_eq!(add("other", "test").address(), "192.168.1.2/24");
    let answer = add("dummy", "dummyPOD");
    assert_eq!(answer.address(), "192.168.1.1/24", "W1");
    assert_eq!(answer.ok()["ips"][0]["gateway"], "192.168.10.1", "W1");
    assert_eq!(held(&plugin)["192.168.1.1"], "dummy");
}

#[test]
fn w14_two_families_in_their_order() {
    let (_folder, plugin) = fresh();
    let w14 = json!({ "ipRanges": [{ "range": "192.168.10.1/24" }, { "range": "abcd::1/64" }] });
    let config = config(&plugin, w14);
    assert_eq!(plugin.add("dummy", "eth0", &config).addresses(), ["192.168.10.1/24", "abcd::1/64"], "W14");
    let mut turned = config.clone();
    turned["ipam"]["ipRanges"] = json!([{ "range": "abcd::1/64" }, { "range": "192.168.10.1/24" }]);
    assert_eq!(plugin.add("other", "eth0", &turned).addresses(), ["abcd::2/64", "192.168.10.2/24"]);
}

#[test]
fn w19_w21_overlapping_ranges() {
    let (_folder, plugin) = fresh();
    let wide = config(&plugin, json!({ "range": "192.168.22.0/24" }));
    let narrow = config(&plugin, json!({ "range": "192.168.22.0/28" }));
    assert_eq!(plugin.add("a", "eth0", &wide).address(), "192.168.22.1/24", "W19");
    assert_eq!(plugin.add("b", "eth0", &narrow).address(), "192.168.22.2/28", "W19");
    plugin.del("b", "eth0", &narrow).ok();
    plugin.del("a", "eth0", &wide).ok();
    assert_eq!(held(&plugin).len(), 0);
    let private = |range: &str| config(&plugin, json!({ "range": range, "enable_overlapping_ranges": false }));
    assert_eq!(plugin.add("a", "eth0", &private("192.168.33.0/24")).address(), "192.168.33.1/24", "W21");
    assert_eq!(plugin.add("b", "eth0", &private("192.168.33.0/28")).address(), "192.168.33.1/28", "W21");
}

// === 5.9 e2e, as far as one host is concerned ===

fn pods(plugin: &Plugin, config: &Value, names: std::ops::Range<usize>, generation: usize) -> Vec<Answer> {
    at_once(names.map(|number| {
        let container = format!("web-{number}-{generation}");
        let uid = format!("uid-{number}-{generation}");
        plugin.attachment("ADD", &container, "net1").pod("default", &format!("web-{number}"), &uid).stdin(config)
    }))
}

fn gone(plugin: &Plugin, config: &Value, names: std::ops::Range<usize>, generation: usize) {
    let calls =
        names.map(|number| plugin.attachment("DEL", &format!("web-{number}-{generation}"), "net1").stdin(config));
    for answer in at_once(calls) {
        answer.ok();
    }
}

#[test]
fn e1_e2_e3_one_pod() {
    let (_folder, plugin) = fresh();
    let one = config(&plugin, json!({ "range": "10.10.0.0/16" }));
    for ifname in ["net1", "net2", "net3"] {
        plugin.attachment("ADD", "c1", ifname).pod("default", "web", "u1").stdin(&one).run().ok();
    }
    assert_eq!(addresses(&plugin), ["10.10.0.1", "10.10.0.2", "10.10.0.3"], "E1 E2");
    for ifname in ["net1", "net2", "net3"] {
        plugin.attachment("DEL", "c1", ifname).pod("default", "web", "u1").stdin(&one).run().ok();
    }
    assert_eq!(held(&plugin).len(), 0, "E1 E2");
    let dual = config(&plugin, json!({ "ipRanges": [{ "range": "11.11.0.0/16" }, { "range": "abcd::0/64" }] }));
    assert_eq!(plugin.add("c2", "net1", &dual).addresses(), ["11.11.0.1/16", "abcd::1/64"], "E3");
}

#[test]
fn e5_e6_e7_replicas_come_and_go() {
    let (_folder, plugin) = fresh();
    let config = config(&plugin, json!({ "range": "10.10.0.0/16" }));
    for answer in pods(&plugin, &config, 0..20, 0) {
        answer.ok();
    }
    assert_eq!(held(&plugin).len(), 20, "E6");
    for (generation, n) in [5, 10, 20].into_iter().enumerate() {
        let (old, new) = (if generation == 0 { 0 } else { generation }, generation + 1);
        // The last n go and come back under new ids, as a StatefulSet is scaled down and up.
        for number in 20 - n..20 {
            for generation in 0..=old {
                gone(&plugin, &config, number..number + 1, generation);
            }
        }
        assert_eq!(held(&plugin).len(), 20 - n, "E7");
        for answer in pods(&plugin, &config, 20 - n..20, new) {
            answer.ok();
        }
        assert_eq!(held(&plugin).len(), 20, "E7: {n} came back");
    }
    gone(&plugin, &config, 0..20, 3);
    assert_eq!(held(&plugin).len(), 0, "E5 E6: nothing is left");
}

#[test]
fn e8_e9_a_full_range() {
    let (_folder, plugin) = fresh();
    let config = config(&plugin, json!({ "range": "10.10.0.0/30" }));
    pods(&plugin, &config, 0..2, 0).iter().for_each(|answer| assert_eq!(answer.exit, Some(0)));
    let third = pods(&plugin, &config, 2..3, 0);
    assert_eq!(third[0].error().0, 100, "E8");
    // E9: the pod is deleted by force and comes back with another UID. As long as the old sandbox may run, its address
    // is not given away; its DEL comes, and the new pod has it.
    assert_eq!(pods(&plugin, &config, 0..1, 1)[0].error().0, 100, "E9 differs: before the DEL");
    gone(&plugin, &config, 0..1, 0);
    let back = pods(&plugin, &config, 0..1, 1);
    assert!(back[0].address().starts_with("10.10.0."), "E9");
    assert!(held(&plugin).values().any(|container| container == "web-0-1"), "E9");
    // Where the runtime gives no UID, the name is all there is, and the new pod takes over at once.
    let (_folder, plugin) = fresh();
    let config = self::config(&plugin, json!({ "range": "10.10.0.0/30" }));
    let by_name = |container: &str, pod: &str| {
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}");
        plugin.attachment("ADD", container, "net1").env("CNI_ARGS", arguments).stdin(&config).run()
    };
    by_name("old-0", "web-0").ok();
    by_name("old-1", "web-1").ok();
    assert_eq!(by_name("new-0", "web-0").address(), "10.10.0.1/30", "E9");
    assert_eq!(held(&plugin)["10.10.0.1"], "new-0", "E9");
}

#[test]
fn e11_e12_two_networks() {
    let (_folder, plugin) = fresh();
    let of = |range: &str, overlapping: bool| {
        config(&plugin, json!({ "range": range, "enable_overlapping_ranges": overlapping }))
    };
    assert_eq!(plugin.add("p1", "net1", &of("10.10.0.0/16", true)).address(), "10.10.0.1/16");
    assert_eq!(plugin.add("p2", "net1", &of("10.10.0.0/17", true)).address(), "10.10.0.2/17", "E11");
    assert_eq!(plugin.add("p3", "net1", &of("10.10.0.0/18", false)).address(), "10.10.0.1/18", "E12");
}

// === 8. The fork ===

#[test]
fn f_rows_layer_3() {
    let l3 = |range: &str| json!({ "range": range, "enable_l3": true });
    check("F1", l3("192.168.0.0/24"), 0, Ok("192.168.0.0/24"));
    check("F3", json!({ "range": "192.168.0.0/30" }), 0, Ok("192.168.0.1/30"));
    check("F4", l3("192.168.0.0/30"), 3, Ok("192.168.0.3/30"));
    check("F4", l3("192.168.0.0/30"), 4, Err("4 of 4"));
    let f6 = json!({ "range": "10.0.0.0/24", "range_start": "10.0.0.10", "range_end": "10.0.0.20", "enable_l3": true });
    check("F6", f6, 0, Ok("10.0.0.10/24"));
    let f7 = json!({ "range": "10.0.0.0/30", "exclude": ["10.0.0.0/31"], "enable_l3": true });
    check("F7", f7, 0, Ok("10.0.0.2/30"));
    check("F8", l3("10.0.0.5/32"), 0, Ok("10.0.0.5/32"));
    check("F8", l3("10.0.0.5/32"), 1, Err("1 of 1"));
    check(
        "F11",
        json!({ "range": "192.168.1.0/24", "exclude": ["192.168.1.1/123"] }),
        0,
        Err("could not parse exclude range"),
    );
}

/// What the fork calls a preferred address, by the means of CNI: `args.cni.ips`. Here it is a demand, not a preference.
#[test]
fn f10_a_requested_address() {
    let (_folder, plugin) = fresh();
    let ask = |container: &str, ip: &str, ipam: Value| {
        let mut config = config(&plugin, ipam);
        config["args"] = json!({ "cni": { "ips": [ip] } });
        plugin.add(container, "eth0", &config)
    };
    let plain = json!({ "range": "192.168.1.0/24" });
    assert_eq!(ask("free", "192.168.1.100", plain.clone()).address(), "192.168.1.100/24", "F10");
    assert_eq!(ask("taken", "192.168.1.100", plain.clone()).error().0, 101, "F10 differs");
    let excluding = json!({ "range": "192.168.1.0/24", "exclude": ["192.168.1.50/32"] });
    assert_eq!(ask("excluded", "192.168.1.50", excluding).error().0, 7, "F10 differs");
    assert_eq!(ask("outside", "192.168.9.50", plain.clone()).error().0, 7, "F10 differs");
    let from = json!({ "range": "192.168.1.0/24", "range_start": "192.168.1.50" });
    assert_eq!(ask("below", "192.168.1.49", from.clone()).error().0, 7, "F10 differs");
    assert_eq!(ask("at-start", "192.168.1.50", from).address(), "192.168.1.50/24", "F10");
    let to = json!({ "range": "192.168.1.0/24", "range_end": "192.168.1.50" });
    assert_eq!(ask("above", "192.168.1.51", to.clone()).error().0, 7, "F10 differs");
    assert_eq!(ask("below-end", "192.168.1.49", to).address(), "192.168.1.49/24", "F10");
    // F12: the address that the container has already.
    assert_eq!(ask("free", "192.168.1.100", plain).address(), "192.168.1.100/24", "F12");
}

#[test]
fn f14_pick_addresses_is_refused() {
    let ipam = json!({ "range": "192.168.1.0/24", "pick_addresses": ["192.168.1.50", "192.168.1.10"] });
    check("F14 F16 F17 differ", ipam, 0, Err("pick_addresses = "));
}

#[test]
fn f19_f20_f21_f23_leases() {
    let (_folder, plugin) = fresh();
    let of = |range: &str| config(&plugin, json!({ "range": range }));
    let wide = of("192.168.1.0/24");
    for _ in 0..2 {
        let add = plugin.attachment("ADD", "aaa", "net1").pod("default", "p", "u").stdin(&wide).run();
        assert_eq!(add.address(), "192.168.1.1/24", "F19");
    }
    assert_eq!(held(&plugin).len(), 1, "F19");
    plugin.add("bbb", "eth0", &wide).ok();
    plugin.add("aaa", "eth0", &wide).ok();
    plugin.del("bbb", "eth0", &wide).ok();
    assert_eq!(addresses(&plugin), ["192.168.1.1", "192.168.1.3"], "F20");
    plugin.del("unknown", "eth0", &wide).ok();
    assert_eq!(held(&plugin).len(), 2, "F20");
    plugin.del("aaa", "net1", &wide).ok();
    assert_eq!(addresses(&plugin), ["192.168.1.3"], "F20: only that interface");
    plugin.del("aaa", "eth0", &wide).ok();
    assert_eq!(held(&plugin).len(), 0, "F20");

    // F21: the second range is exhausted; what was reused stays.
    let both = config(&plugin, json!({ "ipRanges": [{ "range": "10.1.0.0/24" }, { "range": "10.2.0.0/30" }] }));
    plugin.add("one", "eth0", &both).ok();
    plugin.add("two", "eth0", &both).ok();
    plugin.add("three", "eth0", &of("10.1.0.0/24")).ok();
    let before = held(&plugin);
    assert_eq!(plugin.add("three", "eth0", &both).error().0, 100, "F21");
    assert_eq!(plugin.add("four", "eth0", &both).error().0, 100, "F21");
    assert_eq!(held(&plugin), before, "F21");
}

// === 1 and 2: what a configuration means ===

#[test]
fn s1_keys_match_without_case_and_unknown_ones_do_not_matter() {
    let (_folder, plugin) = fresh();
    let odd = json!({
        "RANGE": "10.0.0.0/24", "Range_Start": "10.0.0.9", "GateWay": "10.0.0.1", "no_such_key": { "a": 1 },
        "etcd_host": "localhost:2379", "etcd_username": "u", "etcd_password": "secret-word", "k8s_api_root": "/x",
        "sleep_for_race": 0, "Name": "x", "PodName": "y", "PodNamespace": "z",
    });
    let answer = plugin.add("c1", "eth0", &config(&plugin, odd));
    assert_eq!(answer.address(), "10.0.0.9/24", "1.1, trap 6");
    assert_eq!(answer.ok()["ips"][0]["gateway"], "10.0.0.1");
    assert!(!answer.stderr.contains("secret-word"), "secrets go to no log: {}", answer.stderr);
    // The exact spelling is not preferred over a later one: the last of several counts, as in Go.
    let text =
        config(&plugin, json!({})).to_string().replacen('}', r#","range":"10.1.0.0/24","RANGE":"10.2.0.0/24"}"#, 1);
    let answer = plugin.attachment("ADD", "c2", "eth0").stdin_bytes(text).run();
    assert_eq!(answer.address(), "10.2.0.1/24");
}

#[test]
fn s1_the_flat_file_fills_what_the_network_leaves_empty() {
    let (folder, plugin) = fresh();
    let flat = folder.path().join("flat.conf");
    let file = json!({
        "range": "10.9.0.0/24", "gateway": "10.9.0.1", "exclude": ["10.9.0.2"], "network_name": "flat",
        "routes": [{ "dst": "0.0.0.0/0" }], "dns": { "nameservers": ["10.9.0.53"] },
    });
    fs::write(&flat, file.to_string()).unwrap();
    let add = |container: &str, ipam: Value| {
        let call = plugin.attachment("ADD", container, "eth0").env("WHEREABOUTS_CONFIGURATION", &flat);
        call.stdin(&config(&plugin, ipam)).run()
    };
    let zero = json!({ "range": "", "gateway": "", "exclude": [], "network_name": "", "routes": [], "dns": {} });
    for (container, ipam) in [("c1", json!({})), ("c2", zero)] {
        let answer = add(container, ipam);
        let last = if container == "c1" { "3" } else { "4" };
        assert_eq!(answer.address(), format!("10.9.0.{last}/24"), "1.1 step 5");
        assert_eq!(answer.ok()["ips"][0]["gateway"], "10.9.0.1");
        assert_eq!(answer.ok()["routes"], json!([{ "dst": "0.0.0.0/0" }]));
        assert_eq!(answer.ok()["dns"]["nameservers"][0], "10.9.0.53");
    }
    // A network with ipRanges alone inherits the range, which goes first.
    let inherits = add("c3", json!({ "ipRanges": [{ "range": "10.8.0.0/24" }] }));
    assert_eq!(inherits.addresses(), ["10.9.0.5/24", "10.8.0.1/24"], "1.1 step 7, trap 4");
    // The network wins.
    let own = add(
        "c4",
        json!({ "range": "10.7.0.0/24", "gateway": "10.7.0.1", "exclude": ["10.7.0.3"], "network_name": "own" }),
    );
    assert_eq!(own.address(), "10.7.0.2/24");
    // What is wrong with the file is told.
    fs::write(&flat, "{ broken").unwrap();
    let message = add("c5", json!({ "range": "10.6.0.0/24" })).error().1.to_owned();
    assert!(message.contains("LoadIPAMConfig Flatfile") && message.contains("JSON Parsing Error"), "{message}");
    fs::remove_file(&flat).unwrap();
    fs::create_dir(&flat).unwrap();
    assert!(add("c5", json!({ "range": "10.6.0.0/24" })).error().1.contains("folder"));
}

#[test]
fn s1_ends_of_ranges_are_read_loosely_at_the_top_only() {
    let (_folder, plugin) = fresh();
    let top = json!({ "range": "10.0.0.0/24", "range_start": "010.0.0.09", "range_end": "garbage" });
    let answer = plugin.add("c1", "eth0", &config(&plugin, top));
    assert_eq!(answer.address(), "10.0.0.9/24", "1.2");
    assert!(answer.stderr.contains("garbage"), "what has no effect is told: {}", answer.stderr);
    let entry = json!({ "ipRanges": [{ "range": "10.0.0.0/24", "range_start": "010.0.0.9" }] });
    assert_eq!(plugin.add("c2", "eth0", &config(&plugin, entry)).error().0, 7, "1.2");
    let empty = json!({ "ipRanges": [{ "range": "10.0.0.0/24", "range_start": "", "range_end": "" }] });
    assert_eq!(plugin.add("c2", "eth0", &config(&plugin, empty)).address(), "10.0.0.1/24");
    let both = json!({ "range": "10.1.0.5-10.1.0.9/24", "range_start": "10.1.0.100", "range_end": "10.1.0.110" });
    assert_eq!(plugin.add("c3", "eth0", &config(&plugin, both)).address(), "10.1.0.5/24", "1.3");
}

#[test]
fn s2_excludes() {
    let of = |range: &str, exclude: &[&str]| json!({ "range": range, "exclude": exclude });
    check("2.2 host bits", of("192.168.2.224/27", &["192.168.2.229/30"]), 3, Ok("192.168.2.232/27"));
    let odd = ["192.168.0.8/29", "fd00::/64", "10.0.0.0/8", "192.168.0.1", "192.168.0.1/32", "192.168.0.0/31"];
    check("2.2 order, other family, outside, overlap", of("192.168.0.0/28", &odd), 0, Ok("192.168.0.2/28"));
    check("2.2 all", of("192.168.0.0/24", &["192.168.0.0/16"]), 0, Err("excluded"));
    let entries = json!({ "range": "10.0.0.0/24", "exclude": ["10.0.0.1", "10.1.0.1"], "ipRanges": [{ "range": "10.1.0.0/24" }] });
    let (_folder, plugin) = fresh();
    let answer = plugin.add("c1", "eth0", &config(&plugin, entries));
    assert_eq!(
        answer.addresses(),
        ["10.0.0.2/24", "10.1.0.1/24"],
        "1.2: excludes of the top are not those of ipRanges"
    );
}

#[test]
fn s2_bounds_that_make_no_sense_are_ignored_and_told() {
    for (id, start, end, expected) in [
        ("start below", "9.0.0.1", "10.0.0.9", "10.0.0.1/24"),
        ("start above", "10.0.1.1", "10.0.0.9", "10.0.0.1/24"),
        ("start is the broadcast address", "10.0.0.255", "10.0.0.9", "10.0.0.1/24"),
        ("inverted", "10.0.0.100", "10.0.0.50", "10.0.0.100/24"),
        ("other family", "fd00::1", "10.0.0.9", "10.0.0.1/24"),
    ] {
        let (_folder, plugin) = fresh();
        let ipam = json!({ "range": "10.0.0.0/24", "range_start": start, "range_end": end });
        let answer = plugin.add("c1", "eth0", &config(&plugin, ipam));
        assert_eq!(answer.address(), expected, "2.1 {id}");
        assert!(answer.stderr.contains("WARN"), "2.1 {id}: {}", answer.stderr);
    }
}

#[test]
fn s2_freed_addresses_are_given_again_lowest_first() {
    let (_folder, plugin) = fresh();
    let config = config(&plugin, json!({ "range": "10.0.0.0/24" }));
    for number in 1..=5 {
        plugin.add(&format!("c{number}"), "eth0", &config).ok();
    }
    plugin.del("c4", "eth0", &config).ok();
    plugin.del("c2", "eth0", &config).ok();
    let next: Vec<String> = ["d1", "d2", "d3"].map(|name| plugin.add(name, "eth0", &config).address()).into();
    assert_eq!(next, ["10.0.0.2/24", "10.0.0.4/24", "10.0.0.6/24"], "2.3");
}

/// A gateway goes with the addresses of its own family; the Go plugin gives it to all.
#[test]
fn s2_gateways() {
    let (_folder, plugin) = fresh();
    let ipam = json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "fd00::/64" }], "gateway": "fd00::1" });
    let answer = plugin.add("c1", "eth0", &config(&plugin, ipam));
    assert_eq!(answer.addresses(), ["10.0.0.1/24", "fd00::2/64"], "2.8 differs");
    let gateways: Vec<&Value> = answer.ok()["ips"].as_array().unwrap().iter().map(|ip| &ip["gateway"]).collect();
    assert_eq!(gateways, [&Value::Null, &json!("fd00::1")], "2.8 differs");
}

#[test]
fn s2_nothing_is_cut_into_slices() {
    let (_folder, plugin) = fresh();
    let ipam = json!({ "range": "10.0.0.0/8", "node_slice_size": "/20", "range_start": "10.200.0.7" });
    let answer = plugin.add("c1", "eth0", &config(&plugin, ipam));
    assert_eq!(answer.address(), "10.200.0.7/8", "2.9 differs: bounds count");
    assert!(answer.stderr.contains("node_slice_size"), "{}", answer.stderr);
}
