//! Configured ranges: their text, its normalisation, and the view of each.

use whereabouts_engine::{Address, Edges, Ignored, IpNet, Range, View, ViewSpec, parse_exclude};

use super::raw::RawRange;
use super::{ConfigurationError, Warning, sloppy};

/// A configured range. Each ADD assigns one address of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeConfiguration {
    key: String,
    typed: String,
    spec: ViewSpec,
    view: View,
    gateway: Option<Address>,
}

/// What holds for all ranges of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeDefaults<'a> {
    pub(crate) gateway: Option<Address>,
    /// The gateways of static addresses, which are in use as others are.
    pub(crate) other_gateways: &'a [Address],
    pub(crate) exclude_gateway: bool,
    pub(crate) enable_l3: bool,
}

/// What the text of a range says.
struct RangeText {
    network: IpNet,
    /// Both ends, where the text names them.
    ends: Option<(Address, Address)>,
}

// === impl RangeConfiguration ===

impl RangeConfiguration {
    pub(crate) fn new(
        raw: RawRange,
        defaults: RangeDefaults<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigurationError> {
        let RangeText { network, ends } = RangeText::parse(&raw.key, &raw.range)?;
        let mut spec = ViewSpec::new(network);
        if let Some((start, end)) = ends {
            for (key, value) in raw.start.iter().chain(&raw.end).filter(|(_, value)| !value.is_empty()) {
                let text = format!("has no effect, because {} = {} says it already; remove one", raw.key, raw.range);
                warnings.push(Warning::new(key, value, text));
            }
            (spec.start, spec.end) = (Some(start), Some(end));
        } else {
            spec.start = read_end(raw.start.as_ref(), raw.sloppy_ends, warnings)?;
            spec.end = read_end(raw.end.as_ref(), raw.sloppy_ends, warnings)?;
        }
        for (position, text) in raw.exclude.1.iter().enumerate() {
            // What can be read is shorter than what is repeated.
            let exclude =
                parse_exclude(&super::warning::shorten(text)).map_err(|source| ConfigurationError::Exclude {
                    key: format!("{}[{position}]", raw.exclude.0),
                    value: super::warning::shorten(text),
                    source: Box::new(source),
                })?;
            spec.excludes.push(exclude);
        }
        let own_gateway = raw.gateway.as_ref().filter(|(_, value)| !value.is_empty());
        let own_gateway = own_gateway.map(|(key, value)| read_gateway(key, value)).transpose()?;
        if defaults.exclude_gateway {
            spec.gateways.extend(own_gateway.into_iter().chain(defaults.gateway));
            spec.gateways.extend(defaults.other_gateways);
        }
        if raw.enable_l3.unwrap_or(defaults.enable_l3) {
            spec.edges = Edges::Usable;
        }
        let view = Self::work_out(&raw, &spec)?;
        warn_ignored(&raw, &view, warnings);
        let in_family = |gateway: &Address| gateway.family() == view.family();
        if let Some(gateway) = own_gateway.filter(|gateway| !in_family(gateway)) {
            let text = format!("is of the other family than {network} and goes with no address of it");
            let key = raw.gateway.as_ref().map_or("gateway", |(key, _)| key.as_str());
            warnings.push(Warning::new(key, gateway.to_string(), text));
        }
        let gateway = own_gateway.filter(in_family).or_else(|| defaults.gateway.filter(in_family));
        Ok(Self { key: raw.key, typed: raw.range, spec, view, gateway })
    }

    /// The key under which the range stands: `range`, `ipRanges[0].range`, `runtimeConfig.ipRanges[0][0].subnet`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The range as it was typed.
    #[must_use]
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// The network, without host bits. Its prefix goes with every address of the range.
    #[must_use]
    pub fn network(&self) -> IpNet {
        self.view.cidr()
    }

    /// The lowest address that the configuration allows, as the Go plugin normalises it: the network address where none
    /// was given. [`View::first`] is the lowest one that may really be assigned.
    #[must_use]
    pub fn range_start(&self) -> Address {
        self.spec.start.unwrap_or_else(|| Address::from(self.network().network()))
    }

    /// The highest address that the configuration allows, where one was given.
    #[must_use]
    pub fn range_end(&self) -> Option<Address> {
        self.spec.end
    }

    /// What is left out of the range.
    #[must_use]
    pub fn excludes(&self) -> &[IpNet] {
        &self.spec.excludes
    }

    /// The gateway that goes with the addresses of this range; it is of their family.
    #[must_use]
    pub fn gateway(&self) -> Option<Address> {
        self.gateway
    }

    /// The assignable addresses.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether the address belongs to the network, assignable or not.
    #[must_use]
    pub fn covers(&self, address: Address) -> bool {
        Range::from(self.network()).contains(address)
    }

    /// The one place where a configured range becomes a view.
    fn work_out(raw: &RawRange, spec: &ViewSpec) -> Result<View, ConfigurationError> {
        View::new(spec).map_err(|source| ConfigurationError::Range {
            key: raw.key.clone(),
            value: super::warning::shorten(&raw.range),
            source: Box::new(source),
        })
    }
}

// === impl RangeText ===

impl RangeText {
    /// `network/prefix`, or `first-last/prefix`. Spaces are not trimmed, and leading zeros mean nothing.
    fn parse(key: &str, text: &str) -> Result<Self, ConfigurationError> {
        let wrong = |problem: String, cure: &str| ConfigurationError::value(key, text, problem, cure);
        let cidr_cure = "write a network such as 192.0.2.0/24 or 2001:db8::/64";
        let ends_cure = "write a range as 192.0.2.10-192.0.2.20/24";
        let Some((start, end)) = text.split_once('-') else {
            let network = sloppy::sloppy_cidr(text).ok_or_else(|| wrong(format!("invalid CIDR {text}"), cidr_cure))?;
            return Ok(Self { network: network.trunc(), ends: None });
        };
        let start = sloppy::sloppy_address(start)
            .ok_or_else(|| wrong(format!("invalid range start IP: {start}"), ends_cure))?;
        let last = sloppy::sloppy_cidr(end).ok_or_else(|| wrong(format!("invalid CIDR '{end}'"), ends_cure))?;
        let network = last.trunc();
        if !Range::from(network).contains(start) {
            let problem = format!("invalid range start for CIDR {network}: {start}");
            return Err(wrong(problem, &format!("begin the range with an address of {network}")));
        }
        Ok(Self { network, ends: Some((start, Address::from(last.addr()))) })
    }
}

/// Reads `gateway` wherever it stands.
pub(crate) fn read_gateway(key: &str, text: &str) -> Result<Address, ConfigurationError> {
    sloppy::sloppy_address(text).map(Address::to_canonical).ok_or_else(|| {
        let problem = format!("couldn't parse gateway IP: {text}");
        ConfigurationError::value(key, text, problem, "write one address without a prefix, such as 192.0.2.1")
    })
}

/// Reads `range_start` or `range_end`. At the top level of the Go plugin an unreadable one silently counts as unset;
/// here the silence is broken.
fn read_end(
    typed: Option<&(String, String)>,
    is_sloppy: bool,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Address>, ConfigurationError> {
    let Some((key, text)) = typed.filter(|(_, text)| !text.is_empty()) else { return Ok(None) };
    let address = if is_sloppy { sloppy::sloppy_address(text) } else { sloppy::strict_address(text) };
    if address.is_none() && is_sloppy {
        let text_of_warning = "not an IP address, has no effect; write one address without a prefix, or remove it";
        warnings.push(Warning::new(key, text, text_of_warning));
        return Ok(None);
    }
    address.map(|address| Some(address.to_canonical())).ok_or_else(|| {
        let cure = "write one address without a prefix and without leading zeros, or remove it";
        ConfigurationError::value(key, text, "not an IP address", cure)
    })
}

/// The Go plugin takes no notice of these either, but does not say so.
fn warn_ignored(raw: &RawRange, view: &View, warnings: &mut Vec<Warning>) {
    let key_of = |end: &Option<(String, String)>| end.as_ref().map_or_else(|| raw.key.clone(), |(key, _)| key.clone());
    for ignored in view.ignored() {
        let (key, value) = match ignored {
            Ignored::StartOutside { start, .. } => (key_of(&raw.start), start.to_string()),
            Ignored::EndOutside { end, .. } | Ignored::EndBeforeStart { end, .. } => {
                (key_of(&raw.end), end.to_string())
            }
            Ignored::ExcludeOutside { exclude, .. } => (raw.exclude.0.clone(), exclude.to_string()),
            _ => (raw.key.clone(), raw.range.clone()),
        };
        warnings.push(Warning::new(key, value, ignored.to_string()));
    }
    if view.first().is_none() {
        let text = "no address is left to assign after excludes and gateway; make the range wider";
        warnings.push(Warning::new(&raw.key, &raw.range, text));
    }
}
