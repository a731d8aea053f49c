//! Releases that were spooled while the ledger could not be written, carried out by whoever can write again.

use super::ClusterHost;
use crate::codec::SpooledRelease;
use crate::ledger::{Journal, StorageError};
use crate::operations::{Environment, ReleaseError, Released};
use crate::spooled::{log_carried_out, reserve_spool, spooled_releases};
use crate::store::Store;

impl<S: Store, E: Environment> ClusterHost<'_, S, E> {
    /// Takes the spool's reserve while there is room, and carries out what is in it: frees it, or turns it into releases
    /// that are queued in the ledger. What cannot be carried out is tried again by the next call, or, where that is in
    /// vain, dropped: it is no reason to fail.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be opened.
    pub async fn carry_out_spooled(&self) -> Result<(), StorageError> {
        let journal = &self.ledger.journal;
        if !journal.with(|file| Ok(reserve_spool(file)))? {
            return Ok(());
        }
        let Some((spooled, mut spool)) = spooled_releases(&journal.options().path) else { return Ok(()) };
        for release in spooled {
            match self.carry_out(&release).await {
                Ok(answers) => answers.iter().for_each(log_carried_out),
                Err(error @ StorageError::File { .. }) => {
                    tracing::warn!(%error, "spooled releases must wait");
                    return Ok(());
                }
                Err(error) => {
                    let SpooledRelease { container, interface, .. } = &release;
                    tracing::error!(%error, %container, %interface, "a spooled release cannot be carried out, and is \
                        dropped; the next GC tries again");
                }
            }
        }
        // Cleared only now: one that is carried out twice frees nothing twice.
        if let Err(error) = spool.clear() {
            tracing::warn!(%error, "the spool cannot be emptied now");
        }
        Ok(())
    }

    /// Carries out one, so that one that fails keeps no other from it.
    async fn carry_out(&self, release: &SpooledRelease) -> Result<Vec<Result<Released, ReleaseError>>, StorageError> {
        let journal = &self.ledger.journal;
        let rows = journal.look(|tables| tables.attachments_of(&release.container, &release.interface))?;
        self.release(release.due(&rows).as_slice()).await
    }
}
