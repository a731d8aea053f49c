//! The result of ADD, in the shape of each version.

use serde::Serialize;
use whereabouts_engine::{Address, Family, IpNet};

use super::SpecVersion;
use crate::config::{Dns, Route};

/// The abbreviated result of an IPAM plugin: no interfaces, which only the calling plugin knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Assigned addresses in the order of their ranges, then static ones.
    pub addresses: Vec<ResultAddress>,
    /// Routes as configured.
    pub routes: Vec<Route>,
    /// DNS as configured.
    pub dns: Dns,
}

/// An address of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultAddress {
    /// The address, with the prefix of its network.
    pub address: IpNet,
    /// The gateway that goes with it.
    pub gateway: Option<Address>,
}

/// 0.3.0 and later.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListShape<'a> {
    cni_version: &'static str,
    ips: Vec<ListedAddress>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    routes: &'a [Route],
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: &'a Dns,
}

#[derive(Serialize)]
struct ListedAddress {
    /// Until 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
}

/// 0.1.0 and 0.2.0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyShape<'a> {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<FamilyAddress<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<FamilyAddress<'a>>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: &'a Dns,
}

#[derive(Serialize)]
struct FamilyAddress<'a> {
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<&'a Route>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionReply {
    cni_version: &'static str,
    supported_versions: [&'static str; 7],
}

// === impl AddResult ===

impl AddResult {
    /// The JSON of the result. Versions that hold one address per family get the first of each: whether there are more
    /// is asked before anything is assigned, by [`SpecVersion::can_return`].
    ///
    /// ```
    /// use whereabouts::cni::{AddResult, ResultAddress, SpecVersion};
    ///
    /// let addresses = vec![ResultAddress { address: "10.0.0.7/24".parse()?, gateway: None }];
    /// let result = AddResult { addresses, ..AddResult::default() };
    /// assert_eq!(result.to_json(SpecVersion::V1_0_0), r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.7/24"}]}"#);
    /// assert_eq!(result.to_json(SpecVersion::V0_2_0), r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.7/24"}}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn to_json(&self, version: SpecVersion) -> String {
        let cni_version = version.as_str();
        if version.has_one_address_per_family() {
            let of = |family| self.of_family(family);
            return to_json(&FamilyShape { cni_version, ip4: of(Family::V4), ip6: of(Family::V6), dns: &self.dns });
        }
        let listed = |entry: &ResultAddress| ListedAddress {
            version: (version <= SpecVersion::V0_4_0).then_some(match entry.address {
                IpNet::V4(_) => "4",
                IpNet::V6(_) => "6",
            }),
            address: entry.address.to_string(),
            gateway: entry.gateway.map(|gateway| gateway.to_string()),
        };
        let ips = self.addresses.iter().map(listed).collect();
        to_json(&ListShape { cni_version, ips, routes: &self.routes, dns: &self.dns })
    }

    fn of_family(&self, family: Family) -> Option<FamilyAddress<'_>> {
        let entry = self.addresses.iter().find(|entry| Family::from(entry.address) == family)?;
        Some(FamilyAddress {
            ip: entry.address.to_string(),
            gateway: entry.gateway.map(|gateway| gateway.to_string()),
            routes: self.routes.iter().filter(|route| Family::from(route.dst) == family).collect(),
        })
    }
}

/// The answer to VERSION.
#[must_use]
pub fn version_reply() -> String {
    let supported_versions = SpecVersion::ALL.map(SpecVersion::as_str);
    to_json(&VersionReply { cni_version: SpecVersion::NEWEST.as_str(), supported_versions })
}

/// Strings, numbers and lists of them always have a JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> AddResult {
        let address =
            |text: &str, gateway: &str| ResultAddress { address: text.parse().unwrap(), gateway: gateway.parse().ok() };
        let route = |dst: &str, gw: &str| Route {
            dst: dst.parse().unwrap(),
            gw: gw.parse().ok(),
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        };
        AddResult {
            addresses: vec![address("10.0.0.7/24", "10.0.0.1"), address("fd00::7/64", "")],
            routes: vec![route("0.0.0.0/0", ""), route("2001:db8::/32", "fd00::1")],
            dns: Dns { nameservers: vec!["10.0.0.53".to_owned()], ..Dns::default() },
        }
    }

    #[test]
    fn each_version_has_its_shape() {
        let list = |version: &str, four: &str, six: &str| {
            format!(
                r#"{{"cniVersion":"{version}","ips":[{{{four}"address":"10.0.0.7/24","gateway":"10.0.0.1"}},{{{six}"address":"fd00::7/64"}}],"routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"2001:db8::/32","gw":"fd00::1"}}],"dns":{{"nameservers":["10.0.0.53"]}}}}"#
            )
        };
        let family = |version: &str| {
            format!(
                r#"{{"cniVersion":"{version}","ip4":{{"ip":"10.0.0.7/24","gateway":"10.0.0.1","routes":[{{"dst":"0.0.0.0/0"}}]}},"ip6":{{"ip":"fd00::7/64","routes":[{{"dst":"2001:db8::/32","gw":"fd00::1"}}]}},"dns":{{"nameservers":["10.0.0.53"]}}}}"#
            )
        };
        for version in SpecVersion::ALL {
            let expected = match version.as_str() {
                text @ ("0.1.0" | "0.2.0") => family(text),
                text @ ("1.0.0" | "1.1.0") => list(text, "", ""),
                text => list(text, r#""version":"4","#, r#""version":"6","#),
            };
            assert_eq!(example().to_json(version), expected);
        }
    }

    #[test]
    fn an_empty_list_of_addresses_is_still_a_list() {
        assert_eq!(AddResult::default().to_json(SpecVersion::V1_1_0), r#"{"cniVersion":"1.1.0","ips":[]}"#);
        assert_eq!(AddResult::default().to_json(SpecVersion::V0_1_0), r#"{"cniVersion":"0.1.0"}"#);
    }

    #[test]
    fn version_names_all_versions() {
        assert_eq!(
            version_reply(),
            r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }
}
