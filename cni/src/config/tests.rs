//! What configurations mean, by the rows of the Go plugin's own tests (K) and by its sections of behaviour; and what
//! the wrong ones are told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::log::LogLevel;

/// A host with at most one flat file.
struct Host {
    folder: TempDir,
    surroundings: Surroundings,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flat_files = FlatFileSearch::only(folder.path().join("whereabouts.conf"));
        Self { folder, surroundings: Surroundings { flat_files, data_dir: None, node: None } }
    }

    fn with_flat_file(text: &str) -> Self {
        let host = Self::new();
        std::fs::write(host.path("whereabouts.conf"), text).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text is the inside of the `ipam` section, after its type.
    fn load(&self, ipam: &str) -> Result<Loaded, ConfigurationError> {
        self.load_top(&format!(r#"{{"name": "net", "ipam": {{"type": "whereabouts", {ipam}}}}}"#))
    }

    fn load_top(&self, text: &str) -> Result<Loaded, ConfigurationError> {
        self.load_with_arguments(text, None, None)
    }

    fn load_with_arguments(
        &self,
        text: &str,
        ip: Option<&str>,
        gateway: Option<&str>,
    ) -> Result<Loaded, ConfigurationError> {
        let arguments = StaticArguments { ip: ip.map(str::to_owned), gateway: gateway.map(str::to_owned) };
        Configuration::load(&NetworkConfiguration::parse(text.as_bytes())?, &arguments, &self.surroundings)
    }
}

/// The configuration of a text that has nothing odd about it.
#[track_caller]
fn load(ipam: &str) -> Configuration {
    let Loaded { configuration, warnings } = Host::new().load(ipam).unwrap();
    assert_eq!(warnings, []);
    configuration
}

/// One line for each range: network, start, end, assignable addresses.
fn ranges(configuration: &Configuration) -> Vec<String> {
    let line = |range: &RangeConfiguration| {
        let end = range.range_end().map_or("-".to_owned(), |end| end.to_string());
        let (first, last) = (range.view().first(), range.view().last());
        let text = |address: Option<whereabouts_engine::Address>| address.map_or("-".to_owned(), |a| a.to_string());
        format!("{} {} {end} {}..{}", range.network(), range.range_start(), text(first), text(last))
    };
    configuration.ranges.iter().map(line).collect()
}

#[track_caller]
fn check_ranges(ipam: &str, expected: &[&str]) {
    assert_eq!(ranges(&Host::new().load(ipam).unwrap().configuration), expected, "{ipam}");
}

/// Every error names key, value and cure.
#[track_caller]
fn refused(result: Result<Loaded, ConfigurationError>, words: &[&str]) {
    let error = result.unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{word} is not in: {error}");
    }
}

#[track_caller]
fn warned(result: Result<Loaded, ConfigurationError>, words: &[&str]) -> Configuration {
    let Loaded { configuration, warnings } = result.unwrap();
    let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| words.iter().all(|word| text.contains(word))), "{words:?} not in {texts:#?}");
    configuration
}

const RANGE: &str = r#""range": "10.0.0.0/24""#;

// === The flat file ===

/// What a configuration comes to, all of it, or why it is refused. The flat file's own name is none of it; what has no
/// effect but a warning is seen by that.
fn meaning(flat: &str, network: &str) -> String {
    let host = Host::with_flat_file(&format!("{{{flat}}}"));
    let Loaded { mut configuration, warnings } = match host.load(network) {
        Ok(loaded) => loaded,
        Err(error) => return format!("refused: {error}"),
    };
    configuration.flat_file = None;
    let has_no_effect = |warning: &&Warning| warning.to_string().contains("has no effect:");
    let warnings: Vec<String> = warnings.iter().filter(has_no_effect).map(ToString::to_string).collect();
    // A secret does not show itself.
    let secret = match (&configuration.datastore, &configuration.provider) {
        (Datastore::Etcd(etcd), _) => etcd.password.as_ref(),
        (_, Some(provider)) => provider.credentials.password.as_ref(),
        _ => None,
    };
    let meaning = format!("{configuration:?} {warnings:?} {:?}", secret.map(Secret::reveal));
    meaning.replace(&format!("{}: ", host.path("whereabouts.conf").display()), "")
}

/// A key is merged by hand, and could be forgotten there.
#[test]
fn every_key_of_the_flat_file_counts_and_that_of_the_network_goes_before_it() {
    const OLD: &str = r#""ipamtype": "netbox", "ipamurl": "a", "ipamuser": "u", "ipampwd": "p", "appid": "a""#;
    let etcd = format!(r#"{RANGE}, "etcd_host": "e:2379""#);
    let gateway = format!(r#"{RANGE}, "gateway": "10.0.0.1""#);
    let stores = format!(r#"{etcd}, "kubernetes": {{"kubeconfig": "/k"}}"#);
    let (with_cert, with_key) =
        (format!(r#"{etcd}, "etcd_cert_file": "/c""#), format!(r#"{etcd}, "etcd_key_file": "/k""#));
    let (with_user, with_password) =
        (format!(r#"{etcd}, "etcd_username": "u""#), format!(r#"{etcd}, "etcd_password": "p""#));
    let provider = |host: &str| format!(r#"{{"type": "netbox", "url": "https://{host}", "token_file": "/t"}}"#);
    let (provider_a, provider_b) = (provider("a"), provider("b"));
    // The key, what the network says beside it, the value of the flat file, the network's.
    let rows: &[(&str, &str, &str, &str)] = &[
        ("range", r#""network_name": """#, r#""10.1.0.0/24""#, r#""10.2.0.0/24""#),
        ("range_start", RANGE, r#""10.0.0.10""#, r#""10.0.0.20""#),
        ("range_end", RANGE, r#""10.0.0.110""#, r#""10.0.0.120""#),
        ("exclude", RANGE, r#"["10.0.0.3"]"#, r#"["10.0.0.4/30"]"#),
        ("ipRanges", RANGE, r#"[{"range": "10.1.0.0/24"}]"#, r#"[{"range": "10.2.0.0/24"}]"#),
        ("gateway", RANGE, r#""10.0.0.1""#, r#""10.0.0.2""#),
        ("exclude_gateway", &gateway, "false", "true"),
        ("routes", RANGE, r#"[{"dst": "0.0.0.0/0"}]"#, r#"[{"dst": "10.0.0.0/8"}]"#),
        ("dns", RANGE, r#"{"domain": "a"}"#, r#"{"domain": "b"}"#),
        ("addresses", RANGE, r#"[{"address": "10.1.0.1/24"}]"#, r#"[{"address": "10.2.0.1/24"}]"#),
        ("network_name", RANGE, r#""a""#, r#""b""#),
        ("enable_overlapping_ranges", RANGE, "false", "true"),
        ("enable_l3", RANGE, "true", "false"),
        ("pool", RANGE, r#""a""#, r#""b""#),
        ("provider", RANGE, &provider_a, &provider_b),
        ("datastore", &stores, r#""etcd""#, r#""local""#),
        ("kubernetes", RANGE, r#"{"kubeconfig": "/a"}"#, r#"{"kubeconfig": "/b"}"#),
        ("etcd_host", RANGE, r#""a:2379""#, r#""b:2379""#),
        ("etcd_username", &with_password, r#""a""#, r#""b""#),
        ("etcd_password", &with_user, r#""a""#, r#""b""#),
        ("etcd_key_file", &with_cert, r#""/a""#, r#""/b""#),
        ("etcd_cert_file", &with_key, r#""/a""#, r#""/b""#),
        ("etcd_ca_cert_file", &etcd, r#""/a""#, r#""/b""#),
        ("data_dir", RANGE, r#""/a""#, r#""/b""#),
        ("log_file", RANGE, r#""/a""#, r#""/b""#),
        ("log_level", RANGE, r#""debug""#, r#""error""#),
        ("deadline", RANGE, "5", "6"),
        ("gc_grace", RANGE, "5", "0"),
        ("exhausted_status", RANGE, r#""ready""#, r#""error""#),
        ("sleep_for_race", RANGE, "1", "2"),
        ("node_slice_size", RANGE, r#""/24""#, r#""/25""#),
        ("leader_lease_duration", RANGE, "1", "2"),
        ("leader_renew_deadline", RANGE, "1", "2"),
        ("leader_retry_period", RANGE, "1", "2"),
        ("reconciler_cron_expression", RANGE, r#""* * * * *""#, r#""1 * * * *""#),
        // Of the old spelling of a provider the flat file has all the rest; the password may stand nowhere else.
        ("ipamtype", "", r#""nsxt""#, ""),
        ("ipamurl", "", r#""b""#, ""),
        ("ipamuser", "", r#""b""#, ""),
        ("ipampwd", "", r#""b""#, ""),
        ("appid", "", r#""b""#, ""),
        // The warning is one word for all values.
        ("optimistic_ipam", RANGE, "true", ""),
        // Refused wherever it stands.
        ("pick_addresses", RANGE, r#"["10.0.0.1"]"#, ""),
    ];
    for &(key, beside, flat, network) in rows {
        let member = |value: &str| format!(r#""{key}": {value}"#);
        if beside.is_empty() {
            let of_flat = meaning(&format!("{OLD}, {}", member(flat)), RANGE);
            assert!(
                !of_flat.starts_with("refused") && of_flat != meaning(OLD, RANGE),
                "{key} has no effect: {of_flat}"
            );
            // A provider of the network is taken as a whole.
            let own = format!(r#"{RANGE}, "provider": {provider_a}"#);
            assert_eq!(meaning(&format!("{OLD}, {}", member(flat)), &own), meaning("", &own), "{key}");
            continue;
        }
        let of_flat = meaning(&member(flat), beside);
        assert_ne!(of_flat, meaning("", beside), "{key} of the flat file has no effect");
        let in_network = meaning("", &format!("{beside}, {}", member(flat)));
        let is_same = if key == "pick_addresses" { in_network.starts_with("refused") } else { of_flat == in_network };
        assert!(is_same, "{key} means something else in the flat file:\n{of_flat}\n{in_network}");
        if !network.is_empty() {
            let own = format!("{beside}, {}", member(network));
            assert_eq!(meaning(&member(flat), &own), meaning("", &own), "{key} of the network does not go first");
            assert_ne!(meaning("", &own), of_flat, "{key}: the row shows nothing");
        }
    }
    // What says whose configuration it is, and which flat file, has been read by then.
    let of_network = [r#""type": "static""#, r#""configuration_path": "/elsewhere""#];
    for member in of_network {
        assert_eq!(meaning(member, RANGE), meaning("", RANGE), "{member}");
    }
    let mut tested: Vec<&str> = rows.iter().map(|row| row.0).chain(["type", "configuration_path"]).collect();
    let mut known: Vec<&str> = IPAM_KEYS.iter().map(|key| key.name).collect();
    tested.sort_unstable();
    known.sort_unstable();
    assert_eq!(tested, known, "every key has a row");
}

// === The rows of the Go plugin's tests ===

#[test]
fn k1_a_range_of_two_ends_and_defaults() {
    let host = Host::with_flat_file("{}");
    let ipam = r#""log_file": "/tmp/whereabouts.log", "log_level": "debug",
        "kubernetes": {"kubeconfig": "/etc/cni/net.d/whereabouts.d/whereabouts.kubeconfig"},
        "range": "192.168.1.5-192.168.1.25/24", "gateway": "192.168.10.1""#;
    let configuration = host.load(ipam).unwrap().configuration;
    assert_eq!(ranges(&configuration), ["192.168.1.0/24 192.168.1.5 192.168.1.25 192.168.1.5..192.168.1.25"]);
    assert_eq!(configuration.gateway.unwrap().to_string(), "192.168.10.1");
    assert_eq!(configuration.host.log.level, LogLevel::Debug);
    assert_eq!(configuration.host.log.file.as_deref(), Some(Path::new("/tmp/whereabouts.log")));
    let LeaderTimings { lease_duration, renew_deadline, retry_period } = configuration.leader;
    assert_eq!([lease_duration, renew_deadline, retry_period].map(|time| time.as_millis()), [1500, 1000, 500]);
    assert!(matches!(configuration.datastore, Datastore::Kubernetes { .. }));
}

#[test]
fn k3_the_network_wins_and_the_flat_file_fills() {
    let host = Host::new();
    let flat = host.path("flat.conf");
    let text = r#"{"datastore": "kubernetes", "kubernetes": {"kubeconfig": "/a/kubeconfig"},
        "log_file": "/tmp/flat.log", "log_level": "debug", "gateway": "192.168.5.5"}"#;
    std::fs::write(&flat, text).unwrap();
    let ipam = format!(
        r#""configuration_path": "{}", "range": "192.168.2.230/24", "range_start": "192.168.2.223",
        "gateway": "192.168.10.1", "leader_lease_duration": 3000, "leader_renew_deadline": 2000,
        "leader_retry_period": 1000"#,
        flat.display()
    );
    let configuration = host.load(&ipam).unwrap().configuration;
    assert_eq!(ranges(&configuration), ["192.168.2.0/24 192.168.2.223 - 192.168.2.223..192.168.2.254"]);
    assert_eq!(configuration.gateway.unwrap().to_string(), "192.168.10.1");
    assert_eq!(configuration.datastore, Datastore::Kubernetes { kubeconfig: "/a/kubeconfig".to_owned() });
    assert_eq!(configuration.leader.lease_duration, Duration::from_secs(3));
    assert_eq!(configuration.host.log.level, LogLevel::Debug);
    assert_eq!(configuration.host.log.file.as_deref(), Some(Path::new("/tmp/flat.log")));
    assert_eq!(configuration.flat_file, Some(flat));
}

#[test]
fn k4_k5_the_network_decides_about_overlapping_ranges() {
    for (flat, network, expected) in [
        (Some(false), Some(true), true),
        (Some(true), Some(false), false),
        (None, None, true),
        (None, Some(false), false),
        (Some(true), None, true),
        // Not so in the Go plugin, which is why there is a warning.
        (Some(false), None, false),
    ] {
        let key = |value: Option<bool>| value.map(|value| format!(r#""enable_overlapping_ranges": {value}"#));
        let host = Host::with_flat_file(&format!("{{{}}}", key(flat).unwrap_or_default()));
        let ipam = [Some(RANGE.to_owned()), key(network)].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let loaded = host.load(&ipam).unwrap();
        assert_eq!(loaded.configuration.enable_overlapping_ranges, expected, "{flat:?} {network:?}");
        assert_eq!(loaded.warnings.len(), usize::from((flat, network) == (Some(false), None)));
    }
}

#[test]
fn k7_another_plugin_is_named() {
    refused(Host::new().load_top(r#"{"ipam": {"type": "static"}}"#), &["static", "set ipam.type to whereabouts"]);
    refused(Host::new().load_top(r#"{"ipam": {}}"#), &["This one was: :"]);
}

#[test]
fn k8_a_missing_section_is_named() {
    refused(Host::new().load_top(r#"{"name": "net"}"#), &["IPAM config missing 'ipam' key", "add \"ipam\""]);
}

#[test]
fn k10_leading_zeros_mean_nothing() {
    check_ranges(r#""range": "00192.00168.1.0/24""#, &["192.168.1.0/24 192.168.1.0 - 192.168.1.1..192.168.1.254"]);
}

#[test]
fn k13_the_reconcilers_time_is_preserved() {
    let configuration = load(&format!(r#"{RANGE}, "reconciler_cron_expression": "30 4 * * *""#));
    assert_eq!(configuration.reconciler_cron_expression.as_deref(), Some("30 4 * * *"));
}

#[test]
fn k15_malformed_json_is_told() {
    let result = Host::new().load_top(r#"{"name": "net", "ipam": {asdf}}"#);
    refused(result, &["LoadIPAMConfig - JSON Parsing Error: ", "line 1 column"]);
    refused(Host::new().load_top("[1]"), &["the network configuration", "not an object"]);
    refused(Host::new().load_top(""), &["JSON Parsing Error"]);
}

// === Ranges ===

#[test]
fn ranges_are_normalised() {
    check_ranges(
        r#""range": "192.168.21.100/30""#,
        &["192.168.21.100/30 192.168.21.100 - 192.168.21.101..192.168.21.102"],
    );
    check_ranges(r#""range": "fd00::1-fd00::6/64""#, &["fd00::/64 fd00::1 fd00::6 fd00::1..fd00::6"]);
    check_ranges(
        r#""range": "10.0.0.0/24", "range_start": "010.0.0.50", "range_end": "10.0.0.100""#,
        &["10.0.0.0/24 10.0.0.50 10.0.0.100 10.0.0.50..10.0.0.100"],
    );
}

#[test]
fn mapped_addresses_mean_ipv4() {
    check_ranges(
        r#""range": "10.0.0.0/24", "range_start": "::ffff:10.0.0.2", "range_end": "::ffff:10.0.0.100",
        "exclude": ["::ffff:10.0.0.2", "::ffff:10.0.0.0/124"]"#,
        &["10.0.0.0/24 10.0.0.2 10.0.0.100 10.0.0.16..10.0.0.100"],
    );
}

#[test]
fn the_top_level_range_goes_first_and_keeps_its_excludes_to_itself() {
    check_ranges(
        r#""ipRanges": [{"range": "192.168.10.1/24", "exclude": ["192.168.10.0/28"]}, {"range": "abcd::1/64"}],
        "range": "10.0.0.0/24", "exclude": ["192.168.10.0/25", "10.0.0.1"]"#,
        &[
            "10.0.0.0/24 10.0.0.0 - 10.0.0.2..10.0.0.254",
            "192.168.10.0/24 192.168.10.0 - 192.168.10.16..192.168.10.254",
            "abcd::/64 abcd:: - abcd::1..abcd::ffff:ffff:ffff:fffe",
        ],
    );
    // A range of the flat file is inherited.
    let host = Host::with_flat_file(r#"{"range": "10.0.0.0/24", "ipRanges": [{"range": "10.9.0.0/24"}]}"#);
    let loaded = host.load(r#""ipRanges": [{"range": "10.1.0.0/24"}]"#).unwrap();
    let keys: Vec<_> = loaded.configuration.ranges.iter().map(|range| (range.key(), range.typed())).collect();
    assert_eq!(keys, [("range", "10.0.0.0/24"), ("ipRanges[0].range", "10.1.0.0/24")]);
}

#[test]
fn bad_ranges_are_told() {
    let host = Host::new();
    for (ipam, words) in [
        (r#""range": "10.0.0.0""#, ["range = 10.0.0.0", "invalid CIDR 10.0.0.0", "192.0.2.0/24"]),
        (r#""range": "10.0.0.x-10.0.0.9/24""#, ["range = ", "invalid range start IP: 10.0.0.x", "192.0.2.10-"]),
        (r#""range": "10.0.0.1-10.0.0.9""#, ["range = ", "invalid CIDR '10.0.0.9'", "192.0.2.10-"]),
        (r#""range": "10.0.0.1 - 10.0.0.9/24""#, ["range = ", "invalid range start IP: 10.0.0.1 ", "192.0.2.10-"]),
        (
            r#""range": "10.0.1.1-10.0.0.9/24""#,
            ["range = ", "invalid range start for CIDR 10.0.0.0/24: 10.0.1.1", "begin"],
        ),
        (r#""range": "fd00::1-10.0.0.9/24""#, ["range = ", "invalid range start for CIDR", "begin"]),
        (r#""range": "10.0.0.0/31""#, ["range = 10.0.0.0/31", "net mask is too short", "enable_l3"]),
        (r#""range": "fd00::/128""#, ["range = fd00::/128", "net mask is too short", "/126"]),
        (r#""range": "::ffff:10.0.0.0/120""#, ["range = ::ffff", "IPv4-mapped", "write it as the IPv4"]),
        (r#""ipRanges": [{}]"#, ["ipRanges[0].range = ", "invalid CIDR", "192.0.2.0/24"]),
        (r#""ipRanges": [{"range": "x"}]"#, ["ipRanges[0].range = x", "invalid CIDR", "192.0.2.0/24"]),
        (
            r#""ipRanges": [{"range": "10.0.0.0/24", "range_start": "010.0.0.1"}]"#,
            ["ipRanges[0].range_start = 010.0.0.1", "not an IP address", "without leading zeros"],
        ),
        (
            r#""ipRanges": [{"range": "10.0.0.0/24", "range_end": "junk"}]"#,
            ["ipRanges[0].range_end = junk", "not an IP address", "remove it"],
        ),
        (
            r#""range": "10.0.0.0/24", "exclude": ["10.0.0.1", "192.168.0.1/123"]"#,
            ["exclude[1] = 192.168.0.1/123", "could not parse exclude range", "192.0.2.0/28"],
        ),
        (
            r#""ipRanges": [{"range": "100::2:1/125", "exclude": ["100::2::1"]}]"#,
            ["ipRanges[0].exclude[0] = 100::2::1", "could not parse exclude range", "192.0.2.1"],
        ),
        (r#""network_name": "x""#, ["no range and no pool", "ipam.range", "ipRanges"]),
        (r#""ipRanges": []"#, ["no range and no pool", "ipam.range", "ipRanges"]),
        (r#""ipRanges": {}"#, ["ipRanges = {}", "this is an object", "a list"]),
        (r#""ipRanges": ["10.0.0.0/24"]"#, ["ipRanges[0] = ", "this is a string", "an object"]),
        (r#""range": 5"#, ["range = 5", "this is a number", "a string"]),
        (r#""range": "10.0.0.0/24", "exclude": [1]"#, ["exclude[0] = 1", "this is a number", "a string"]),
        (
            r#""range": "10.0.0.0/24", "pick_addresses": ["10.0.0.9"]"#,
            ["pick_addresses", "not supported", "args.cni.ips"],
        ),
    ] {
        refused(host.load(ipam), &words);
    }
}

#[test]
fn what_the_go_plugin_ignores_silently_is_ignored_aloud() {
    let host = Host::new();
    for (ipam, words, expected) in [
        (r#""range_start": "junk""#, ["range_start = junk", "no effect"], "10.0.0.1..10.0.0.254"),
        (r#""range_start": "10.0.1.7""#, ["range_start = 10.0.1.7", "10.0.0.1"], "10.0.0.1..10.0.0.254"),
        (r#""range_end": "10.0.0.255""#, ["range_end = 10.0.0.255", "10.0.0.254"], "10.0.0.1..10.0.0.254"),
        (
            r#""range_start": "10.0.0.100", "range_end": "10.0.0.50""#,
            ["range_end = 10.0.0.50", "10.0.0.100"],
            "10.0.0.100..10.0.0.254",
        ),
        (r#""exclude": ["10.1.0.0/24"]"#, ["exclude = 10.1.0.0/24", "10.0.0.0/24"], "10.0.0.1..10.0.0.254"),
        (r#""exclude": ["10.0.0.0/8"]"#, ["range = 10.0.0.0/24", "no address is left"], "-..-"),
    ] {
        let configuration = warned(host.load(&format!("{RANGE}, {ipam}")), &words);
        assert!(ranges(&configuration)[0].ends_with(expected), "{ipam}: {:?}", ranges(&configuration));
    }
    let text = r#""range": "10.0.0.5-10.0.0.9/24", "range_start": "10.0.0.7""#;
    let configuration = warned(host.load(text), &["range_start = 10.0.0.7", "says it already"]);
    assert!(ranges(&configuration)[0].ends_with("10.0.0.5..10.0.0.9"));
    let text = r#""ipRanges": [{"range": "10.0.0.0/24"}], "exclude": ["10.0.0.1"]"#;
    warned(host.load(text), &["exclude = 10.0.0.1", "does not apply to ipRanges"]);
}

#[test]
fn enable_l3_makes_every_address_usable() {
    check_ranges(
        r#""enable_l3": true, "range": "10.0.0.0/31",
        "ipRanges": [{"range": "fd00::5/128"}, {"range": "10.1.0.0/24", "enable_l3": false}]"#,
        &[
            "10.0.0.0/31 10.0.0.0 - 10.0.0.0..10.0.0.1",
            "fd00::5/128 fd00::5 - fd00::5..fd00::5",
            "10.1.0.0/24 10.1.0.0 - 10.1.0.1..10.1.0.254",
        ],
    );
    check_ranges(
        r#""range": "10.0.0.0/30", "ipRanges": [{"range": "10.1.0.0/30", "enable_l3": true}]"#,
        &["10.0.0.0/30 10.0.0.0 - 10.0.0.1..10.0.0.2", "10.1.0.0/30 10.1.0.0 - 10.1.0.0..10.1.0.3"],
    );
}

#[test]
fn the_runtimes_ranges_replace_all_others() {
    let host = Host::new();
    let top = |ranges: &str| {
        format!(
            r#"{{"name": "net", "ipam": {{"type": "whereabouts", "range": "10.0.0.0/24", "exclude": ["10.5.0.1"],
            "gateway": "10.0.0.1", "ipRanges": [{{"range": "10.1.0.0/24"}}]}}, "runtimeConfig": {{"ipRanges": {ranges}}}}}"#
        )
    };
    let text = r#"[[{"subnet": "10.5.0.0/16", "rangeStart": "10.5.0.1", "rangeEnd": "10.5.0.9", "gateway": "10.5.0.5"}],
        [{"SUBNET": "fd00::/64"}]]"#;
    let configuration = host.load_top(&top(text)).unwrap().configuration;
    assert_eq!(
        ranges(&configuration),
        ["10.5.0.0/16 10.5.0.1 10.5.0.9 10.5.0.1..10.5.0.9", "fd00::/64 fd00:: - fd00::1..fd00::ffff:ffff:ffff:fffe"]
    );
    let gateways: Vec<_> = configuration.ranges.iter().map(|range| range.gateway().map(|g| g.to_string())).collect();
    assert_eq!(gateways, [Some("10.5.0.5".to_owned()), None]);
    assert!(!configuration.ranges[0].view().contains("10.5.0.5".parse().unwrap()));

    assert_eq!(host.load_top(&top("[]")).unwrap().configuration.ranges.len(), 2);
    for (text, word) in [
        ("[[]]", "exactly one range"),
        (r#"[[{"subnet": "10.5.0.0/16"}, {"subnet": "10.6.0.0/16"}]]"#, "exactly one range"),
        (r#"[{"subnet": "10.5.0.0/16"}]"#, "not a list"),
        ("[[1]]", "not a list of objects"),
        ("5", "runtimeConfig.ipRanges = 5"),
        (r#"[[{"subnet": "x"}]]"#, "runtimeConfig.ipRanges[0][0].subnet = x"),
        (r#"[[{"subnet": "10.5.0.0/16", "rangeStart": "x"}]]"#, "runtimeConfig.ipRanges[0][0].rangeStart = x"),
        (r#"[[{"subnet": "10.5.0.0/16", "gateway": "x"}]]"#, "runtimeConfig.ipRanges[0][0].gateway = x"),
    ] {
        refused(host.load_top(&top(text)), &[word]);
    }
}

// === Gateway, routes, DNS ===

#[test]
fn a_gateway_is_not_assigned_and_goes_only_with_its_family() {
    let both = r#""ipRanges": [{"range": "10.0.0.0/24"}, {"range": "fd00::/64"}], "gateway": "10.0.0.1""#;
    let configuration = load(both);
    let gateways: Vec<_> = configuration.ranges.iter().map(RangeConfiguration::gateway).collect();
    assert_eq!(gateways, [configuration.gateway, None]);
    assert_eq!(configuration.ranges[0].view().first().unwrap().to_string(), "10.0.0.2");

    let configuration = load(&format!(r#"{both}, "exclude_gateway": false"#));
    assert_eq!(configuration.ranges[0].view().first().unwrap().to_string(), "10.0.0.1");
    // In the flat file too.
    let host = Host::with_flat_file(r#"{"exclude_gateway": false}"#);
    assert!(host.load(both).unwrap().configuration.ranges[0].view().contains("10.0.0.1".parse().unwrap()));

    // It need not lie in the range, and leading zeros mean nothing.
    assert_eq!(load(&format!(r#"{RANGE}, "gateway": "192.168.010.1""#)).gateway.unwrap().to_string(), "192.168.10.1");
    let host = Host::new();
    warned(host.load(&format!(r#"{RANGE}, "gateway": "fd00::1""#)), &["gateway = fd00::1", "no range is IPv6"]);
    refused(
        host.load(&format!(r#"{RANGE}, "gateway": "10.0.0.1/24""#)),
        &["gateway = 10.0.0.1/24", "couldn't parse gateway IP", "without a prefix"],
    );
}

#[test]
fn routes_and_dns_are_passed_on() {
    let ipam = format!(
        r#"{RANGE}, "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "10.9.0.1/16", "gw": "10.0.0.9", "mtu": 1400,
        "table": 7}}, {{"dst": "::/0", "gw": ""}}], "dns": {{"nameservers": ["10.0.0.53"], "search": ["a", "b"]}}"#
    );
    let configuration = load(&ipam);
    assert_eq!(
        serde_json::to_string(&configuration.routes).unwrap(),
        r#"[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.1/16","gw":"10.0.0.9","mtu":1400,"table":7},{"dst":"::/0"}]"#
    );
    let dns = r#"{"nameservers":["10.0.0.53"],"search":["a","b"]}"#;
    assert_eq!(serde_json::to_string(&configuration.dns).unwrap(), dns);

    let host = Host::with_flat_file(r#"{"dns": {"domain": "flat", "search": ["flat"]}, "routes": [{"dst": "::/0"}]}"#);
    let configuration = host.load(&ipam).unwrap().configuration;
    assert_eq!((configuration.dns.domain.as_str(), configuration.dns.search.len()), ("flat", 2));
    assert_eq!(configuration.routes.len(), 3);

    for (text, words) in [
        (r#""routes": [{}]"#, ["routes[0].dst", "not a network", "0.0.0.0/0"]),
        (r#""routes": [{"dst": "10.0.0.1"}]"#, ["routes[0].dst = 10.0.0.1", "not a network", "0.0.0.0/0"]),
        (r#""routes": [{"dst": "::/0", "gw": "x"}]"#, ["routes[0].gw = x", "not an IP address", "next hop"]),
        (r#""dns": {"nameservers": "x"}"#, ["dns.nameservers", "this is a string", "a list"]),
    ] {
        refused(Host::new().load(&format!("{RANGE}, {text}")), &words);
    }
}

// === Static, requested and sticky ===

fn static_lines(configuration: &Configuration) -> Vec<String> {
    let line = |one: &StaticAddress| {
        let gateway = one.gateway.map_or("-".to_owned(), |gateway| gateway.to_string());
        format!("{} {gateway} {:?}", one.address, one.range)
    };
    configuration.static_addresses.iter().map(line).collect()
}

#[test]
fn static_addresses_come_from_the_configuration_and_cni_args() {
    let host = Host::new();
    let top = format!(
        r#"{{"name": "net", "ipam": {{"type": "whereabouts", {RANGE},
        "addresses": [{{"address": "10.0.0.9/24"}}, {{"address": "fd00::9/64", "gateway": "fd00::1"}}]}}}}"#
    );
    let loaded = host.load_with_arguments(&top, Some("10.9.0.7/16, 10.0.0.9/24,"), Some("10.9.0.1,10.0.0.1")).unwrap();
    assert_eq!(
        static_lines(&loaded.configuration),
        ["10.0.0.9/24 10.0.0.1 Some(0)", "fd00::9/64 fd00::1 None", "10.9.0.7/16 10.9.0.1 None"]
    );
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    warned(host.load_with_arguments(&top, None, Some("172.16.0.1")), &["CNI_ARGS GATEWAY = 172.16.0.1", "no effect"]);
    for (ip, gateway, words) in [
        (Some("10.0.0.9"), None, ["CNI_ARGS IP = 10.0.0.9", "invalid CIDR", "prefix"]),
        (Some("::ffff:10.0.0.9/120"), None, ["CNI_ARGS IP", "IPv4-mapped", "prefix"]),
        (None, Some("x"), ["CNI_ARGS GATEWAY = x", "invalid gateway address: x", "without a prefix"]),
    ] {
        refused(host.load_with_arguments(&top, ip, gateway), &words);
    }
    refused(
        host.load(&format!(r#"{RANGE}, "addresses": [{{"address": "x"}}]"#)),
        &["addresses[0].address = x", "invalid CIDR in addresses x", "prefix"],
    );
    refused(
        host.load(&format!(r#"{RANGE}, "addresses": [{{"address": "10.0.0.1/8", "gateway": "x"}}]"#)),
        &["addresses[0].gateway = x", "not an IP address"],
    );
}

#[test]
fn requested_addresses_name_a_range_each() {
    let host = Host::new();
    let top = |args: &str, runtime: &str| {
        format!(
            r#"{{"name": "net", "ipam": {{"type": "whereabouts", "gateway": "10.0.0.1", "ipRanges":
            [{{"range": "10.0.0.0/24", "exclude": ["10.0.0.16/28"]}}, {{"range": "fd00::/64"}}, {{"range": "10.0.0.0/25"}}]}},
            "args": {{"cni": {{"ips": {args}}}}}, "runtimeConfig": {{"ips": {runtime}}}}}"#
        )
    };
    let lines = |loaded: Loaded| -> Vec<String> {
        let requested = loaded.configuration.requested.iter();
        requested.map(|one| format!("{} {} {}", one.key, one.address, one.range)).collect()
    };
    let text = top(r#"["fd00::5", "10.0.0.5/24"]"#, r#"["10.0.0.5", "10.0.0.6/24"]"#);
    let loaded = host.load_with_arguments(&text, Some("junk"), Some("junk")).unwrap();
    assert!(loaded.warnings.iter().any(|warning| warning.key == "CNI_ARGS IP"), "{:?}", loaded.warnings);
    assert_eq!(loaded.configuration.static_addresses, []);
    assert_eq!(
        lines(loaded),
        ["runtimeConfig.ips[0] 10.0.0.5 0", "runtimeConfig.ips[1] 10.0.0.6 2", "args.cni.ips[0] fd00::5 1"]
    );
    for (text, words) in [
        (r#"["x"]"#, ["args.cni.ips[0] = x", "not an IP address", "192.0.2.7/24"]),
        (r#"["10.9.0.1"]"#, ["args.cni.ips[0] = 10.9.0.1", "in none of the configured ranges", "add a range"]),
        (r#"["10.0.0.1"]"#, ["args.cni.ips[0] = 10.0.0.1", "never assigned from 10.0.0.0/24", "excludes"]),
        (r#"["10.0.0.20/24"]"#, ["args.cni.ips[0] = 10.0.0.20/24", "contains", "contains"]),
        (r#"["fd00::5", "fd00::6"]"#, ["args.cni.ips[1] = fd00::6", "each range gives one address", "add a range"]),
        (r#""10.0.0.5""#, ["args.cni.ips", "this is a string", "a list"]),
    ] {
        // 10.0.0.20 is excluded from the first range, but not from the third.
        if words.contains(&"contains") {
            assert_eq!(lines(host.load_top(&top(text, "[]")).unwrap()), ["args.cni.ips[0] 10.0.0.20 2"]);
        } else {
            refused(host.load_top(&top(text, "[]")), &words);
        }
    }
}

#[test]
fn a_sticky_name_comes_from_args() {
    let host = Host::new();
    let top = |args: &str| format!(r#"{{"name": "n", "ipam": {{"type": "whereabouts", {RANGE}}}, "args": {args}}}"#);
    let name = |args: &str| host.load_top(&top(args)).unwrap().configuration.sticky_name.map(|name| name.to_string());
    assert_eq!(name(r#"{"cni": {"podname": "db-0"}, "podname": "x"}"#).as_deref(), Some("db-0"));
    assert_eq!(name(r#"{"podname": "x"}"#).as_deref(), Some("x"));
    assert_eq!(name("{}"), None);
    refused(host.load_top(&top(r#"{"podname": ""}"#)), &["args.podname", "is empty", "remove it"]);
    refused(host.load_top(&top(r#"{"cni": {"podname": "a\u0000"}}"#)), &["args.cni.podname", "control character"]);
    refused(host.load_top(&top(r#"{"cni": {"podname": 1}}"#)), &["args.cni.podname = 1", "this is a number"]);
}

#[test]
fn a_network_name_has_bounds() {
    assert_eq!(load(&format!(r#"{RANGE}, "network_name": "blue""#)).network_name.as_str(), "blue");
    assert!(load(RANGE).network_name.is_unnamed());
    let host = Host::new();
    // What is accepted here, an ADD must be able to serve.
    let longest = "n".repeat(200);
    let loaded = host.load(&format!(r#"{RANGE}, "network_name": "{longest}""#)).unwrap();
    assert!(whereabouts_engine::Network::new(loaded.configuration.network_name.as_str()).is_ok());
    let long = "n".repeat(201);
    for name in [long.as_str(), "a\\u0000b", "a\\nb"] {
        refused(host.load(&format!(r#"{RANGE}, "network_name": "{name}""#)), &["network_name = ", "at most 200 bytes"]);
    }
}

// === Datastore and provider ===

#[test]
fn the_datastore_is_the_one_that_is_configured() {
    #[track_caller]
    fn check(ipam: &str, expected: &str, n_warnings: usize) {
        let loaded = Host::new().load(&format!("{RANGE}, {ipam}")).unwrap();
        assert_eq!(loaded.configuration.datastore.name(), expected, "{ipam}");
        assert_eq!(loaded.warnings.len(), n_warnings, "{:?}", loaded.warnings);
    }
    let kubeconfig = r#""kubernetes": {"kubeconfig": "/k"}"#;
    let etcd = r#""etcd_host": "localhost:2379""#;
    check(r#""log_file": """#, "local", 0);
    check(kubeconfig, "kubernetes", 0);
    check(etcd, "etcd", 0);
    check(&format!("{kubeconfig}, {etcd}"), "kubernetes", 1);
    check(&format!(r#"{kubeconfig}, {etcd}, "datastore": "etcd""#), "etcd", 0);
    check(&format!(r#"{kubeconfig}, "datastore": "local""#), "local", 0);
    check(&format!(r#"{kubeconfig}, "datastore": """#), "kubernetes", 0);
    let host = Host::new();
    for (ipam, words) in [
        (r#""datastore": "locl""#, ["datastore = locl", "is not known", "did you mean local?"]),
        (r#""datastore": "sqlite""#, ["datastore = sqlite", "is not known", "local, kubernetes, etcd"]),
        (r#""datastore": "kubernetes""#, ["datastore = kubernetes", "kubernetes.kubeconfig is not set", "set"]),
        (r#""datastore": "etcd""#, ["datastore = etcd", "etcd_host is not set", "host:port"]),
        (r#""etcd_host": "e", "etcd_key_file": "/k""#, ["etcd_key_file = /k", "belong together", "set both"]),
        (r#""etcd_host": "e", "etcd_cert_file": "/c""#, ["etcd_cert_file = /c", "belong together", "set both"]),
        (r#""etcd_host": "e", "etcd_password": "p""#, ["etcd_password = …", "without a user", "etcd_username"]),
        (r#""kubernetes": "/k""#, ["kubernetes = ", "this is a string", "an object"]),
    ] {
        refused(host.load(&format!("{RANGE}, {ipam}")), &words);
    }
}

#[test]
fn what_this_build_cannot_do_is_an_error_and_nothing_else_is_done() {
    let available = |ipam: &str, pod: Option<&str>| {
        let loaded = Host::new().load(&format!("{RANGE}, {ipam}")).unwrap();
        loaded.configuration.require_available(pod).map_err(|error| error.to_string())
    };
    assert_eq!(available(r#""kubernetes": {"kubeconfig": "/k"}"#, Some("default/web-0")), Ok(()));
    for (ipam, words) in [
        (r#""etcd_host": "e""#, ["datastore = etcd", "etcd_host", "\"datastore\": \"local\""]),
        (
            r#""pool": "p", "provider": {"type": "netbox", "url": "https://n", "token_file": "/t"}"#,
            ["provider.type = netbox", "pool = p", "not available in this build"],
        ),
    ] {
        let error = available(ipam, None).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    }
    let nothing = r#""datastore": """#;
    assert_eq!(available(nothing, None), Ok(()));
    let error = available(nothing, Some("default/web-0")).unwrap_err();
    for word in ["datastore is not set", "default/web-0", "kubernetes.kubeconfig", "\"datastore\": \"local\""] {
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(available(r#""datastore": "local""#, Some("default/web-0")), Ok(()));
    // A provider of the host without a pool in the network changes nothing.
    let provider = r#""provider": {"type": "netbox", "url": "https://n", "token_file": "/t"}"#;
    assert_eq!(available(provider, None), Ok(()));
}

#[test]
fn a_pool_needs_a_provider() {
    let host = Host::new();
    let top = |args: &str, ipam: &str| {
        format!(r#"{{"name": "n", "args": {args}, "ipam": {{"type": "whereabouts", {ipam}}}}}"#)
    };
    let provider = r#""provider": {"type": "phpipam", "url": "https://p/", "user": "u", "password_file": "/p"}"#;
    let pool = |args: &str, ipam: &str| host.load_top(&top(args, ipam)).unwrap().configuration.pool;
    assert_eq!(
        pool(r#"{"pool": "a", "cni": {"pool": "b"}}"#, &format!(r#"{provider}, "pool": "c""#)).as_deref(),
        Some("b")
    );
    assert_eq!(pool(r#"{"pool": "a"}"#, &format!(r#"{provider}, "pool": "c""#)).as_deref(), Some("a"));
    assert_eq!(pool("{}", &format!(r#"{provider}, "pool": "c""#)).as_deref(), Some("c"));
    refused(host.load(r#""pool": "p""#), &["pool = p", "no provider is configured", "or a range"]);
    warned(host.load(&format!(r#"{RANGE}, "pool": "p""#)), &["pool = p", "no effect"]);
    refused(host.load(provider), &["no range and no pool"]);
}

#[test]
fn a_provider_is_checked_and_keeps_its_secrets() {
    let host = Host::new();
    let with = |provider: &str| host.load(&format!(r#"{RANGE}, "provider": {provider}"#));
    for (provider, words) in [
        ("{}", ["provider.type = ", "is not known", "phpipam, openwisp, netbox, nsxt"]),
        (r#"{"type": "phpipan"}"#, ["provider.type = phpipan", "is not known", "did you mean phpipam?"]),
        (r#"{"type": "netbox"}"#, ["provider.url = ", "has no host", "https://"]),
        (r#"{"type": "netbox", "url": "http://n"}"#, ["provider.url = http://n", "not encrypted", "insecure_http"]),
        (r#"{"type": "netbox", "url": "ftp://n"}"#, ["provider.url = ftp://n", "neither https nor http", "https://"]),
        (r#"{"type": "netbox", "url": "https://u:hunter2@n"}"#, ["provider.url = …", "password", "password_file"]),
        (r#"{"type": "netbox", "url": "https://n"}"#, ["provider = netbox", "no credentials", "token_file"]),
        (r#"{"type": "netbox", "token": "hunter2"}"#, ["provider.token = …", "secret", "token_file"]),
        (r#"{"type": "netbox", "password": "hunter2"}"#, ["provider.password = …", "secret", "password_file"]),
    ] {
        let error = with(provider).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        refused(with(provider), &words);
    }
    refused(host.load(&format!(r#"{RANGE}, "ipampwd": "hunter2""#)), &["ipampwd = …", "password_file"]);
    refused(host.load(&format!(r#"{RANGE}, "ipampwd": 4711"#)), &["ipampwd = …", "this is a number"]);

    // The old fork's keys, in the host's own file.
    let flat = r#"{"ipamtype": "phpipam", "ipamurl": "ipam.example", "ipamuser": "u", "ipampwd": "hunter2",
        "appid": "cni", "etcd_host": "e", "etcd_username": "u", "etcd_password": "hunter2"}"#;
    let loaded = Host::with_flat_file(flat).load(RANGE).unwrap();
    let provider = loaded.configuration.provider.as_ref().unwrap();
    assert_eq!((provider.kind, provider.url.as_str()), (ProviderKind::PhpIpam, "https://ipam.example"));
    assert_eq!(provider.credentials.password.as_ref().unwrap().reveal(), "hunter2");
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

// === Keys ===

#[test]
fn unknown_keys_are_named_with_the_nearest_one() {
    for (ipam, words) in [
        (r#""rangeStart": "10.0.0.9""#, ["rangeStart", "did you mean range_start?"]),
        (r#""colour": "red""#, ["colour", "remove it"]),
        (r#""ipRanges": [{"range": "10.1.0.0/24", "excludes": []}]"#, ["ipRanges[0].excludes", "mean exclude?"]),
        (r#""kubernetes": {"kubeConfigs": ""}"#, ["kubernetes.kubeConfigs", "mean kubeconfig?"]),
        (r#""routes": [{"dst": "::/0", "gateway": ""}]"#, ["routes[0].gateway", "remove it"]),
        (r#""dns": {"nameserver": []}"#, ["dns.nameserver", "mean nameservers?"]),
        (r#""addresses": [{"address": "10.0.0.1/8", "gatway": ""}]"#, ["addresses[0].gatway", "mean gateway?"]),
    ] {
        warned(Host::new().load(&format!("{RANGE}, {ipam}")), &words);
    }
    let host = Host::with_flat_file(r#"{"log_levle": "debug"}"#);
    warned(host.load(RANGE), &["whereabouts.conf: log_levle", "mean log_level?"]);
}

#[test]
fn every_documented_key_is_read() {
    let host = Host::new();
    for key in IPAM_KEYS {
        // No key is a list of lists, so whoever reads it complains.
        let result = host.load(&format!(r#"{RANGE}, "{}": [[[]]]"#, key.name));
        let error = result.map(|loaded| loaded.warnings).expect_err(key.name).to_string();
        assert!(error.contains(key.name) || key.name == "type", "{}: {error}", key.name);
    }
}

#[test]
fn what_has_no_effect_is_told() {
    for (ipam, words) in [
        (r#""node_slice_size": "/26""#, ["node_slice_size = /26", "no effect"]),
        (r#""optimistic_ipam": true"#, ["optimistic_ipam", "no effect"]),
        (r#""log_level": "XXXX""#, ["log_level = XXXX", "debug, verbose, error or panic"]),
        (r#""leader_retry_period": -1"#, ["leader_retry_period = -1", "no effect"]),
    ] {
        warned(Host::new().load(&format!("{RANGE}, {ipam}")), &words);
    }
}

#[test]
fn times_have_bounds_and_zero_is_a_time() {
    let configuration = load(RANGE);
    let seconds = |configuration: &Configuration| {
        let host = &configuration.host;
        (
            host.deadline.map(|deadline| deadline.as_secs()),
            host.gc_grace.as_secs(),
            configuration.sleep_for_race.as_secs(),
        )
    };
    assert_eq!(seconds(&configuration), (None, 60, 0));
    let host = Host::with_flat_file(r#"{"deadline": 7, "gc_grace": 7, "sleep_for_race": 7}"#);
    let loaded = host.load(&format!(r#"{RANGE}, "gc_grace": 0, "sleep_for_race": 0"#)).unwrap();
    // Go's zero value of a key that the Go plugin knows counts as absent.
    assert_eq!(seconds(&loaded.configuration), (Some(7), 0, 7));
    for (ipam, words) in [
        (r#""deadline": 0"#, ["deadline = 0", "out of bounds", "1 to 86400 seconds"]),
        (r#""gc_grace": -1"#, ["gc_grace = -1", "out of bounds", "0 to 86400 seconds"]),
        (r#""sleep_for_race": 1000000"#, ["sleep_for_race = 1000000", "out of bounds", "seconds"]),
        (r#""gc_grace": "60s""#, ["gc_grace = ", "this is a string", "a whole number"]),
        (r#""gc_grace": 1.5"#, ["gc_grace = 1.5", "this is a number", "a whole number"]),
    ] {
        refused(Host::new().load(&format!("{RANGE}, {ipam}")), &words);
    }
}

#[test]
fn a_full_range_is_an_error_on_a_host_and_a_warning_in_kubernetes() {
    let status = |ipam: &str| Host::new().load(&format!("{RANGE}, {ipam}")).unwrap().configuration.exhausted_status;
    assert_eq!(status(r#""log_file": """#), ExhaustedStatus::Error);
    assert_eq!(status(r#""kubernetes": {"kubeconfig": "/k"}"#), ExhaustedStatus::Ready);
    assert_eq!(status(r#""exhausted_status": "ready""#), ExhaustedStatus::Ready);
    assert_eq!(status(r#""exhausted_status": "error", "kubernetes": {"kubeconfig": "/k"}"#), ExhaustedStatus::Error);
    let result = Host::new().load(&format!(r#"{RANGE}, "exhausted_status": "50""#));
    refused(result, &["exhausted_status = 50", "is not known", "error, ready"]);
}

#[test]
fn the_data_dir_is_one_for_all_calls() {
    let mut host = Host::with_flat_file(r#"{"data_dir": "/flat"}"#);
    let folder = |host: &Host, ipam: &str| host.load(&format!("{RANGE}, {ipam}")).unwrap().configuration.host.data_dir;
    assert_eq!(load(RANGE).host.data_dir, Path::new(DEFAULT_DATA_DIR));
    assert_eq!(folder(&host, r#""log_file": """#), Path::new("/flat"));
    assert_eq!(folder(&host, r#""data_dir": "/typed""#), Path::new("/typed"));
    warned(host.load(&format!(r#"{RANGE}, "data_dir": "/typed""#)), &["data_dir = /typed", "flat file"]);
    for path in ["relative", "/a/../b"] {
        let result = host.load(&format!(r#"{RANGE}, "data_dir": "{path}""#));
        refused(result, &["data_dir = ", path, "absolute path"]);
    }
    host.surroundings.data_dir = Some(PathBuf::from("/environment"));
    assert_eq!(folder(&host, r#""data_dir": "/typed""#), Path::new("/environment"));
    let words = ["data_dir = /typed", "WHEREABOUTS_DATA_DIR"];
    warned(host.load(&format!(r#"{RANGE}, "data_dir": "/typed""#)), &words);
}

#[test]
fn a_long_value_does_not_make_a_long_message() {
    let host = Host::new();
    let junk = "a\\n-\\u0007/".repeat(10_000);
    for ipam in [
        format!(r#""range": "{junk}""#),
        format!(r#"{RANGE}, "exclude": ["{junk}"]"#),
        format!(r#"{RANGE}, "gateway": "{junk}""#),
        format!(r#"{RANGE}, "datastore": "{junk}""#),
        format!(r#"{RANGE}, "addresses": [{{"address": "{junk}"}}]"#),
        format!(r#"{RANGE}, "routes": [{{"dst": "{junk}"}}]"#),
        format!(r#"{RANGE}, "network_name": "{junk}""#),
        format!(r#"{RANGE}, "configuration_path": "{junk}""#),
    ] {
        let error = host.load(&ipam).unwrap_err().to_string();
        assert!(error.chars().count() < 1500 && !error.chars().any(char::is_control), "{error}");
    }
    let loaded =
        host.load(&format!(r#"{RANGE}, "range_start": "{junk}", "log_level": "{junk}", "{junk}": 1"#)).unwrap();
    assert_eq!(loaded.warnings.len(), 3);
    for warning in loaded.warnings {
        assert!(warning.to_string().chars().count() < 800, "{warning}");
    }
}

#[test]
fn too_much_input_is_an_error() {
    let long = format!(r#"{{"ipam": {{"type": "whereabouts", "x": "{}"}}}}"#, "x".repeat(INPUT_LIMIT));
    refused(Host::new().load_top(&long), &["larger than 1048576 bytes", "make it smaller"]);
}

// === What is left when nothing is right ===

#[test]
fn a_lossy_configuration_is_enough_for_del() {
    let host = Host::with_flat_file(r#"{"data_dir": "/flat", "log_level": "debug", "gc_grace": 5, "deadline": "x"}"#);
    let flat_file = host.surroundings.flat_files.find(None, &mut Vec::new()).unwrap();
    let read = |text: &str| {
        let network = NetworkConfiguration::parse(text.as_bytes()).ok();
        LossyConfiguration::read(network.as_ref(), flat_file.as_ref(), &host.surroundings)
    };
    for text in [
        "",
        "{ broken",
        "[]",
        r#"{"cniVersion": "1.0.0", "type": "macvlan", "ipam": {"type": "whereabouts"}}"#,
        r#"{"cniVersion": 1, "name": [], "ipam": 5}"#,
        r#"{"name": "", "ipam": {"data_dir": 7, "log_level": {}, "deadline": [], "gc_grace": "x"}}"#,
    ] {
        let lossy = read(text);
        assert_eq!(lossy.host.data_dir, Path::new("/flat"), "{text}");
        assert_eq!(lossy.host.log.level, LogLevel::Debug, "{text}");
        assert_eq!((lossy.host.gc_grace.as_secs(), lossy.host.deadline), (5, None), "{text}");
        assert_eq!(lossy.network, None, "{text}");
    }
    let lossy = read(r#"{"name": "net", "cniVersion": "0.4.0", "ipam": {"data_dir": "/typed", "deadline": -5}}"#);
    assert_eq!((lossy.network.as_deref(), lossy.cni_version.as_deref()), (Some("net"), Some("0.4.0")));
    assert_eq!(lossy.host.data_dir, Path::new("/typed"));
    assert_eq!(lossy.host.deadline, None);
    assert!(lossy.warnings[0].to_string().contains("deadline = -5"), "{:?}", lossy.warnings);
    // The same as what a full configuration says.
    let full = host.load(RANGE);
    refused(full, &["deadline", "this is a string"]);
}

// === No input panics ===

/// Values of every kind, near to and far from what is wanted.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        "[0-9a-f.:/-]{0,30}".prop_map(|text| format!("\"{text}\"")),
        "(10\\.0\\.0\\.[0-9]{1,3}|fd00::[0-9a-f]{1,4})(-10\\.0\\.0\\.9)?(/[0-9]{1,3})?"
            .prop_map(|t| format!("\"{t}\"")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop::sample::select(vec![
            "range",
            "range_start",
            "exclude",
            "dst",
            "gw",
            "address",
            "gateway",
            "type",
            "url",
            "subnet",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key, inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn any_ipam() -> impl Strategy<Value = String> {
    let key =
        prop::sample::select(IPAM_KEYS.iter().map(|key| key.name).filter(|key| *key != "type").collect::<Vec<_>>());
    prop::collection::vec((key, any_value()), 0..6).prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        members.join(",")
    })
}

/// Lists of addresses, some of which a range can give.
fn any_addresses() -> impl Strategy<Value = String> {
    let address = "(10\\.0\\.0\\.[0-9]{1,2}|fd00::[0-9a-f]{1,2})(/24)?".prop_map(|text| format!("\"{text}\""));
    prop::collection::vec(address, 0..3).prop_map(|list| format!("[{}]", list.join(",")))
}

proptest! {
    #[test]
    fn no_configuration_panics(
        network in any_ipam(),
        flat in any_ipam(),
        args in prop_oneof![any_value(), any_addresses()],
        runtime in prop_oneof![3 => Just("null".to_owned()), 1 => any_value()],
        ip in any::<Option<String>>(),
    ) {
        let surroundings = Surroundings { flat_files: FlatFileSearch::none(), data_dir: None, node: None };
        let flat = Json::parse(format!("{{{flat}}}").as_bytes()).unwrap();
        let flat = FlatFile { path: PathBuf::from("/flat"), object: flat.as_object().unwrap().clone() };
        let separator = if network.is_empty() { "" } else { "," };
        let text = format!(
            r#"{{"name":"n","ipam":{{"type":"whereabouts","range":"10.0.0.0/28","ipRanges":[{{"range":"fd00::/120"}}]{separator}{network}}},"args":{{"cni":{{"ips":{args}}}}},
            "runtimeConfig":{{"ipRanges":{runtime}}}}}"#
        );
        let network = NetworkConfiguration::parse(text.as_bytes()).unwrap();
        let arguments = StaticArguments { gateway: ip.clone(), ip };
        let _ = LossyConfiguration::read(Some(&network), Some(&flat), &surroundings);
        if let Ok(loaded) = Configuration::load_with(&network, Some(&flat), &arguments, &surroundings) {
            let configuration = loaded.configuration;
            prop_assert!(!configuration.ranges.is_empty() || configuration.pool.is_some());
            for one in &configuration.requested {
                prop_assert!(configuration.ranges[one.range].view().contains(one.address));
            }
            for range in &configuration.ranges {
                prop_assert!(range.gateway().is_none_or(|gateway| gateway.family() == range.view().family()));
            }
        }
    }

    #[test]
    fn a_bad_configuration_says_what_to_do(network in any_ipam()) {
        if let Err(error) = Host::new().load(&network) {
            let text = error.to_string();
            prop_assert!(text.contains(':') && !text.chars().any(char::is_control), "{}", text);
            prop_assert!(text.chars().count() < 1500, "{}", text);
        }
    }
}
