//! An address is a number of a family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::IpNet;

/// One of the two address families.
///
/// ```
/// use whereabouts_engine::Family;
///
/// assert_eq!(Family::V4.last(), 0xffff_ffff);
/// assert_eq!(Family::V6.bits(), 128);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4: 32 bits.
    V4,
    /// IPv6: 128 bits.
    V6,
}

/// An address: a family and a number in it.
///
/// Addresses sort by family, then by number. An IPv4-mapped IPv6 address is an address of IPv6 here; whoever reads text
/// in which it means IPv4 says so with [`Address::to_canonical`].
///
/// ```
/// use whereabouts_engine::{Address, Family};
///
/// let address: Address = "10.0.0.255".parse()?;
/// assert_eq!(address.number(), 0x0a00_00ff);
/// assert_eq!(address.checked_next().map(|next| next.to_string()).as_deref(), Some("10.0.1.0"));
/// assert_eq!(Address::new(Family::V4, 1 << 32), None);
/// # Ok::<(), whereabouts_engine::ParseAddressError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    family: Family,
    /// At most `family.last()`.
    number: u128,
}

/// The text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not an IP address: write IPv4 as 192.0.2.1 (no leading zeros) and IPv6 as 2001:db8::1 (no zone)"
)]
pub struct ParseAddressError {
    text: String,
}

// === impl Family ===

impl Family {
    /// How many bits an address of the family has: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The highest number of the family. The lowest is 0.
    #[must_use]
    pub const fn last(self) -> u128 {
        match self {
            Self::V4 => u32::MAX as u128,
            Self::V6 => u128::MAX,
        }
    }
}

impl From<IpNet> for Family {
    fn from(network: IpNet) -> Self {
        match network {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

// === impl Address ===

impl Address {
    /// The address with this number, or `None` when the family has none.
    #[must_use]
    pub const fn new(family: Family, number: u128) -> Option<Self> {
        if number <= family.last() { Some(Self { family, number }) } else { None }
    }

    /// For numbers that are known to be in the family, because they lie between two that are.
    pub(crate) const fn from_bounded(family: Family, number: u128) -> Self {
        debug_assert!(number <= family.last());
        Self { family, number: number & family.last() }
    }

    /// The family.
    #[must_use]
    pub const fn family(self) -> Family {
        self.family
    }

    /// The number, from 0 to [`Family::last`].
    #[must_use]
    pub const fn number(self) -> u128 {
        self.number
    }

    /// The same address as the standard library writes it.
    #[must_use]
    pub const fn to_ip(self) -> IpAddr {
        match self.family {
            // The number of an IPv4 address has 32 bits.
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(self.number as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(self.number)),
        }
    }

    /// The network that holds this address alone: /32 or /128.
    #[must_use]
    pub fn to_net(self) -> IpNet {
        IpNet::from(self.to_ip())
    }

    /// True for `::ffff:0:0/96`: an IPv4 address in the clothes of IPv6.
    #[must_use]
    pub const fn is_ipv4_mapped(self) -> bool {
        matches!(self.family, Family::V6) && self.number >> 32 == 0xffff
    }

    /// An IPv4-mapped IPv6 address as the IPv4 address that it stands for; any other address as it is.
    ///
    /// ```
    /// # use whereabouts_engine::Address;
    /// let mapped: Address = "::ffff:192.0.2.1".parse()?;
    /// assert_eq!(mapped.to_canonical().to_string(), "192.0.2.1");
    /// # Ok::<(), whereabouts_engine::ParseAddressError>(())
    /// ```
    #[must_use]
    pub fn to_canonical(self) -> Self {
        Self::from(self.to_ip().to_canonical())
    }

    /// The next address of the family, or `None` after the last.
    #[must_use]
    pub const fn checked_next(self) -> Option<Self> {
        match self.number.checked_add(1) {
            Some(number) => Self::new(self.family, number),
            None => None,
        }
    }

    /// The address before this one, or `None` before the first of the family.
    #[must_use]
    pub const fn checked_previous(self) -> Option<Self> {
        match self.number.checked_sub(1) {
            Some(number) => Some(Self { family: self.family, number }),
            None => None,
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self { family: Family::V4, number: u128::from(ip.to_bits()) }
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Self {
        Self { family: Family::V6, number: ip.to_bits() }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::from(ip),
            IpAddr::V6(ip) => Self::from(ip),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        address.to_ip()
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    /// Strict: no leading zeros, no spaces, no zone, no prefix.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::from(ip)),
            Err(_) => Err(ParseAddressError { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn h1_to_h6_addresses_sort_as_their_numbers() {
        assert!(address("192.168.0.0") < address("192.169.0.0"));
        assert_eq!(address("::ffff:192.168.0.0").to_canonical(), address("192.168.0.0"));
        assert!(address("2000::") < address("2000::1"));
        assert_eq!(address("2000::"), address("2000:0::0"));
        assert!(address("255.255.255.255") < address("::"), "IPv4 comes before IPv6");
    }

    #[test]
    fn h19_h20_h22_next_and_previous_carry() {
        for (low, high) in [
            ("192.168.2.23", "192.168.2.24"),
            ("192.168.2.255", "192.168.3.0"),
            ("192.168.255.255", "192.169.0.0"),
            ("ff02::1", "ff02::2"),
            ("ff02::ff", "ff02::100"),
            ("ff02::ffff", "ff02::1:0"),
            ("ff02::ffff:ffff", "ff02::1:0:0"),
        ] {
            assert_eq!(address(low).checked_next(), Some(address(high)), "after {low}");
            assert_eq!(address(high).checked_previous(), Some(address(low)), "before {high}");
        }
    }

    /// The Go plugin wraps around here.
    #[test]
    fn h21_h23_the_families_end() {
        for text in ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert_eq!(address(text).checked_next(), None, "after {text}");
            assert_eq!(address(text).number(), address(text).family().last());
        }
        assert_eq!(address("0.0.0.0").checked_previous(), None);
        assert_eq!(address("::").checked_previous(), None);
        assert_eq!(Address::new(Family::V4, 1 << 32), None);
        assert_eq!(Address::new(Family::V6, u128::MAX), Some(address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
    }

    #[test]
    fn text_is_read_strictly() {
        for text in
            ["", "192.168.01.1", "192.168.1", " 10.0.0.1", "10.0.0.1/24", "fe80::1%eth0", "1::2::3", "0x7f.0.0.1"]
        {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{text}\" is not an IP address")), "{error}");
        }
    }

    #[test]
    fn mapped_addresses_are_told_apart() {
        assert!(address("::ffff:0.0.0.0").is_ipv4_mapped() && address("::ffff:255.255.255.255").is_ipv4_mapped());
        for text in ["::255.255.255.255", "::fffe:ffff:ffff", "::1:0:0:0", "192.0.2.1"] {
            assert!(!address(text).is_ipv4_mapped(), "{text}");
            assert_eq!(address(text).to_canonical(), address(text));
        }
    }
}
