//! Releases that were spooled while the ledger could not be written, carried out by whoever can write again.

use super::ClusterHost;
use crate::codec::SpooledRelease;
use crate::ledger::{Journal, StorageError};
use crate::operations::Environment;
use crate::spooled::{clear_spool, log_carried_out, reserve_spool, waiting_releases};
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
        // Not the spool's own lock: who has something to queue must not wait until the store has answered.
        let _turn = match self.ledger.turn_with_spool() {
            Ok(Some(turn)) => turn,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "spooled releases must wait");
                return Ok(());
            }
        };
        let path = &journal.options().path;
        let spooled = waiting_releases(path);
        // Before anything is learned: what a new ledger learns of an attachment would look as if it was added just now.
        let mut due = Vec::new();
        let mut is_all_known = true;
        for release in &spooled {
            let (container, interface) = (&release.container, &release.interface);
            let rows = journal.look(|tables| tables.attachments_of(container, interface))?;
            is_all_known &= self.ledger.knows(container, interface)?;
            due.extend(release.due(&rows).map(|due| (release, due)));
        }
        // A ledger that was lost meanwhile does not know what is to be freed, and would free nothing.
        if !is_all_known && let Err(error) = self.rebuild_if_behind().await? {
            tracing::warn!(%error, "spooled releases must wait");
            return Ok(());
        }
        for (SpooledRelease { container, interface, .. }, release) in due {
            match self.release(&[release]).await {
                Ok(answers) => answers.iter().for_each(log_carried_out),
                Err(error @ StorageError::File { .. }) => {
                    tracing::warn!(%error, "spooled releases must wait");
                    return Ok(());
                }
                // One that fails keeps no other from it.
                Err(error) => {
                    tracing::error!(%error, %container, %interface, "a spooled release cannot be carried out, and is \
                        dropped; the next GC tries again");
                }
            }
        }
        // Whoever needs the spool may have the ledger, or wait for it.
        journal.let_go();
        clear_spool(path, &spooled);
        Ok(())
    }
}
