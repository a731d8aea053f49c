//! STATUS: whether an ADD would be served.

use super::add::wants;
use super::errors::ledger_error;
use crate::cni::{CniError, StatusRequest};
use crate::config::ExhaustedStatus;
use crate::host;
use crate::log;

/// Opens the ledger, and looks for a first free address in every range: no list is read, no range is counted.
pub(super) fn status(request: &StatusRequest) -> Result<(), CniError> {
    log::warn_all(&request.warnings);
    let configuration = &request.configuration;
    let not_ready = |error: &dyn std::fmt::Display| CniError::NotReady { message: error.to_string() };
    let ledger =
        host::open(&configuration.host, host::Caller::Runtime).map_err(|error| not_ready(&ledger_error(error)))?;
    for room in ledger.has_room(&wants(configuration)?).map_err(|error| not_ready(&ledger_error(error)))? {
        match room {
            Err(error) if configuration.exhausted_status == ExhaustedStatus::Error => return Err(not_ready(&error)),
            Err(error) => tracing::warn!(%error, "an ADD would fail"),
            Ok(()) => {}
        }
    }
    Ok(())
}
