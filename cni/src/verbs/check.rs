//! CHECK: whether the attachment still holds what its ADD gave.

use std::collections::BTreeSet;

use whereabouts_engine::{Address, Attachment, Check, Lease, OperationId};

use super::add::attachment;
use super::errors::{arbiter_error, check_error, no_answer};
use crate::cni::{CheckRequest, CniError, PreviousAddress};
use crate::config::Configuration;
use crate::log;
use crate::stores::{Arbiter, Purpose};

/// Compares `prevResult` with what is held: every address of it that lies in a configured range must be held by the
/// attachment and have the prefix length with which it was given, and whatever else the same ADD gave must be in it.
///
/// What an earlier ADD gave, before its range or the requested address was edited, is held until DEL and is no fault.
pub(super) fn check(request: &CheckRequest) -> Result<(), CniError> {
    let add = &request.add;
    log::warn_all(&add.warnings);
    let configuration = &add.configuration;
    let attachment = attachment(&add.attachment);
    let arbiter = match Arbiter::open(&configuration.host, &configuration.datastore, Purpose::Look) {
        Err(error) if error.is_missing() => return Err(wrong(format!("{attachment} holds nothing: {error}"))),
        opened => opened.map_err(arbiter_error)?,
    };
    let held = arbiter.leases_of(&attachment).map_err(arbiter_error)?;
    // Others of the chain may have put addresses of their own into it.
    let is_ours = |previous: &&PreviousAddress| {
        let address = Address::from(previous.address.addr());
        configuration.ranges.iter().any(|range| range.covers(address))
            || held.iter().any(|(known, _)| *known == address)
    };
    let ours: Vec<&PreviousAddress> = request.previous.addresses.iter().filter(is_ours).collect();
    let addresses: BTreeSet<Address> = ours.iter().map(|previous| previous.address.addr().into()).collect();
    let asked = Check { attachment: attachment.clone(), addresses: addresses.iter().copied().collect() };
    arbiter.check(&[asked]).map_err(arbiter_error)?.pop().ok_or_else(no_answer)?.map_err(check_error)?;
    for previous in &ours {
        check_prefix(previous, &held, configuration, &attachment)?;
    }
    let operations: BTreeSet<OperationId> =
        held.iter().filter(|(address, _)| addresses.contains(address)).map(|(_, lease)| lease.operation).collect();
    let missing = held.iter().find(|(address, lease)| {
        !addresses.contains(address) && (operations.is_empty() || operations.contains(&lease.operation))
    });
    match missing {
        Some((address, _)) => Err(wrong(format!("{attachment} holds {address}, which is not in prevResult"))),
        None if ours.is_empty() => {
            Err(wrong(format!("{attachment} holds no address, and prevResult has none of a configured range")))
        }
        None => Ok(()),
    }
}

/// An address is given with the prefix length of its range, a static one with that which was typed.
fn check_prefix(
    previous: &PreviousAddress,
    held: &[(Address, Lease)],
    configuration: &Configuration,
    attachment: &Attachment,
) -> Result<(), CniError> {
    let address = Address::from(previous.address.addr());
    let of_leases = held.iter().filter(|(known, _)| *known == address).map(|(_, lease)| lease.pool.prefix_len());
    let of_static = configuration.static_addresses.iter().map(|fixed| fixed.address);
    let of_static = of_static.filter(|fixed| fixed.addr() == previous.address.addr()).map(|fixed| fixed.prefix_len());
    let given: BTreeSet<u8> = of_leases.chain(of_static).collect();
    match given.first() {
        Some(prefix) if !given.contains(&previous.address.prefix_len()) => {
            Err(wrong(format!("prevResult says {}, but {attachment} was given {address}/{prefix}", previous.address)))
        }
        _ => Ok(()),
    }
}

/// The runtime cannot mend an attachment, it can only make another.
fn wrong(what: String) -> CniError {
    CniError::Check { message: format!("{what}; delete the container and add it again") }
}
