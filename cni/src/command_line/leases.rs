//! Leases as the commands show and name them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use whereabouts_engine::{
    Address, Holding, Holdings, IpNet, Lease, Ledger, LedgerError, Network, Owner, Pod, Pool, Range, Space, ViewSpec,
};

use super::exit::{Exit, Failure};
use super::output::Output;
use crate::config::Datastore;
use crate::time::rfc3339;

/// The most bytes of a name: what a Kubernetes object may be called.
const NAME_LIMIT: usize = 253;

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

/// A lease as a line for people who look at a ledger of the node `here`, or at a cluster's.
pub(super) fn lease_line(Holding { space, address, lease }: &Holding, here: &str) -> String {
    let network = match (space.network().is_unnamed(), space.private_cidr()) {
        (true, None) => String::new(),
        (false, None) => format!("  network {}", space.network()),
        (_, Some(cidr)) => format!("  network {}, private {cidr}", space.network()),
    };
    let node = node_unless(lease, here);
    format!("{address:<15}  {}  since {}  {lease}{node}{network}\n", lease.state, rfc3339(lease.since))
}

/// On which node a lease is, where that is not understood.
pub(super) fn node_unless(lease: &Lease, here: &str) -> String {
    if lease.node.is_empty() || *lease.node == *here { String::new() } else { format!("  on node {}", lease.node) }
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

/// Whoever is named on the command line or in a backup. The plugin asks the same of a sticky name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(format!("write a name of 1 to {NAME_LIMIT} bytes without control characters"));
    }
    Ok(())
}

/// The command that says who holds the addresses of a pool: by the ledger in a folder, or by a cluster.
pub(crate) fn who_holds(data_dir: &Path, datastore: &Datastore, pool: &Pool) -> String {
    let data_dir = data_dir.to_string_lossy();
    let (option, path) = match datastore {
        Datastore::Kubernetes { kubeconfig } => ("--kubeconfig", Cow::Borrowed(kubeconfig.as_str())),
        Datastore::Local | Datastore::Etcd(_) => ("--data-dir", data_dir),
    };
    let (path, network) = (shell_word(&path), shell_word(pool.network().as_str()));
    format!("whereabouts {option} {path} show leases {} --network {network}", pool.cidr())
}

/// A word as a shell takes it for one.
fn shell_word(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
    }
}

/// The pools in use, with their spaces and how many of their addresses are held; and what could not be read. Lets go of
/// the ledger.
pub(super) fn pools_in_use(
    ledger: Ledger,
    network: Option<&Network>,
) -> (BTreeMap<(Space, IpNet), u64>, Vec<LedgerError>) {
    let mut pools = BTreeMap::new();
    let asked = Holdings { network: network.cloned(), range: None };
    let damage = ledger.each_readable_holding(&asked, |holding| {
        *pools.entry((holding.space, holding.lease.pool)).or_default() += 1;
    });
    drop(ledger);
    (pools, damage)
}

/// Says what of a ledger, which is let go, could not be read; how the command ends.
pub(super) fn tell_damage(damage: &[LedgerError], output: &Output) -> Exit {
    for error in damage {
        output.error(&format!("stepped over what cannot be read: {error}"));
    }
    if damage.is_empty() { Exit::Success } else { Exit::Unsound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        for (word, quoted) in [
            ("/var/lib/cni", "/var/lib/cni"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$(reboot)", "'$(reboot)'"),
        ] {
            assert_eq!(shell_word(word), quoted);
        }
    }
}
