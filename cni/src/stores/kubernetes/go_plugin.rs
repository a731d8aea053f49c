//! What the Go plugin has left in a cluster.

use serde_json::Value;
use whereabouts_engine::{Family, ReadError, Space};

use super::KubernetesStore;
use super::client::Resource;

impl KubernetesStore<'_> {
    /// The Go plugin's pools that hold addresses which this space is about to give away, by name.
    ///
    /// A cluster without the Go plugin's definitions has none.
    pub(super) async fn go_pools_in_use(&self, space: &Space) -> Result<Vec<String>, ReadError> {
        let pools = match self.all(Resource::GoPools, "").await {
            Ok(pools) => pools,
            // The answer to a list of what is not defined.
            Err(ReadError::Unavailable { reason }) if reason.contains("has no ippools") => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let is_of_the_space = |pool: &Value| {
            let text = |pointer: &str| pool.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (name, range) = (text("/metadata/name"), text("/spec/range"));
            let is_v6 = range.contains(':');
            is_v6 == (space.family() == Family::V6) && network_of(name, range) == Some(space.network().as_str())
        };
        let holds_some = |pool: &Value| {
            pool.pointer("/spec/allocations").and_then(Value::as_object).is_some_and(|held| !held.is_empty())
        };
        let name = |pool: Value| Some(pool.pointer("/metadata/name")?.as_str()?.to_owned());
        Ok(pools.into_iter().filter(|pool| is_of_the_space(pool) && holds_some(pool)).filter_map(name).collect())
    }
}

/// The `network_name` in the name of a pool: what stands before its range, as the Go plugin writes that in a name.
fn network_of<'a>(name: &'a str, range: &str) -> Option<&'a str> {
    let mut written = range.to_owned();
    if written.ends_with(':') {
        written.push('0');
    }
    let written = written.replace([':', '/'], "-");
    let before = name.strip_suffix(&written)?;
    Some(before.strip_suffix('-').unwrap_or(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_network_is_read_from_its_name() {
        for (name, range, network) in [
            ("10.0.0.0-8", "10.0.0.0/8", Some("")),
            ("blue-10.0.0.0-8", "10.0.0.0/8", Some("blue")),
            ("2001-db8---64", "2001:db8::/64", Some("")),
            ("a-b-fd---116", "fd::/116", Some("a-b")),
            ("something", "10.0.0.0/8", None),
        ] {
            assert_eq!(network_of(name, range), network, "{name}");
        }
    }
}
