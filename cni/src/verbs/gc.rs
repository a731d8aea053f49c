//! GC: free what this host recorded under the network's name and the runtime no longer lists.

use whereabouts_engine::Collect;

use super::errors::{arbiter_error, release_error};
use crate::cni::{CniError, CollectRequest};
use crate::config::{Datastore, HostSettings};
use crate::stores::{Arbiter, Purpose};

/// Frees what is not listed. Without a list nothing is freed; an empty one frees all.
pub(super) fn gc(request: &CollectRequest, settings: &HostSettings, datastore: &Datastore) -> Result<(), CniError> {
    let Some(valid) = &request.valid else {
        tracing::info!(network = request.network, "no list of valid attachments, so nothing is freed");
        return Ok(());
    };
    let arbiter = match Arbiter::open(settings, datastore, Purpose::Free) {
        Ok(arbiter) => arbiter,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(arbiter_error(error)),
    };
    let list = Collect {
        network: request.network.as_str().into(),
        valid: valid
            .iter()
            .map(|valid| (valid.container_id.as_str().into(), valid.interface.as_str().into()))
            .collect(),
        grace: u64::try_from(settings.gc_grace.as_millis()).unwrap_or(u64::MAX),
    };
    let mut failures = Vec::new();
    for answer in arbiter.collect(&list).map_err(arbiter_error)? {
        match answer {
            Ok(released) => {
                for (address, lease) in &released.freed {
                    tracing::info!(%address, attachment = %lease.attachment, "collected");
                }
            }
            Err(error) => failures.push(release_error(error)),
        }
    }
    // Everything that could be freed has been; the first failure stands for all, which are in the log.
    for failure in &failures {
        tracing::error!(error = %failure, "not collected");
    }
    failures.into_iter().next().map_or(Ok(()), Err)
}
