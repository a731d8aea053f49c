//! The ledger: one file on this host.
//!
//! Where the ledger is the store it is the truth; where a cluster is, it holds intents, this node's attachments and
//! hints, and never answers an ADD by itself.
//!
//! From the bottom up: `storage` is bytes on a disk, `careful` leaves out what is needless and stops at the first
//! failure, `file` opens the file and runs transactions, `queue` lets one in after the other. On that stand `rows`
//! and `tables`. `spool` is for the day when none of it works.

mod careful;
mod error;
mod file;
mod file_error;
mod file_journal;
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
pub use self::file::{Access, Create, LedgerFile, OpenOptions};
pub(crate) use self::file::{Outcome, Turn, with_suffix};
pub use self::file_error::LedgerFileError;
pub(crate) use self::file_journal::FileJournal;
pub use self::filesystem::{FileSystem, Trust};
pub use self::journal::Journal;
pub(crate) use self::queue::{Lockable, Share, deadline_after, lock};
pub use self::rows::{Rows, RowsMut, Table, Visit};
pub use self::spool::{Spool, SpoolError, Spooled};
pub(crate) use self::storage::MemoryStorage;
#[doc(hidden)]
pub use self::storage::Storage;
pub use self::tables::Tables;
