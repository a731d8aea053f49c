//! The keys of the ledger's tables. They sort in byte order as the numbers in them do.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address::{Address, Family};
use crate::interval::Range;
use crate::lease::{Attachment, OperationId, Owner, Pod};
use crate::offset::BlockNumber;
use crate::space::{BlockId, Network, Pool, Sharing, Space};

/// What the keys of the rows that say how pools are used begin with.
pub(crate) const SHARING: &[u8] = b"sharing/";

/// What the keys of the rows that say which ranges were found full begin with.
pub(crate) const FULL: &[u8] = b"full/";

/// A text of any content, so that no text can be taken for another one followed by something.
fn put_text(key: &mut Vec<u8>, text: &str) {
    key.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend(text.as_bytes());
}

fn take_text<'a>(key: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = key.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *key = rest;
    std::str::from_utf8(text).ok()
}

/// The network's name and a zero byte (a name has no control characters), 4 or 6, then 0 for a shared space or 1, the
/// prefix length and the 16 bytes of the address for a private one.
pub(crate) fn space(space: &Space) -> Vec<u8> {
    let mut key = Vec::with_capacity(space.network().as_str().len() + 36);
    key.extend(space.network().as_str().as_bytes());
    key.push(0);
    key.push(match space.family() {
        Family::V4 => 4,
        Family::V6 => 6,
    });
    match space.private_cidr() {
        None => key.push(0),
        Some(cidr) => {
            key.extend([1, cidr.prefix_len()]);
            key.extend(match cidr {
                IpNet::V4(net) => u128::from(u32::from(net.network())).to_be_bytes(),
                IpNet::V6(net) => u128::from(net.network()).to_be_bytes(),
            });
        }
    }
    key
}

fn take_space(key: &mut &[u8]) -> Option<Space> {
    let end = key.iter().position(|&byte| byte == 0)?;
    let (name, rest) = key.split_at_checked(end)?;
    let network = Network::new(std::str::from_utf8(name).ok()?).ok()?;
    let (&[_, family, private], mut rest) = rest.split_first_chunk()?;
    let family = match family {
        4 => Family::V4,
        6 => Family::V6,
        _ => return None,
    };
    let space = match private {
        0 => Space::shared(network, family),
        1 => {
            let (&prefix, after) = rest.split_first()?;
            let (address, after) = after.split_first_chunk()?;
            let address = u128::from_be_bytes(*address);
            rest = after;
            let cidr: IpNet = match family {
                Family::V4 => Ipv4Net::new(Ipv4Addr::from(u32::try_from(address).ok()?), prefix).ok()?.into(),
                Family::V6 => Ipv6Net::new(Ipv6Addr::from(address), prefix).ok()?.into(),
            };
            // One space has one key: a network with host bits would be another key of the same space.
            if cidr.trunc() != cidr {
                return None;
            }
            Pool::new(network, cidr).space(Sharing::Private)
        }
        _ => return None,
    };
    *key = rest;
    Some(space)
}

/// The space of an index.
pub(crate) fn to_space(mut key: &[u8]) -> Option<Space> {
    take_space(&mut key).filter(|_| key.is_empty())
}

/// The space, then the block's number in 16 bytes, the highest first.
pub(crate) fn block(id: &BlockId) -> Vec<u8> {
    let mut key = space(&id.space);
    key.extend(id.number.get().to_be_bytes());
    key
}

/// The block of a key.
pub(crate) fn to_block(mut key: &[u8]) -> Option<BlockId> {
    let space = take_space(&mut key)?;
    let number = u128::from_be_bytes(key.try_into().ok()?);
    Some(BlockId { number: BlockNumber::new(space.family(), number)?, space })
}

/// Container id, interface and CNI network name, each with its length.
pub(crate) fn attachment(attachment: &Attachment) -> Vec<u8> {
    let mut key = attachments_of(&attachment.container, &attachment.interface);
    put_text(&mut key, &attachment.network);
    key
}

/// What the keys of all attachments of one interface begin with.
pub(crate) fn attachments_of(container: &str, interface: &str) -> Vec<u8> {
    let mut key = attachments_of_container(container);
    put_text(&mut key, interface);
    key
}

/// What the keys of all attachments of one container begin with.
pub(crate) fn attachments_of_container(container: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(container.len() + 64);
    put_text(&mut key, container);
    key
}

/// The attachment of a key.
pub(crate) fn to_attachment(mut key: &[u8]) -> Option<Attachment> {
    let (container, interface, network) = (take_text(&mut key)?, take_text(&mut key)?, take_text(&mut key)?);
    key.is_empty().then(|| Attachment::new(container, interface, network))
}

/// The space, what kind of owner, who it is, and the interface; `None` for an owner that is only its attachment.
pub(crate) fn owner(within: &Space, owner: &Owner, interface: &str) -> Option<Vec<u8>> {
    let mut key = space(within);
    match owner {
        Owner::Container => return None,
        Owner::Pod(pod) => {
            key.push(if pod.uid.is_some() { 2 } else { 1 });
            put_text(&mut key, &pod.namespace);
            put_text(&mut key, &pod.name);
            if let Some(uid) = &pod.uid {
                put_text(&mut key, uid);
            }
        }
        Owner::Sticky { name, .. } => {
            key.push(3);
            put_text(&mut key, name);
        }
        Owner::Named(name) => {
            key.push(4);
            put_text(&mut key, name);
        }
    }
    put_text(&mut key, interface);
    Some(key)
}

/// The space and the owner of a key. A sticky name's pod is not in it.
pub(crate) fn to_owner(mut key: &[u8]) -> Option<(Space, Owner)> {
    let space = take_space(&mut key)?;
    let (&kind, mut key) = key.split_first()?;
    let key = &mut key;
    let owner = match kind {
        1 | 2 => Owner::Pod(Pod {
            namespace: take_text(key)?.into(),
            name: take_text(key)?.into(),
            uid: if kind == 2 { Some(take_text(key)?.into()) } else { None },
        }),
        3 => Owner::Sticky { name: take_text(key)?.into(), pod: None },
        4 => Owner::Named(take_text(key)?.into()),
        _ => return None,
    };
    take_text(key)?;
    key.is_empty().then_some((space, owner))
}

/// The space of an owner's key.
pub(crate) fn owner_space(mut key: &[u8]) -> Option<Space> {
    take_space(&mut key)
}

/// Milliseconds since 1970, the operation id, and the block and offset of the address.
pub(crate) fn history(until: u64, operation: OperationId, id: &BlockId, offset: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend(until.to_be_bytes());
    key.extend(operation.to_bytes());
    key.extend(block(id));
    key.push(offset);
    key
}

/// How a pool is used; a row of the meta table.
pub(crate) fn sharing(pool: &Pool) -> Vec<u8> {
    let mut key = SHARING.to_vec();
    key.extend(space(&pool.space(Sharing::Private)));
    key
}

/// What the keys of the ranges of a space that were found full begin with.
pub(crate) fn full_in(within: &Space) -> Vec<u8> {
    let mut key = FULL.to_vec();
    key.extend(space(within));
    key
}

/// A range that was found full: the space, then the first and the last assignable address in 16 bytes each; a row of the
/// meta table.
pub(crate) fn full(within: &Space, range: Range) -> Vec<u8> {
    let mut key = full_in(within);
    key.extend(range.first().number().to_be_bytes());
    key.extend(range.last().number().to_be_bytes());
    key
}

/// The space and the range of a key of [`full`].
pub(crate) fn to_full(key: &[u8]) -> Option<(Space, Range)> {
    let mut key = key.strip_prefix(FULL)?;
    let space = take_space(&mut key)?;
    let (first, last) = key.split_first_chunk()?;
    let address = |number: &[u8; 16]| Address::new(space.family(), u128::from_be_bytes(*number));
    let range = Range::new(address(first)?, address(last.try_into().ok()?)?)?;
    Some((space, range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_sort_as_their_numbers() {
        let shared = Space::shared(Network::new("blue").unwrap(), Family::V6);
        let private = Pool::new(Network::unnamed(), "10.0.0.0/8".parse().unwrap()).space(Sharing::Private);
        for of in [&shared, &private] {
            assert_eq!(to_space(&space(of)).as_ref(), Some(of));
            let mut last = Vec::new();
            for number in [0, 1, 255, 256, 65_535, 1 << 23] {
                let id = BlockId { space: of.clone(), number: BlockNumber::new(of.family(), number).unwrap() };
                let key = block(&id);
                assert_eq!(to_block(&key), Some(id));
                assert!(last < key, "block {number} sorts before a lower one");
                last = key;
            }
        }
    }

    #[test]
    fn a_range_of_a_key_is_read_back() {
        let shared = Space::shared(Network::new("blue").unwrap(), Family::V6);
        let private = Pool::new(Network::unnamed(), "10.0.0.0/8".parse().unwrap()).space(Sharing::Private);
        for (of, cidr) in [(shared, "::/0"), (private, "10.0.0.0/30")] {
            let range = Range::from(cidr.parse::<IpNet>().unwrap());
            let key = full(&of, range);
            assert!(key.starts_with(&full_in(&of)));
            assert_eq!(to_full(&key[..key.len() - 1]), None);
            assert_eq!(to_full(&key), Some((of, range)));
        }
    }

    #[test]
    fn an_attachment_is_never_taken_for_another() {
        let one = Attachment::new("a", "bc", "d");
        let two = Attachment::new("ab", "c", "d");
        assert_ne!(attachment(&one), attachment(&two));
        assert_eq!(to_attachment(&attachment(&one)), Some(one));
    }
}
