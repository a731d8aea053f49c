//! Leases as the commands show and name them.

use serde_json::{Value, json};
use whereabouts_engine::{Address, Holding, IpNet, Lease, Ledger, Network, Owner, Pod, Range, Space, ViewSpec};

use super::exit::Failure;
use super::time::rfc3339;

/// A lease as JSON.
pub(super) fn lease_json(space: &Space, address: Address, lease: &Lease) -> Value {
    json!({
        "address": address.to_string(),
        "network": space.network().as_str(),
        "private": space.private_cidr().map(|cidr| cidr.to_string()),
        "pool": lease.pool.to_string(),
        "state": lease.state.to_string(),
        "owner": owner_json(&lease.owner),
        "container": &*lease.attachment.container,
        "interface": &*lease.attachment.interface,
        "cniNetwork": &*lease.attachment.network,
        "node": &*lease.node,
        "operation": lease.operation.to_string(),
        "since": rfc3339(lease.since),
    })
}

fn owner_json(owner: &Owner) -> Value {
    let pod_json = |pod: &Pod| json!({ "namespace": &*pod.namespace, "name": &*pod.name, "uid": pod.uid.as_deref() });
    match owner {
        Owner::Container => json!({ "kind": "container" }),
        Owner::Pod(pod) => json!({ "kind": "pod", "pod": pod_json(pod) }),
        Owner::Sticky { name, pod } => {
            json!({ "kind": "sticky", "name": &**name, "pod": pod.as_ref().map(pod_json) })
        }
        Owner::Named(name) => json!({ "kind": "name", "name": &**name }),
    }
}

/// A lease as a line for people.
pub(super) fn lease_line(Holding { space, address, lease }: &Holding) -> String {
    let network = match (space.network().is_unnamed(), space.private_cidr()) {
        (true, None) => String::new(),
        (false, None) => format!("  network {}", space.network()),
        (_, Some(cidr)) => format!("  network {}, private {cidr}", space.network()),
    };
    format!("{address:<15}  {}  since {}  {lease}{network}\n", lease.state, rfc3339(lease.since))
}

/// A range that was typed: its network and its ends.
pub(super) fn range_of(typed: &str) -> Result<(ViewSpec, Range), Failure> {
    let spec: ViewSpec = typed.parse().map_err(Failure::usage)?;
    let whole = Range::from(spec.cidr);
    let ends = (spec.start.unwrap_or(whole.first()), spec.end.unwrap_or(whole.last()));
    let range = Range::new(ends.0, ends.1)
        .ok_or_else(|| Failure::usage(format_args!("range {typed} ends before it begins; swap its ends")))?;
    Ok((spec, range))
}

/// A network's name that was typed.
pub(super) fn network_of(typed: &str) -> Result<Network, Failure> {
    Network::new(typed).map_err(Failure::usage)
}

/// The pools in use, with their spaces and how many of their addresses are held.
pub(super) fn pools_in_use(
    ledger: &Ledger,
    network: Option<&Network>,
) -> Result<std::collections::BTreeMap<(Space, IpNet), u64>, Failure> {
    let mut pools = std::collections::BTreeMap::new();
    let asked = whereabouts_engine::Holdings { network: network.cloned(), range: None };
    ledger.each_holding(&asked, |holding| {
        *pools.entry((holding.space, holding.lease.pool)).or_default() += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(pools)
}
