//! ADD: an address of every range, or an error and nothing.

use std::sync::Arc;

use whereabouts_engine::{Allocate, Allocated, Attachment, IpNet, Network, Owner, Pod, Pool, Sharing, Want};

use super::errors::{allocate_error, arbiter_error};
use crate::cni::{AddRequest, AddResult, CniError, ResultAddress, SpecVersion};
use crate::config::Configuration;
use crate::log;
use crate::stores::Arbiter;

/// Assigns addresses and says which.
pub(super) fn add(request: &AddRequest, version: SpecVersion) -> Result<String, CniError> {
    log::warn_all(&request.warnings);
    let configuration = &request.configuration;
    let wants = wants(configuration)?;
    // A hook of the tests of the Go plugin: it widens the window between reading and writing.
    std::thread::sleep(configuration.sleep_for_race);
    let asked = Allocate { attachment: attachment(&request.attachment), owner: owner(request), wants };
    let answer = Arbiter::allocate_one(&configuration.host, &configuration.datastore, &asked).map_err(arbiter_error)?;
    let allocated = answer.map_err(|error| allocate_error(error, configuration))?;
    for Allocated { address, reused, .. } in &allocated {
        tracing::info!(%address, reused, attachment = %asked.attachment, "allocated");
    }
    Ok(result(configuration, &allocated).to_json(version))
}

/// The attachment in the engine's words.
pub(super) fn attachment(attachment: &crate::cni::Attachment) -> Attachment {
    Attachment::new(&attachment.container_id, &attachment.interface, &attachment.network)
}

/// Who keeps the addresses: a sticky name before the pod, the pod before the container.
fn owner(request: &AddRequest) -> Owner {
    let pod = request.pod.as_ref().map(|pod| Pod {
        namespace: pod.namespace.as_str().into(),
        name: pod.name.as_str().into(),
        uid: pod.uid.as_deref().map(Arc::from),
    });
    match (&request.configuration.sticky_name, pod) {
        (Some(name), pod) => Owner::Sticky { name: name.as_str().into(), pod },
        (None, Some(pod)) => Owner::Pod(pod),
        (None, None) => Owner::Container,
    }
}

/// One want for each range, in their order, then one for each static address that lies in a range.
pub(super) fn wants(configuration: &Configuration) -> Result<Vec<Want>, CniError> {
    let network = Network::new(configuration.network_name.as_str())
        .map_err(|error| CniError::Internal { message: error.to_string() })?;
    let sharing = if configuration.enable_overlapping_ranges { Sharing::Shared } else { Sharing::Private };
    let mut wants: Vec<Want> = configuration
        .ranges
        .iter()
        .map(|range| Want {
            pool: Pool::new(network.clone(), range.network()),
            sharing,
            view: Arc::new(range.view().clone()),
            exactly: None,
        })
        .collect();
    for requested in &configuration.requested {
        if let Some(want) = wants.get_mut(requested.range) {
            want.exactly = Some(requested.address);
        }
    }
    for fixed in &configuration.static_addresses {
        if let Some(range) = fixed.range.and_then(|range| wants.get(range)) {
            let exactly = Some(fixed.address.addr().into());
            wants.push(Want { exactly, ..range.clone() });
        }
    }
    Ok(wants)
}

/// What the ranges gave, in their order, then the static addresses.
fn result(configuration: &Configuration, allocated: &[Allocated]) -> AddResult {
    let dynamic = configuration
        .ranges
        .iter()
        .zip(allocated)
        .map(|(range, given)| ResultAddress { address: with_prefix(given, range.network()), gateway: range.gateway() });
    let fixed = configuration
        .static_addresses
        .iter()
        .map(|fixed| ResultAddress { address: fixed.address, gateway: fixed.gateway });
    AddResult {
        addresses: dynamic.chain(fixed).collect(),
        routes: configuration.routes.clone(),
        dns: configuration.dns.clone(),
    }
}

/// The address with the prefix length of the configured range.
fn with_prefix(given: &Allocated, range: IpNet) -> IpNet {
    // The prefix is one of the family already.
    IpNet::new(given.address.to_ip(), range.prefix_len()).unwrap_or(range)
}
