//! The ledger: one file on this host.
//!
//! Where the ledger is the store it is the truth; where a cluster is, it holds intents, this node's attachments and
//! hints, and never answers an ADD by itself.

mod careful;
mod error;
mod file;
mod file_error;
mod filesystem;
mod journal;
pub(crate) mod keys;
pub(crate) mod meta;
mod panics;
mod queue;
pub(crate) mod redb_rows;
mod rows;
mod spool;
mod storage;
mod tables;

#[cfg(feature = "testing")]
pub mod backend;
#[cfg(feature = "testing")]
pub mod memory;
#[cfg(feature = "testing")]
pub mod probe;

pub use self::error::StorageError;
pub(crate) use self::file::Outcome;
pub use self::file::{Access, Create, LedgerFile, OpenOptions};
pub use self::file_error::LedgerFileError;
pub use self::filesystem::{FileSystem, Trust};
pub use self::journal::Journal;
pub use self::rows::{Rows, RowsMut, Table, Visit};
pub use self::spool::{Spool, SpoolError, Spooled};
#[doc(hidden)]
pub use self::storage::Storage;
pub use self::tables::Tables;
