//! The parts of the configuration that go into the result of ADD as they are.

use serde::{Serialize, Serializer};
use whereabouts_engine::{Address, IpNet};

/// A route of the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destination.
    #[serde(serialize_with = "as_text")]
    pub dst: IpNet,
    /// The next hop; `None` means the gateway of the address.
    #[serde(serialize_with = "as_optional_text", skip_serializing_if = "Option::is_none")]
    pub gw: Option<Address>,
    /// The MTU along the path, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// The maximal segment size to advertise, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<i64>,
    /// The priority; lower goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// The routing table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<i64>,
    /// The scope of the destinations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<i64>,
}

/// The DNS section of the result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Name servers, in order of priority.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain for short names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains, in order of priority.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

// === impl Dns ===

impl Dns {
    /// Whether nothing was configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_optional_text<T: std::fmt::Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
