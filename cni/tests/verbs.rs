//! The protocol at its edge: what each verb answers in each version, what it refuses, and that a refused call leaves no
//! trace on the disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::leases::{addresses, held};
use support::{Answer, Call, Plugin};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn plugin() -> (tempfile::TempDir, Plugin) {
    let folder = tempfile::tempdir().unwrap();
    // A folder that is not there yet: whoever writes must make it.
    let plugin = Plugin::new(folder.path().join("ledger"));
    (folder, plugin)
}

fn version(mut config: Value, version: &str) -> Value {
    config["cniVersion"] = version.into();
    config
}

/// A refused call has written nothing, not even the folder.
#[track_caller]
fn nothing_written(plugin: &Plugin, answer: &Answer) {
    assert!(!plugin.data_dir().exists(), "a refused call has written something: {answer:?}");
}

/// The call fails with this code and these words on standard output, and nothing was written.
#[track_caller]
fn refused(plugin: &Plugin, call: Call, code: u64, words: &[&str]) {
    let answer = call.run();
    let (got, message) = answer.error();
    assert_eq!(got, code, "{answer:#?}");
    for word in words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    assert_eq!(answer.exit, Some(1), "{answer:?}");
    nothing_written(plugin, &answer);
}

// === ADD ===

/// The exact bytes of the answer to one configuration in every version.
#[test]
fn the_result_has_the_shape_of_its_version() {
    for v in VERSIONS {
        let (_folder, plugin) = plugin();
        let config = plugin.config(json!({
            "ipRanges": [{ "range": "10.1.0.0/24" }, { "range": "fd01::/64" }],
            "gateway": "10.1.0.254",
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "2001:db8::/32", "gw": "fd01::fe" }],
            "dns": { "nameservers": ["10.1.0.53"], "domain": "example.org", "search": ["example.org"], "options": ["ndots:2"] },
        }));
        let answer = plugin.add("c1", "eth0", &version(config, v));
        let dns = r#""dns":{"nameservers":["10.1.0.53"],"domain":"example.org","search":["example.org"],"options":["ndots:2"]}"#;
        let (four, six) =
            if ["1.0.0", "1.1.0"].contains(&v) { ("", "") } else { (r#""version":"4","#, r#""version":"6","#) };
        let expected = if v < "0.3.0" {
            format!(
                r#"{{"cniVersion":"{v}","ip4":{{"ip":"10.1.0.1/24","gateway":"10.1.0.254","routes":[{{"dst":"0.0.0.0/0"}}]}},"ip6":{{"ip":"fd01::1/64","routes":[{{"dst":"2001:db8::/32","gw":"fd01::fe"}}]}},{dns}}}"#
            )
        } else {
            format!(
                r#"{{"cniVersion":"{v}","ips":[{{{four}"address":"10.1.0.1/24","gateway":"10.1.0.254"}},{{{six}"address":"fd01::1/64"}}],"routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"2001:db8::/32","gw":"fd01::fe"}}],{dns}}}"#
            )
        };
        assert_eq!(answer.stdout.trim_end(), expected, "{v}");
        assert_eq!(answer.exit, Some(0));
    }
}

#[test]
fn a_configuration_without_a_version_is_of_the_first_one() {
    let (_folder, plugin) = plugin();
    for absent in [json!(null), json!("")] {
        let mut config = plugin.range("10.0.0.0/24");
        config["cniVersion"] = absent;
        let answer = plugin.add("c1", "eth0", &config);
        assert_eq!(answer.stdout.trim_end(), r#"{"cniVersion":"0.1.0","ip4":{"ip":"10.0.0.1/24"}}"#);
    }
    let mut config = plugin.range("10.0.0.0/24");
    config.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(plugin.add("c1", "eth0", &config).ok()["cniVersion"], "0.1.0");
}

/// Routes of 1.1.0 have more keys; they are passed on as they came.
#[test]
fn routes_keep_what_they_say() {
    let (_folder, plugin) = plugin();
    let routes = json!([{ "dst": "192.168.0.0/16", "gw": "10.0.0.254", "mtu": 1400, "advmss": 1360, "priority": 5, "table": 7, "scope": 0 }]);
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "routes": routes.clone() }));
    assert_eq!(plugin.add("c1", "eth0", &config).ok()["routes"], routes);
}

#[test]
fn an_unknown_version_is_refused_and_nothing_written() {
    let (_folder, plugin) = plugin();
    for v in ["0.5.0", "1.2.0", "2.0.0", "v1.0.0", "latest"] {
        let config = version(plugin.range("10.0.0.0/24"), v);
        for verb in ["ADD", "CHECK"] {
            let call = plugin.attachment(verb, "c1", "eth0").stdin(&config);
            refused(&plugin, call, 1, &["incompatible CNI versions", v, "1.1.0"]);
        }
        for verb in ["GC", "STATUS"] {
            refused(&plugin, plugin.verb(verb).stdin(&config), 1, &["incompatible CNI versions", v]);
        }
        // Nothing may keep DEL from succeeding.
        plugin.del("c1", "eth0", &config).ok();
    }
}

#[test]
fn verbs_that_came_later_are_refused_to_older_versions() {
    let (_folder, plugin) = plugin();
    for v in VERSIONS {
        let mut config = version(plugin.range("10.0.0.0/24"), v);
        config["cni.dev/valid-attachments"] = json!([]);
        config["prevResult"] = json!({ "cniVersion": v });
        if v < "0.4.0" {
            let call = plugin.attachment("CHECK", "c1", "eth0").stdin(&config);
            refused(&plugin, call, 1, &["does not allow CHECK", v, "0.4.0"]);
        }
        if v < "1.1.0" {
            refused(&plugin, plugin.verb("GC").stdin(&config), 1, &["does not allow GC", v, "1.1.0"]);
            refused(&plugin, plugin.verb("STATUS").stdin(&config), 1, &["does not allow STATUS", v, "1.1.0"]);
        }
    }
}

/// The error object has the version of the question.
#[test]
fn an_error_speaks_the_version_of_its_question() {
    let (_folder, plugin) = plugin();
    for v in VERSIONS {
        let answer = plugin.add("c1", "eth0", &version(plugin.range("nonsense"), v));
        assert_eq!(answer.error().0, 7);
        assert_eq!(answer.json.as_ref().unwrap()["cniVersion"], v);
        assert!(answer.stderr.contains("nonsense"), "the log has the error too: {}", answer.stderr);
    }
}

#[test]
fn two_addresses_of_a_family_do_not_fit_into_the_oldest_results() {
    let (_folder, plugin) = plugin();
    for v in ["", "0.1.0", "0.2.0"] {
        for ipam in [
            json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "10.0.1.0/24" }] }),
            json!({ "range": "10.0.0.0/24", "addresses": [{ "address": "192.0.2.5/24" }] }),
            json!({ "range": "fd00::/64", "addresses": [{ "address": "fd01::5/64" }] }),
        ] {
            let config = version(plugin.config(ipam), v);
            let call = plugin.attachment("ADD", "c1", "eth0").stdin(&config);
            refused(&plugin, call, 1, &["does not support more than 1 address per family", "0.3.0"]);
        }
        let call = plugin.attachment("ADD", "c1", "eth0").env("CNI_ARGS", "IP=192.0.2.5/24");
        let call = call.stdin(&version(plugin.range("10.0.0.0/24"), v));
        refused(&plugin, call, 1, &["does not support more than 1 address per family"]);
    }
    let dual = plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "fd00::/64" }] }));
    assert_eq!(plugin.add("c1", "eth0", &version(dual, "0.2.0")).addresses(), ["10.0.0.1/24", "fd00::1/64"]);
}

// === The environment ===

#[test]
fn all_missing_variables_are_named_at_once() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    for verb in ["ADD", "CHECK"] {
        let bare = plugin.verb(verb).without("CNI_PATH").stdin(&config);
        refused(&plugin, bare, 4, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]);
        for missing in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
            let without = plugin.attachment(verb, "c1", "eth0").without(missing).stdin(&config);
            refused(&plugin, without, 4, &[missing]);
            let empty = plugin.attachment(verb, "c1", "eth0").env(missing, "").stdin(&config);
            refused(&plugin, empty, 4, &[missing]);
        }
    }
    let bare = plugin.verb("DEL").without("CNI_PATH").stdin(&config);
    refused(&plugin, bare, 4, &["CNI_CONTAINERID", "CNI_IFNAME"]);
    for verb in ["GC", "STATUS"] {
        refused(&plugin, plugin.verb(verb).without("CNI_PATH").stdin(&config), 4, &["CNI_PATH"]);
    }
}

#[test]
fn malformed_ids_and_names_are_refused() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let long = "x".repeat(16);
    for verb in ["ADD", "CHECK", "DEL"] {
        for id in ["-c1", "c/1", "../c1", "c 1", ".c1", "c1;rm", "ü"] {
            let call = plugin.attachment(verb, "c1", "eth0").env("CNI_CONTAINERID", id).stdin(&config);
            refused(&plugin, call, 4, &["CNI_CONTAINERID", id]);
        }
        for name in [long.as_str(), ".", "..", "eth/0", "eth:0", "eth 0", "eth\t0"] {
            let call = plugin.attachment(verb, "c1", "eth0").env("CNI_IFNAME", name).stdin(&config);
            refused(&plugin, call, 4, &["CNI_IFNAME"]);
        }
    }
    for verb in ["add", "PING", "ADD ", "UPDATE"] {
        let call = plugin.attachment("ADD", "c1", "eth0").env("CNI_COMMAND", verb).stdin(&config);
        refused(&plugin, call, 4, &["unknown CNI_COMMAND", verb]);
    }
}

#[test]
fn cni_args_must_be_pairs_of_known_keys() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let add = |arguments: &str| plugin.attachment("ADD", "c1", "eth0").env("CNI_ARGS", arguments).stdin(&config);
    for (arguments, words) in [
        ("FOO=bar", "FOO=bar"),
        ("FOO=bar;IgnoreUnknown=0", "FOO=bar"),
        ("IgnoreUnknown", "IgnoreUnknown"),
        ("IgnoreUnknown=1;A=b=c", "A=b=c"),
        ("IP=10.0.0.7", "10.0.0.7"),
        ("IP=10.0.0.300/24", "10.0.0.300"),
        ("GATEWAY=x", "x"),
    ] {
        let (code, words) = (if arguments.starts_with("IP") || arguments.starts_with("GA") { 7 } else { 4 }, [words]);
        refused(&plugin, add(arguments), code, &words);
    }
    assert_eq!(add("IgnoreUnknown=1;FOO=bar").run().address(), "10.0.0.1/24");
    assert_eq!(add("FOO=bar;IgnoreUnknown=true").run().address(), "10.0.0.1/24");
}

#[test]
fn the_plugins_own_namespace_is_refused_before_anything_is_written() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let own = "/proc/self/ns/net";
    let add = || plugin.attachment("ADD", "c1", "eth0").env("CNI_NETNS", own).stdin(&config);
    refused(&plugin, add(), 8, &["should not be the same", own, "CNI_NETNS_OVERRIDE"]);
    refused(&plugin, add().env("CNI_NETNS_OVERRIDE", "0"), 8, &["should not be the same"]);
    for yes in ["1", "true", "TRUE"] {
        assert_eq!(add().env("CNI_NETNS_OVERRIDE", yes).run().address(), "10.0.0.1/24");
    }
    // What a forced ADD made, a DEL without the override frees.
    plugin.attachment("DEL", "c1", "eth0").env("CNI_NETNS", own).stdin(&config).run().ok();
    assert_eq!(held(&plugin).len(), 0);
}

// === Configurations that cannot be used ===

#[test]
fn a_bad_configuration_is_named_and_nothing_written() {
    let (_folder, plugin) = plugin();
    let top = |key: &str, value: Value| {
        let mut config = plugin.range("10.0.0.0/24");
        config[key] = value;
        config
    };
    let ipam = |value: Value| plugin.config(value);
    let add = |config: &Value| plugin.attachment("ADD", "c1", "eth0").stdin(config);
    for (config, code, words) in [
        (top("name", json!("")), 7, vec!["missing network name"]),
        (top("name", json!("a/b")), 7, vec!["name", "a/b"]),
        (top("name", json!(7)), 7, vec!["name", "7"]),
        (top("ipam", json!(null)), 7, vec!["IPAM config missing 'ipam' key"]),
        (top("ipam", json!({ "type": "static" })), 7, vec!["only interested in networks", "static"]),
        (ipam(json!({})), 7, vec!["no range and no pool"]),
        (ipam(json!({ "range": "10.0.0.0" })), 7, vec!["range = 10.0.0.0", "invalid CIDR"]),
        (ipam(json!({ "range": "10.0.0.0/31" })), 7, vec!["net mask is too short", "enable_l3"]),
        (ipam(json!({ "range": "::ffff:10.0.0.0/120" })), 7, vec!["IPv4-mapped"]),
        (ipam(json!({ "range": "10.0.0.0/24", "exclude": ["10.0.0.1/123"] })), 7, vec!["exclude[0]", "10.0.0.1/123"]),
        (ipam(json!({ "range": "10.0.0.0/24", "gateway": "x" })), 7, vec!["couldn't parse gateway IP: x"]),
        (
            ipam(json!({ "range": "10.0.0.0/24", "datastore": "kubernetes" })),
            7,
            vec!["kubernetes.kubeconfig is not set"],
        ),
        (
            ipam(json!({ "range": "10.0.0.0/24", "datastore": "etcd", "etcd_host": "h:1" })),
            2,
            vec!["datastore", "etcd"],
        ),
        (ipam(json!({ "range": "10.0.0.0/24", "data_dir": "relative" })), 7, vec!["data_dir", "absolute"]),
        (ipam(json!({ "range": "10.0.0.0/24", "addresses": [{ "address": "10.0.0.7" }] })), 7, vec!["10.0.0.7"]),
        (ipam(json!({ "range": 5 })), 7, vec!["range", "5"]),
        (
            ipam(json!({ "range": "10.0.0.0/24", "network_name": "n".repeat(201) })),
            7,
            vec!["network_name = nnn", "at most 200 bytes"],
        ),
        (
            ipam(json!({ "ipRanges": [{ "range": "10.0.0.0/24", "range_start": "010.0.0.1" }] })),
            7,
            vec!["ipRanges[0].range_start"],
        ),
        (json!([]), 7, vec!["not an object"]),
        (json!("x"), 7, vec!["not an object"]),
    ] {
        refused(&plugin, add(&config), code, &words);
    }
    for text in ["", "{", "{\"name\":", "\u{0}", "{} {}", "nul"] {
        let call = plugin.attachment("ADD", "c1", "eth0").stdin_bytes(text);
        refused(&plugin, call, 6, &["JSON Parsing Error"]);
    }
    let large = vec![b' '; (1 << 20) + 1];
    refused(&plugin, plugin.attachment("ADD", "c1", "eth0").stdin_bytes(large), 7, &["larger than 1048576 bytes"]);
}

/// A pod of a cluster whose configuration names no datastore must not quietly become local to each host.
#[test]
fn a_pod_without_a_datastore_is_refused() {
    let (_folder, plugin) = plugin();
    let mut config = plugin.range("10.0.0.0/24");
    config["ipam"].as_object_mut().unwrap().remove("datastore");
    let call = plugin.attachment("ADD", "c1", "eth0").pod("default", "web", "u1").stdin(&config);
    refused(&plugin, call, 7, &["datastore is not set", "default/web", "local"]);
    config["ipam"]["kubernetes"] = json!({ "kubeconfig": "/no/such/kubeconfig" });
    let call = plugin.attachment("ADD", "c1", "eth0").stdin(&config);
    let answer = call.run();
    let (code, message) = answer.error();
    assert_eq!(code, 11, "{answer:?}");
    for word in ["kubernetes.kubeconfig", "/no/such/kubeconfig", "No such file"] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
}

#[test]
fn unknown_keys_are_logged_with_the_nearest_known_one() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "rangeStart": "10.0.0.9", "gatway": "10.0.0.1" }));
    let answer = plugin.add("c1", "eth0", &config);
    assert_eq!(answer.address(), "10.0.0.1/24");
    assert!(answer.stderr.contains("rangeStart") && answer.stderr.contains("range_start"), "{}", answer.stderr);
    assert!(answer.stderr.contains("gatway") && answer.stderr.contains("gateway"), "{}", answer.stderr);
}

#[test]
fn the_log_goes_to_its_file_and_stdout_stays_clean() {
    let (folder, plugin) = plugin();
    let log = folder.path().join("whereabouts.log");
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "log_file": log, "log_level": "debug" }));
    let answer = plugin.add("c1", "eth0", &config);
    assert_eq!(answer.address(), "10.0.0.1/24");
    assert_eq!(answer.stderr, "");
    plugin.del("c1", "eth0", &config).ok();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("allocated") && text.contains("released") && text.contains("10.0.0.1"), "{text}");
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "log_file": "/no/such/folder/log" }));
    let answer = plugin.add("c1", "eth0", &config);
    assert_eq!(answer.address(), "10.0.0.1/24");
    assert!(answer.stderr.contains("/no/such/folder/log"), "{}", answer.stderr);
    // A path that means something else from each folder names no file at all.
    let through = format!("{}/../evil.log", plugin.data_dir().display());
    for path in ["../evil.log", "evil.log", &through] {
        let config = plugin.config(json!({ "range": "10.0.0.0/24", "log_file": path }));
        for call in ["ADD", "DEL"].map(|verb| plugin.attachment(verb, "c1", "eth0").stdin(&config)) {
            let answer = call.run();
            answer.ok();
            assert!(answer.stderr.contains("log_file") && answer.stderr.contains(path), "{}", answer.stderr);
            assert!(answer.stderr.contains("write an absolute path"), "{}", answer.stderr);
        }
    }
    assert!(!folder.path().join("evil.log").exists() && !Path::new("../evil.log").exists());
    assert!(!Path::new("evil.log").exists());
}

// === VERSION ===

/// A runtime may leave its end of stdin open: VERSION answers all the same.
#[test]
fn version_reads_nothing_and_needs_nothing() {
    let (_folder, plugin) = plugin();
    let expected =
        r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
    assert_eq!(plugin.version().stdout.trim_end(), expected);
    assert_eq!(plugin.verb("VERSION").without("CNI_PATH").stdin_bytes("{ broken").run().stdout.trim_end(), expected);

    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_whereabouts"))
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let open_end = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(open_end);
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), expected);
    assert!(output.status.success());
}

// === CHECK ===

#[test]
fn check_needs_a_previous_result() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let check = |config: &Value| plugin.attachment("CHECK", "c1", "eth0").stdin(config);
    refused(&plugin, check(&config), 7, &["prevResult"]);
    for wrong in [json!("x"), json!([]), json!({ "ips": {} }), json!({ "ips": [{ "address": "10.0.0.1" }] })] {
        let mut config = config.clone();
        config["prevResult"] = wrong;
        refused(&plugin, check(&config), 6, &["prevResult"]);
    }
}

#[test]
fn check_passes_right_after_add_in_every_version_that_has_it() {
    for v in ["0.4.0", "1.0.0", "1.1.0"] {
        let (_folder, plugin) = plugin();
        let ipam = json!({
            "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "fd00::/64" }],
            "addresses": [{ "address": "192.0.2.7/24" }, { "address": "10.0.0.9/24" }],
        });
        let config = version(plugin.config(ipam), v);
        let added = plugin.add("c1", "eth0", &config).ok().clone();
        let answer = plugin.check("c1", "eth0", &config, &added);
        answer.ok();
        assert_eq!(answer.stdout, "", "CHECK answers nothing");
        // A parent adds what it knows: interfaces, and addresses of its own.
        let mut merged = added.clone();
        merged["interfaces"] = json!([{ "name": "eth0", "sandbox": "/run/netns/c1" }]);
        merged["ips"].as_array_mut().unwrap().push(json!({ "version": "4", "address": "172.16.0.1/16" }));
        plugin.check("c1", "eth0", &config, &merged).ok();
    }
}

#[test]
fn check_names_the_address_that_is_not_as_it_was() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let added = plugin.add("c1", "eth0", &config).ok().clone();
    let other = plugin.add("c2", "eth0", &config).ok().clone();
    let says = |answer: &Answer, words: &[&str]| {
        let (code, message) = answer.error();
        assert_eq!(code, 102, "{answer:?}");
        for word in words {
            assert!(message.contains(word), "{word} is not in: {message}");
        }
    };
    // Another's address, one that nobody holds, none at all, another interface.
    says(&plugin.check("c1", "eth0", &config, &other), &["10.0.0.2"]);
    let nobodys = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.0.0.77/24" }] });
    says(&plugin.check("c1", "eth0", &config, &nobodys), &["10.0.0.77"]);
    says(&plugin.check("c1", "eth0", &config, &json!({ "cniVersion": "1.1.0" })), &["10.0.0.1"]);
    says(&plugin.check("c1", "net1", &config, &added), &["10.0.0.1"]);
    plugin.del("c1", "eth0", &config).ok();
    says(&plugin.check("c1", "eth0", &config, &added), &["10.0.0.1"]);
    // It was given to another in the meantime.
    assert_eq!(plugin.add("c3", "eth0", &config).address(), "10.0.0.1/24");
    says(&plugin.check("c1", "eth0", &config, &added), &["10.0.0.1"]);
    assert_eq!(addresses(&plugin), ["10.0.0.1", "10.0.0.2"], "CHECK changes nothing");
}

#[test]
fn check_finds_a_wrong_prefix_length_and_an_empty_result() {
    let (_folder, plugin) = plugin();
    let ipam = json!({ "range": "10.0.0.0/24", "addresses": [{ "address": "10.0.0.9/28" }] });
    let config = plugin.config(ipam);
    let nothing = json!({ "cniVersion": "1.1.0", "ips": [] });
    let of = |addresses: &[&str]| {
        let ips: Vec<Value> = addresses.iter().map(|address| json!({ "address": address })).collect();
        json!({ "cniVersion": "1.1.0", "ips": ips })
    };
    // Of a container that was never added: neither success nor a ledger comes of it.
    for previous in [&nothing, &of(&["10.0.0.1/24"]), &of(&["172.16.0.1/16"])] {
        let answer = plugin.check("c1", "eth0", &config, previous);
        let (code, message) = answer.error();
        assert_eq!(code, 102, "{answer:?}");
        assert!(message.contains("c1") && message.contains("add it again"), "{message}");
        nothing_written(&plugin, &answer);
    }
    let added = plugin.add("c1", "eth0", &config).ok().clone();
    plugin.check("c1", "eth0", &config, &added).ok();
    for (previous, words) in [
        (of(&["10.0.0.1/16", "10.0.0.9/28"]), ["10.0.0.1/16", "10.0.0.1/24"]),
        (of(&["10.0.0.1/24", "10.0.0.9/30"]), ["10.0.0.9/30", "10.0.0.9/2"]),
        (of(&["10.0.0.1/24"]), ["10.0.0.9", "not in prevResult"]),
        (of(&["10.0.0.9/28"]), ["10.0.0.1", "not in prevResult"]),
        (of(&["172.16.0.1/16"]), ["10.0.0.", "not in prevResult"]),
    ] {
        let answer = plugin.check("c1", "eth0", &config, &previous);
        let (code, message) = answer.error();
        assert_eq!(code, 102, "{answer:?}");
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} are not in: {message}");
    }
    // Another container's ledger is there now; one that was never added is told all the same.
    let answer = plugin.check("c2", "eth0", &config, &nothing);
    assert_eq!(answer.error().0, 102, "{answer:?}");
    assert!(answer.error().1.contains("c2") && answer.error().1.contains("holds no address"), "{answer:?}");
}

// === STATUS ===

#[test]
fn status_is_ready_until_a_range_is_exhausted() {
    let (_folder, plugin) = plugin();
    let ipam = json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "10.1.0.0/30" }] });
    let config = plugin.config(ipam);
    let answer = plugin.status(&config);
    answer.ok();
    assert_eq!(answer.stdout, "", "STATUS answers nothing when ready");
    plugin.add("c1", "eth0", &config).ok();
    plugin.status(&config).ok();
    plugin.add("c2", "eth0", &config).ok();

    let (code, message) = {
        let answer = plugin.status(&config);
        let (c, m) = answer.error();
        (c, m.to_owned())
    };
    assert_eq!(code, 50);
    assert!(message.contains("10.1.0.0/30") && message.contains("2 of 2"), "{message}");
    let mut spared = config.clone();
    spared["ipam"]["exhausted_status"] = "ready".into();
    let answer = plugin.status(&spared);
    answer.ok();
    assert!(answer.stderr.contains("10.1.0.0/30"), "the log tells of it: {}", answer.stderr);

    plugin.del("c1", "eth0", &config).ok();
    plugin.status(&config).ok();
    assert_eq!(held(&plugin).len(), 2, "STATUS takes nothing");
}

#[test]
fn status_says_what_would_keep_an_add_from_working() {
    let (folder, plugin) = plugin();
    for (ipam, words) in [
        (json!({ "range": "10.0.0.0/31" }), "net mask is too short"),
        (json!({}), "no range and no pool"),
        (json!({ "range": "10.0.0.0/24", "datastore": "kubernetes" }), "kubernetes"),
    ] {
        let answer = plugin.status(&plugin.config(ipam));
        assert!(answer.error().1.contains(words), "{answer:?}");
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    let unusable = folder.path().join("file/below");
    let answer = plugin.status(&plugin.config(json!({ "range": "10.0.0.0/24", "data_dir": unusable })));
    let (code, message) = answer.error();
    assert_eq!(code, 50, "{answer:?}");
    assert!(message.contains(unusable.parent().unwrap().to_str().unwrap()), "{message}");
}

/// What `exhausted_status` spares is a full range, and nothing else.
#[test]
fn a_broken_ledger_is_not_ready_whatever_exhausted_status_says() {
    let (_folder, plugin) = plugin();
    let says = |word: &str| plugin.config(json!({ "range": "10.0.0.0/24", "exhausted_status": word }));
    let container = "a-name-that-is-found-again";
    plugin.add(container, "eth0", &says("error")).ok();
    let path = plugin.data_dir().join("ledger.redb");
    let whole = std::fs::read(&path).unwrap();
    let places = whole.windows(container.len()).enumerate().filter(|(_, bytes)| *bytes == container.as_bytes());
    let mut n_broken = 0;
    for (place, _) in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        let [error, ready] = ["error", "ready"].map(|word| {
            std::fs::write(&path, &bytes).unwrap();
            plugin.status(&says(word))
        });
        assert_eq!(error.stdout, ready.stdout, "byte {place}");
        n_broken += usize::from(ready.exit != Some(0));
    }
    assert!(n_broken > 0, "no place was ever read");
}

#[test]
fn status_refuses_what_an_add_refuses_for_another_way_of_sharing() {
    let (_folder, plugin) = plugin();
    let way = |overlapping: bool| {
        plugin.config(json!({
            "range": "10.0.0.0/24", "enable_overlapping_ranges": overlapping, "exhausted_status": "ready",
        }))
    };
    for (first, second) in [(true, false), (false, true)] {
        plugin.add("c1", "eth0", &way(first)).ok();
        let added = plugin.add("c2", "eth0", &way(second));
        let (code, refusal) = added.error();
        assert_eq!(code, 7, "{added:?}");
        assert!(refusal.contains(&format!("enable_overlapping_ranges = {second}: ")), "{refusal}");
        assert!(refusal.contains("10.0.0.1") && refusal.contains(&format!("set it to {first}")), "{refusal}");
        let answer = plugin.status(&way(second));
        assert_eq!(answer.error(), (50, refusal), "STATUS says what the ADD would say");
        plugin.status(&way(first)).ok();
        plugin.del("c1", "eth0", &way(first)).ok();
        plugin.status(&way(second)).ok();
    }
}

// === The folder of the ledger ===

#[test]
fn a_folder_that_cannot_be_used_is_named_with_a_cure() {
    let (folder, plugin) = plugin();
    std::fs::write(folder.path().join("file"), "").unwrap();
    for unusable in [folder.path().join("file"), folder.path().join("file/below"), Path::new("/proc/ledger").to_owned()]
    {
        let config = plugin.config(json!({ "range": "10.0.0.0/24", "data_dir": unusable, "deadline": 1 }));
        let answer = plugin.add("c1", "eth0", &config);
        let (code, message) = answer.error();
        assert_eq!(code, 5, "{answer:?}");
        assert!(message.contains(unusable.to_str().unwrap()), "{message}");
        plugin.del("c1", "eth0", &config).ok();
    }
}

#[test]
fn the_environment_goes_before_the_configuration_and_the_ledger_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, plugin) = plugin();
    let elsewhere = folder.path().join("deep/er/elsewhere");
    let config = plugin.range("10.0.0.0/24");
    let call = plugin.attachment("ADD", "c1", "eth0").env("WHEREABOUTS_DATA_DIR", &elsewhere).stdin(&config);
    assert_eq!(call.run().address(), "10.0.0.1/24");
    assert!(!plugin.data_dir().exists());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&elsewhere), 0o700);
    assert_eq!(mode(&elsewhere.join("ledger.redb")), 0o600);
}
