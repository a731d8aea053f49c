//! STATUS: whether an ADD would be served.

use whereabouts_engine::AllocateError;

use super::add::wants;
use super::errors::{allocate_error, arbiter_error};
use crate::cni::{CniError, StatusRequest};
use crate::config::ExhaustedStatus;
use crate::log;
use crate::stores::{Arbiter, Purpose};

/// Looks for a first free address in every range: no list is read, no range is counted. The ledger is only read, so that
/// a full disk is no answer; where there is none yet, it is made, as the first ADD would make it.
pub(super) fn status(request: &StatusRequest) -> Result<(), CniError> {
    log::warn_all(&request.warnings);
    let configuration = &request.configuration;
    let spares_full = configuration.exhausted_status == ExhaustedStatus::Ready;
    let not_ready = |error: &dyn std::fmt::Display| CniError::NotReady { message: error.to_string() };
    let arbiter = Arbiter::open(&configuration.host, &configuration.datastore, Purpose::Prepare)
        .map_err(|error| not_ready(&arbiter_error(error)))?;
    for room in arbiter.has_room(&wants(configuration)?).map_err(|error| not_ready(&arbiter_error(error)))? {
        match room {
            // Only this passes by itself, as containers go.
            Err(error @ AllocateError::RangeFull { .. }) if spares_full => {
                tracing::warn!(%error, "an ADD would fail");
            }
            Err(error) => return Err(not_ready(&allocate_error(error, configuration))),
            Ok(()) => {}
        }
    }
    Ok(())
}
