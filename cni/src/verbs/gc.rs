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
    let list = Collect {
        network: request.network.as_str().into(),
        valid: valid
            .iter()
            .map(|valid| (valid.container_id.as_str().into(), valid.interface.as_str().into()))
            .collect(),
        grace: u64::try_from(settings.gc_grace.as_millis()).unwrap_or(u64::MAX),
    };
    let failures = collect(&list, settings, datastore);
    // What was added while the configuration named another datastore is in the ledger of that one.
    match Arbiter::former_datastore(settings, datastore) {
        Ok(Some(former)) => drop(collect(&list, settings, &former)),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "what another datastore knows of this host is not collected"),
    }
    // Everything that could be freed has been; the first failure stands for all, which are in the log.
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Frees what is not listed of what one datastore knows, and says what could not be freed.
fn collect(list: &Collect, settings: &HostSettings, datastore: &Datastore) -> Vec<CniError> {
    let answers = Arbiter::open(settings, datastore, Purpose::Free).and_then(|arbiter| arbiter.collect(list));
    let answers = match answers {
        Ok(answers) => answers,
        Err(error) if error.is_missing() => return Vec::new(),
        Err(error) => {
            tracing::error!(%error, "not collected");
            return vec![arbiter_error(error)];
        }
    };
    let mut failures = Vec::new();
    for answer in answers {
        match answer {
            Ok(released) => {
                for (address, lease) in &released.freed {
                    tracing::info!(%address, attachment = %lease.attachment, "collected");
                }
            }
            Err(error) => {
                let error = release_error(error);
                tracing::error!(%error, "not collected");
                failures.push(error);
            }
        }
    }
    failures
}
