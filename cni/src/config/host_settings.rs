//! What must be known even when the configuration is broken: where the ledger is, where the log goes, how long to wait.

use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::raw::RawIpam;
use super::{ConfigurationError, Datastore, FlatFile, Json, NetworkConfiguration, Object, Surroundings, Warning};
use crate::log::{LogLevel, LogSettings};

/// Where the ledger is when nobody says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/whereabouts";

/// The longest time that may be configured, in seconds: a day.
const LONGEST: i64 = 86_400;

/// As much of the file `nodename` as is read, in bytes.
const LONGEST_NODE_NAME: u64 = 1024;

/// Settings of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// The folder of the ledger.
    pub data_dir: PathBuf,
    /// Where the log goes, and how much of it.
    pub log: LogSettings,
    /// After how long a call gives up; `None` for what is usual for its verb.
    pub deadline: Option<Duration>,
    /// For how long GC spares a new attachment.
    pub gc_grace: Duration,
    /// The name of this node in its cluster; `None` for the host's name.
    pub node: Option<String>,
}

/// What is known whatever the configuration has become. Enough for DEL and GC.
#[derive(Clone, Debug)]
pub struct LossyConfiguration {
    /// `cniVersion` as it was typed.
    pub cni_version: Option<String>,
    /// `name`, the name of the CNI network.
    pub network: Option<String>,
    /// Settings of this host: each from the first of environment, network and flat file that has a usable one.
    pub host: HostSettings,
    /// Where leases are kept; on this host where that cannot be told.
    pub datastore: Datastore,
    /// What could not be used.
    pub warnings: Vec<Warning>,
}

// === impl HostSettings ===

impl HostSettings {
    /// What cannot be used is replaced by the default and told in the list.
    pub(crate) fn resolve(
        raw: &RawIpam,
        flat_file: Option<&Path>,
        surroundings: &Surroundings,
        warnings: &mut Vec<Warning>,
    ) -> (Self, Vec<ConfigurationError>) {
        let mut problems = Vec::new();
        let deadline = raw.deadline.map(|typed| seconds("deadline", Some(typed), 1, 30)).transpose();
        let deadline = deadline.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let gc_grace = seconds("gc_grace", raw.gc_grace, 0, 60).unwrap_or_else(|problem| {
            problems.push(problem);
            Duration::from_secs(60)
        });
        let data_dir = data_dir(raw.data_dir.as_deref(), surroundings, warnings).unwrap_or_else(|problem| {
            problems.push(problem);
            PathBuf::from(DEFAULT_DATA_DIR)
        });
        let file = log_file(raw.log_file.as_deref(), warnings);
        let level = match raw.log_level.as_deref().filter(|level| !level.is_empty()) {
            None => LogLevel::default(),
            Some(typed) => LogLevel::parse(typed).unwrap_or_else(|| {
                let text = "unknown level, has no effect; write debug, verbose, error or panic";
                warnings.push(Warning::new("log_level", typed, text));
                LogLevel::default()
            }),
        };
        let node = surroundings.node.clone().or_else(|| node_beside(flat_file?));
        (Self { data_dir, log: LogSettings { file, level }, deadline, gc_grace, node }, problems)
    }
}

// === impl LossyConfiguration ===

impl LossyConfiguration {
    /// Takes what can be had. `network` is `None` where the input was not even JSON.
    #[must_use]
    pub fn read(
        network: Option<&NetworkConfiguration>,
        flat_file: Option<&FlatFile>,
        surroundings: &Surroundings,
    ) -> Self {
        let nothing = Object::default();
        let top = network.map_or(&nothing, NetworkConfiguration::object);
        let ipam = top.get("ipam").and_then(Json::as_object).unwrap_or(&nothing);
        let flat = flat_file.map_or(&nothing, |file| &file.object);
        // A value of the wrong type counts as absent, and so does Go's zero value, as when everything is in order.
        let text = |key: &str| {
            let find = |object: &Object| object.get(key).and_then(Json::as_str).map(str::to_owned);
            find(ipam).filter(|text| !text.is_empty()).or_else(|| find(flat))
        };
        let number = |key: &str| {
            let find = |object: &Object| object.get(key).and_then(Json::as_integer);
            find(ipam).or_else(|| find(flat))
        };
        let raw = RawIpam {
            data_dir: text("data_dir"),
            log_file: text("log_file"),
            log_level: text("log_level"),
            deadline: number("deadline"),
            gc_grace: number("gc_grace"),
            datastore: text("datastore"),
            kubeconfig: kubeconfig(ipam).or_else(|| kubeconfig(flat)),
            etcd_host: text("etcd_host"),
            ..RawIpam::default()
        };
        let mut warnings = Vec::new();
        let path = flat_file.map(|file| file.path.as_path());
        let (host, problems) = HostSettings::resolve(&raw, path, surroundings, &mut warnings);
        let datastore = Datastore::resolve(&raw, &mut Vec::new()).map_or(Datastore::Local, |(datastore, _)| datastore);
        let replaced =
            |problem: ConfigurationError| Warning::new("configuration", "", format!("{problem}; using the default"));
        warnings.extend(problems.into_iter().map(replaced));
        let top_text =
            |key: &str| top.get(key).and_then(Json::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        Self { cni_version: top_text("cniVersion"), network: top_text("name"), host, datastore, warnings }
    }
}

/// `kubernetes.kubeconfig`, if there is a usable one.
fn kubeconfig(object: &Object) -> Option<String> {
    let path = object.get("kubernetes")?.as_object()?.get("kubeconfig")?.as_str()?;
    (!path.is_empty()).then(|| path.to_owned())
}

/// The name of the node in the file `nodename` beside the flat file, where the Go plugin's installation writes it.
pub(super) fn node_beside(flat_file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(flat_file.with_file_name("nodename")).ok()?;
    file.take(LONGEST_NODE_NAME).read_to_end(&mut bytes).ok()?;
    let name = String::from_utf8(bytes).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// The environment goes before the configuration: it is there in every call, while a DEL may come with a configuration
/// that has lost the key.
fn data_dir(
    typed: Option<&str>,
    surroundings: &Surroundings,
    warnings: &mut Vec<Warning>,
) -> Result<PathBuf, ConfigurationError> {
    let typed = typed.filter(|path| !path.is_empty());
    let Some(path) = &surroundings.data_dir else {
        return typed
            .map_or_else(|| Ok(PathBuf::from(DEFAULT_DATA_DIR)), |typed| check_folder("data_dir", Path::new(typed)));
    };
    if let Some(typed) = typed.filter(|typed| Path::new(typed) != path) {
        let text = format!("has no effect, because WHEREABOUTS_DATA_DIR = {} goes before it", path.display());
        warnings.push(Warning::new("data_dir", typed, text));
    }
    check_folder("WHEREABOUTS_DATA_DIR", path)
}

pub(super) fn check_folder(key: &str, path: &Path) -> Result<PathBuf, ConfigurationError> {
    if is_plain(path) {
        return Ok(path.to_owned());
    }
    let cure = format!("write an absolute path without .., such as {DEFAULT_DATA_DIR}");
    Err(ConfigurationError::value(key, path.display().to_string(), "is not an absolute path", cure))
}

/// The plugin runs in whatever folder the runtime does, so that another path would name a file that nobody looks for.
/// No call fails for its log.
fn log_file(typed: Option<&str>, warnings: &mut Vec<Warning>) -> Option<PathBuf> {
    let typed = typed.filter(|path| !path.is_empty())?;
    let path = PathBuf::from(typed);
    if is_plain(&path) {
        return Some(path);
    }
    let text = "is not an absolute path, has no effect, and the log goes to standard error; write an absolute path \
                without .., such as /var/log/whereabouts.log";
    warnings.push(Warning::new("log_file", typed, text));
    None
}

/// Whether the path means the same file from wherever it is looked at, as far as its text tells.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|component| component != Component::ParentDir)
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

/// A time in whole seconds.
pub(crate) fn seconds(key: &str, typed: Option<i64>, least: i64, default: u64) -> Result<Duration, ConfigurationError> {
    let Some(typed) = typed else { return Ok(Duration::from_secs(default)) };
    let allowed = u64::try_from(typed).ok().filter(|_| (least..=LONGEST).contains(&typed));
    allowed.map(Duration::from_secs).ok_or_else(|| {
        let cure = format!("write {least} to {LONGEST} seconds");
        ConfigurationError::value(key, typed.to_string(), "is out of bounds", cure)
    })
}
