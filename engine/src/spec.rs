//! What a configured range says, before it is worked out.

use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::{Address, IpNet, Range};

/// A configured range: what a [`View`](crate::View) is built from.
///
/// Its text is a CIDR, or the first and the last address with the prefix of their network:
///
/// ```
/// use whereabouts_engine::{View, ViewSpec};
///
/// let mut spec: ViewSpec = "10.0.0.5-10.0.0.9/24".parse()?;
/// spec.gateways.push("10.0.0.6".parse()?);
/// let view = View::new(&spec)?;
/// assert_eq!(view.iter().map(|address| address.to_string()).collect::<Vec<_>>(), [
///     "10.0.0.5", "10.0.0.7", "10.0.0.8", "10.0.0.9"
/// ]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSpec {
    /// The network. Host bits do no harm: `10.0.0.7/24` means `10.0.0.0/24`.
    pub cidr: IpNet,
    /// The lowest address that may be assigned (`range_start`); `None` means the first usable one.
    pub start: Option<Address>,
    /// The highest address that may be assigned (`range_end`); `None` means the last usable one.
    pub end: Option<Address>,
    /// Networks that are left out.
    pub excludes: Vec<IpNet>,
    /// Gateways, which are left out where they lie in the range.
    pub gateways: Vec<Address>,
    /// What becomes of the addresses at the edges.
    pub edges: Edges,
}

/// What becomes of the addresses at the edges of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Edges {
    /// The first and the last address of the network stay unassigned, in both families, and so do all IPv4 addresses
    /// that end in `.0`. Networks of one or two addresses are refused.
    #[default]
    Reserved,
    /// Every address of the network is assigned, /31, /32, /127 and /128 included (`enable_l3`).
    Usable,
}

/// The text is not a range, or not an exclude.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No dash in the text, and it is not a CIDR.
    #[error("invalid CIDR {text}: write a network such as 192.0.2.0/24 or 2001:db8::/64")]
    Cidr {
        /// The whole text.
        text: String,
    },
    /// What stands before the dash is not an address.
    #[error("invalid range start IP: {text}: write a range as 192.0.2.10-192.0.2.20/24")]
    Start {
        /// What stands before the dash.
        text: String,
    },
    /// What stands after the dash is not a CIDR.
    #[error("invalid CIDR '{text}': write a range as 192.0.2.10-192.0.2.20/24")]
    End {
        /// What stands after the dash.
        text: String,
    },
    /// The address before the dash is not in the network after it.
    #[error("invalid range start for CIDR {cidr}: {start}: begin the range with an address of {cidr}")]
    StartOutside {
        /// The network after the dash.
        cidr: IpNet,
        /// The address before the dash.
        start: Address,
    },
    /// Neither a CIDR nor an address.
    #[error(
        "could not parse exclude range, err: \"{text}\" is neither a network such as 192.0.2.0/28 nor an address such \
         as 192.0.2.1"
    )]
    Exclude {
        /// The whole text.
        text: String,
    },
}

/// Reads an exclude: a CIDR, whose host bits do no harm, or an address, which stands for itself alone. IPv4-mapped ones
/// mean IPv4.
///
/// # Errors
/// [`SpecError::Exclude`] when it is neither.
///
/// ```
/// use whereabouts_engine::parse_exclude;
///
/// assert_eq!(parse_exclude("192.168.2.229/30")?.to_string(), "192.168.2.228/30");
/// assert_eq!(parse_exclude("2001:db8::1")?.to_string(), "2001:db8::1/128");
/// assert_eq!(parse_exclude("::ffff:192.0.2.0/120")?.to_string(), "192.0.2.0/24");
/// assert!(parse_exclude("192.168.0.1/123").is_err());
/// # Ok::<(), whereabouts_engine::SpecError>(())
/// ```
pub fn parse_exclude(text: &str) -> Result<IpNet, SpecError> {
    parse_cidr(text)
        .map(|(_, network)| network)
        .or_else(|| text.parse().ok().map(Address::to_net))
        .map(canonical)
        .ok_or_else(|| SpecError::Exclude { text: text.to_owned() })
}

/// A network of IPv4-mapped addresses as the IPv4 network that it stands for; any other network as it is.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let address = mapped.addr().to_ipv4_mapped();
    let prefix = mapped.prefix_len().checked_sub(96);
    let unmapped = address.zip(prefix).and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    unmapped.map_or(network, IpNet::V4)
}

// === impl ViewSpec ===

impl ViewSpec {
    /// The whole network, with the edges reserved.
    #[must_use]
    pub const fn new(cidr: IpNet) -> Self {
        Self { cidr, start: None, end: None, excludes: Vec::new(), gateways: Vec::new(), edges: Edges::Reserved }
    }
}

impl FromStr for ViewSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let Some((start, end)) = text.split_once('-') else {
            let (_, cidr) = parse_cidr(text).ok_or_else(|| SpecError::Cidr { text: text.to_owned() })?;
            return Ok(Self::new(cidr));
        };
        let start: Address = start.parse().map_err(|_| SpecError::Start { text: start.to_owned() })?;
        let (end, cidr) = parse_cidr(end).ok_or_else(|| SpecError::End { text: end.to_owned() })?;
        if !Range::from(cidr).contains(start) {
            return Err(SpecError::StartOutside { cidr, start });
        }
        Ok(Self { start: Some(start), end: Some(end), ..Self::new(cidr) })
    }
}

/// The address as it was written, and its network without host bits.
fn parse_cidr(text: &str) -> Option<(Address, IpNet)> {
    let (address, prefix) = text.split_once('/')?;
    let address: Address = address.parse().ok()?;
    // The standard library would read "+8" too.
    let prefix: u8 = prefix.bytes().all(|byte| byte.is_ascii_digit()).then(|| prefix.parse().ok())??;
    Some((address, IpNet::new(address.to_ip(), prefix).ok()?.trunc()))
}
