//! A journal in a file that others on this host use too.
//!
//! The file is open while something is read or written, and closed while the caller waits for a store: nobody on this
//! host waits for somebody else's network.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::error::StorageError;
use super::file::{LedgerFile, OpenOptions, Outcome};
use super::file_error::LedgerFileError;
use super::journal::Journal;
use super::redb_rows::{SnapshotRows, TransactionRows};
use super::tables::Tables;

/// A ledger file that is opened when it is needed, by one call.
#[derive(Debug)]
pub(crate) struct FileJournal {
    options: OpenOptions,
    /// When the call gives up.
    deadline: Instant,
    open: RefCell<Option<LedgerFile>>,
}

// === impl FileJournal ===

impl FileJournal {
    pub(crate) fn new(options: OpenOptions, deadline: Instant) -> Self {
        Self { options, deadline, open: RefCell::new(None) }
    }

    /// Where the file is, and how it is opened.
    pub(crate) fn options(&self) -> &OpenOptions {
        &self.options
    }

    /// How much time the call has left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Lets others use the ledger, until it is needed again.
    pub(crate) fn let_go(&self) {
        drop(self.open.take());
    }

    /// Works with the open file.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&LedgerFile) -> Result<T, LedgerFileError>,
    ) -> Result<T, LedgerFileError> {
        let file = match self.open.take() {
            Some(file) => file,
            None => {
                let mut options = self.options.clone();
                options.wait = self.left();
                LedgerFile::open(&options)?
            }
        };
        let result = work(&file);
        if result.is_ok() {
            self.open.replace(Some(file));
        }
        result
    }
}

impl Journal for FileJournal {
    type Rows<'t> = TransactionRows<'t>;
    type Snapshot<'t> = SnapshotRows<'t>;

    fn record<T>(
        &self,
        change: impl for<'t> FnOnce(&mut Tables<TransactionRows<'t>>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.with(|file| {
            file.write(|transaction| {
                let changed = Cell::new(false);
                let answer = change(&mut Tables(TransactionRows::new(transaction, &changed)));
                Ok(match answer {
                    Ok(_) if changed.get() => Outcome::Commit(answer),
                    answer => Outcome::Abandon(answer),
                })
            })
        })?
    }

    fn look<T>(
        &self,
        look: impl for<'t> FnOnce(&Tables<SnapshotRows<'t>>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let looked = self.with(|file| file.read(|transaction| Ok(look(&Tables(SnapshotRows(transaction))))));
        match looked {
            Ok(answer) => answer,
            Err(error) => Err(error.into()),
        }
    }
}
