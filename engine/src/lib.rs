//! Addresses that are unique: views, spaces, blocks, leases, and the operations that give them out.

mod address;
mod block;
mod codec;
mod index;
mod intent;
mod interval;
mod lease;
mod ledger;
mod offset;
mod operations;
mod space;
mod spec;
mod store;
mod view;

pub use crate::address::{Address, Family, ParseAddressError};
pub use crate::block::{Block, Fullness};
pub use crate::codec::CodecError;
pub use crate::index::{BlockSet, Index};
pub use crate::intent::Past;
pub use crate::interval::{IntervalSet, Range};
pub use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner, Pod};
pub use crate::ledger::{Journal, StorageError};
pub use crate::offset::{BLOCK_SIZE, BlockNumber, Offset};
pub use crate::operations::{
    Allocate, AllocateError, Allocated, Check, CheckError, Collect, Contradiction, Environment, Host, Reinserted,
    Release, ReleaseError, Released, Want,
};
pub use crate::space::{BlockId, Network, NetworkNameError, Pool, Sharing, Space};
pub use crate::spec::{Edges, SpecError, ViewSpec, parse_exclude};
pub use crate::store::{Object, Outcome, Promises, ReadError, Store, Stored, Swap, Version};
pub use crate::view::{BlockSpan, Ignored, View, ViewError};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
