//! Releases that were spooled while the ledger could not be written, carried out by whoever opens it next.

use std::time::Instant;

use super::{Ledger, LedgerError, LocalHost};
use crate::codec::SpooledRelease;
use crate::host::HostFacts;
use crate::ledger::{Journal, LedgerFile, OpenOptions, RowsMut, Spool, StorageError};
use crate::operations::{ReleaseError, Released};
use crate::spooled::{log_carried_out, reserve_spool, spooled_releases};

impl Ledger {
    /// Opens the ledger to write, takes the spool's reserve while there is room, and carries out what is in it. What
    /// cannot be carried out is no reason not to open: it is tried again, or, where that is in vain, dropped.
    pub(super) fn open_and_carry_out(options: &OpenOptions, facts: HostFacts) -> Result<Self, LedgerError> {
        Self::carry_out_on(LedgerFile::open(options)?, options, facts)
    }

    /// The same with a file that was opened with these options.
    pub(super) fn carry_out_on(file: LedgerFile, options: &OpenOptions, facts: HostFacts) -> Result<Self, LedgerError> {
        let ledger = Self { file, facts };
        if !reserve_spool(&ledger.file) {
            return Ok(ledger);
        }
        let Some((spooled, spool)) = spooled_releases(&options.path) else { return Ok(ledger) };
        let began = Instant::now();
        // A handle whose write has failed does nothing any more, and its lock keeps out the one that takes its place.
        let reopened = |failed: Self| {
            let facts = failed.facts.clone();
            drop(failed);
            let mut options = options.clone();
            options.wait = options.wait.saturating_sub(began.elapsed());
            Ok::<_, LedgerError>(Self { file: LedgerFile::open(&options)?, facts })
        };
        // All in one commit, if that goes.
        let error = match ledger.carry_out(&spooled) {
            Ok(()) => {
                clear(spool);
                return Ok(ledger);
            }
            Err(error) => error,
        };
        let must_wait = ledger.file.has_io_failure();
        let mut ledger = reopened(ledger)?;
        if must_wait {
            tracing::warn!(%error, n = spooled.len(), "spooled releases must wait");
            return Ok(ledger);
        }
        for release in &spooled {
            let Err(error) = ledger.carry_out(std::slice::from_ref(release)) else { continue };
            let must_wait = ledger.file.has_io_failure();
            ledger = reopened(ledger)?;
            if must_wait {
                tracing::warn!(%error, "spooled releases must wait");
                return Ok(ledger);
            }
            let SpooledRelease { container, interface, .. } = release;
            tracing::error!(%error, %container, %interface, "a spooled release cannot be carried out, and is dropped; \
                the next GC tries again");
        }
        clear(spool);
        Ok(ledger)
    }

    /// Carries out releases in one transaction.
    fn carry_out(&self, spooled: &[SpooledRelease]) -> Result<(), LedgerError> {
        let answers = self.change(async |host| carry_out_in(&host, spooled).await)?;
        answers.iter().for_each(log_carried_out);
        Ok(())
    }
}

/// Carries out those releases that are still due.
pub(super) async fn carry_out_in<R: RowsMut>(
    host: &LocalHost<'_, R>,
    spooled: &[SpooledRelease],
) -> Result<Vec<Result<Released, ReleaseError>>, StorageError> {
    let mut due = Vec::new();
    for release in spooled {
        match host.journal.look(|tables| tables.attachments_of(&release.container, &release.interface)) {
            Ok(rows) => due.extend(release.due(&rows, host.boot)),
            // The release comes upon the same row, and its answer says so.
            Err(error) if error.is_of_one_row() => due.extend(release.due(&[], host.boot)),
            Err(error) => return Err(error),
        }
    }
    host.release(&due).await
}

/// Only when all is carried out: one that is carried out twice frees nothing twice.
fn clear(mut spool: Spool) {
    if let Err(error) = spool.clear() {
        tracing::warn!(%error, "the spool cannot be emptied now");
    }
}
