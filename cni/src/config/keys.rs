//! Every key that is read, with its default and its meaning: for suggestions, for `check-config` and for the
//! documentation.

use super::{Object, Warning, nearest};

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// How it is written. Case does not count when it is read.
    pub name: &'static str,
    /// What holds where it is absent.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default, meaning }
}

/// The keys of `ipam` and of the flat file.
pub const IPAM_KEYS: &[Key] = &[
    key("type", "", "must be whereabouts"),
    key("range", "", "a network, or first-last/prefix"),
    key("range_start", "first usable address", "lowest address of range that is assigned"),
    key("range_end", "last usable address", "highest address of range that is assigned"),
    key("exclude", "[]", "networks and addresses of range that are never assigned"),
    key("ipRanges", "[]", "more ranges, one address from each: range, range_start, range_end, exclude, enable_l3"),
    key("gateway", "", "goes with every address of its family"),
    key("exclude_gateway", "true", "whether a gateway inside a range is kept from being assigned"),
    key("routes", "[]", "routes of the result: dst, gw, mtu, advmss, priority, table, scope"),
    key("dns", "", "DNS of the result: nameservers, domain, search, options"),
    key("addresses", "[]", "static addresses that are added to the result: address, gateway"),
    key("network_name", "", "ranges of different networks may overlap and share nothing"),
    key("enable_overlapping_ranges", "true", "whether ranges that overlap are kept from giving one address twice"),
    key("enable_l3", "false", "whether every address is usable: network, broadcast, .0, /31, /32, /127, /128"),
    key("pool", "", "the pool of an external provider; args.pool and args.cni.pool go before it"),
    key("provider", "", "an external IPAM that has the last word on the addresses of the pool"),
    key("datastore", "local unless kubeconfig or etcd_host is set", "local, kubernetes or etcd"),
    key("kubernetes", "", "kubeconfig, k8s_api_root"),
    key("etcd_host", "", "host:port of etcd"),
    key("etcd_username", "", "user of etcd"),
    key("etcd_password", "", "password of etcd"),
    key("etcd_key_file", "", "client key for etcd, PEM"),
    key("etcd_cert_file", "", "client certificate for etcd, PEM"),
    key("etcd_ca_cert_file", "", "certificate authority of etcd, PEM"),
    key("data_dir", "/var/lib/cni/whereabouts", "folder of the ledger; WHEREABOUTS_DATA_DIR goes before it"),
    key("configuration_path", "", "absolute path of a flat file that is looked for first"),
    key("log_file", "standard error", "absolute path of the file to which the log is appended"),
    key("log_level", "verbose", "debug, verbose, error or panic"),
    key("deadline", "30, for DEL 20", "seconds after which a call gives up"),
    key("gc_grace", "60", "seconds for which GC spares a new attachment"),
    key("exhausted_status", "error on a host, ready in Kubernetes", "what STATUS answers for a full range"),
    key("sleep_for_race", "0", "seconds to sleep before an address is written, for tests"),
    key("node_slice_size", "", "accepted and without effect: nothing is cut into slices"),
    key("leader_lease_duration", "1500", "milliseconds; accepted and without effect"),
    key("leader_renew_deadline", "1000", "milliseconds; accepted and without effect"),
    key("leader_retry_period", "500", "milliseconds; accepted and without effect"),
    key("reconciler_cron_expression", "", "when the reconciler of the Go plugin runs; accepted"),
    key("optimistic_ipam", "false", "of a fork of the Go plugin; without effect: no lock is ever taken"),
    key("pick_addresses", "", "of a fork of the Go plugin; refused: ask for addresses with args.cni.ips"),
    key("ipamtype", "", "old spelling of provider.type"),
    key("ipamurl", "", "old spelling of provider.url"),
    key("ipamuser", "", "old spelling of provider.user"),
    key("ipampwd", "", "password of the provider, in the flat file only; better provider.password_file"),
    key("appid", "", "old spelling of provider.app_id"),
];

/// The keys of an entry of `ipRanges`.
pub const RANGE_KEYS: &[Key] = &[
    key("range", "", "a network, or first-last/prefix"),
    key("range_start", "first usable address", "lowest address that is assigned"),
    key("range_end", "last usable address", "highest address that is assigned"),
    key("exclude", "[]", "networks and addresses that are never assigned"),
    key("enable_l3", "enable_l3 beside ipRanges", "whether every address is usable"),
    key("pick_addresses", "", "of a fork of the Go plugin; refused: ask for addresses with args.cni.ips"),
];

/// The keys of an entry of `runtimeConfig.ipRanges`, which the CNI conventions name.
pub const RUNTIME_RANGE_KEYS: &[Key] = &[
    key("subnet", "", "the network"),
    key("rangeStart", "first usable address", "lowest address that is assigned"),
    key("rangeEnd", "last usable address", "highest address that is assigned"),
    key("gateway", "ipam.gateway", "goes with the addresses of this range"),
];

/// The keys of `kubernetes`.
pub const KUBERNETES_KEYS: &[Key] = &[
    key("kubeconfig", "", "path of the kubeconfig; its context's namespace holds the objects"),
    key("k8s_api_root", "", "accepted and without effect"),
];

/// The keys of an entry of `routes`.
pub const ROUTE_KEYS: &[Key] = &[
    key("dst", "", "destination network"),
    key("gw", "gateway of the address", "next hop"),
    key("mtu", "", "MTU along the path, bytes"),
    key("advmss", "", "maximal segment size to advertise, bytes"),
    key("priority", "", "priority, lower goes first"),
    key("table", "", "routing table"),
    key("scope", "", "scope of the destinations"),
];

/// The keys of `dns`.
pub const DNS_KEYS: &[Key] = &[
    key("nameservers", "[]", "addresses of name servers, in order of priority"),
    key("domain", "", "local domain for short names"),
    key("search", "[]", "search domains, in order of priority"),
    key("options", "[]", "options for the resolver"),
];

/// The keys of an entry of `addresses`.
pub const ADDRESS_KEYS: &[Key] = &[key("address", "", "address/prefix"), key("gateway", "", "gateway of this address")];

/// The keys of `provider`.
pub const PROVIDER_KEYS: &[Key] = &[
    key("type", "", "phpipam, openwisp, netbox or nsxt"),
    key("url", "", "https://host[:port][/path]"),
    key("insecure_http", "false", "whether a url of http:// is allowed"),
    key("ca_file", "system roots", "certificate authority of the server, PEM"),
    key("user", "", "user name"),
    key("password_file", "", "file with the password, readable by root only"),
    key("token_file", "", "file with the token, readable by root only"),
    key("app_id", "", "application of phpIPAM"),
];

/// Warns about each key that nobody reads, with the nearest one that somebody does.
pub(crate) fn warn_unknown(object: &Object, known: &[Key], prefix: &str, warnings: &mut Vec<Warning>) {
    for (typed, value) in object.iter() {
        if known.iter().any(|key| super::lenient_json::equal_keys(key.name, typed)) {
            continue;
        }
        let text = match nearest(typed, known.iter().map(|key| key.name)) {
            Some(near) => format!("unknown key, has no effect; did you mean {near}?"),
            None => "unknown key, has no effect; remove it".to_owned(),
        };
        // The value of an unknown key may be a secret under a mistyped name; only its kind is repeated.
        warnings.push(Warning::new(format!("{prefix}{}", super::warning::shorten(typed)), value.kind(), text));
    }
}
