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
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for release in &spooled {
            let is_known = self.ledger.knows(&release.container, &release.interface)?;
            if is_known { known.push(release) } else { unknown.push(release) }
        }
        let mut is_done = self.carry_out_those(&known).await?;
        if !unknown.is_empty() {
            // A ledger that was lost meanwhile does not know what is to be freed, and would free nothing.
            if let Err(error) = self.rebuild_if_behind().await? {
                tracing::warn!(%error, "spooled releases must wait");
                return Ok(());
            }
            is_done &= self.carry_out_those(&unknown).await?;
        }
        // Whoever needs the spool may have the ledger, or wait for it.
        journal.let_go();
        if is_done {
            clear_spool(path, &spooled);
        }
        Ok(())
    }

    /// Carries out those releases that are still due; says whether none must wait.
    async fn carry_out_those(&self, spooled: &[&SpooledRelease]) -> Result<bool, StorageError> {
        let mut is_done = true;
        for release in spooled {
            let SpooledRelease { container, interface, .. } = release;
            let rows = self.ledger.journal.look(|tables| tables.attachments_of(container, interface))?;
            let Some(due) = release.due(&rows, self.ledger.facts.boot) else { continue };
            // Other calls go on meanwhile, and one of them may add the same container again.
            let (host, due) = (self.host(), [due]);
            let released = host.release_unless(&due, |tables| {
                let rows_by_now = tables.attachments_of(container, interface)?;
                Ok(rows_by_now != rows)
            });
            match released.await {
                Ok(Some(answers)) => answers.iter().for_each(log_carried_out),
                Ok(None) => is_done = false,
                Err(error @ StorageError::File { .. }) => {
                    tracing::warn!(%error, "spooled releases must wait");
                    return Ok(false);
                }
                // One that fails keeps no other from it.
                Err(error) => {
                    tracing::error!(%error, %container, %interface, "a spooled release cannot be carried out, and is \
                        dropped; the next GC tries again");
                }
            }
        }
        Ok(is_done)
    }
}
