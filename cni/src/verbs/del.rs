//! DEL: free what an attachment holds, now or, durably queued, later.

use std::sync::Arc;

use whereabouts_engine::{Release, Released, spool_release};

use super::errors::{arbiter_error, release_error};
use crate::cni::{CniError, DeleteRequest};
use crate::config::{Datastore, HostSettings};
use crate::host;
use crate::stores::{Arbiter, ArbiterError, Purpose, ledger_path};

/// What became of a release that is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The ledger knew something of the attachment, which is free or on its way.
    Held,
    /// The ledger knew nothing, or could not be asked and the release is queued.
    Nothing,
}

/// Frees what the attachment holds. One that is not known is a success; so is a release that can only be queued.
///
/// The attachment may have been made while the configuration named another datastore, and a DEL may come with none at
/// all: the ledger of each datastore that was ever used here knows its own.
pub(super) fn del(request: &DeleteRequest, settings: &HostSettings, datastore: &Datastore) -> Result<(), CniError> {
    let here = free(request, settings, datastore);
    let there = free_elsewhere(request, settings, datastore).or_else(|error| {
        let (error, former) = *error;
        if matches!(here, Ok(Found::Held)) {
            // It is seldom in both, and a ledger that nobody uses any more must not fill up with what it never had.
            tracing::warn!(%error, container = request.container_id, "what another datastore knows of it stays for GC");
            return Ok(());
        }
        queue(request, settings, &former, error)
    });
    here.and(there)
}

/// Frees what the ledger of one datastore knows of the attachment, or queues that.
fn free(request: &DeleteRequest, settings: &HostSettings, datastore: &Datastore) -> Result<Found, CniError> {
    let arbiter = Arbiter::open(settings, datastore, Purpose::Free);
    match arbiter.and_then(|arbiter| release(request, &arbiter)) {
        Ok(found) => Ok(found),
        Err(error) if error.is_missing() => {
            tracing::info!(container = request.container_id, "no ledger, so nothing is held");
            Ok(Found::Nothing)
        }
        Err(error) => queue(request, settings, datastore, error).map(|()| Found::Nothing),
    }
}

/// Queues a release that could not be carried out for this reason.
fn queue(
    request: &DeleteRequest,
    settings: &HostSettings,
    datastore: &Datastore,
    error: ArbiterError,
) -> Result<(), CniError> {
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
            tracing::warn!(%error, container = request.container_id, "queued: a later ADD, DEL or GC frees it");
            Ok(())
        }
        // There is nothing to free it from until somebody brings the ledger back, and the pod must not hang for that.
        Err(spool) if error.is_lost() => {
            tracing::error!(%error, %spool, container = request.container_id, "neither released nor queued");
            Ok(())
        }
        Err(spool) => {
            tracing::error!(error = %spool, "the release cannot be queued either");
            Err(arbiter_error(error))
        }
    }
}

/// Frees what the ledger of the datastore that the configuration does not name knows of the attachment. An error comes
/// with that datastore.
fn free_elsewhere(
    request: &DeleteRequest,
    settings: &HostSettings,
    datastore: &Datastore,
) -> Result<(), Box<(ArbiterError, Datastore)>> {
    let former = match Arbiter::former_datastore(settings, datastore) {
        Ok(Some(former)) => former,
        Ok(None) => return Ok(()),
        // The configuration says where its addresses are. That of a cluster that this host has left may be gone.
        Err(error) if error.is_lost() && request.network.is_some() => return Ok(()),
        Err(error) => return Err(Box::new((error, Datastore::Kubernetes { kubeconfig: String::new() }))),
    };
    let released = Arbiter::open(settings, &former, Purpose::Free).and_then(|arbiter| match &arbiter {
        Arbiter::Kubernetes(host) if !host.ledger().knows(&request.container_id, &request.interface)? => {
            // A cluster that this host has left is not asked for what its ledger does not know. One that was begun anew
            // does not know all, and a call that names nothing may not even know by which name the cluster has this node.
            if request.network.is_some() || host.ledger().is_complete()? {
                return Ok(());
            }
            Err(ArbiterError::New { path: ledger_path(settings, &former) })
        }
        arbiter => release(request, arbiter).map(drop),
    });
    match released {
        Err(error) if error.is_missing() || error.is_lost() && request.network.is_some() => Ok(()),
        Err(error) => Err(Box::new((error, former))),
        Ok(()) => Ok(()),
    }
}

fn release(request: &DeleteRequest, arbiter: &Arbiter) -> Result<Found, ArbiterError> {
    let mut found = Found::Nothing;
    let release = Release::Attachment {
        container: request.container_id.as_str().into(),
        interface: request.interface.as_str().into(),
        network: request.network.as_deref().map(Arc::from),
    };
    for answer in arbiter.release(&[release])? {
        match answer {
            Ok(released) => {
                if released != Released::default() {
                    found = Found::Held;
                }
                for (address, lease) in &released.freed {
                    tracing::info!(%address, attachment = %lease.attachment, "released");
                }
                for (address, reason) in &released.queued {
                    let container = &request.container_id;
                    tracing::warn!(%address, container, reason, "queued: a later ADD, DEL or GC frees it");
                }
                for attachment in &released.ambiguous {
                    tracing::warn!(%attachment, "not released: the call names no network, or one that is not known, and \
                        several hold addresses; the next GC of each network frees its own");
                }
            }
            // The ledger has noted it for its repair; the pod must not hang for it.
            Err(error) => {
                found = Found::Held;
                tracing::error!(error = %release_error(error), "not released before `whereabouts repair --local`");
            }
        }
    }
    Ok(found)
}
