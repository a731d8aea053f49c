//! A ledger in memory: sorted maps with transactions, for simulations and models.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::error::StorageError;
use super::journal::Journal;
use super::rows::{Rows, RowsMut, Table, Visit};
use super::tables::Tables;

type Key = (Table, Vec<u8>);

/// A ledger in memory. What its transactions recorded outlives the writers that recorded it, as a file does.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    rows: RefCell<MemoryRows>,
}

/// The rows of a ledger in memory, with what is needed to take a transaction back.
#[derive(Clone, Debug, Default)]
pub struct MemoryRows {
    rows: BTreeMap<Key, Vec<u8>>,
    before: Vec<(Key, Option<Vec<u8>>)>,
    /// How many transactions have changed something.
    n_changes: u64,
}

// === impl MemoryRows ===

impl Rows for MemoryRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let rows = self.rows.range((table, from.to_vec())..).take_while(|((of, _), _)| *of == table);
        for ((_, key), value) in rows {
            if let ControlFlow::Break(()) = visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn count(&self, table: Table) -> Result<u64, StorageError> {
        let rows = self.rows.range((table, Vec::new())..).take_while(|((of, _), _)| *of == table).count();
        Ok(u64::try_from(rows).unwrap_or(u64::MAX))
    }
}

impl RowsMut for MemoryRows {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let key = (table, key.to_vec());
        let before = self.rows.insert(key.clone(), value.to_vec());
        self.before.push((key, before));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError> {
        let key = (table, key.to_vec());
        let before = self.rows.remove(&key);
        self.before.push((key, before));
        Ok(())
    }
}

impl MemoryRows {
    fn commit(&mut self) {
        self.n_changes += u64::from(!self.before.is_empty());
        self.before.clear();
    }

    fn abort(&mut self) {
        while let Some((key, before)) = self.before.pop() {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}

// === impl MemoryLedger ===

impl MemoryLedger {
    /// How many transactions have changed something until now.
    #[must_use]
    pub fn n_changes(&self) -> u64 {
        self.rows.borrow().n_changes
    }

    /// Runs `work` on the rows, keeps what it changed when it succeeds, and takes it back when it fails.
    ///
    /// # Errors
    /// What `work` returned.
    pub fn transaction<T, E>(
        &self,
        work: impl FnOnce(Tables<MemoryRows>) -> (Tables<MemoryRows>, Result<T, E>),
    ) -> Result<T, E> {
        let (Tables(mut rows), result) = work(Tables(self.rows.take()));
        if result.is_ok() {
            rows.commit();
        } else {
            rows.abort();
        }
        self.rows.replace(rows);
        result
    }
}

impl Journal for MemoryLedger {
    type Rows<'t> = MemoryRows;
    type Snapshot<'t> = MemoryRows;

    fn record<T>(
        &self,
        change: impl for<'t> FnOnce(&mut Tables<MemoryRows>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.transaction(|mut tables| {
            let result = change(&mut tables);
            (tables, result)
        })
    }

    fn look<T>(
        &self,
        look: impl for<'t> FnOnce(&Tables<MemoryRows>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.record(|tables| look(tables))
    }
}
