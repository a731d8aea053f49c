//! DEL: free what an attachment holds, now or, durably queued, later.

use std::path::Path;
use std::sync::Arc;

use whereabouts_engine::{LedgerError, LedgerFileError, Release, spool_release};

use super::errors::{arbiter_error, release_error};
use crate::cni::{CniError, DeleteRequest};
use crate::config::{Datastore, HostSettings};
use crate::host;
use crate::stores::{Arbiter, ArbiterError, Purpose, kubernetes_ledger_path, ledger_path};

/// Frees what the attachment holds. One that is not known is a success; so is a release that can only be queued.
pub(super) fn del(request: &DeleteRequest, settings: &HostSettings, datastore: &Datastore) -> Result<(), CniError> {
    free_elsewhere(request, settings, datastore);
    let error = match release(request, settings, datastore) {
        Ok(()) => return Ok(()),
        Err(error) if error.is_missing() => {
            tracing::info!(container = request.container_id, "no ledger, so nothing is held");
            return Ok(());
        }
        Err(error) => error,
    };
    let path = ledger_path(settings, datastore);
    // The ledger of a cluster may be too new to know: only one that is the store itself is believed.
    let is_local = !matches!(datastore, Datastore::Kubernetes { .. });
    if is_local && host::knows(&path, &request.container_id, &request.interface) == Some(false) {
        tracing::info!(%error, container = request.container_id, "not known, so nothing is held");
        return Ok(());
    }
    let network = request.network.as_deref();
    let facts = host::facts_of(settings, host::Caller::Runtime);
    match spool_release(&path, &facts, &request.container_id, &request.interface, network) {
        Ok(()) => {
            tracing::warn!(%error, container = request.container_id, "queued: the next call frees it");
            Ok(())
        }
        // There is nothing to free it from until somebody brings the ledger back, and the pod must not hang for that.
        Err(spool) if matches!(error, ArbiterError::Ledger(LedgerError::File(LedgerFileError::Lost { .. }))) => {
            tracing::error!(%error, %spool, container = request.container_id, "neither released nor queued");
            Ok(())
        }
        Err(spool) => {
            tracing::error!(error = %spool, "the release cannot be queued either");
            Err(arbiter_error(error))
        }
    }
}

/// The attachment may have been made while the configuration named another datastore, and a DEL may come with none at
/// all: the ledger of each datastore that was ever used here knows its own.
fn free_elsewhere(request: &DeleteRequest, settings: &HostSettings, datastore: &Datastore) {
    let is_local = !matches!(datastore, Datastore::Kubernetes { .. });
    let other =
        if is_local { kubernetes_ledger_path(&settings.data_dir) } else { host::ledger_path(&settings.data_dir) };
    if !other.exists() {
        return;
    }
    let freed =
        if is_local { free_in_cluster(request, settings) } else { release(request, settings, &Datastore::Local) };
    if let Err(error) = freed {
        tracing::warn!(%error, ledger = %other.display(), "what this ledger holds of the container stays for GC");
    }
}

/// Frees what the ledger of a cluster knows of the attachment, by the kubeconfig with which it was used last.
fn free_in_cluster(request: &DeleteRequest, settings: &HostSettings) -> Result<(), ArbiterError> {
    let known = {
        let host = Arbiter::open_kubernetes(settings, Path::new(""), Purpose::Free)?;
        if !host.ledger().knows(&request.container_id, &request.interface)? {
            return Ok(());
        }
        host.ledger().store()?
    };
    let Some(known) = known else { return Ok(()) };
    let kubeconfig = known.address.as_ref().to_owned();
    release(request, settings, &Datastore::Kubernetes { kubeconfig })
}

fn release(request: &DeleteRequest, settings: &HostSettings, datastore: &Datastore) -> Result<(), ArbiterError> {
    let arbiter = Arbiter::open(settings, datastore, Purpose::Free)?;
    let release = Release::Attachment {
        container: request.container_id.as_str().into(),
        interface: request.interface.as_str().into(),
        network: request.network.as_deref().map(Arc::from),
    };
    for answer in arbiter.release(&[release])? {
        match answer {
            Ok(released) => {
                for (address, lease) in &released.freed {
                    tracing::info!(%address, attachment = %lease.attachment, "released");
                }
                for address in &released.queued {
                    tracing::warn!(%address, container = request.container_id, "queued: a later call frees it");
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
