//! What is wrong with a configuration. Each message names the key, what stands there, and what to write instead.

use std::io;
use std::path::PathBuf;

use whereabouts_engine::{SpecError, ViewError};

use super::INPUT_LIMIT;
use super::warning::{shorten, shorten_text};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// More input than anyone writes by hand or Kubernetes stores.
    #[error("{input} is larger than {INPUT_LIMIT} bytes: make it smaller, for example by joining excludes")]
    TooLarge {
        /// What was read.
        input: String,
    },
    /// Nothing could be read.
    #[error("cannot read {input}: {source}: make it readable for the plugin, which usually runs as root")]
    Read {
        /// What was to be read.
        input: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The network configuration is not JSON.
    #[error("LoadIPAMConfig - JSON Parsing Error: {source}: correct the JSON of the network configuration")]
    Json {
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// The flat file is not JSON. Its text is not repeated: `configuration_path` may name any file.
    #[error("LoadIPAMConfig Flatfile ({}) - JSON Parsing Error: {source}: correct the file or remove it", path.display())]
    FlatFileJson {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// The flat file that a variable of the environment names is not there. It may be what says where the ledger is.
    #[error(
        "{variable} = {}: there is no such file: put the flat file there, or unset the variable so that it is looked for \
         in the usual places",
        shorten(&path.to_string_lossy())
    )]
    NoFlatFile {
        /// The variable.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
    },
    /// A document given to `check-config` is neither JSON nor YAML.
    #[error("{input} is not YAML: {reason}: give a network configuration (JSON) or a NetworkAttachmentDefinition")]
    Yaml {
        /// Which document.
        input: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// No `ipam` in the network configuration.
    #[error("IPAM config missing 'ipam' key: add \"ipam\": {{\"type\": \"whereabouts\", \"range\": \"…\"}}")]
    MissingIpam,
    /// The configuration is for another IPAM plugin.
    #[error(
        "only interested in networks whose IPAM type is 'whereabouts'. This one was: {found}: set ipam.type to \
         whereabouts"
    )]
    OtherPlugin {
        /// The value of `ipam.type`.
        found: String,
    },
    /// The network configuration has no `name`, or an empty one.
    #[error("missing network name: add \"name\" to the network configuration")]
    MissingName,
    /// A value that cannot be used.
    #[error("{key} = {value}: {problem}: {cure}")]
    Value {
        /// The key, as a path.
        key: String,
        /// What stands there.
        value: String,
        /// Why it cannot be used.
        problem: String,
        /// What to write instead.
        cure: String,
    },
    /// A range from which no view can be made.
    #[error("{key} = {value}: {source}")]
    Range {
        /// The key, as a path.
        key: String,
        /// What stands there.
        value: String,
        /// Why, and what to write instead.
        source: Box<ViewError>,
    },
    /// An exclude that is neither a network nor an address.
    #[error("{key} = {value}: {source}")]
    Exclude {
        /// The key, as a path.
        key: String,
        /// What stands there.
        value: String,
        /// Why, and what to write instead.
        source: Box<SpecError>,
    },
    /// Nothing from which an address could be assigned.
    #[error(
        "no range and no pool: set ipam.range or ipam.ipRanges (for example \"range\": \"192.0.2.0/24\"), or name a \
         pool and configure its provider"
    )]
    NothingToAssign,
    /// Kubernetes pods, and nobody said where their addresses are kept.
    #[error(
        "datastore is not set, and this is {use_for_pods}: addresses kept on each host alone are \
         not unique in a cluster: set kubernetes.kubeconfig to keep them in the cluster, or set \"datastore\": \
         \"local\" where every host has ranges of its own"
    )]
    PodWithoutDatastore {
        /// How pods come into it, with their names where they are known.
        use_for_pods: String,
    },
    /// A datastore that this program cannot use.
    #[error(
        "datastore = {value} (because of {reason}): not available yet in this build: set \"datastore\": \"local\" to \
         keep addresses on this host"
    )]
    DatastoreNotAvailable {
        /// `kubernetes` or `etcd`.
        value: &'static str,
        /// The key that chose it.
        reason: &'static str,
    },
    /// A provider that this program cannot use.
    #[error(
        "provider.type = {value} (for pool = {pool}): provider not available in this build: remove the pool to assign \
         addresses of the configured ranges without asking anyone"
    )]
    ProviderNotAvailable {
        /// The provider.
        value: &'static str,
        /// The pool whose addresses it has the last word on.
        pool: String,
    },
}

// === impl ConfigurationError ===

impl ConfigurationError {
    /// A value that cannot be used.
    pub(crate) fn value(
        key: impl Into<String>,
        value: impl AsRef<str>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::Value {
            key: key.into(),
            value: shorten(value.as_ref()),
            problem: shorten_text(&problem.into()),
            cure: shorten_text(&cure.into()),
        }
    }
}
