//! Releases that were spooled while the ledger could not be written, carried out by whoever can write again.

use super::ClusterHost;
use crate::ledger::{Journal, StorageError};
use crate::operations::{Environment, Release};
use crate::spooled::{reserve_spool, spooled_releases};
use crate::store::Store;

impl<S: Store, E: Environment> ClusterHost<'_, S, E> {
    /// Takes the spool's reserve while there is room, and carries out what is in it: frees it, or turns it into releases
    /// that are queued in the ledger.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn carry_out_spooled(&self) -> Result<(), StorageError> {
        let journal = &self.ledger.journal;
        journal.with(|file| {
            reserve_spool(file);
            Ok(())
        })?;
        let Some((spooled, mut spool)) = spooled_releases(&journal.options().path) else { return Ok(()) };
        let mut releases: Vec<Release> = Vec::new();
        for release in spooled {
            let rows = journal.look(|tables| tables.attachments_of(&release.container, &release.interface))?;
            releases.extend(release.due(&rows));
        }
        self.release(&releases).await?;
        // Cleared only now: one that is carried out twice frees nothing twice.
        if let Err(error) = spool.clear() {
            tracing::warn!(%error, "the spool cannot be emptied now");
        }
        Ok(())
    }
}
