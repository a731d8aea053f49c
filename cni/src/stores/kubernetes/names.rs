//! The names of objects: made to be read, and ending in a short hash of what they stand for.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use whereabouts_engine::{BlockId, Offset, Space};

/// How many characters of a network's name are shown. An object's name may have 253, and a label 63.
const NETWORK_SHOWN: usize = 40;

/// How many hexadecimal digits of the hash end a name: 40 bits, so that among a million spaces two share a name once in
/// two million clusters; and then the second one is an error, because what is read is checked against its name.
const HASH_DIGITS: usize = 10;

/// The name of the object that holds the index of a space.
#[must_use]
pub(super) fn of_space(space: &Space) -> String {
    format!("{}-{}", shown(space), hash(&identity(space)))
}

/// The name of the object that holds a block.
#[must_use]
pub(super) fn of_block(id: &BlockId) -> String {
    let first = id.address_at(Offset::from(0)).to_ip();
    let address = sanitized(&first.to_string());
    let address = if address.is_empty() { "0" } else { &address };
    format!("{}-{address}-{}", shown(&id.space), hash(&format!("{}\n{first}", identity(&id.space))))
}

/// The value of the label by which the blocks of a space are listed.
#[must_use]
pub(super) fn label_of_space(space: &Space) -> String {
    hash(&identity(space))
}

/// What tells a space from every other one, in a text.
fn identity(space: &Space) -> String {
    let private = space.private_cidr().map(|cidr| cidr.to_string()).unwrap_or_default();
    format!("{}\n{}\n{private}", space.network().as_str(), space.family())
}

fn shown(space: &Space) -> String {
    let network = sanitized(space.network().as_str());
    let network = network.get(..NETWORK_SHOWN).unwrap_or(&network).trim_end_matches('-');
    let network = if network.is_empty() { "unnamed" } else { network };
    match space.private_cidr() {
        Some(cidr) => format!("{network}-private-{}", sanitized(&cidr.to_string())),
        None => format!("{network}-{}", sanitized(&space.family().to_string())),
    }
}

/// Lower-case letters, digits and single hyphens between them.
fn sanitized(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for character in text.chars().map(|character| character.to_ascii_lowercase()) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            name.push(character);
        } else if !name.ends_with('-') && !name.is_empty() {
            name.push('-');
        }
    }
    name.truncate(name.trim_end_matches('-').len());
    name
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(HASH_DIGITS / 2).fold(String::new(), |mut digits, byte| {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use whereabouts_engine::{Family, Network, Pool, Sharing};

    use super::*;

    fn shared(network: &str, family: Family) -> Space {
        Space::shared(Network::new(network).unwrap(), family)
    }

    #[test]
    fn names_are_read_and_told_apart() {
        let unnamed = shared("", Family::V4);
        let block = unnamed.block_of("10.0.3.7".parse().unwrap()).unwrap();
        assert!(of_space(&unnamed).starts_with("unnamed-ipv4-"), "{}", of_space(&unnamed));
        assert!(of_block(&block).starts_with("unnamed-ipv4-10-0-3-0-"), "{}", of_block(&block));
        // What looks alike when it is sanitised has another name all the same.
        assert_ne!(of_space(&shared("a.b", Family::V4)), of_space(&shared("a-b", Family::V4)));
        assert_ne!(of_space(&shared("a", Family::V4)), of_space(&shared("a", Family::V6)));
        let private = Pool::new(Network::unnamed(), "10.0.0.0/16".parse().unwrap()).space(Sharing::Private);
        assert_ne!(of_block(&block), of_block(&private.block_of("10.0.3.7".parse().unwrap()).unwrap()));
    }

    #[test]
    fn every_name_is_one_that_kubernetes_takes() {
        for network in ["", "Blue_Net", "-", "ü", &"x".repeat(200), "a--b", &format!("{}-", "y".repeat(39))] {
            for family in [Family::V4, Family::V6] {
                let space = shared(network, family);
                let address = if family == Family::V4 { "0.0.0.1" } else { "::1" };
                let block = space.block_of(address.parse().unwrap()).unwrap();
                for name in [of_space(&space), of_block(&block)] {
                    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                    assert!(name.len() <= 253 && name.chars().all(fits), "{name}");
                    assert!(!name.starts_with('-') && !name.ends_with('-') && !name.contains("--"), "{name}");
                }
            }
        }
    }
}
