//! Releases on a day when the ledger cannot be written: kept in the spool beside it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Record, SpooledRelease};
use crate::host::{HostEnvironment, HostFacts};
use crate::intent::AttachmentRow;
use crate::lease::{Attachment, BootId};
use crate::ledger::{LedgerFile, Spool, SpoolError, Spooled};
use crate::operations::{Environment, Release, ReleaseError, Released};

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
    let spool = match Spool::open(ledger, SPOOL_WAIT) {
        // A host that has not reached its cluster yet has no ledger and no spool, and its pods must be able to end.
        Err(SpoolError::Missing { .. }) => Spool::create(ledger).and_then(|()| Spool::open(ledger, SPOOL_WAIT)),
        opened => opened,
    };
    spool?.append(&record)
}

/// Takes the spool's reserve beside a ledger that is open, while there is room for it; says whether releases wait in it.
pub(crate) fn reserve_spool(ledger: &LedgerFile) -> bool {
    match Spool::reserve(ledger) {
        Ok(spooled) => {
            if spooled.n_damaged > 0 {
                let path = ledger.path().display();
                tracing::error!(%path, n = spooled.n_damaged, "releases in the spool of this ledger are damaged; the \
                    next GC frees what they were to free");
            }
            !spooled.records.is_empty()
        }
        Err(error) => {
            tracing::warn!(%error, "no reserve for releases on a bad day");
            false
        }
    }
}

/// The releases in the spool of a ledger, and the spool, to be cleared once they are carried out. `None` when it cannot
/// be had now: what is in it stays held until the next one carries it out.
pub(crate) fn spooled_releases(ledger: &Path) -> Option<(Vec<SpooledRelease>, Spool)> {
    match Spool::open(ledger, SPOOL_WAIT).and_then(|mut spool| Ok((spool.read_all()?, spool))) {
        Ok((spooled, spool)) => Some((readable(&spooled), spool)),
        Err(error) => {
            tracing::warn!(%error, "the spool cannot be read now");
            None
        }
    }
}

/// The releases that wait in the spool of a ledger, for those who only look.
pub(crate) fn waiting_releases(ledger: &Path) -> Vec<SpooledRelease> {
    Spool::peek(ledger).map(|spooled| readable(&spooled)).unwrap_or_default()
}

/// Clears the spool of what was carried out, unless more has come meanwhile: then all of it is carried out again, and what
/// is free is freed no second time.
pub(crate) fn clear_spool(ledger: &Path, carried_out: &[SpooledRelease]) {
    let cleared = Spool::open(ledger, SPOOL_WAIT)
        .and_then(|mut spool| if readable(&spool.read_all()?) == carried_out { spool.clear() } else { Ok(()) });
    if let Err(error) = cleared {
        tracing::warn!(%error, "the spool cannot be emptied now");
    }
}

fn readable(spooled: &Spooled) -> Vec<SpooledRelease> {
    let mut releases = Vec::new();
    for record in &spooled.records {
        match SpooledRelease::decode(&[], record) {
            Ok(release) => releases.push(release),
            Err(error) => tracing::error!(%error, "a spooled release cannot be read, and is dropped"),
        }
    }
    releases
}

/// Says in the log what a spooled release came to.
pub(crate) fn log_carried_out(answer: &Result<Released, ReleaseError>) {
    match answer {
        Ok(released) => {
            for (address, lease) in &released.freed {
                tracing::info!(%address, attachment = %lease.attachment, "released, as an earlier call had queued");
            }
            for (address, reason) in &released.queued {
                tracing::info!(%address, reason, "queued, as an earlier call had queued");
            }
            for attachment in &released.ambiguous {
                tracing::warn!(%attachment, "a queued release names no network, and several hold addresses");
            }
        }
        Err(error) => tracing::error!(%error, "a queued release was not carried out; the next GC tries again"),
    }
}

impl SpooledRelease {
    /// The release, unless the same container has been added again since it was spooled; `rows` are what the ledger
    /// knows of the container's interface, and `now` is the boot that is running.
    pub(crate) fn due(&self, rows: &[(Attachment, AttachmentRow)], now: BootId) -> Option<Release> {
        let Self { container, interface, network, boot, spooled } = self.clone();
        let is_newer = rows.iter().any(|(_, row)| row.is_newer_than(boot, spooled, now));
        (!is_newer).then_some(Release::Attachment { container, interface, network })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime may give a container the id of one that it had before the host was started anew.
    #[test]
    fn a_release_is_not_due_for_a_container_of_a_later_boot() {
        let [before, now] = [1, 2].map(|boot| BootId::from_bytes([boot; 16]));
        let release = |boot| SpooledRelease {
            container: "c".into(),
            interface: "eth0".into(),
            network: None,
            boot,
            spooled: 500,
        };
        let row = |boot, recorded| {
            let row = AttachmentRow { store: "".into(), boot, recorded, held: Vec::new() };
            vec![(Attachment::new("c", "eth0", "net"), row)]
        };
        let is_due = |release: SpooledRelease, rows: Vec<_>| release.due(&rows, now).is_some();
        assert!(is_due(release(now), Vec::new()));
        assert!(is_due(release(now), row(now, 499)));
        assert!(!is_due(release(now), row(now, 501)), "added again since");
        assert!(is_due(release(before), row(before, 499)));
        assert!(!is_due(release(before), row(now, 1)), "added after the start");
        assert!(is_due(release(before), row(now, 0)), "a rebuilt ledger has learned it, from before the start");
        assert!(is_due(release(now), row(before, 900)), "left by the boot before");
    }
}
