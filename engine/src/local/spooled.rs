//! Releases that were spooled while the ledger could not be written, carried out by whoever opens it next.

use super::{Ledger, LedgerError};
use crate::spooled::{reserve_spool, spooled_releases};

impl Ledger {
    /// Takes the spool's reserve while there is room, and carries out what is in it.
    pub(super) fn carry_out_spooled(&self) -> Result<(), LedgerError> {
        reserve_spool(&self.file);
        let Some((spooled, mut spool)) = spooled_releases(self.file.path()) else { return Ok(()) };
        let mut releases = Vec::new();
        for release in spooled {
            let rows = self.read(|tables| tables.attachments_of(&release.container, &release.interface))?;
            releases.extend(release.due(&rows));
        }
        for answer in self.release(&releases)? {
            match answer {
                Ok(released) => {
                    for (address, lease) in &released.freed {
                        tracing::info!(%address, attachment = %lease.attachment, "released, as an earlier call had queued");
                    }
                    for attachment in &released.ambiguous {
                        tracing::warn!(%attachment, "a queued release names no network, and several hold addresses");
                    }
                }
                Err(error) => tracing::error!(%error, "a queued release was not carried out"),
            }
        }
        // Cleared only now: one that is carried out twice frees nothing twice.
        if let Err(error) = spool.clear() {
            tracing::warn!(%error, "the spool cannot be emptied now");
        }
        Ok(())
    }
}
