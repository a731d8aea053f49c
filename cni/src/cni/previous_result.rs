//! `prevResult` of CHECK: the result of the chain's last ADD, in the shape of any version.

use whereabouts_engine::{Address, IpNet};

use crate::config::{Json, Object, strict_address, strict_cidr};

/// The addresses of a result that some ADD gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreviousResult {
    /// In the order of the result, other plugins' included.
    pub addresses: Vec<PreviousAddress>,
}

/// An address of a result that some ADD gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousAddress {
    /// The address, with the prefix of its network.
    pub address: IpNet,
    /// The gateway that went with it.
    pub gateway: Option<Address>,
    /// The position of its interface in the result's list; `None` where the result does not say, as ours never does.
    pub interface: Option<i64>,
}

/// What is wrong with `prevResult`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreviousResultError {
    /// There is none.
    #[error("missing prevResult: CHECK compares with the result of ADD, which the runtime must pass on")]
    Missing,
    /// A part of it does not have the shape of any version.
    #[error("could not parse prevResult: {key} = {value}: pass on the result of ADD as it was")]
    Malformed {
        /// The part.
        key: String,
        /// What stands there.
        value: String,
    },
}

// === impl PreviousResult ===

impl PreviousResult {
    /// Reads `prevResult`. The shape tells the version: `ips` is a list since 0.3.0, `ip4` and `ip6` came before.
    ///
    /// # Errors
    /// [`PreviousResultError`].
    pub fn read(network: &Object) -> Result<Self, PreviousResultError> {
        let result = network.get("prevResult").ok_or(PreviousResultError::Missing)?;
        let result = result.as_object().ok_or_else(|| malformed("prevResult", result))?;
        let mut addresses = Vec::new();
        if let Some(ips) = result.get("ips") {
            let ips = ips.as_array().ok_or_else(|| malformed("prevResult.ips", ips))?;
            for (position, ip) in ips.iter().enumerate() {
                addresses.push(read_address(&format!("prevResult.ips[{position}]"), ip, "address")?);
            }
        }
        for family in ["ip4", "ip6"] {
            if let Some(ip) = result.get(family) {
                addresses.push(read_address(&format!("prevResult.{family}"), ip, "ip")?);
            }
        }
        Ok(Self { addresses })
    }
}

fn read_address(key: &str, ip: &Json, address_key: &str) -> Result<PreviousAddress, PreviousResultError> {
    let object = ip.as_object().ok_or_else(|| malformed(key, ip))?;
    let address = object.get(address_key).unwrap_or(&Json::Null);
    let text = address.as_str().and_then(strict_cidr);
    let address = text.ok_or_else(|| malformed(&format!("{key}.{address_key}"), address))?;
    let gateway = object.get("gateway").filter(|gateway| gateway.as_str() != Some(""));
    let gateway = gateway.map(|gateway| {
        let read = gateway.as_str().and_then(strict_address).map(Address::to_canonical);
        read.ok_or_else(|| malformed(&format!("{key}.gateway"), gateway))
    });
    let interface = object.get("interface").and_then(Json::as_integer);
    Ok(PreviousAddress { address, gateway: gateway.transpose()?, interface })
}

fn malformed(key: &str, value: &Json) -> PreviousResultError {
    PreviousResultError::Malformed { key: key.to_owned(), value: crate::config::shorten(&value.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::{AddResult, ResultAddress, SpecVersion};
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn read(text: &str) -> Result<PreviousResult, PreviousResultError> {
        let json = Json::parse(format!(r#"{{"prevResult": {text}}}"#).as_bytes()).unwrap();
        PreviousResult::read(json.as_object().unwrap())
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("null", "missing prevResult"),
            ("[]", "prevResult = []"),
            (r#"{"ips": {}}"#, "prevResult.ips = {}"),
            (r#"{"ips": [1]}"#, "prevResult.ips[0] = 1"),
            (r#"{"ips": [{"address": "10.0.0.1"}]}"#, r#"prevResult.ips[0].address = "10.0.0.1""#),
            (r#"{"ips": [{}]}"#, "prevResult.ips[0].address = null"),
            (r#"{"ip6": {"ip": "x"}}"#, r#"prevResult.ip6.ip = "x""#),
            (r#"{"ip4": {"ip": "10.0.0.1/8", "gateway": 1}}"#, "prevResult.ip4.gateway = 1"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn interfaces_of_other_plugins_are_read() {
        let result = read(r#"{"interfaces": [{}], "ips": [{"interface": 2, "address": "10.0.0.1/8"}]}"#).unwrap();
        assert_eq!(result.addresses[0].interface, Some(2));
    }

    proptest! {
        #[test]
        fn every_result_reads_the_same_in_every_version(
            addresses in prop::collection::vec((any::<IpAddr>(), 0_u8..=32, any::<Option<IpAddr>>()), 0..4),
        ) {
            let addresses: Vec<_> = addresses
                .into_iter()
                .map(|(address, prefix, gateway)| ResultAddress {
                    address: IpNet::new(address, prefix).unwrap(),
                    gateway: gateway.map(|gateway| Address::from(gateway).to_canonical()),
                })
                .collect();
            let result = AddResult { addresses: addresses.clone(), ..AddResult::default() };
            for version in SpecVersion::ALL {
                let mut expected = addresses.clone();
                if version.has_one_address_per_family() {
                    let first = |v4: bool| addresses.iter().copied().find(|one| matches!(one.address, IpNet::V4(_)) == v4);
                    expected = first(true).into_iter().chain(first(false)).collect();
                }
                let expected: Vec<_> = expected
                    .into_iter()
                    .map(|one| PreviousAddress { address: one.address, gateway: one.gateway, interface: None })
                    .collect();
                prop_assert_eq!(read(&result.to_json(version)).unwrap().addresses, expected);
            }
        }
    }
}
