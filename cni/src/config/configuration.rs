//! What the configuration means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use whereabouts_engine::{Address, Family};

use super::addresses::{place_static_addresses, requested_addresses, static_addresses};
use super::host_settings::seconds;
use super::merge::merge;
use super::network::one_of;
use super::ranges::{RangeDefaults, read_gateway};
use super::raw::{Origin, RawIpam, RawRange};
use super::reader::Reader;
use super::{
    ConfigurationError, Datastore, DatastoreOrigin, Dns, FlatFile, FlatFileSearch, HostSettings, NetworkConfiguration,
    NetworkName, Provider, RangeConfiguration, RequestedAddress, Route, StaticAddress, StickyName, Warning,
};

/// What the user configured for a network, checked and with all defaults in place.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The name of the CNI network (`name`); `None` where the configuration has none.
    pub network: Option<String>,
    /// The network to which the ranges belong: the collision domain.
    pub network_name: NetworkName,
    /// One address is assigned from each of these, in this order.
    pub ranges: Vec<RangeConfiguration>,
    /// Whether ranges that overlap share their addresses. If not, each range is a space of its own.
    pub enable_overlapping_ranges: bool,
    /// The gateway for every address of its family. [`RangeConfiguration::gateway`] says what goes with a range.
    pub gateway: Option<Address>,
    /// Routes of the result.
    pub routes: Vec<Route>,
    /// DNS of the result.
    pub dns: Dns,
    /// Addresses that are added to the result, after the assigned ones.
    pub static_addresses: Vec<StaticAddress>,
    /// Addresses that replace the choice in their ranges.
    pub requested: Vec<RequestedAddress>,
    /// The name under which the owner keeps its address whatever becomes of its sandbox.
    pub sticky_name: Option<StickyName>,
    /// Where leases are kept.
    pub datastore: Datastore,
    /// Why they are kept there.
    pub datastore_origin: DatastoreOrigin,
    /// The pool of the provider.
    pub pool: Option<String>,
    /// The external IPAM that has the last word on the addresses of the pool.
    pub provider: Option<Provider>,
    /// Settings of this host.
    pub host: HostSettings,
    /// What STATUS answers when a range is exhausted.
    pub exhausted_status: ExhaustedStatus,
    /// How long to sleep before an address is written, for tests.
    pub sleep_for_race: Duration,
    /// Timings of the Go plugin's leader election, which have no effect.
    pub leader: LeaderTimings,
    /// When the reconciler of the Go plugin runs.
    pub reconciler_cron_expression: Option<String>,
    /// The flat file that was used.
    pub flat_file: Option<PathBuf>,
}

/// What STATUS answers when a range is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExhaustedStatus {
    /// Not ready, with code 50. The default on a host.
    Error,
    /// Ready, with a warning. The default in Kubernetes, where a network that is not ready turns the node NotReady.
    Ready,
}

/// Timings of the Go plugin's leader election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderTimings {
    /// How long a lease lasts.
    pub lease_duration: Duration,
    /// How long the leader tries to renew.
    pub renew_deadline: Duration,
    /// How long the others wait between two tries.
    pub retry_period: Duration,
}

/// What the host says, as opposed to the network.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the flat file is looked for.
    pub flat_files: FlatFileSearch,
    /// `WHEREABOUTS_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `NODENAME`.
    pub node: Option<String>,
}

impl Surroundings {
    /// The name of this node in its cluster, where there is no configuration to ask: from the environment, or from the
    /// file beside the flat file.
    #[must_use]
    pub fn node_name(&self) -> Option<String> {
        let beside = || {
            let flat_file = self.flat_files.find(None, &mut Vec::new()).ok().flatten()?;
            super::host_settings::node_beside(&flat_file.path)
        };
        self.node.clone().or_else(beside)
    }

    /// The folder of the ledger by the flat file, where there is no network's configuration to ask.
    ///
    /// # Errors
    /// The flat file, or what it says of the folder, cannot be used.
    pub fn data_dir_of_flat_file(&self) -> Result<Option<PathBuf>, ConfigurationError> {
        let Some(file) = self.flat_files.find(None, &mut Vec::new())? else { return Ok(None) };
        let prefix = format!("{}: ", file.path.display());
        let typed = Reader::new(&file.object, &prefix).string("data_dir")?.filter(|typed| !typed.is_empty());
        typed.map(|typed| super::host_settings::check_folder("data_dir", Path::new(&typed))).transpose()
    }
}

/// The static addresses of CNI_ARGS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticArguments {
    /// `IP`: addresses with prefixes, with commas between them.
    pub ip: Option<String>,
    /// `GATEWAY`: addresses, with commas between them.
    pub gateway: Option<String>,
}

/// A configuration, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the configuration means.
    pub configuration: Configuration,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

// === impl Configuration ===

impl Configuration {
    /// Reads, merges and checks a configuration.
    ///
    /// # Errors
    /// The first thing that is wrong, with key, value and cure.
    ///
    /// ```
    /// use whereabouts::config::{Configuration, FlatFileSearch, NetworkConfiguration, StaticArguments, Surroundings};
    ///
    /// let text = br#"{"name": "n", "ipam": {"type": "whereabouts", "range": "10.0.0.0/24", "gatway": "10.0.0.1"}}"#;
    /// let surroundings = Surroundings { flat_files: FlatFileSearch::none(), data_dir: None, node: None };
    /// let network = NetworkConfiguration::parse(text)?;
    /// let loaded = Configuration::load(&network, &StaticArguments::default(), &surroundings)?;
    /// assert_eq!(loaded.configuration.ranges[0].view().count(), 254);
    /// assert!(loaded.warnings[0].to_string().contains("did you mean gateway?"));
    /// # Ok::<(), whereabouts::config::ConfigurationError>(())
    /// ```
    pub fn load(
        network: &NetworkConfiguration,
        arguments: &StaticArguments,
        surroundings: &Surroundings,
    ) -> Result<Loaded, ConfigurationError> {
        let mut warnings = Vec::new();
        let flat_file = find_flat_file(network, surroundings, &mut warnings)?;
        let mut loaded = Self::load_with(network, flat_file.as_ref(), arguments, surroundings)?;
        warnings.append(&mut loaded.warnings);
        Ok(Loaded { warnings, ..loaded })
    }

    /// As [`Configuration::load`], with a flat file that has been looked for already.
    ///
    /// # Errors
    /// The first thing that is wrong, with key, value and cure.
    pub fn load_with(
        network: &NetworkConfiguration,
        flat_file: Option<&FlatFile>,
        arguments: &StaticArguments,
        surroundings: &Surroundings,
    ) -> Result<Loaded, ConfigurationError> {
        let mut warnings = Vec::new();
        let typed = RawIpam::read(network.ipam()?, Origin::Network, "", &mut warnings)?;
        warn_about_data_dir(&typed, surroundings, &mut warnings);
        let raw = match flat_file {
            Some(file) => {
                let prefix = format!("{}: ", file.path.display());
                let flat = RawIpam::read(&file.object, Origin::FlatFile, &prefix, &mut warnings)?;
                merge(typed, flat, &mut warnings)
            }
            None => typed,
        };
        let flat_file = flat_file.map(|file| file.path.clone());
        let configuration = Self::resolve(network, raw, flat_file, arguments, surroundings, &mut warnings)?;
        Ok(Loaded { configuration, warnings })
    }

    /// Whether this build can do what is configured. `use_for_pods` says how Kubernetes pods come into it, if they do:
    /// "a call for the Kubernetes pod default/web".
    ///
    /// # Errors
    /// [`ConfigurationError::PodWithoutDatastore`], [`ConfigurationError::DatastoreNotAvailable`] or
    /// [`ConfigurationError::ProviderNotAvailable`]: never anything else is done instead.
    pub fn require_available(&self, use_for_pods: Option<&str>) -> Result<(), ConfigurationError> {
        if let Some(use_for_pods) = use_for_pods.filter(|_| self.datastore_origin == DatastoreOrigin::Default) {
            let use_for_pods = super::warning::shorten_text(use_for_pods);
            return Err(ConfigurationError::PodWithoutDatastore { use_for_pods });
        }
        self.datastore.require_available(self.datastore_origin)?;
        match (&self.provider, &self.pool) {
            (Some(provider), Some(pool)) => provider.require_available(pool),
            _ => Ok(()),
        }
    }

    /// The family of each address of the result, static ones last.
    pub fn result_families(&self) -> impl Iterator<Item = Family> {
        let assigned = self.ranges.iter().map(|range| range.view().family());
        assigned.chain(self.static_addresses.iter().map(|address| Family::from(address.address)))
    }

    fn resolve(
        network: &NetworkConfiguration,
        raw: RawIpam,
        flat_file: Option<PathBuf>,
        arguments: &StaticArguments,
        surroundings: &Surroundings,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigurationError> {
        let (host, problems) = HostSettings::resolve(&raw, flat_file.as_deref(), surroundings, warnings);
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem);
        }
        let (datastore, datastore_origin) = Datastore::resolve(&raw, warnings)?;
        let leader = LeaderTimings::resolve(&raw, warnings);
        let gateway = raw.gateway.as_deref().filter(|text| !text.is_empty());
        let gateway = gateway.map(|text| read_gateway("gateway", text)).transpose()?;
        warn_about_no_effect(&raw, warnings);
        let typed_requests = network.requested()?;
        // What CNI_ARGS says is not looked at where the configuration carries the same thing.
        let mut arguments = arguments.clone();
        if !typed_requests.is_empty()
            && let Some(ip) = std::mem::take(&mut arguments).ip
        {
            let text = "has no effect, because args.cni.ips or runtimeConfig.ips ask for addresses";
            warnings.push(Warning::new("CNI_ARGS IP", ip, text));
        }
        let mut static_addresses = static_addresses(raw.addresses.unwrap_or_default(), &arguments, warnings)?;
        let other_gateways: Vec<Address> = static_addresses.iter().filter_map(|fixed| fixed.gateway).collect();
        let defaults = RangeDefaults {
            gateway,
            other_gateways: &other_gateways,
            exclude_gateway: raw.exclude_gateway.unwrap_or(true),
            enable_l3: raw.enable_l3.unwrap_or(false),
        };
        let exhausted_status = match raw.exhausted_status.as_deref().filter(|typed| !typed.is_empty()) {
            Some(typed) => {
                let known = [("error", ExhaustedStatus::Error), ("ready", ExhaustedStatus::Ready)];
                one_of("exhausted_status", typed, &known)?
            }
            None if matches!(datastore, Datastore::Kubernetes { .. }) => ExhaustedStatus::Ready,
            None => ExhaustedStatus::Error,
        };
        let sleep_for_race = seconds("sleep_for_race", raw.sleep_for_race, 0, 0)?;
        let network_name = NetworkName::new(raw.network_name.unwrap_or_default())?;
        let provider = raw.provider.map(Provider::resolve).transpose()?;
        let pool = match network.argument("pool")? {
            Some((_, pool)) => Some(pool),
            None => raw.pool,
        };
        let pool = pool.filter(|pool| !pool.is_empty());

        let top = raw.range.filter(|range| !range.is_empty()).map(|range| RawRange {
            key: "range".to_owned(),
            range,
            start: raw.range_start.map(|value| ("range_start".to_owned(), value)),
            end: raw.range_end.map(|value| ("range_end".to_owned(), value)),
            exclude: ("exclude".to_owned(), raw.exclude.unwrap_or_default()),
            sloppy_ends: true,
            ..RawRange::default()
        });
        let typed_ranges = match runtime_ranges(network, warnings)? {
            Some(ranges) => ranges,
            None => top.into_iter().chain(raw.ip_ranges.unwrap_or_default()).collect(),
        };
        let ranges = typed_ranges.into_iter().map(|range| RangeConfiguration::new(range, defaults, warnings));
        let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
        match (&pool, &provider) {
            (Some(pool), None) if ranges.is_empty() => {
                let cure = "configure the provider of the pool, or a range";
                return Err(ConfigurationError::value("pool", pool, "no provider is configured", cure));
            }
            (Some(pool), None) => {
                let text = "has no effect, because no provider is configured; addresses come from the ranges";
                warnings.push(Warning::new("pool", pool, text));
            }
            (None, _) if ranges.is_empty() => return Err(ConfigurationError::NothingToAssign),
            _ => {}
        }
        warn_about_gateway(gateway, &ranges, warnings);

        place_static_addresses(&mut static_addresses, &ranges);
        let requested = requested_addresses(&typed_requests, &ranges, &static_addresses)?;
        let sticky_name = network.argument("podname")?;
        let sticky_name = sticky_name.map(|(key, name)| StickyName::new(&key, name)).transpose()?;
        Ok(Self {
            network: network.name()?.filter(|name| !name.is_empty()),
            network_name,
            ranges,
            enable_overlapping_ranges: raw.enable_overlapping_ranges.unwrap_or(true),
            gateway,
            routes: raw.routes.unwrap_or_default(),
            dns: raw.dns.unwrap_or_default(),
            static_addresses,
            requested,
            sticky_name,
            datastore,
            datastore_origin,
            pool,
            provider,
            host,
            exhausted_status,
            sleep_for_race,
            leader,
            reconciler_cron_expression: raw.reconciler_cron_expression.filter(|text| !text.is_empty()),
            flat_file,
        })
    }
}

// === impl LeaderTimings ===

impl LeaderTimings {
    /// Timings that make no sense are told and replaced: nothing depends on them.
    fn resolve(raw: &RawIpam, warnings: &mut Vec<Warning>) -> Self {
        let mut milliseconds = |key: &str, typed: Option<i64>, default: u64| {
            let typed = typed.filter(|typed| *typed != 0);
            let usable = typed.map_or(Some(default), |typed| u64::try_from(typed).ok());
            Duration::from_millis(usable.unwrap_or_else(|| {
                let value = typed.unwrap_or_default().to_string();
                warnings.push(Warning::new(key, value, "negative, has no effect; write milliseconds, or remove it"));
                default
            }))
        };
        Self {
            lease_duration: milliseconds("leader_lease_duration", raw.leader_lease_duration, 1500),
            renew_deadline: milliseconds("leader_renew_deadline", raw.leader_renew_deadline, 1000),
            retry_period: milliseconds("leader_retry_period", raw.leader_retry_period, 500),
        }
    }
}

/// Looks for the flat file, where the network says or where the host has it.
///
/// # Errors
/// The first file that exists cannot be used.
pub(crate) fn find_flat_file(
    network: &NetworkConfiguration,
    surroundings: &Surroundings,
    warnings: &mut Vec<Warning>,
) -> Result<Option<FlatFile>, ConfigurationError> {
    let ipam = network.object().get("ipam").and_then(super::Json::as_object);
    let path = match ipam {
        Some(ipam) => Reader::new(ipam, "").string("configuration_path")?,
        None => None,
    };
    surroundings.flat_files.find(path.as_deref(), warnings)
}

/// `runtimeConfig.ipRanges`: a list of sets, each of which gives one address. A set of several ranges, from which any
/// one would do, has no counterpart here.
fn runtime_ranges(
    network: &NetworkConfiguration,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Vec<RawRange>>, ConfigurationError> {
    let Some(runtime) = network.runtime_config()? else { return Ok(None) };
    let Some(sets) = runtime.array("ipRanges")?.filter(|sets| !sets.is_empty()) else { return Ok(None) };
    let mut ranges = Vec::new();
    for (position, set) in sets.iter().enumerate() {
        let key = format!("runtimeConfig.ipRanges[{position}]");
        let wrong = |problem: &str| {
            let cure = "write a list with one object in it: [{\"subnet\": \"192.0.2.0/24\"}]";
            ConfigurationError::value(&key, set.to_string(), problem, cure)
        };
        let [range] = set.as_array().ok_or_else(|| wrong("this is not a list"))? else {
            return Err(wrong("a set must have exactly one range"));
        };
        let object = range.as_object().ok_or_else(|| wrong("this is not a list of objects"))?;
        let prefix = format!("{key}[0].");
        ranges.push(RawRange::read_runtime(Reader::new(object, &prefix), object, warnings)?);
    }
    Ok(Some(ranges))
}

/// A DEL may come with a configuration that has lost this key, and would then look in another folder.
fn warn_about_data_dir(typed: &RawIpam, surroundings: &Surroundings, warnings: &mut Vec<Warning>) {
    if let Some(path) = typed.data_dir.as_deref().filter(|path| !path.is_empty() && surroundings.data_dir.is_none()) {
        let text = "some runtimes call DEL with a configuration that lacks this key; better set it in the flat file or \
                    as WHEREABOUTS_DATA_DIR";
        warnings.push(Warning::new("data_dir", path, text));
    }
}

fn warn_about_no_effect(raw: &RawIpam, warnings: &mut Vec<Warning>) {
    if let Some(size) = raw.node_slice_size.as_deref().filter(|size| !size.is_empty()) {
        let text = "has no effect: nothing is cut into slices here, all hosts share the whole range";
        warnings.push(Warning::new("node_slice_size", size, text));
    }
    if raw.optimistic_ipam.is_some() {
        let text = "has no effect: no lock is ever taken here; remove it";
        warnings.push(Warning::new("optimistic_ipam", "", text));
    }
    if raw.range.as_deref().unwrap_or_default().is_empty() {
        let lists = raw.exclude.as_deref().unwrap_or_default();
        let typed = [("range_start", &raw.range_start), ("range_end", &raw.range_end)];
        let typed = typed.into_iter().filter_map(|(key, value)| Some((key, value.clone().filter(|v| !v.is_empty())?)));
        for (key, value) in typed.chain((!lists.is_empty()).then(|| ("exclude", lists.join(", ")))) {
            let text = "has no effect without range; it does not apply to ipRanges, whose entries have their own";
            warnings.push(Warning::new(key, value, text));
        }
    }
}

fn warn_about_gateway(gateway: Option<Address>, ranges: &[RangeConfiguration], warnings: &mut Vec<Warning>) {
    let Some(gateway) = gateway else { return };
    if !ranges.is_empty() && ranges.iter().all(|range| range.view().family() != gateway.family()) {
        let text = format!("goes with no address, because no range is {}", gateway.family());
        warnings.push(Warning::new("gateway", gateway.to_string(), text));
    }
}
