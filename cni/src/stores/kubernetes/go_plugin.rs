//! What the Go plugin has left in a cluster: its objects, and what their names say.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::{Value, json};
use whereabouts_engine::{Address, Family, IpNet, Lease, ReadError, Space};

use super::KubernetesStore;
use super::client::Resource;

/// A pool: who holds which address of a range.
#[derive(Clone, Debug, Default)]
pub(super) struct GoPool {
    pub(super) name: String,
    pub(super) version: String,
    /// As it was written; allocations count from its address.
    pub(super) range: String,
    /// By the text of the offset.
    pub(super) allocations: Vec<(String, GoAllocation)>,
}

/// An address that is held; what is missing is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GoAllocation {
    pub(super) container: String,
    pub(super) interface: String,
    /// Namespace and name of the pod, with a slash between them.
    pub(super) pod: String,
}

/// A reservation: one address, in its name, across the overlapping pools of a network.
#[derive(Clone, Debug, Default)]
pub(super) struct GoReservation {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) holder: GoAllocation,
}

/// A range that is cut into slices, each of which has a pool for one node.
#[derive(Clone, Debug)]
pub(super) struct GoSlices {
    /// The network's name, or, for the unnamed network, that of the CNI configuration.
    name: String,
    range: IpNet,
    prefix: u8,
    nodes: BTreeSet<String>,
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl KubernetesStore<'_> {
    /// The Go plugin's pools that hold addresses which this space is about to give away, by name.
    ///
    /// A cluster without the Go plugin's definitions has none.
    pub(super) async fn go_pools_in_use(&self, space: &Space) -> Result<Vec<String>, ReadError> {
        let mut pools = self.go_pools().await?;
        pools.retain(|pool| !pool.allocations.is_empty() && pool.range.contains(':') == (space.family() == Family::V6));
        if pools.is_empty() {
            return Ok(Vec::new());
        }
        let slices = self.go_slices().await?;
        pools.retain(|pool| pool.network(&slices).as_deref() == Some(space.network().as_str()));
        Ok(pools.into_iter().map(|pool| pool.name).collect())
    }

    /// All pools.
    pub(super) async fn go_pools(&self) -> Result<Vec<GoPool>, ReadError> {
        let pools = self.all_if_defined(Resource::GoPools, "", |pool| Some(GoPool::read(&pool))).await?;
        Ok(pools.unwrap_or_default())
    }

    /// The namespaces that have pools.
    pub(super) async fn go_namespaces(&self) -> Result<BTreeSet<String>, ReadError> {
        let namespaces =
            self.all_if_defined(Resource::GoPoolsAnywhere, "", |pool| Some(text(&pool, "/metadata/namespace"))).await?;
        Ok(namespaces.unwrap_or_default().into_iter().collect())
    }

    /// All reservations.
    pub(super) async fn go_reservations(&self) -> Result<Vec<GoReservation>, ReadError> {
        let read = |object: Value| {
            Some(GoReservation {
                name: text(&object, "/metadata/name"),
                version: text(&object, "/metadata/resourceVersion"),
                holder: GoAllocation {
                    container: text(&object, "/spec/containerid"),
                    interface: text(&object, "/spec/ifname"),
                    pod: text(&object, "/spec/podref"),
                },
            })
        };
        Ok(self.all_if_defined(Resource::GoReservations, "", read).await?.unwrap_or_default())
    }

    /// The ranges that are cut into slices.
    pub(super) async fn go_slices(&self) -> Result<Vec<GoSlices>, ReadError> {
        let slices = self.all_if_defined(Resource::GoSlices, "", |object| GoSlices::read(&object)).await?;
        Ok(slices.unwrap_or_default())
    }
}

// === impl GoPool ===

impl GoPool {
    fn read(object: &Value) -> Self {
        let allocation = |(key, value): (&String, &Value)| {
            let allocation = GoAllocation {
                container: text(value, "/id"),
                interface: text(value, "/ifname"),
                pod: text(value, "/podref"),
            };
            (key.clone(), allocation)
        };
        let allocations = object.pointer("/spec/allocations").and_then(Value::as_object);
        Self {
            name: text(object, "/metadata/name"),
            version: text(object, "/metadata/resourceVersion"),
            range: text(object, "/spec/range"),
            allocations: allocations.into_iter().flatten().map(allocation).collect(),
        }
    }

    /// The `network_name` in the pool's name: what stands before its range, as the Go plugin writes that in a name, and
    /// before the name of a node where the range is a slice. `None` where the name is not made of its range: the Go
    /// plugin never reads such a pool.
    pub(super) fn network(&self, slices: &[GoSlices]) -> Option<String> {
        let before = self.name.strip_suffix(&in_a_name(&self.range))?;
        let before = before.strip_suffix('-').unwrap_or(before);
        let range: Option<IpNet> = self.range.parse().ok();
        for cut in slices.iter().filter(|cut| range.is_some_and(|range| cut.has_slice(range))) {
            if before.strip_prefix(&cut.name).is_some_and(|node| node.starts_with('-')) {
                return Some(cut.name.clone());
            }
            if cut.nodes.contains(before) {
                return Some(String::new());
            }
        }
        Some(before.to_owned())
    }
}

// === impl GoAllocation ===

impl GoAllocation {
    /// How the Go plugin would write down who holds an address.
    pub(super) fn of(lease: &Lease) -> Self {
        let pod = lease.owner.pod().map(|pod| format!("{}/{}", pod.namespace, pod.name));
        Self {
            container: lease.attachment.container.to_string(),
            interface: lease.attachment.interface.to_string(),
            pod: pod.unwrap_or_default(),
        }
    }

    /// As it stands in a pool.
    pub(super) fn in_a_pool(&self) -> Value {
        match &*self.interface {
            "" => json!({ "id": self.container, "podref": self.pod }),
            interface => json!({ "id": self.container, "podref": self.pod, "ifname": interface }),
        }
    }

    /// As it stands in a reservation.
    pub(super) fn in_a_reservation(&self) -> Value {
        match &*self.interface {
            "" => json!({ "podref": self.pod }),
            interface => json!({ "podref": self.pod, "ifname": interface }),
        }
    }
}

// === impl GoReservation ===

impl GoReservation {
    /// What the name can stand for: networks and addresses, the longest address first. In a name, an IPv6 address and a
    /// network have the same hyphens.
    pub(super) fn meanings(&self) -> Vec<(&str, Address)> {
        let mut meanings = Vec::new();
        let hyphens = self.name.match_indices('-').map(|(at, _)| (self.name.get(..at), self.name.get(at + 1..)));
        for (network, rest) in std::iter::once((Some(""), Some(self.name.as_str()))).chain(hyphens) {
            let (Some(network), Some(rest)) = (network, rest) else { continue };
            let v6 = || rest.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::from);
            if let Ok(address) = rest.parse::<IpAddr>().or_else(|_| v6()) {
                meanings.push((network, Address::from(address)));
            }
        }
        meanings
    }
}

// === impl GoSlices ===

impl GoSlices {
    fn read(object: &Value) -> Option<Self> {
        let nodes = object.pointer("/status/allocations").and_then(Value::as_array);
        let nodes = nodes.into_iter().flatten().map(|slice| text(slice, "/nodeName"));
        Some(Self {
            name: text(object, "/metadata/name"),
            range: text(object, "/spec/range").parse().ok()?,
            prefix: text(object, "/spec/sliceSize").trim_start_matches('/').parse().ok()?,
            nodes: nodes.filter(|node| !node.is_empty()).collect(),
        })
    }

    fn has_slice(&self, range: IpNet) -> bool {
        range.prefix_len() == self.prefix && self.range.contains(&range)
    }
}

/// The address to which the key of an allocation leads in a range, which may be beyond its end.
pub(super) fn address_at(range: IpNet, key: &str) -> Option<Address> {
    let base = Address::from(range.addr());
    Address::new(base.family(), base.number().checked_add(key.parse().ok()?)?)
}

/// A range or an address as the Go plugin writes it in a name.
pub(super) fn in_a_name(text: &str) -> String {
    let end = if text.ends_with(':') { "0" } else { "" };
    format!("{text}{end}").replace([':', '/'], "-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(name: &str, range: &str) -> GoPool {
        GoPool { name: name.to_owned(), range: range.to_owned(), ..GoPool::default() }
    }

    #[test]
    fn a_pools_network_is_read_from_its_name() {
        for (name, range, network) in [
            ("10.0.0.0-8", "10.0.0.0/8", Some("")),
            ("blue-10.0.0.0-8", "10.0.0.0/8", Some("blue")),
            ("2001-db8---64", "2001:db8::/64", Some("")),
            ("a-b-fd---116", "fd::/116", Some("a-b")),
            ("something", "10.0.0.0/8", None),
        ] {
            assert_eq!(pool(name, range).network(&[]).as_deref(), network, "{name}");
        }
    }

    #[test]
    fn the_pool_of_a_slice_is_of_its_network_and_not_of_its_node() {
        let slices = |name: &str| {
            GoSlices::read(&json!({
                "metadata": { "name": name },
                "spec": { "range": "10.0.0.0/8", "sliceSize": "/20" },
                "status": { "allocations": [
                    { "nodeName": "node-1", "sliceRange": "10.0.0.0/20" }, { "nodeName": "", "sliceRange": "10.0.16.0/20" }
                ] },
            }))
            .unwrap()
        };
        let slices = [slices("net1"), slices("the-cni-name")];
        for (name, range, network) in [
            ("net1-node-1-10.0.0.0-20", "10.0.0.0/20", "net1"),
            ("net1-gone-10.0.16.0-20", "10.0.16.0/20", "net1"),
            ("node-1-10.0.0.0-20", "10.0.0.0/20", ""),
            // Not a slice.
            ("node-1-10.0.0.0-24", "10.0.0.0/24", "node-1"),
            ("node-1-11.0.0.0-20", "11.0.0.0/20", "node-1"),
            ("10.0.0.0-20", "10.0.0.0/20", ""),
        ] {
            assert_eq!(pool(name, range).network(&slices).as_deref(), Some(network), "{name}");
        }
    }

    #[test]
    fn a_reservations_name_is_read_in_every_way_that_it_can_be_meant() {
        let meanings = |name: &str| {
            let reservation = GoReservation { name: name.to_owned(), ..GoReservation::default() };
            let text = |(network, address): (&str, Address)| format!("{network} {address}");
            reservation.meanings().into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(meanings("10.0.0.1"), [" 10.0.0.1"]);
        assert_eq!(meanings("my-net-10.0.0.1"), ["my-net 10.0.0.1"]);
        assert_eq!(meanings("2001-db8--0"), [" 2001:db8::", "2001 db8::"]);
        assert_eq!(meanings("blue-fd00--5"), ["blue fd00::5"]);
        assert_eq!(meanings("nonsense"), [""; 0]);
    }
}
