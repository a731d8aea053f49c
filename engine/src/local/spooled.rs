//! Releases on a day when the ledger cannot be written: kept in the spool, carried out by whoever opens it next.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Ledger, LedgerError};
use crate::codec::{Record, SpooledRelease};
use crate::host::{HostEnvironment, HostFacts};
use crate::ledger::{Spool, SpoolError};
use crate::operations::{Environment, Release};

/// How long the spool is waited for. Its other users write one record, or empty it.
const SPOOL_WAIT: Duration = Duration::from_secs(2);

/// Queues the release of an attachment durably beside the ledger, when the ledger itself cannot be opened or written.
///
/// # Errors
/// [`SpoolError`]; then nothing was queued.
///
/// ```
/// use whereabouts_engine::{HostFacts, Ledger, OpenOptions, spool_release};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let options = OpenOptions::new(folder.path().join("ledger.redb"));
/// drop(Ledger::open(&options, HostFacts::read())?);
///
/// spool_release(&options.path, &HostFacts::read(), "8f0c", "eth0", Some("blue"))?;
/// // The next one who can write frees what the container held.
/// Ledger::open(&options, HostFacts::read())?;
/// # Ok(())
/// # }
/// ```
pub fn spool_release(
    ledger: &Path,
    facts: &HostFacts,
    container: &str,
    interface: &str,
    network: Option<&str>,
) -> Result<(), SpoolError> {
    let release = SpooledRelease {
        container: container.into(),
        interface: interface.into(),
        network: network.map(Arc::from),
        boot: facts.boot,
        spooled: HostEnvironment.boot_clock(),
    };
    // Encoding three texts cannot fail; an empty record would be carried out as nothing.
    let record = release.encode(&[]).unwrap_or_default();
    Spool::open(ledger, SPOOL_WAIT)?.append(&record)
}

impl Ledger {
    /// Takes the spool's reserve while there is room, and carries out what is in it.
    ///
    /// What is wrong with the spool is no reason not to serve: the addresses in it stay held until the next GC.
    pub(super) fn carry_out_spooled(&self) -> Result<(), LedgerError> {
        let path = self.file.path();
        if let Err(error) = Spool::reserve(&self.file) {
            tracing::warn!(%error, "no reserve for releases while the disk is full");
        }
        if !Spool::has_records(path) {
            return Ok(());
        }
        let spooled = Spool::open(path, SPOOL_WAIT).and_then(|mut spool| Ok((spool.read_all()?, spool)));
        let (spooled, mut spool) = match spooled {
            Ok(spooled) => spooled,
            Err(error) => {
                tracing::warn!(%error, "the spool cannot be read now");
                return Ok(());
            }
        };
        let mut releases = Vec::new();
        for record in &spooled.records {
            match SpooledRelease::decode(&[], record) {
                Ok(spooled) => releases.extend(self.due(spooled)?),
                Err(error) => tracing::warn!(%error, "a spooled release cannot be read"),
            }
        }
        self.release(&releases)?;
        // Cleared only now: one that is carried out twice frees nothing twice.
        if let Err(error) = spool.clear() {
            tracing::warn!(%error, "the spool cannot be emptied now");
        }
        Ok(())
    }

    /// The release, unless the same container has been added again since it was spooled.
    fn due(&self, spooled: SpooledRelease) -> Result<Option<Release>, LedgerError> {
        let SpooledRelease { container, interface, network, boot, spooled } = spooled;
        let rows = self.read(|tables| tables.attachments_of(&container, &interface))?;
        let is_newer = rows.iter().any(|(_, row)| row.boot == boot && row.recorded > spooled);
        Ok((!is_newer).then_some(Release::Attachment { container, interface, network }))
    }
}
