//! `release`: give addresses back.

use serde_json::json;
use whereabouts_engine::{Address, Attachment, Create, Ledger, Release as Request};

use super::exit::{Exit, Failure};
use super::leases::{lease_json, network_of};
use super::output::Output;
use super::settings::Settings;
use super::typed::Release;

pub(super) fn release(typed: &Release, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let ledger = settings.open(Create::Never)?;
    let mut requests = Vec::new();
    for &address in &typed.addresses {
        requests.extend(of_address(&ledger, address.into(), typed.network.as_deref())?);
    }
    let of_attachment = |attachment: Attachment| Request::Attachment {
        container: attachment.container,
        interface: attachment.interface,
        network: Some(attachment.network),
    };
    if let Some(name) = &typed.name {
        requests.push(of_attachment(Attachment::named(name)));
    }
    if let Some(container) = &typed.container {
        let attachments = ledger.attachments(container)?;
        let meant = attachments.into_iter().filter(|attachment| {
            typed.interface.as_deref().is_none_or(|interface| *attachment.interface == *interface)
        });
        requests.extend(meant.map(of_attachment));
    }
    let mut n_freed = 0;
    for answer in ledger.release(&requests)? {
        let released = answer.map_err(|error| Failure::new(Exit::Failure, error))?;
        for (address, lease) in &released.freed {
            n_freed += 1;
            output.answer(
                || json!({ "address": address.to_string(), "heldBy": lease.to_string() }),
                || format!("{address} was held by {lease}\n"),
            )?;
        }
    }
    if n_freed == 0 {
        return Err(Failure::new(Exit::NotHeld, "nobody holds that; `whereabouts show leases` says what is held"));
    }
    Ok(Exit::Success)
}

/// The lease of an address; in which network must be said where it is held in several.
fn of_address(ledger: &Ledger, address: Address, network: Option<&str>) -> Result<Option<Request>, Failure> {
    let network = network.map(network_of).transpose()?;
    let mut holdings = ledger.who(address)?;
    holdings.retain(|holding| network.as_ref().is_none_or(|network| network == holding.space.network()));
    match holdings.as_slice() {
        [] => Ok(None),
        [holding] => Ok(Some(Request::Address {
            space: holding.space.clone(),
            address,
            operation: Some(holding.lease.operation),
        })),
        several => {
            let who: Vec<String> =
                several.iter().map(|holding| lease_json(&holding.space, address, &holding.lease).to_string()).collect();
            Err(Failure::usage(format_args!(
                "{address} is held {} times; say which by --network or --container: {}",
                several.len(),
                who.join(", ")
            )))
        }
    }
}
