//! Calls as runtimes make them, right and wrong ones.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::cni::ErrorCode;

const CONF: &str = r#"{"cniVersion": "1.1.0", "name": "net", "type": "bridge",
    "ipam": {"type": "whereabouts", "range": "10.0.0.0/24"}}"#;

/// A call with everything that the verb needs, and an empty flat file, so that the one of this machine does not count;
/// `more` goes before.
fn call(command: &str, more: &[(&str, &str)], stdin: &str) -> Incoming {
    let folder = tempfile::tempdir().unwrap();
    let flat_file = folder.path().join("empty.conf");
    std::fs::write(&flat_file, "{}").unwrap();
    let usual = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/var/run/netns/none"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("WHEREABOUTS_CONFIGURATION", flat_file.to_str().unwrap()),
    ];
    // Of equal names the last one counts.
    let pairs = usual.iter().chain(more).copied();
    let pairs: Vec<_> =
        pairs.filter(|(name, value)| !value.is_empty() || !more.iter().any(|(n, _)| n == name)).collect();
    let removed: Vec<_> = more.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| *name).collect();
    let pairs = pairs.into_iter().filter(|(name, _)| !removed.contains(name));
    Incoming::read(&Environment::from_pairs(pairs), &mut stdin.as_bytes())
}

#[track_caller]
fn refused(incoming: Incoming, code: ErrorCode, words: &[&str]) {
    let error = incoming.request.expect_err("must be refused");
    assert_eq!(error.code(), code, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word} is not in: {error}");
    }
}

fn with_version(version: &str) -> String {
    CONF.replace("1.1.0", version)
}

#[test]
fn add_hands_over_everything() {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u";
    let conf = CONF.replace(r#""range""#, r#""datastore": "local", "range""#);
    let incoming = call("ADD", &[("CNI_ARGS", args), ("WHEREABOUTS_DATA_DIR", "/data")], &conf);
    assert_eq!(incoming.version, SpecVersion::V1_1_0);
    assert_eq!(incoming.lossy.host.data_dir, Path::new("/data"));
    let Ok(Request::Add(add)) = incoming.request else { panic!("{:?}", incoming.request) };
    assert_eq!(add.attachment.container_id, "c1");
    assert_eq!((add.attachment.interface.as_str(), add.attachment.network.as_str()), ("eth0", "net"));
    assert_eq!(add.pod.unwrap().to_string(), "ns/p");
    assert_eq!(add.netns.as_deref(), Some(Path::new("/var/run/netns/none")));
    assert_eq!(add.configuration.host.data_dir, Path::new("/data"));
    assert_eq!(add.warnings, []);
}

#[test]
fn version_reads_no_input_and_needs_nothing() {
    struct Never;
    impl Read for Never {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("VERSION must not read standard input");
        }
    }
    let incoming = Incoming::read(&Environment::from_pairs([("CNI_COMMAND", "VERSION")]), &mut Never);
    assert!(matches!(incoming.request, Ok(Request::Version)));
}

#[test]
fn a_wrong_environment_is_told_before_the_input_is_read() {
    refused(call("FROB", &[], "{"), ErrorCode::InvalidEnvironment, &["unknown CNI_COMMAND: FROB"]);
    let without = [("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_PATH", "")];
    let words = ["required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_PATH] missing"];
    refused(call("ADD", &without, "{"), ErrorCode::InvalidEnvironment, &words);
    refused(call("DEL", &[("CNI_IFNAME", "a/b")], CONF), ErrorCode::InvalidEnvironment, &["CNI_IFNAME = a/b"]);
    refused(call("ADD", &[("CNI_ARGS", "A=b")], CONF), ErrorCode::InvalidEnvironment, &["unknown args [A=b]"]);
}

#[test]
fn a_wrong_head_is_told_with_its_code() {
    for command in ["ADD", "CHECK", "GC", "STATUS"] {
        refused(call(command, &[], "{"), ErrorCode::Decoding, &["JSON Parsing Error"]);
        let nameless = CONF.replace(r#""name": "net","#, "");
        refused(call(command, &[], &nameless), ErrorCode::InvalidConfiguration, &["missing network name"]);
        let strange = CONF.replace(r#""net""#, r#""a b""#);
        refused(call(command, &[], &strange), ErrorCode::InvalidConfiguration, &["name = a b", "network name"]);
        let newer = call(command, &[], &with_version("1.2.0"));
        assert_eq!(newer.version, SpecVersion::NEWEST);
        refused(newer, ErrorCode::IncompatibleVersion, &["cniVersion = 1.2.0", "1.1.0"]);
    }
    let large = format!("{CONF}{}", " ".repeat(INPUT_LIMIT));
    refused(call("ADD", &[], &large), ErrorCode::InvalidConfiguration, &["larger than"]);
}

#[test]
fn verbs_that_a_version_lacks_are_refused_first() {
    for (command, version) in [("CHECK", "0.3.1"), ("CHECK", ""), ("GC", "1.0.0"), ("STATUS", "0.4.0")] {
        let words = [format!("does not allow {command}")];
        let incoming = call(command, &[], &with_version(version));
        assert_eq!(incoming.version.as_str(), if version.is_empty() { "0.1.0" } else { version });
        refused(incoming, ErrorCode::IncompatibleVersion, &[&words[0]]);
    }
}

#[test]
fn two_addresses_of_a_family_are_refused_before_anything_is_written() {
    let two = with_version("0.2.0").replace(r#""range""#, r#""ipRanges": [{"range": "10.1.0.0/24"}], "range""#);
    refused(call("ADD", &[], &two), ErrorCode::IncompatibleVersion, &["more than 1 address per family", "2 IPv4"]);
    let both = with_version("0.2.0").replace(r#""range""#, r#""ipRanges": [{"range": "fd00::/64"}], "range""#);
    assert!(call("ADD", &[], &both).request.is_ok());
    // A static one counts.
    let more = [("CNI_ARGS", "IP=10.9.0.1/24")];
    refused(call("ADD", &more, &with_version("")), ErrorCode::IncompatibleVersion, &["version 0.1.0", "2 IPv4"]);
    assert!(call("ADD", &more, &with_version("0.3.0")).request.is_ok());
}

#[test]
fn the_own_network_namespace_is_refused_for_add_and_only_there() {
    let own = ("CNI_NETNS", "/proc/self/ns/net");
    refused(call("ADD", &[own], CONF), ErrorCode::InvalidNamespace, &["should not be the same"]);
    for value in ["1", "true", "TRUE"] {
        assert!(call("ADD", &[own, ("CNI_NETNS_OVERRIDE", value)], CONF).request.is_ok());
    }
    assert!(call("DEL", &[own], CONF).request.is_ok());
}

#[test]
fn what_this_build_cannot_do_is_refused_for_add_check_and_status() {
    let etcd = CONF.replace(r#""range""#, r#""etcd_host": "h:1", "range""#);
    let with_result = etcd.replace(r#""type": "bridge""#, r#""prevResult": {}"#);
    for (command, conf) in [("ADD", &etcd), ("CHECK", &with_result), ("STATUS", &etcd)] {
        refused(call(command, &[], conf), ErrorCode::UnsupportedField, &["datastore = etcd", "not available yet"]);
    }
    assert!(call("DEL", &[], &etcd).request.is_ok());
    let pod = [("CNI_ARGS", "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p")];
    refused(call("ADD", &pod, CONF), ErrorCode::InvalidConfiguration, &["datastore is not set", "ns/p", "kubeconfig"]);
}

#[test]
fn del_needs_only_an_attachment() {
    let without = [("CNI_NETNS", ""), ("CNI_PATH", ""), ("CNI_ARGS", "junk;;")];
    for (conf, network) in [
        (CONF, Some("net")),
        (r#"{"cniVersion": "0.4.0", "name": "net", "type": "macvlan", "ipam": {"type": "whereabouts"}}"#, Some("net")),
        (r#"{"cniVersion": "0.4.0", "type": "macvlan", "ipam": {"type": "whereabouts"}}"#, None),
        (r#"{"cniVersion": "9.9.9", "name": 5, "ipam": {"range": []}}"#, None),
        ("{ broken", None),
        ("", None),
        ("[]", None),
    ] {
        let incoming = call("DEL", &without, conf);
        let expected = DeleteRequest {
            container_id: "c1".to_owned(),
            interface: "eth0".to_owned(),
            network: network.map(str::to_owned),
        };
        assert!(
            matches!(&incoming.request, Ok(Request::Delete(delete)) if *delete == expected),
            "{conf}: {incoming:?}"
        );
    }
    let large = format!("{CONF}{}", " ".repeat(INPUT_LIMIT));
    assert!(call("DEL", &without, &large).request.is_ok());
}

#[test]
fn a_broken_flat_file_stops_add_and_not_del() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whereabouts.conf");
    std::fs::write(&path, "{").unwrap();
    let flat = [("WHEREABOUTS_CONFIGURATION", path.to_str().unwrap())];
    refused(call("ADD", &flat, CONF), ErrorCode::Decoding, &["Flatfile", "whereabouts.conf"]);
    assert!(call("DEL", &flat, CONF).request.is_ok());
    assert!(call("GC", &flat, CONF).request.is_ok());
    std::fs::write(&path, r#"{"data_dir": "/flat"}"#).unwrap();
    assert_eq!(call("DEL", &flat, "{").lossy.host.data_dir, Path::new("/flat"));
}

/// A file that the network names may be broken beside it: the ledger is looked for in the same place, and is not known.
#[test]
fn a_flat_file_that_is_named_and_missing_stops_all_but_del() {
    let missing = [("WHEREABOUTS_CONFIGURATION", "/no/flat/file")];
    let broken = CONF.replace(r#""range""#, r#""configuration_path": "relative", "range""#);
    let words = ["WHEREABOUTS_CONFIGURATION = /no/flat/file", "unset the variable"];
    for command in ["ADD", "CHECK", "GC", "STATUS"] {
        refused(call(command, &missing, CONF), ErrorCode::InvalidEnvironment, &words);
    }
    refused(call("GC", &missing, &broken), ErrorCode::InvalidEnvironment, &words);
    for conf in [CONF, &broken, "{"] {
        let incoming = call("DEL", &missing, conf);
        assert!(incoming.request.is_ok(), "{conf}");
        let warning = incoming.lossy.warnings[0].to_string();
        assert!(warning.contains("the network's configuration and the defaults"), "{warning}");
    }
    assert!(call("VERSION", &missing, "").request.is_ok());
}

#[test]
fn check_needs_a_previous_result() {
    refused(call("CHECK", &[], CONF), ErrorCode::InvalidConfiguration, &["missing prevResult"]);
    let conf = |result: &str| CONF.replace(r#""type": "bridge""#, &format!(r#""prevResult": {result}"#));
    refused(call("CHECK", &[], &conf("5")), ErrorCode::Decoding, &["prevResult = 5"]);
    let incoming = call("CHECK", &[], &conf(r#"{"ips": [{"address": "10.0.0.7/24", "gateway": "10.0.0.1"}]}"#));
    let Ok(Request::Check(check)) = incoming.request else { panic!("{:?}", incoming.request) };
    assert_eq!(check.previous.addresses[0].address.to_string(), "10.0.0.7/24");
    assert_eq!(check.add.attachment.container_id, "c1");
    // ADD and DEL do not look at it.
    assert!(call("ADD", &[], &conf("5")).request.is_ok());
}

#[test]
fn gc_tells_no_list_from_an_empty_one() {
    let conf = |keys: &str| CONF.replace(r#""type": "bridge""#, &format!(r#""type": "bridge"{keys}"#));
    let environment = [("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", "")];
    let valid = |keys: &str| match call("GC", &environment, &conf(keys)).request {
        Ok(Request::Collect(collect)) => collect.valid.map(|valid| {
            let line = |one: &ValidAttachment| format!("{}/{}", one.container_id, one.interface);
            valid.iter().map(line).collect::<Vec<_>>().join(" ")
        }),
        other => panic!("{other:?}"),
    };
    assert_eq!(valid(""), None);
    assert_eq!(valid(r#", "cni.dev/valid-attachments": null"#), None);
    assert_eq!(valid(r#", "cni.dev/valid-attachments": []"#).as_deref(), Some(""));
    assert_eq!(valid(r#", "cni.dev/attachments": []"#).as_deref(), Some(""));
    let both = r#", "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
        "cni.dev/attachments": [{"containerid": "b", "ifName": "eth1"}, {"containerID": "a", "ifname": "eth0"}]"#;
    assert_eq!(valid(both).as_deref(), Some("a/eth0 b/eth1"));
    for keys in [
        r#", "cni.dev/valid-attachments": {}"#,
        r#", "cni.dev/valid-attachments": [1]"#,
        r#", "cni.dev/valid-attachments": [{"containerID": "a"}]"#,
        r#", "cni.dev/valid-attachments": [{"containerID": "", "ifname": "eth0"}]"#,
        r#", "cni.dev/valid-attachments": [], "cni.dev/attachments": "x""#,
    ] {
        refused(call("GC", &environment, &conf(keys)), ErrorCode::Decoding, &["cni.dev/", "nothing was freed"]);
    }
    // What is wrong with ranges is no concern of GC.
    assert!(call("GC", &environment, &CONF.replace("10.0.0.0/24", "junk")).request.is_ok());
}

#[test]
fn status_needs_no_container() {
    let environment = [("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", "")];
    assert!(matches!(call("STATUS", &environment, CONF).request, Ok(Request::Status(_))));
    let wrong = CONF.replace("10.0.0.0/24", "junk");
    refused(call("STATUS", &environment, &wrong), ErrorCode::InvalidConfiguration, &["range = junk"]);
}

proptest! {
    #[test]
    fn no_call_panics(
        command in prop::sample::select(vec!["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "x"]),
        args in any::<String>(),
        stdin in prop::collection::vec(any::<u8>(), 0..64),
        value in r#"(\[|\{|"ips"|"address"|"ip4"|:|,|"10\.0\.0\.1/8"|1|null|\]|\}){0,10}"#,
    ) {
        let _ = call(command, &[("CNI_ARGS", &args)], &String::from_utf8_lossy(&stdin));
        for key in ["prevResult", "cni.dev/valid-attachments", "args", "runtimeConfig", "name", "cniVersion"] {
            let conf = CONF.replace(r#""type": "bridge""#, &format!(r#""{key}": {value}"#));
            let _ = call(command, &[("CNI_ARGS", &args)], &conf);
        }
    }

    #[test]
    fn a_del_with_an_attachment_is_always_carried_out(stdin in any::<String>(), args in any::<String>()) {
        prop_assert!(call("DEL", &[("CNI_ARGS", &args)], &stdin).request.is_ok());
    }
}
