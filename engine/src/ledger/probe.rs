//! Bare rows in a ledger's file, beside its tables: for tests of the file alone, and as the floor under benchmarks, which
//! is what one durable commit costs before anything is allocated.

use std::collections::BTreeMap;

use redb::{ReadableTable, TableDefinition, TableError};

use super::file::{LedgerFile, Outcome};
use super::file_error::LedgerFileError;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("probe");

/// Writes rows in one commit. When this returns they are durable.
///
/// # Errors
/// As for every write to the ledger.
pub fn put(ledger: &LedgerFile, rows: &[(&[u8], &[u8])]) -> Result<(), LedgerFileError> {
    ledger.write(|transaction| {
        let mut table = transaction.open_table(ROWS)?;
        for (key, value) in rows {
            table.insert(*key, *value)?;
        }
        Ok(Outcome::Commit(()))
    })
}

/// Writes rows and takes it all back.
///
/// # Errors
/// As for every write to the ledger.
pub fn put_and_abandon(ledger: &LedgerFile, rows: &[(&[u8], &[u8])]) -> Result<(), LedgerFileError> {
    ledger.write(|transaction| {
        let mut table = transaction.open_table(ROWS)?;
        for (key, value) in rows {
            table.insert(*key, *value)?;
        }
        Ok(Outcome::Abandon(()))
    })
}

/// Removes rows in one commit.
///
/// # Errors
/// As for every write to the ledger.
pub fn remove(ledger: &LedgerFile, keys: &[&[u8]]) -> Result<(), LedgerFileError> {
    ledger.write(|transaction| {
        let mut table = transaction.open_table(ROWS)?;
        for key in keys {
            table.remove(*key)?;
        }
        Ok(Outcome::Commit(()))
    })
}

/// Reads one row.
///
/// # Errors
/// As for every read of the ledger.
pub fn get(ledger: &LedgerFile, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerFileError> {
    ledger.read(|transaction| match transaction.open_table(ROWS) {
        Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    })
}

/// Reads all rows.
///
/// # Errors
/// As for every read of the ledger.
pub fn rows(ledger: &LedgerFile) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, LedgerFileError> {
    ledger.read(|transaction| {
        let table = match transaction.open_table(ROWS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        let mut rows = BTreeMap::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.insert(key.value().to_vec(), value.value().to_vec());
        }
        Ok(rows)
    })
}

/// Whether every page of the file is what was written. For a handle that reads.
///
/// # Errors
/// When the file cannot be read at all.
pub fn pages_are_intact(ledger: &mut LedgerFile) -> Result<bool, LedgerFileError> {
    ledger.pages_are_intact()
}

/// Panics while it reads, as redb does over some damaged pages.
///
/// # Errors
/// Always.
pub fn panic_in_read(ledger: &LedgerFile, said: &str) -> Result<(), LedgerFileError> {
    #[expect(clippy::panic, reason = "that is what it is for")]
    ledger.read(|_| panic!("{said}"))
}
