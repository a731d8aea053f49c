//! Releases on a day when the ledger cannot be written: kept in the spool beside it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Record, SpooledRelease};
use crate::host::{HostEnvironment, HostFacts};
use crate::intent::AttachmentRow;
use crate::lease::Attachment;
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

/// The releases in the spool of a ledger, and the spool, to be cleared once they are carried out. `None` when there are
/// none, or when it cannot be read now: what is in it stays held until the next GC.
pub(crate) fn spooled_releases(ledger: &Path) -> Option<(Vec<SpooledRelease>, Spool)> {
    if !Spool::has_records(ledger) {
        return None;
    }
    let spooled = Spool::open(ledger, SPOOL_WAIT).and_then(|mut spool| Ok((spool.read_all()?, spool)));
    let (spooled, spool) = match spooled {
        Ok(spooled) => spooled,
        Err(error) => {
            tracing::warn!(%error, "the spool cannot be read now");
            return None;
        }
    };
    let mut releases = Vec::new();
    for record in &spooled.records {
        match SpooledRelease::decode(&[], record) {
            Ok(release) => releases.push(release),
            Err(error) => tracing::warn!(%error, "a spooled release cannot be read"),
        }
    }
    Some((releases, spool))
}

/// Takes the spool's reserve beside a ledger that is open, while there is room for it.
pub(crate) fn reserve_spool(ledger: &crate::ledger::LedgerFile) {
    if let Err(error) = Spool::reserve(ledger) {
        tracing::warn!(%error, "no reserve for releases while the disk is full");
    }
}

impl SpooledRelease {
    /// The release, unless the same container has been added again since it was spooled; `rows` are what the ledger
    /// knows of the container's interface.
    pub(crate) fn due(self, rows: &[(Attachment, AttachmentRow)]) -> Option<Release> {
        let Self { container, interface, network, boot, spooled } = self;
        let is_newer = rows.iter().any(|(_, row)| row.boot == boot && row.recorded > spooled);
        (!is_newer).then_some(Release::Attachment { container, interface, network })
    }
}
