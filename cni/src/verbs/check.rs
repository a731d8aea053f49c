//! CHECK: whether the attachment still holds what its ADD gave.

use std::collections::BTreeSet;

use whereabouts_engine::{Address, Check};

use super::add::attachment;
use super::errors::{arbiter_error, check_error, no_answer};
use crate::cni::{CheckRequest, CniError};
use crate::log;
use crate::stores::{Arbiter, Purpose};

/// Every address of `prevResult` that lies in a configured range must be held by the attachment, and every address that
/// the attachment holds must be in `prevResult`.
pub(super) fn check(request: &CheckRequest) -> Result<(), CniError> {
    let add = &request.add;
    log::warn_all(&add.warnings);
    let configuration = &add.configuration;
    let previous: BTreeSet<Address> =
        request.previous.addresses.iter().map(|previous| previous.address.addr().into()).collect();
    let ours = previous.iter().filter(|address| configuration.ranges.iter().any(|range| range.covers(**address)));
    let attachment = attachment(&add.attachment);
    let asked = Check { attachment: attachment.clone(), addresses: ours.copied().collect() };
    let arbiter = Arbiter::open(&configuration.host, &configuration.datastore, Purpose::Look).map_err(arbiter_error)?;
    arbiter.check(&[asked]).map_err(arbiter_error)?.pop().ok_or_else(no_answer)?.map_err(check_error)?;
    let held = arbiter.held_by(&attachment).map_err(arbiter_error)?;
    match held.iter().find(|address| !previous.contains(address)) {
        Some(address) => Err(CniError::Check {
            message: format!(
                "{attachment} holds {address}, which is not in prevResult; delete the container and add it again"
            ),
        }),
        None => Ok(()),
    }
}
