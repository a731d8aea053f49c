//! What was typed into an `ipam` section or a flat file, before anything is concluded from it.

use super::keys::{self, warn_unknown};
use super::reader::Reader;
use super::{ConfigurationError, Dns, Object, Route, Secret, Warning, sloppy};

/// An `ipam` section or a flat file as it was typed. `None` is an absent key.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawIpam {
    pub(crate) kind: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) range_start: Option<String>,
    pub(crate) range_end: Option<String>,
    pub(crate) exclude: Option<Vec<String>>,
    pub(crate) ip_ranges: Option<Vec<RawRange>>,
    pub(crate) gateway: Option<String>,
    pub(crate) exclude_gateway: Option<bool>,
    pub(crate) routes: Option<Vec<Route>>,
    pub(crate) dns: Option<Dns>,
    pub(crate) addresses: Option<Vec<RawAddress>>,
    pub(crate) network_name: Option<String>,
    pub(crate) enable_overlapping_ranges: Option<bool>,
    pub(crate) enable_l3: Option<bool>,
    pub(crate) pool: Option<String>,
    pub(crate) provider: Option<RawProvider>,
    pub(crate) datastore: Option<String>,
    pub(crate) kubeconfig: Option<String>,
    pub(crate) k8s_api_root: Option<String>,
    pub(crate) etcd_host: Option<String>,
    pub(crate) etcd_username: Option<String>,
    pub(crate) etcd_password: Option<Secret>,
    pub(crate) etcd_key_file: Option<String>,
    pub(crate) etcd_cert_file: Option<String>,
    pub(crate) etcd_ca_cert_file: Option<String>,
    pub(crate) data_dir: Option<String>,
    pub(crate) configuration_path: Option<String>,
    pub(crate) log_file: Option<String>,
    pub(crate) log_level: Option<String>,
    pub(crate) deadline: Option<i64>,
    pub(crate) gc_grace: Option<i64>,
    pub(crate) exhausted_status: Option<String>,
    pub(crate) sleep_for_race: Option<i64>,
    pub(crate) node_slice_size: Option<String>,
    pub(crate) leader_lease_duration: Option<i64>,
    pub(crate) leader_renew_deadline: Option<i64>,
    pub(crate) leader_retry_period: Option<i64>,
    pub(crate) reconciler_cron_expression: Option<String>,
    pub(crate) optimistic_ipam: Option<bool>,
}

/// A range as it was typed, under the name by which messages call it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawRange {
    /// The key of the range itself: `range`, `ipRanges[0].range`, `runtimeConfig.ipRanges[0][0].subnet`.
    pub(crate) key: String,
    pub(crate) range: String,
    /// Key and value.
    pub(crate) start: Option<(String, String)>,
    /// Key and value.
    pub(crate) end: Option<(String, String)>,
    /// The key of the list, and its values.
    pub(crate) exclude: (String, Vec<String>),
    /// Key and value. Only the runtime gives a range a gateway of its own.
    pub(crate) gateway: Option<(String, String)>,
    pub(crate) enable_l3: Option<bool>,
    /// Whether an unreadable start or end has no effect, as at the top level of the Go plugin, or is an error.
    pub(crate) sloppy_ends: bool,
}

/// An entry of `addresses` as it was typed.
#[derive(Clone, Debug)]
pub(crate) struct RawAddress {
    pub(crate) key: String,
    pub(crate) address: String,
    pub(crate) gateway: Option<String>,
}

/// The provider as it was typed, in the new or in the old spelling.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawProvider {
    pub(crate) kind: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) insecure_http: Option<bool>,
    pub(crate) ca_file: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<String>,
    pub(crate) token_file: Option<String>,
    pub(crate) app_id: Option<String>,
}

/// Where a section was typed. Whoever may write a NetworkAttachmentDefinition is not meant to read secrets from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Network,
    FlatFile,
}

// === impl RawIpam ===

impl RawIpam {
    /// Reads what was typed. `prefix` is what messages put before each key.
    pub(crate) fn read(
        object: &Object,
        origin: Origin,
        prefix: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigurationError> {
        warn_unknown(object, keys::IPAM_KEYS, prefix, warnings);
        let reader = Reader::new(object, prefix);
        refuse_picked_addresses(object, reader)?;
        let kubernetes = reader.object("kubernetes")?;
        let kubernetes_prefix = reader.path("kubernetes.");
        let kubernetes = kubernetes.map(|object| {
            warn_unknown(object, keys::KUBERNETES_KEYS, &kubernetes_prefix, warnings);
            Reader::new(object, &kubernetes_prefix)
        });
        let in_kubernetes = |key| kubernetes.map_or(Ok(None), |kubernetes| kubernetes.string(key));
        Ok(Self {
            kind: reader.string("type")?,
            range: reader.string("range")?,
            range_start: reader.string("range_start")?,
            range_end: reader.string("range_end")?,
            exclude: reader.strings("exclude")?,
            ip_ranges: reader.objects("ipRanges", |reader, object| RawRange::read(reader, object, warnings))?,
            gateway: reader.string("gateway")?,
            exclude_gateway: reader.boolean("exclude_gateway")?,
            routes: reader.objects("routes", |reader, object| read_route(reader, object, warnings))?,
            dns: reader.object("dns")?.map(|dns| read_dns(dns, &reader.path("dns."), warnings)).transpose()?,
            addresses: reader.objects("addresses", |reader, object| RawAddress::read(reader, object, warnings))?,
            network_name: reader.string("network_name")?,
            enable_overlapping_ranges: reader.boolean("enable_overlapping_ranges")?,
            enable_l3: reader.boolean("enable_l3")?,
            pool: reader.string("pool")?,
            provider: RawProvider::read(reader, origin, warnings)?,
            datastore: reader.string("datastore")?,
            kubeconfig: in_kubernetes("kubeconfig")?,
            k8s_api_root: in_kubernetes("k8s_api_root")?,
            etcd_host: reader.string("etcd_host")?,
            etcd_username: reader.string("etcd_username")?,
            etcd_password: reader.string("etcd_password")?.map(Secret::new),
            etcd_key_file: reader.string("etcd_key_file")?,
            etcd_cert_file: reader.string("etcd_cert_file")?,
            etcd_ca_cert_file: reader.string("etcd_ca_cert_file")?,
            data_dir: reader.string("data_dir")?,
            configuration_path: reader.string("configuration_path")?,
            log_file: reader.string("log_file")?,
            log_level: reader.string("log_level")?,
            deadline: reader.integer("deadline")?,
            gc_grace: reader.integer("gc_grace")?,
            exhausted_status: reader.string("exhausted_status")?,
            sleep_for_race: reader.integer("sleep_for_race")?,
            node_slice_size: reader.string("node_slice_size")?,
            leader_lease_duration: reader.integer("leader_lease_duration")?,
            leader_renew_deadline: reader.integer("leader_renew_deadline")?,
            leader_retry_period: reader.integer("leader_retry_period")?,
            reconciler_cron_expression: reader.string("reconciler_cron_expression")?,
            optimistic_ipam: reader.boolean("optimistic_ipam")?,
        })
    }
}

// === impl RawRange ===

impl RawRange {
    /// An entry of `ipRanges`. Its start and end are read strictly, as the Go plugin does.
    fn read(reader: Reader<'_>, object: &Object, warnings: &mut Vec<Warning>) -> Result<Self, ConfigurationError> {
        warn_unknown(object, keys::RANGE_KEYS, &reader.path(""), warnings);
        refuse_picked_addresses(object, reader)?;
        let pair = |key: &str| Ok(reader.string(key)?.map(|value| (reader.path(key), value)));
        Ok(Self {
            key: reader.path("range"),
            range: reader.string("range")?.unwrap_or_default(),
            start: pair("range_start")?,
            end: pair("range_end")?,
            exclude: (reader.path("exclude"), reader.strings("exclude")?.unwrap_or_default()),
            gateway: None,
            enable_l3: reader.boolean("enable_l3")?,
            sloppy_ends: false,
        })
    }

    /// An entry of `runtimeConfig.ipRanges`.
    pub(crate) fn read_runtime(
        reader: Reader<'_>,
        object: &Object,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigurationError> {
        warn_unknown(object, keys::RUNTIME_RANGE_KEYS, &reader.path(""), warnings);
        let pair = |key: &str| Ok(reader.string(key)?.map(|value| (reader.path(key), value)));
        Ok(Self {
            key: reader.path("subnet"),
            range: reader.string("subnet")?.unwrap_or_default(),
            start: pair("rangeStart")?,
            end: pair("rangeEnd")?,
            gateway: pair("gateway")?,
            ..Self::default()
        })
    }
}

// === impl RawAddress ===

impl RawAddress {
    fn read(reader: Reader<'_>, object: &Object, warnings: &mut Vec<Warning>) -> Result<Self, ConfigurationError> {
        warn_unknown(object, keys::ADDRESS_KEYS, &reader.path(""), warnings);
        let address = reader.string("address")?.unwrap_or_default();
        Ok(Self { key: reader.path("address"), address, gateway: reader.string("gateway")? })
    }
}

// === impl RawProvider ===

impl RawProvider {
    /// Reads `provider`, or the keys of the old fork that stood for it.
    fn read(ipam: Reader<'_>, origin: Origin, warnings: &mut Vec<Warning>) -> Result<Option<Self>, ConfigurationError> {
        let password = ipam.string("ipampwd")?;
        if password.is_some() && origin == Origin::Network {
            return Err(inline_secret(ipam.path("ipampwd")));
        }
        let old = Self {
            kind: ipam.string("ipamtype")?,
            url: ipam.string("ipamurl")?,
            user: ipam.string("ipamuser")?,
            app_id: ipam.string("appid")?,
            password: password.map(Secret::new),
            ..Self::default()
        };
        let Some(object) = ipam.object("provider")? else {
            return Ok(old.kind.is_some().then_some(old));
        };
        let prefix = ipam.path("provider.");
        warn_unknown(object, keys::PROVIDER_KEYS, &prefix, warnings);
        for secret in ["password", "token", "secret"] {
            if object.get(secret).is_some() {
                return Err(inline_secret(format!("{prefix}{secret}")));
            }
        }
        let reader = Reader::new(object, &prefix);
        Ok(Some(Self {
            kind: reader.string("type")?.or(old.kind),
            url: reader.string("url")?.or(old.url),
            insecure_http: reader.boolean("insecure_http")?,
            ca_file: reader.string("ca_file")?,
            user: reader.string("user")?.or(old.user),
            password: old.password,
            password_file: reader.string("password_file")?,
            token_file: reader.string("token_file")?,
            app_id: reader.string("app_id")?.or(old.app_id),
        }))
    }
}

fn inline_secret(key: String) -> ConfigurationError {
    ConfigurationError::value(
        key,
        "…",
        "a secret does not belong into a configuration that many can read",
        "write it into a file that only root can read, and name that in provider.password_file or provider.token_file",
    )
}

/// Ignoring `pick_addresses` would assign addresses that the user did not want.
fn refuse_picked_addresses(object: &Object, reader: Reader<'_>) -> Result<(), ConfigurationError> {
    object.get("pick_addresses").map_or(Ok(()), |value| {
        Err(ConfigurationError::value(
            reader.path("pick_addresses"),
            value.to_string(),
            "lists of candidates are not supported",
            "remove it and narrow the range with range_start, range_end and exclude, or ask for an address with \
             args.cni.ips",
        ))
    })
}

fn read_route(reader: Reader<'_>, object: &Object, warnings: &mut Vec<Warning>) -> Result<Route, ConfigurationError> {
    warn_unknown(object, keys::ROUTE_KEYS, &reader.path(""), warnings);
    let destination = reader.string("dst")?.unwrap_or_default();
    let dst = sloppy::strict_cidr(&destination).ok_or_else(|| {
        let cure = "write the destination as a network such as 0.0.0.0/0 or 2001:db8::/32";
        ConfigurationError::value(reader.path("dst"), &destination, "not a network", cure)
    })?;
    let gw = reader.string("gw")?.filter(|text| !text.is_empty());
    let gw = gw.map(|text| {
        let wrong = || ConfigurationError::value(reader.path("gw"), &text, "not an IP address", "write the next hop");
        sloppy::strict_address(&text).ok_or_else(wrong)
    });
    Ok(Route {
        dst,
        gw: gw.transpose()?,
        mtu: reader.integer("mtu")?,
        advmss: reader.integer("advmss")?,
        priority: reader.integer("priority")?,
        table: reader.integer("table")?,
        scope: reader.integer("scope")?,
    })
}

fn read_dns(object: &Object, prefix: &str, warnings: &mut Vec<Warning>) -> Result<Dns, ConfigurationError> {
    warn_unknown(object, keys::DNS_KEYS, prefix, warnings);
    let reader = Reader::new(object, prefix);
    Ok(Dns {
        nameservers: reader.strings("nameservers")?.unwrap_or_default(),
        domain: reader.string("domain")?.unwrap_or_default(),
        search: reader.strings("search")?.unwrap_or_default(),
        options: reader.strings("options")?.unwrap_or_default(),
    })
}
