//! Addresses that are named one by one: static ones, which are added to the result, and requested ones, which replace
//! the choice in a range.

use whereabouts_engine::{Address, IpNet, Range};

use super::configuration::StaticArguments;
use super::raw::RawAddress;
use super::{ConfigurationError, RangeConfiguration, Warning, sloppy};

/// A static address: `addresses`, or `IP` of CNI_ARGS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticAddress {
    /// The key under which it stands.
    pub key: String,
    /// The address with the prefix of its network; host bits are kept.
    pub address: IpNet,
    /// Its own gateway.
    pub gateway: Option<Address>,
    /// Which of the configured ranges it lies in, if any. There it is leased, so that nobody else gets it.
    pub range: Option<usize>,
}

/// A requested address: `args.cni.ips`, or `runtimeConfig.ips`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedAddress {
    /// The key under which it stands.
    pub key: String,
    /// The address.
    pub address: Address,
    /// Which of the configured ranges it is an assignable address of. No two requested addresses share one.
    pub range: usize,
}

/// The static addresses: those of the configuration first, then those of CNI_ARGS. In which ranges they lie is told by
/// [`place_static_addresses`]: the ranges leave out their gateways, so they are read first.
pub(crate) fn static_addresses(
    configured: Vec<RawAddress>,
    arguments: &StaticArguments,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<StaticAddress>, ConfigurationError> {
    let mut found: Vec<StaticAddress> = Vec::new();
    let mut add = |key: String, address: IpNet, gateway, warnings: &mut Vec<Warning>| {
        if found.iter().any(|other| other.address.addr() == address.addr()) {
            warnings.push(Warning::new(key, address.to_string(), "is named twice and added to the result once"));
            return;
        }
        found.push(StaticAddress { key, address, gateway, range: None });
    };
    for RawAddress { key, address, gateway } in configured {
        let gateway = gateway.filter(|text| !text.is_empty()).map(|text| {
            let wrong = || {
                let key = key.strip_suffix("address").map_or_else(|| key.clone(), |prefix| format!("{prefix}gateway"));
                ConfigurationError::value(key, &text, "not an IP address", "write one address without a prefix")
            };
            sloppy::strict_address(&text).map(Address::to_canonical).ok_or_else(wrong)
        });
        add(key.clone(), read_static(&key, &address)?, gateway.transpose()?, warnings);
    }
    for text in split(arguments.ip.as_deref()) {
        add("CNI_ARGS IP".to_owned(), read_static("CNI_ARGS IP", text)?, None, warnings);
    }
    for text in split(arguments.gateway.as_deref()) {
        let gateway = sloppy::sloppy_address(text).map(Address::to_canonical).ok_or_else(|| {
            let problem = format!("invalid gateway address: {text}");
            ConfigurationError::value("CNI_ARGS GATEWAY", text, problem, "write one address without a prefix")
        })?;
        let mut used = false;
        for address in found.iter_mut().filter(|found| Range::from(found.address).contains(gateway)) {
            address.gateway = Some(gateway);
            used = true;
        }
        if !used {
            let text_of_warning = "lies in the network of no static address and has no effect";
            warnings.push(Warning::new("CNI_ARGS GATEWAY", text, text_of_warning));
        }
    }
    Ok(found)
}

/// Says of each static address in which range it lies.
pub(crate) fn place_static_addresses(addresses: &mut [StaticAddress], ranges: &[RangeConfiguration]) {
    for fixed in addresses {
        fixed.range = ranges.iter().position(|range| range.covers(Address::from(fixed.address.addr())));
    }
}

/// The requested addresses, each with the range that can give it.
pub(crate) fn requested_addresses(
    typed: &[(String, String)],
    ranges: &[RangeConfiguration],
    static_addresses: &[StaticAddress],
) -> Result<Vec<RequestedAddress>, ConfigurationError> {
    let mut found: Vec<RequestedAddress> = Vec::new();
    for (key, text) in typed {
        let wrong = |problem: String, cure: &str| Err(ConfigurationError::value(key, text, problem, cure));
        let plain = match text.split_once('/') {
            Some(_) => sloppy::sloppy_cidr(text).map(|net| Address::from(net.addr())),
            None => sloppy::sloppy_address(text),
        };
        let Some(address) = plain.map(Address::to_canonical) else {
            return wrong("not an IP address".to_owned(), "write an address with or without a prefix, 192.0.2.7/24");
        };
        if found.iter().any(|other| other.address == address) {
            continue;
        }
        if let Some(fixed) = static_addresses.iter().find(|fixed| Address::from(fixed.address.addr()) == address) {
            let problem = format!("is a static address already ({} = {})", fixed.key, fixed.address);
            return wrong(problem, "request another address, or remove one of the two");
        }
        let able = |range: &RangeConfiguration| range.view().contains(address);
        let is_free = |index: usize| found.iter().all(|other| other.range != index);
        let choice = ranges.iter().enumerate().find(|(index, range)| able(range) && is_free(*index));
        if let Some((range, _)) = choice {
            found.push(RequestedAddress { key: key.clone(), address, range });
        } else if let Some(range) = ranges.iter().find(|range| able(range)) {
            let problem = format!("each range gives one address, and {} gives another requested one", range.typed());
            return wrong(problem, "request one address of each range, or add a range");
        } else if let Some(range) = ranges.iter().find(|range| range.covers(address)) {
            let problem =
                format!("{address} is never assigned from {}: excluded, a gateway, or at an edge", range.typed());
            return wrong(problem, "request an address that the range may assign, or change the excludes");
        } else {
            let all: Vec<&str> = ranges.iter().map(RangeConfiguration::typed).collect();
            let problem = format!("{address} is in none of the configured ranges ({})", all.join(", "));
            return wrong(problem, "request an address of a configured range, or add a range");
        }
    }
    Ok(found)
}

fn read_static(key: &str, text: &str) -> Result<IpNet, ConfigurationError> {
    let wrong = |problem: String| {
        ConfigurationError::value(key, text, problem, "write an address with the prefix of its network, 192.0.2.7/24")
    };
    let address = sloppy::sloppy_cidr(text).ok_or_else(|| wrong(format!("invalid CIDR in addresses {text}")))?;
    if Address::from(address.addr()).is_ipv4_mapped() {
        return Err(wrong("this is an IPv4-mapped IPv6 address".to_owned()));
    }
    Ok(address)
}

fn split(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
}
