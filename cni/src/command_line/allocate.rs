//! `allocate`: take an address of each range.

use serde_json::json;
use whereabouts_engine::{
    Allocated, Attachment, Create, Edges, Owner, Pool, Sharing, View, ViewSpec, Want, parse_exclude,
};

use super::exit::{Exit, Failure};
use super::leases::{network_of, range_of};
use super::output::Output;
use super::settings::Settings;
use super::typed::Allocate;

/// How many names are served in one commit.
const BATCH: u32 = 1000;

pub(super) fn allocate(typed: Allocate, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let wants = wants(&typed)?;
    if let Some(name) = &typed.name
        && (name.is_empty() || name.chars().any(char::is_control))
    {
        return Err(Failure::usage(format_args!("--name {name:?}: give a name without control characters")));
    }
    let ledger = settings.open(Create::IfMissing)?;
    let progress = output.progress("allocating", Some(u64::from(typed.count)));
    let mut left = typed.count;
    while left > 0 {
        let now = left.min(BATCH);
        let names: Vec<String> = match &typed.name {
            Some(name) => vec![name.clone()],
            None => (0..now).map(|_| made_up_name()).collect::<Result<_, _>>()?,
        };
        let request = |name: &String| whereabouts_engine::Allocate {
            attachment: Attachment::named(name),
            owner: Owner::Named(name.as_str().into()),
            wants: wants.clone(),
        };
        let requests: Vec<_> = names.iter().map(request).collect();
        for (name, answer) in names.iter().zip(ledger.allocate(&requests)?) {
            answer_with(output, name, &wants, &answer?, typed.name.is_none() && typed.count == 1)?;
        }
        progress.inc(u64::from(now));
        left -= now;
    }
    progress.finish_and_clear();
    Ok(Exit::Success)
}

/// What is wanted of each range.
fn wants(typed: &Allocate) -> Result<Vec<Want>, Failure> {
    let network = network_of(&typed.network)?;
    let mut excludes = Vec::with_capacity(typed.exclude.len());
    for exclude in &typed.exclude {
        excludes.push(parse_exclude(exclude).map_err(Failure::usage)?);
    }
    let mut wants = Vec::with_capacity(typed.ranges.len());
    for range in &typed.ranges {
        let (spec, _) = range_of(range)?;
        let spec = ViewSpec {
            excludes: excludes.clone(),
            gateways: typed.gateway.iter().map(|&gateway| gateway.into()).collect(),
            edges: if typed.l3 { Edges::Usable } else { Edges::Reserved },
            ..spec
        };
        let view = View::new(&spec).map_err(Failure::usage)?;
        wants.push(Want {
            pool: Pool::new(network.clone(), view.cidr()),
            sharing: if typed.private { Sharing::Private } else { Sharing::Shared },
            view: view.into(),
            exactly: None,
        });
    }
    if let Some(address) = typed.address {
        let want = wants.iter_mut().find(|want| want.view.contains(address.into()));
        let want = want.ok_or_else(|| {
            Failure::usage(format_args!("--address {address}: none of the ranges hands it out; name one that does"))
        })?;
        want.exactly = Some(address.into());
    }
    Ok(wants)
}

fn answer_with(
    output: &Output,
    name: &str,
    wants: &[Want],
    allocated: &[Allocated],
    say_name: bool,
) -> Result<(), Failure> {
    let addresses: Vec<String> = allocated
        .iter()
        .zip(wants)
        .map(|(allocated, want)| format!("{}/{}", allocated.address, want.pool.cidr().prefix_len()))
        .collect();
    output.answer(
        || json!({ "name": name, "addresses": addresses, "reused": allocated.iter().all(|allocated| allocated.reused) }),
        || addresses.iter().map(|address| format!("{address}\n")).collect(),
    )?;
    if say_name {
        output.note(format_args!("held by {name}; `whereabouts release --name {name}` gives it back"));
    }
    Ok(())
}

/// A name that nobody else has.
fn made_up_name() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut bytes, flags) {
        Ok(8) => Ok(format!("cli-{:016x}", u64::from_be_bytes(bytes))),
        _ => Err(Failure::new(Exit::Failure, "the system has no random numbers; name the owner with --name")),
    }
}
