//! The network's own `ipam` section over the flat file.
//!
//! What the Go plugin knows follows its rule: a field with Go's zero value (`""`, `0`, an empty list) counts as not
//! typed and is filled from the flat file. So an explicit `"gateway": ""` cannot take a gateway of the flat file back.
//!
//! Booleans, and numbers that only this plugin has, count as typed when the key is there: network over flat file over
//! default. For `enable_overlapping_ranges` the Go plugin keeps the network's value even when the key is absent there,
//! so that its flat file never has an effect, although its documentation promises one. Here it has: where both say
//! something, the network wins in both plugins, which is all that its users can have relied upon. Where `false` comes
//! from the flat file alone, a warning tells of the difference.

use super::raw::{RawIpam, RawProvider};
use super::{Dns, Secret, Warning};

/// Whether a value counts as not typed.
trait Zero {
    fn is_zero(&self) -> bool;
}

/// Fills what the network does not say from the flat file.
pub(crate) fn merge(network: RawIpam, flat: RawIpam, warnings: &mut Vec<Warning>) -> RawIpam {
    if network.enable_overlapping_ranges.is_none() && flat.enable_overlapping_ranges == Some(false) {
        warnings.push(Warning::new(
            "enable_overlapping_ranges",
            "false",
            "comes from the flat file and has an effect here, while the Go plugin takes no notice of it there: each \
             range is a space of its own; set it to true in the network's ipam section to share addresses between \
             ranges that overlap",
        ));
    }
    RawIpam {
        kind: network.kind,
        range: fill(network.range, flat.range),
        range_start: fill(network.range_start, flat.range_start),
        range_end: fill(network.range_end, flat.range_end),
        exclude: fill(network.exclude, flat.exclude),
        ip_ranges: fill(network.ip_ranges, flat.ip_ranges),
        gateway: fill(network.gateway, flat.gateway),
        exclude_gateway: network.exclude_gateway.or(flat.exclude_gateway),
        routes: fill(network.routes, flat.routes),
        dns: merge_dns(network.dns, flat.dns),
        addresses: fill(network.addresses, flat.addresses),
        network_name: fill(network.network_name, flat.network_name),
        enable_overlapping_ranges: network.enable_overlapping_ranges.or(flat.enable_overlapping_ranges),
        enable_l3: network.enable_l3.or(flat.enable_l3),
        pool: fill(network.pool, flat.pool),
        provider: merge_provider(network.provider, flat.provider),
        datastore: fill(network.datastore, flat.datastore),
        kubeconfig: fill(network.kubeconfig, flat.kubeconfig),
        k8s_api_root: fill(network.k8s_api_root, flat.k8s_api_root),
        etcd_host: fill(network.etcd_host, flat.etcd_host),
        etcd_username: fill(network.etcd_username, flat.etcd_username),
        etcd_password: fill(network.etcd_password, flat.etcd_password),
        etcd_key_file: fill(network.etcd_key_file, flat.etcd_key_file),
        etcd_cert_file: fill(network.etcd_cert_file, flat.etcd_cert_file),
        etcd_ca_cert_file: fill(network.etcd_ca_cert_file, flat.etcd_ca_cert_file),
        data_dir: fill(network.data_dir, flat.data_dir),
        configuration_path: fill(network.configuration_path, flat.configuration_path),
        log_file: fill(network.log_file, flat.log_file),
        log_level: fill(network.log_level, flat.log_level),
        deadline: network.deadline.or(flat.deadline),
        gc_grace: network.gc_grace.or(flat.gc_grace),
        exhausted_status: fill(network.exhausted_status, flat.exhausted_status),
        sleep_for_race: fill(network.sleep_for_race, flat.sleep_for_race),
        node_slice_size: fill(network.node_slice_size, flat.node_slice_size),
        leader_lease_duration: fill(network.leader_lease_duration, flat.leader_lease_duration),
        leader_renew_deadline: fill(network.leader_renew_deadline, flat.leader_renew_deadline),
        leader_retry_period: fill(network.leader_retry_period, flat.leader_retry_period),
        reconciler_cron_expression: fill(network.reconciler_cron_expression, flat.reconciler_cron_expression),
        optimistic_ipam: network.optimistic_ipam.or(flat.optimistic_ipam),
    }
}

fn fill<T: Zero>(network: Option<T>, flat: Option<T>) -> Option<T> {
    network.filter(|value| !value.is_zero()).or_else(|| flat.filter(|value| !value.is_zero()))
}

fn merge_dns(network: Option<Dns>, flat: Option<Dns>) -> Option<Dns> {
    let (network, flat) = match (network, flat) {
        (Some(network), Some(flat)) => (network, flat),
        (network, flat) => return network.or(flat),
    };
    Some(Dns {
        nameservers: fill(Some(network.nameservers), Some(flat.nameservers)).unwrap_or_default(),
        domain: fill(Some(network.domain), Some(flat.domain)).unwrap_or_default(),
        search: fill(Some(network.search), Some(flat.search)).unwrap_or_default(),
        options: fill(Some(network.options), Some(flat.options)).unwrap_or_default(),
    })
}

/// A provider that the network names is taken as a whole: its address with the credentials of another would send a
/// secret to a stranger.
fn merge_provider(network: Option<RawProvider>, flat: Option<RawProvider>) -> Option<RawProvider> {
    network.or(flat)
}

impl Zero for String {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl Zero for Secret {
    fn is_zero(&self) -> bool {
        self.reveal().is_empty()
    }
}

impl Zero for i64 {
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl<T> Zero for Vec<T> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}
