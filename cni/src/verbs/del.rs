//! DEL: free what an attachment holds, now or, durably queued, later.

use std::sync::Arc;

use whereabouts_engine::{LedgerError, LedgerFileError, Release, spool_release};

use super::errors::{ledger_error, release_error};
use crate::cni::{CniError, DeleteRequest};
use crate::config::HostSettings;
use crate::host;

/// Frees what the attachment holds. One that is not known is a success; so is a release that can only be queued.
pub(super) fn del(request: &DeleteRequest, settings: &HostSettings) -> Result<(), CniError> {
    let error = match release(request, settings) {
        Ok(()) => return Ok(()),
        Err(LedgerError::File(LedgerFileError::Missing { .. })) => {
            tracing::info!(container = request.container_id, "no ledger, so nothing is held");
            return Ok(());
        }
        Err(error) => error,
    };
    let path = host::ledger_path(&settings.data_dir);
    let network = request.network.as_deref();
    let facts = host::facts(host::Caller::Runtime);
    match spool_release(&path, &facts, &request.container_id, &request.interface, network) {
        Ok(()) => {
            tracing::warn!(%error, container = request.container_id, "queued: the next call frees it");
            Ok(())
        }
        Err(spool) => {
            tracing::error!(error = %spool, "the release cannot be queued either");
            Err(ledger_error(error))
        }
    }
}

fn release(request: &DeleteRequest, settings: &HostSettings) -> Result<(), LedgerError> {
    let ledger = host::open_existing(settings, host::Caller::Runtime)?;
    let release = Release::Attachment {
        container: request.container_id.as_str().into(),
        interface: request.interface.as_str().into(),
        network: request.network.as_deref().map(Arc::from),
    };
    for answer in ledger.release(&[release])? {
        match answer {
            Ok(released) => {
                for (address, lease) in &released.freed {
                    tracing::info!(%address, attachment = %lease.attachment, "released");
                }
                for attachment in &released.ambiguous {
                    tracing::warn!(%attachment, "not released: the call names no network, or one that is not known, and \
                        several hold addresses; the next GC of each network frees its own");
                }
            }
            // What the ledger can no longer tell is left to `whereabouts verify`; the pod must not hang for it.
            Err(error) => tracing::error!(error = %release_error(error), "not released"),
        }
    }
    Ok(())
}
