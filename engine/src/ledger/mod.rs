//! The ledger: one file on this host.
//!
//! Where the ledger is the store it is the truth; where a cluster is, it holds intents, this node's attachments and
//! hints, and never answers an ADD by itself.

mod error;
mod journal;
mod keys;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub(crate) mod meta;
mod rows;
mod tables;

pub use self::error::StorageError;
pub use self::journal::Journal;
pub use self::rows::{Rows, RowsMut, Table, Visit};
pub use self::tables::{HISTORY_MAX, Tables};
