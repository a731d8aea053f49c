//! Addresses that are unique: views, spaces, blocks, leases, and the operations that give them out.

mod address;
mod block;
mod cluster;
mod codec;
mod host;
mod index;
mod intent;
mod interval;
mod lease;
mod ledger;
mod local;
mod offset;
mod operations;
#[cfg(feature = "testing")]
pub mod simulation;
mod space;
mod spec;
mod spooled;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod view;
mod waiting;

pub use crate::address::{Address, Family, ParseAddressError};
pub use crate::block::{Block, Fullness};
pub use crate::cluster::{ClusterHost, ClusterLedger, ClusterTurn, KnownStore, Rebuilt, Survey, SurveyError};
pub use crate::codec::CodecError;
pub use crate::host::{HostEnvironment, HostFacts};
pub use crate::index::{BlockSet, HANDED_OVER, Index};
pub use crate::intent::Past;
pub use crate::interval::{IntervalSet, Range};
pub use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner, Pod};
#[doc(hidden)]
pub use crate::ledger::Storage;
pub use crate::ledger::{
    Access, Create, FileSystem, Journal, LedgerFile, LedgerFileError, OpenOptions, Rows, RowsMut, Spool, SpoolError,
    Spooled, StorageError, Table, Tables, Trust, Visit,
};
#[cfg(feature = "testing")]
pub use crate::ledger::{backend, memory as memory_ledger, probe};
pub use crate::local::{
    Cell, Disagreement, Holding, Holdings, ImportConflict, ImportError, Imported, Ledger, LedgerError, Occupancy,
    RepairError, Repaired, Verified,
};
pub use crate::offset::{BLOCK_SIZE, BlockNumber, Offset};
pub use crate::operations::{
    AdoptConflict, AdoptError, Adopted, Allocate, AllocateError, Allocated, Check, CheckError, Collect, Contradiction,
    Environment, Host, Pauses, Reinserted, Release, ReleaseError, Released, Settled, Want,
};
pub use crate::space::{BlockId, Network, NetworkNameError, Pool, Sharing, Space};
pub use crate::spec::{Edges, SpecError, ViewSpec, parse_exclude};
pub use crate::spooled::spool_release;
#[cfg(feature = "testing")]
pub use crate::store::memory as memory_store;
pub use crate::store::{Listed, Object, Outcome, Promises, ReadError, Store, Stored, Swap, Version};
pub use crate::view::{BlockSpan, Ignored, View, ViewError};
pub use crate::waiting::Waited;
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
