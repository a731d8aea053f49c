//! `release`: give addresses back.

use std::fmt;

use serde_json::json;
use whereabouts_engine::{Access, Address, Attachment, Holding, Lease, Ledger, Release as Request};

use super::exit::{Exit, Failure};
use super::leases::{lease_json, network_of};
use super::output::Output;
use super::settings::{Settings, Source};
use super::typed::Release;

/// What was named.
enum Named<'t> {
    Address(Address),
    Name(&'t str),
    Container { id: &'t str, interface: Option<&'t str> },
}

pub(super) fn release(typed: &Release, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let addresses = typed.addresses.iter().map(|&address| Named::Address(address.into()));
    let name = typed.name.as_deref().map(Named::Name);
    let interface = typed.interface.as_deref();
    let container = typed.container.as_deref().map(|id| Named::Container { id, interface });
    let named: Vec<Named<'_>> = addresses.chain(name).chain(container).collect();

    let of_ledger = |ledger: &Ledger| -> Result<Vec<Request>, Failure> {
        let mut requests = Vec::new();
        for named in &named {
            requests.extend(requests_for(ledger, named, typed.network.as_deref())?);
        }
        Ok(requests)
    };
    let answers = match settings.source(Access::Write, output)? {
        Source::Host(ledger) => ledger.release(&of_ledger(&ledger)?)?,
        Source::Cluster(_) if named.iter().any(|named| !matches!(named, Named::Address(_))) => {
            return Err(Failure::usage("in a cluster, name addresses: what else is held is known to its node alone"));
        }
        Source::Cluster(host) => {
            let requests = of_ledger(&settings.read_cluster(&host, output)?)?;
            host.release(&requests)?
        }
    };

    let mut freed = Vec::new();
    let mut failures = Vec::new();
    for answer in answers {
        match answer {
            Ok(released) => {
                freed.extend(released.freed);
                failures.extend(released.queued.iter().map(|(address, reason)| {
                    let ledger = settings.cluster_ledger();
                    format!(
                        "{address} is still held: {reason}; do this again, or leave it to the plugin: the release is \
                         queued in {}, and where that is the plugin's, a later ADD, DEL or GC on this host carries it out",
                        ledger.display()
                    )
                }));
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    for (address, lease) in &freed {
        output.answer(
            || json!({ "address": address.to_string(), "heldBy": lease.to_string() }),
            || format!("{address} was held by {lease}\n"),
        )?;
    }
    if !failures.is_empty() {
        return Err(Failure::new(Exit::Failure, failures.join("; ")));
    }
    let not_held = named.iter().filter(|named| !freed.iter().any(|(address, lease)| named.is(*address, lease)));
    let not_held: Vec<String> = not_held.map(ToString::to_string).collect();
    if !not_held.is_empty() {
        let what = not_held.join(", ");
        let message = format!("nobody holds that: {what}; `whereabouts show leases` says what is held");
        return Err(Failure::new(Exit::NotHeld, message));
    }
    Ok(Exit::Success)
}

// === impl Named ===

impl Named<'_> {
    /// Whether this is what was named.
    fn is(&self, address: Address, lease: &Lease) -> bool {
        match self {
            Self::Address(named) => *named == address,
            Self::Name(name) => lease.attachment == Attachment::named(name),
            Self::Container { id, interface } => {
                *lease.attachment.container == **id
                    && interface.is_none_or(|interface| *lease.attachment.interface == *interface)
            }
        }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => write!(f, "name {name}"),
            Self::Container { id, interface: None } => write!(f, "container {id}"),
            Self::Container { id, interface: Some(interface) } => write!(f, "container {id}/{interface}"),
        }
    }
}

/// How the engine is asked for it.
fn requests_for(ledger: &Ledger, named: &Named<'_>, network: Option<&str>) -> Result<Vec<Request>, Failure> {
    match named {
        Named::Address(address) => Ok(of_address(ledger, *address, network)?.into_iter().collect()),
        Named::Name(name) => of_attachment(ledger, Attachment::named(name), network),
        Named::Container { id, interface } => {
            let mut requests = Vec::new();
            for attachment in ledger.attachments(id)? {
                if interface.is_none_or(|interface| *attachment.interface == *interface) {
                    requests.extend(of_attachment(ledger, attachment, network)?);
                }
            }
            Ok(requests)
        }
    }
}

/// All that an attachment holds; where a network is named, what it holds in that one.
fn of_attachment(ledger: &Ledger, attachment: Attachment, network: Option<&str>) -> Result<Vec<Request>, Failure> {
    let Some(network) = network.map(network_of).transpose()? else {
        let Attachment { container, interface, network } = attachment;
        return Ok(vec![Request::Attachment { container, interface, network: Some(network) }]);
    };
    let mut requests = Vec::new();
    for address in ledger.held_by(&attachment)? {
        let holdings = ledger.who(address)?.into_iter();
        let meant = holdings.filter(|held| held.lease.attachment == attachment && *held.space.network() == network);
        requests.extend(meant.map(|Holding { space, lease, .. }| Request::Address {
            space,
            address,
            operation: Some(lease.operation),
        }));
    }
    Ok(requests)
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
