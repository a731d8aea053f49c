//! Networks, pools, spaces: which addresses may not collide with which.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::address::{Address, Family};
use crate::offset::{BlockNumber, Offset};

/// The longest network name in bytes. Object names in a cluster are made from it and end at 253.
pub(crate) const NETWORK_NAME_MAX: usize = 200;

/// The name of a network (`network_name`); the empty name is the unnamed network.
///
/// ```
/// use whereabouts_engine::Network;
///
/// assert!(Network::new("blue").is_ok());
/// assert!(Network::new("").is_ok_and(|network| network.is_unnamed()));
/// assert!(Network::new("line\nbreak").is_err());
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Network(Arc<str>);

/// A network name that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkNameError {
    /// Keys and object names are made from the name, so it has an end.
    #[error("network_name has {bytes} bytes; shorten it to at most {NETWORK_NAME_MAX}")]
    TooLong {
        /// How many bytes the name has.
        bytes: usize,
    },
    /// A control character would end the name inside a key and garble what people read.
    #[error("network_name {name:?} has a control character; remove it")]
    Control {
        /// The name as it was given.
        name: String,
    },
}

/// The pool of a configured range: its network and its normalised CIDR.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Pool {
    network: Network,
    cidr: IpNet,
}

/// Whether a pool shares its addresses with the rest of its network.
///
/// A pool is never both at once: see [`AllocateError::Sharing`](crate::AllocateError::Sharing).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Sharing {
    /// Overlapping ranges of the network cannot collide: they are views of one space.
    Shared,
    /// The pool is a space of its own (`enable_overlapping_ranges: false`).
    Private,
}

/// A space: all addresses of one family in one network, or in one private pool. The collision domain.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Space {
    network: Network,
    family: Family,
    private: Option<IpNet>,
}

/// A block of a space: 256 aligned addresses.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct BlockId {
    /// The space that the block is cut from.
    pub space: Space,
    /// Which of the space's blocks it is.
    pub number: BlockNumber,
}

// === impl Network ===

impl Network {
    /// The longest name, in bytes.
    pub const NAME_LIMIT: usize = NETWORK_NAME_MAX;

    /// Checks a name and takes it.
    ///
    /// # Errors
    /// [`NetworkNameError`] when the name is longer than 200 bytes or has a control character.
    pub fn new(name: &str) -> Result<Self, NetworkNameError> {
        if name.len() > NETWORK_NAME_MAX {
            return Err(NetworkNameError::TooLong { bytes: name.len() });
        }
        if name.chars().any(char::is_control) {
            return Err(NetworkNameError::Control { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The network without a name.
    #[must_use]
    pub fn unnamed() -> Self {
        Self("".into())
    }

    /// Whether this is the network without a name.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }

    /// The name, empty for the unnamed network.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unnamed() { f.write_str("(unnamed)") } else { f.write_str(&self.0) }
    }
}

// === impl Pool ===

impl Pool {
    /// The pool of `cidr` in `network`; host bits of `cidr` are cleared.
    #[must_use]
    pub fn new(network: Network, cidr: IpNet) -> Self {
        Self { network, cidr: cidr.trunc() }
    }

    /// The network that the pool belongs to.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The CIDR, without host bits.
    #[must_use]
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// The family of the pool's addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        match self.cidr {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    /// The space that the pool's addresses live in when it is used this way.
    #[must_use]
    pub fn space(&self, sharing: Sharing) -> Space {
        Space {
            network: self.network.clone(),
            family: self.family(),
            private: match sharing {
                Sharing::Shared => None,
                Sharing::Private => Some(self.cidr),
            },
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.network.is_unnamed() {
            write!(f, "{}", self.cidr)
        } else {
            write!(f, "{} of network {}", self.cidr, self.network)
        }
    }
}

// === impl Sharing ===

impl Sharing {
    /// The other way of using a pool.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Shared => Self::Private,
            Self::Private => Self::Shared,
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Private => "private",
        })
    }
}

// === impl Space ===

impl Space {
    /// The space that all pools of one family in `network` share.
    #[must_use]
    pub fn shared(network: Network, family: Family) -> Self {
        Self { network, family, private: None }
    }

    /// The network that the space belongs to.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The family of all its addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The pool that has this space for itself; `None` where the network shares it.
    #[must_use]
    pub fn private_cidr(&self) -> Option<IpNet> {
        self.private
    }

    /// Which way pools use this space.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        if self.private.is_some() { Sharing::Private } else { Sharing::Shared }
    }

    /// The block that holds `address`, or `None` when the address is of the other family.
    #[must_use]
    pub fn block_of(&self, address: Address) -> Option<BlockId> {
        (address.family() == self.family).then(|| BlockId { space: self.clone(), number: BlockNumber::of(address) })
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.private {
            Some(cidr) => write!(f, "{cidr} (private) of network {}", self.network),
            None => write!(f, "{} of network {}", self.family, self.network),
        }
    }
}

// === impl BlockId ===

impl BlockId {
    /// The address at `offset` of the block.
    #[must_use]
    pub fn address_at(&self, offset: Offset) -> Address {
        self.number.address_at(self.space.family, offset)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.space.family.bits().saturating_sub(8);
        write!(f, "{}/{prefix} in {}", self.number.first_address(self.space.family), self.space)
    }
}
