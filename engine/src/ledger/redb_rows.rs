//! Rows in redb.

use std::cell::Cell;
use std::ops::ControlFlow;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError, WriteTransaction};

use super::error::StorageError;
use super::rows::{Rows, RowsMut, Table, Visit};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type SnapshotTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The rows of a transaction that reads a snapshot.
pub(crate) struct SnapshotRows<'t>(pub(crate) &'t ReadTransaction);

/// The rows of a transaction that writes.
pub(crate) struct TransactionRows<'t> {
    transaction: &'t WriteTransaction,
    /// Whether anything was put or deleted: a transaction that changed nothing is not worth two syncs.
    changed: &'t Cell<bool>,
}

fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

fn visit_from(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    from: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), StorageError> {
    for row in table.range::<&[u8]>(from..).map_err(StorageError::io)? {
        let (key, value) = row.map_err(StorageError::io)?;
        if let ControlFlow::Break(()) = visit(key.value(), value.value())? {
            break;
        }
    }
    Ok(())
}

// === impl SnapshotRows ===

impl SnapshotRows<'_> {
    /// A table that was never written to is not there, and has no rows.
    fn table(&self, table: Table) -> Result<Option<SnapshotTable>, StorageError> {
        match self.0.open_table(definition(table)) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StorageError::io(error)),
        }
    }
}

impl Rows for SnapshotRows<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let Some(table) = self.table(table)? else { return Ok(None) };
        Ok(table.get(key).map_err(StorageError::io)?.map(|value| value.value().to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.table(table)?.map_or(Ok(()), |table| visit_from(&table, from, visit))
    }

    fn count(&self, table: Table) -> Result<u64, StorageError> {
        self.table(table)?.map_or(Ok(0), |table| table.len().map_err(StorageError::io))
    }
}

// === impl TransactionRows ===

impl<'t> TransactionRows<'t> {
    /// The rows of `transaction`; `changed` is set with the first change.
    pub(crate) fn new(transaction: &'t WriteTransaction, changed: &'t Cell<bool>) -> Self {
        Self { transaction, changed }
    }

    fn with<T>(
        &self,
        table: Table,
        work: impl FnOnce(redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        work(self.transaction.open_table(definition(table)).map_err(StorageError::io)?)
    }
}

impl Rows for TransactionRows<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.with(table, |table| {
            let value = table.get(key).map_err(StorageError::io)?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.with(table, |table| visit_from(&table, from, visit))
    }

    fn count(&self, table: Table) -> Result<u64, StorageError> {
        self.with(table, |table| table.len().map_err(StorageError::io))
    }
}

impl RowsMut for TransactionRows<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.changed.set(true);
        self.with(table, |mut table| table.insert(key, value).map(drop).map_err(StorageError::io))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError> {
        let was_there = self.with(table, |mut table| {
            let before = table.remove(key).map_err(StorageError::io)?;
            Ok(before.is_some())
        })?;
        self.changed.set(self.changed.get() | was_there);
        Ok(())
    }
}
