//! The journal: what an operation writes down on this host, before and after it changes a store.

use super::error::StorageError;
use super::rows::{Rows, RowsMut};
use super::tables::Tables;

/// Where operations write down intents, attachments and what they have seen.
pub trait Journal {
    /// The rows of a transaction that changes them.
    type Rows<'t>: RowsMut;
    /// The rows of a transaction that reads them.
    type Snapshot<'t>: Rows;

    /// Changes the tables in one transaction. What it changed is durable when this returns, or, where journal and
    /// store are one transaction, with it; on an error nothing has changed.
    ///
    /// # Errors
    /// [`StorageError`], also when `change` returned it.
    fn record<T>(
        &self,
        change: impl for<'t> FnOnce(&mut Tables<Self::Rows<'t>>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError>;

    /// Reads the tables.
    ///
    /// # Errors
    /// [`StorageError`], also when `look` returned it.
    fn look<T>(
        &self,
        look: impl for<'t> FnOnce(&Tables<Self::Snapshot<'t>>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError>;
}
