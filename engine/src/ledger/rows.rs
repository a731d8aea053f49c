//! Rows: the narrow door between the ledger's tables and what keeps them.
//!
//! Behind it is redb, or, where a simulation needs thousands of ledgers a second, a sorted map in memory.

use std::ops::ControlFlow;

use super::error::StorageError;

/// The tables of a ledger. `docs/format.md` has their keys and values.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Table {
    /// Format, identity, boot, how pools are used.
    Meta,
    /// The index of each space.
    Indexes,
    /// The blocks.
    Blocks,
    /// What each attachment holds.
    Attachments,
    /// Where an owner's addresses are on this node.
    Owners,
    /// Changes that are under way.
    Intents,
    /// The newest state of each object of a cluster that this host has seen.
    Seen,
    /// Who held what, from when to when.
    History,
}

/// Receives a row's key and value; breaks when it has had enough.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StorageError> + 'a;

/// Rows that can be read.
pub trait Rows {
    /// The value under `key`.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Visits rows from the key `from` on, in the order of their keys.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read, or what `visit` returned.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError>;

    /// How many rows a table has.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    fn count(&self, table: Table) -> Result<u64, StorageError>;
}

/// Rows that can be changed. Nothing is durable before the transaction that they belong to is.
pub trait RowsMut: Rows {
    /// Puts a value under `key`, in the place of what was there.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read or written.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError>;

    /// Takes the row under `key` away, if there is one.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read or written.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError>;
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 8] = [
        Self::Meta,
        Self::Indexes,
        Self::Blocks,
        Self::Attachments,
        Self::Owners,
        Self::Intents,
        Self::Seen,
        Self::History,
    ];

    /// The name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Indexes => "indexes",
            Self::Blocks => "blocks",
            Self::Attachments => "attachments",
            Self::Owners => "owners",
            Self::Intents => "intents",
            Self::Seen => "seen",
            Self::History => "history",
        }
    }
}
