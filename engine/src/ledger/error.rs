//! Why the ledger could not be read or written.

use super::file_error::LedgerFileError;
use super::rows::Table;
use crate::codec::CodecError;

/// The ledger could not be read or written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The file could not be read or written. The ledger refuses writes until it is opened again.
    #[error("the ledger cannot be used: {}", with_cure(reason))]
    Io {
        /// What went wrong, for people.
        reason: String,
    },
    /// The file could not be opened, read or written, for a reason that names it and the cure.
    #[error("{reason}")]
    File {
        /// Which file, why, and what to do.
        reason: String,
        /// Whether it is worth trying again as it is.
        is_temporary: bool,
        /// Whether there is no ledger at all.
        is_missing: bool,
    },
    /// A row is not what was written. Nothing is overwritten, and nothing is handed out on its word.
    #[error(
        "row {key} of table {table} is damaged: {source}; run `whereabouts verify`, then `whereabouts repair --local`, and restore an \
         export if it cannot be mended"
    )]
    Damaged {
        /// The table.
        table: &'static str,
        /// The key, in hexadecimal digits.
        key: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A row's key is none that this version writes.
    #[error("table {table} has the strange key {key}; run `whereabouts verify`")]
    StrangeKey {
        /// The table.
        table: &'static str,
        /// The key, in hexadecimal digits.
        key: String,
    },
    /// An earlier write failed, so what is on the disk is not known.
    #[error("the ledger was closed by an earlier failure ({reason}); open it again")]
    Closed {
        /// What the earlier failure was.
        reason: String,
    },
}

impl StorageError {
    /// Whether it is one row that is wrong. Then the others can be read and written as ever; after any other error
    /// nothing of the transaction may be kept.
    #[must_use]
    pub fn is_of_one_row(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::StrangeKey { .. })
    }

    pub(crate) fn damaged(table: Table, key: &[u8], source: CodecError) -> Self {
        Self::Damaged { table: table.name(), key: hex(key), source }
    }

    pub(crate) fn strange_key(table: Table, key: &[u8]) -> Self {
        Self::StrangeKey { table: table.name(), key: hex(key) }
    }

    pub(crate) fn io(reason: impl ToString) -> Self {
        Self::Io { reason: reason.to_string() }
    }
}

impl From<LedgerFileError> for StorageError {
    fn from(error: LedgerFileError) -> Self {
        let is_missing = matches!(error, LedgerFileError::Missing { .. } | LedgerFileError::Lost { .. });
        Self::File { reason: error.to_string(), is_temporary: error.is_temporary(), is_missing }
    }
}

/// The reason, and what to do, unless the reason is an error that says it already.
fn with_cure(reason: &str) -> String {
    const VERIFY: &str = "run `whereabouts verify`";
    if reason.contains(VERIFY) {
        return reason.to_owned();
    }
    format!("{reason}; {VERIFY}, and restore an export if it cannot be mended")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
