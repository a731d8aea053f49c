//! The custom resources: an `IPSpace` for each index, an `IPBlock` for each block.
//!
//! The truth is one field, `data`. Everything beside it is derived for those who read with kubectl, and never read back
//! but to see whether the object is the one that it claims to be.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whereabouts_engine::{BlockId, Family, IpNet, Network, Offset, Pool, Sharing, Space};

/// The API group of both.
pub(super) const GROUP: &str = "ipam.whereabouts.dev";

/// An index: which blocks of a space exist, which are full, and whether the space is frozen.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ipam.whereabouts.dev",
    version = "v1alpha1",
    kind = "IPSpace",
    plural = "ipspaces",
    singular = "ipspace",
    shortname = "ips",
    namespaced,
    doc = "All addresses of one family in one network: what may not collide. whereabouts keeps it; do not edit or delete it.",
    printcolumn = r#"{"name":"Network","type":"string","jsonPath":".spec.network","description":"network_name; empty for the unnamed network"}"#,
    printcolumn = r#"{"name":"Family","type":"string","jsonPath":".spec.family"}"#,
    printcolumn = r#"{"name":"Private","type":"string","jsonPath":".spec.private","description":"the pool that has this space for itself"}"#,
    printcolumn = r#"{"name":"Frozen","type":"string","jsonPath":".spec.frozen","description":"why nobody gets an address before `whereabouts repair`"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = "self.spec.network == oldSelf.spec.network && self.spec.family == oldSelf.spec.family && has(self.spec.private) == has(oldSelf.spec.private) && (!has(self.spec.private) || self.spec.private == oldSelf.spec.private)"
)]
#[serde(rename_all = "camelCase")]
pub struct IPSpaceSpec {
    /// The network's name (`network_name`), empty for the unnamed network. It never changes.
    #[schemars(length(max = 200))]
    pub network: String,
    /// The family of the addresses. It never changes.
    pub family: FamilyName,
    /// The CIDR of the pool that has the space for itself (`enable_overlapping_ranges: false`). It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub private: Option<String>,
    /// Why the space is frozen, while it is: nobody gets an address before `whereabouts repair`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub frozen: Option<String>,
    /// The index: the truth, as what whereabouts reads and writes: a record, compressed, in base 85.
    #[schemars(length(max = 1_048_576))]
    pub data: String,
}

/// A block: who holds what among 256 aligned addresses.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ipam.whereabouts.dev",
    version = "v1alpha1",
    kind = "IPBlock",
    plural = "ipblocks",
    singular = "ipblock",
    shortname = "ipb",
    namespaced,
    doc = "256 addresses of a space and who holds them. whereabouts keeps it; do not edit or delete it.",
    printcolumn = r#"{"name":"Network","type":"string","jsonPath":".spec.network","description":"network_name; empty for the unnamed network"}"#,
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".spec.used"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".spec.free"}"#,
    printcolumn = r#"{"name":"Private","type":"string","jsonPath":".spec.private","priority":1,"description":"the pool that has this space for itself"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = "self.spec.network == oldSelf.spec.network && self.spec.cidr == oldSelf.spec.cidr && has(self.spec.private) == has(oldSelf.spec.private) && (!has(self.spec.private) || self.spec.private == oldSelf.spec.private)"
)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockSpec {
    /// The network's name (`network_name`), empty for the unnamed network. It never changes.
    #[schemars(length(max = 200))]
    pub network: String,
    /// The addresses of the block. They never change.
    #[schemars(length(max = 64))]
    pub cidr: String,
    /// The CIDR of the pool that has the space for itself (`enable_overlapping_ranges: false`). It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub private: Option<String>,
    /// How many addresses are held.
    #[schemars(range(min = 0, max = 256))]
    pub used: u32,
    /// How many are not. Some of them are perhaps in no configured range.
    #[schemars(range(min = 0, max = 256))]
    pub free: u32,
    /// The block: the truth, as what whereabouts reads and writes: a record, compressed, in base 85.
    #[schemars(length(max = 131_072))]
    pub data: String,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FamilyName {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

impl From<Family> for FamilyName {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::IPv4,
            Family::V6 => Self::IPv6,
        }
    }
}

impl From<FamilyName> for Family {
    fn from(family: FamilyName) -> Self {
        match family {
            FamilyName::IPv4 => Self::V4,
            FamilyName::IPv6 => Self::V6,
        }
    }
}

/// The space that an object claims to belong to; in words for people what is wrong with the claim.
fn space(network: &str, family: Family, private: Option<&str>) -> Result<Space, String> {
    let network = Network::new(network).map_err(|error| error.to_string())?;
    let Some(private) = private else { return Ok(Space::shared(network, family)) };
    let cidr: IpNet = private.parse().map_err(|_| format!("spec.private {private} is no CIDR"))?;
    let space = Pool::new(network, cidr).space(Sharing::Private);
    if space.family() != family || cidr != cidr.trunc() {
        return Err(format!("spec.private {private} is no CIDR of the space"));
    }
    Ok(space)
}

/// The addresses of a block.
pub(super) fn cidr(id: &BlockId) -> String {
    let first = id.address_at(Offset::from(0)).to_ip();
    let bits = if first.is_ipv4() { 24 } else { 120 };
    format!("{first}/{bits}")
}

impl IPSpaceSpec {
    /// The space that the object claims to be the index of.
    pub(super) fn space(&self) -> Result<Space, String> {
        space(&self.network, self.family.into(), self.private.as_deref())
    }
}

impl IPBlockSpec {
    /// The block that the object claims to be.
    pub(super) fn id(&self) -> Result<BlockId, String> {
        let cidr: IpNet = self.cidr.parse().map_err(|_| format!("spec.cidr {} is no CIDR", self.cidr))?;
        let family = match cidr {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        };
        if cidr != cidr.trunc() || cidr.prefix_len() != cidr.max_prefix_len() - 8 {
            return Err(format!("spec.cidr {} is no block of 256 addresses", self.cidr));
        }
        let space = space(&self.network, family, self.private.as_deref())?;
        space.block_of(cidr.addr().into()).ok_or_else(|| format!("spec.cidr {} is not of the space", self.cidr))
    }
}
