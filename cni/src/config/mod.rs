//! What the user configured: read from the network configuration and the flat file, merged, checked.
//!
//! [`Configuration::load`] is the entry point. What was typed (`raw`) and what is meant ([`Configuration`]) are two
//! types: everything after this module asks only what is meant. [`LossyConfiguration`] is what can be known without any
//! of it, for DEL and GC, which must work whatever the configuration has become.

mod addresses;
mod configuration;
mod datastore;
mod documents;
mod error;
mod flat_file;
mod host_settings;
mod keys;
mod lenient_json;
mod merge;
mod names;
mod network;
mod provider;
mod ranges;
mod raw;
mod reader;
mod result_parts;
mod secret;
mod sloppy;
mod suggest;
mod warning;

pub use self::addresses::{RequestedAddress, StaticAddress};
pub(crate) use self::configuration::find_flat_file;
pub use self::configuration::{Configuration, ExhaustedStatus, LeaderTimings, Loaded, StaticArguments, Surroundings};
pub use self::datastore::{Datastore, DatastoreOrigin, Etcd};
pub use self::documents::{Document, read_documents};
pub use self::error::ConfigurationError;
pub use self::flat_file::{FlatFile, FlatFileSearch};
pub use self::host_settings::{DEFAULT_DATA_DIR, HostSettings, LossyConfiguration};
pub use self::keys::{
    ADDRESS_KEYS, DNS_KEYS, IPAM_KEYS, KUBERNETES_KEYS, Key, PROVIDER_KEYS, RANGE_KEYS, ROUTE_KEYS, RUNTIME_RANGE_KEYS,
};
pub use self::lenient_json::{INPUT_LIMIT, Json, Object};
pub use self::names::{NetworkName, StickyName};
pub use self::network::NetworkConfiguration;
pub use self::provider::{Credentials, Provider, ProviderKind};
pub use self::ranges::RangeConfiguration;
pub use self::result_parts::{Dns, Route};
pub use self::secret::Secret;
pub use self::sloppy::{sloppy_address, sloppy_cidr, strict_address, strict_cidr};
pub use self::suggest::nearest;
pub use self::warning::Warning;
pub(crate) use self::warning::shorten;

#[cfg(test)]
mod tests;
