//! Addresses that are unique.

mod address;
mod interval;
mod offset;
mod spec;
mod view;

pub use crate::address::{Address, Family, ParseAddressError};
pub use crate::interval::{IntervalSet, Range};
pub use crate::offset::{BLOCK_SIZE, BlockNumber, Offset};
pub use crate::spec::{Edges, SpecError, ViewSpec, parse_exclude};
pub use crate::view::{BlockSpan, Ignored, View, ViewError};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
