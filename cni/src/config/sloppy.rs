//! Addresses as the Go plugin reads them at most places: with leading zeros, which mean nothing. `00192.00168.1.0/24`
//! is `192.168.1.0/24`, never an octal number.

use std::net::{Ipv4Addr, Ipv6Addr};

use whereabouts_engine::{Address, IpNet};

/// Reads an address, leading zeros allowed. An IPv4-mapped IPv6 address stays one of IPv6.
///
/// ```
/// use whereabouts::config::sloppy_address;
///
/// assert_eq!(sloppy_address("010.0.0.001").map(|address| address.to_string()).as_deref(), Some("10.0.0.1"));
/// assert_eq!(sloppy_address("10.0.0"), None);
/// ```
#[must_use]
pub fn sloppy_address(text: &str) -> Option<Address> {
    if text.contains(':') { sloppy_v6(text).map(Address::from) } else { sloppy_v4(text).map(Address::from) }
}

/// Reads an address with the length of its network's prefix, leading zeros allowed; host bits are kept.
#[must_use]
pub fn sloppy_cidr(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    IpNet::new(sloppy_address(address)?.to_ip(), u8::try_from(decimal(prefix)?).ok()?).ok()
}

/// Reads an address as Go's strict reader does: no leading zeros in IPv4, at most four digits in a group of IPv6.
#[must_use]
pub fn strict_address(text: &str) -> Option<Address> {
    text.parse().ok()
}

/// Reads an address with the length of its network's prefix, the address strictly; host bits are kept.
#[must_use]
pub fn strict_cidr(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    IpNet::new(strict_address(address)?.to_ip(), u8::try_from(decimal(prefix)?).ok()?).ok()
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Strips what is sloppy and leaves the rest to the strict reader.
fn sloppy_v6(text: &str) -> Option<Ipv6Addr> {
    let mut strict = String::with_capacity(text.len());
    for (position, group) in text.split(':').enumerate() {
        if position > 0 {
            strict.push(':');
        }
        if group.contains('.') {
            strict.push_str(&sloppy_v4(group)?.to_string());
        } else {
            let digits = group.trim_start_matches('0');
            strict.push_str(if digits.is_empty() && !group.is_empty() { "0" } else { digits });
        }
    }
    strict.parse().ok()
}

/// A number of decimal digits and nothing else. Leading zeros do not count, so no text is too long.
fn decimal(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(sloppy_cidr(text).map(|net| net.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn leading_zeros_mean_nothing() {
        check("00192.00168.1.0/24", Some("192.168.1.0/24"));
        check("010.0.0.08/024", Some("10.0.0.8/24"));
        check("00000fd00:0001::00/64", Some("fd00:1::/64"));
        check("::0/0", Some("::/0"));
        check("64:ff9b::010.0.0.1/96", Some("64:ff9b::a00:1/96"));
        assert_eq!(strict_cidr("010.0.0.0/8"), None);
        assert_eq!(strict_address("00000fd00::1"), None);
        assert_eq!(strict_address("10.0.0.1"), sloppy_address("10.0.0.1"));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            "/",
            "/24",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "10.0.0.-1/8",
            "10..0.0/8",
            " 10.0.0.0/8",
            "::/129",
            ":::/64",
            "1:2:3:4:5:6:7:8:9/64",
            "fe80::1%eth0/64",
            "g::/64",
            "10.0.0.0/8/8",
            "::1.2.3/96",
            "99999999999.0.0.0/8",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_strict_reads_the_same_sloppily(address in any::<IpAddr>(), prefix in 0_u8..=128) {
            let text = address.to_string();
            prop_assert_eq!(sloppy_address(&text), strict_address(&text));
            let text = format!("{address}/{prefix}");
            prop_assert_eq!(sloppy_cidr(&text), strict_cidr(&text));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9a-f:./-]{0,40}") {
            for text in [&text, &near] {
                let _ = (sloppy_address(text), sloppy_cidr(text), strict_cidr(text));
            }
        }
    }
}
