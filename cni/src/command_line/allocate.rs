//! `allocate`: take an address of each range.

use indicatif::ProgressBar;
use serde_json::json;
use whereabouts_engine::{
    AllocateError, Allocated, Attachment, Create, Edges, Owner, Pool, Sharing, View, ViewSpec, Want, parse_exclude,
};

use super::exit::{Exit, Failure};
use super::leases::{check_name, network_of, range_of, who_holds};
use super::output::Output;
use super::settings::Settings;
use super::typed::Allocate;
use crate::config::Datastore;

/// How many names are served in one commit.
const BATCH: usize = 1000;

pub(super) fn allocate(typed: Allocate, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let wants = wants(&typed)?;
    if let Some(name) = &typed.name {
        check_name(name).map_err(|cure| Failure::usage(format_args!("--name {name:?}: {cure}")))?;
    }
    // What takes one commit is over before a bar could be seen.
    let is_long = usize::try_from(typed.count).is_ok_and(|count| count > BATCH);
    let total = Some(u64::from(typed.count));
    let progress = if is_long { output.progress("allocating", total) } else { ProgressBar::hidden() };
    let mut n_given = 0;
    while n_given < typed.count {
        let names: Vec<String> = match &typed.name {
            Some(name) => vec![name.clone()],
            None => (n_given..typed.count).take(BATCH).map(|_| made_up_name()).collect::<Result<_, _>>()?,
        };
        let (given, failure) = one_commit(&names, &wants, settings);
        for (name, allocated) in &given {
            answer_with(output, name, &wants, allocated)?;
            n_given += 1;
        }
        // By now others have had their turn with the ledger, and have it again while this is read.
        progress.suspend(|| output.flush()).map_err(|failure| untold(failure, n_given))?;
        progress.inc(u64::try_from(given.len()).unwrap_or(u64::MAX));
        if let Some(failure) = failure {
            return Err(so_far(failure, n_given, typed.count));
        }
        if let ([(name, _)], None, 1) = (given.as_slice(), &typed.name, typed.count) {
            output.note(format_args!("held by {name}; `whereabouts release --name {name}` gives it back"));
        }
    }
    progress.finish_and_clear();
    Ok(Exit::Success)
}

/// What the names got in one commit, and why one of them got nothing. The ledger is let go.
fn one_commit(
    names: &[String],
    wants: &[Want],
    settings: &Settings,
) -> (Vec<(String, Vec<Allocated>)>, Option<Failure>) {
    let request = |name: &String| whereabouts_engine::Allocate {
        attachment: Attachment::named(name),
        owner: Owner::Named(name.as_str().into()),
        wants: wants.to_vec(),
    };
    let requests: Vec<_> = names.iter().map(request).collect();
    let answers = settings.open(Create::IfMissing).and_then(|ledger| Ok(ledger.allocate(&requests)?));
    let mut given = Vec::new();
    let mut failure = None;
    match answers {
        Ok(answers) => {
            for (name, answer) in names.iter().zip(answers) {
                match answer {
                    Ok(allocated) => given.push((name.clone(), allocated)),
                    Err(error) => {
                        failure.get_or_insert_with(|| refused(error, settings));
                    }
                }
            }
        }
        Err(error) => failure = Some(error),
    }
    (given, failure)
}

/// An address that was not given. Where a range is full, it says how to see by whom.
fn refused(error: AllocateError, settings: &Settings) -> Failure {
    let hint = match &error {
        AllocateError::RangeFull { pool, held, .. } if *held > 0 => {
            format!("; `{}` says who holds them", who_holds(settings.data_dir(), &Datastore::Local, pool))
        }
        _ => String::new(),
    };
    let failure = Failure::from(error);
    Failure { message: failure.message + &hint, ..failure }
}

/// A failure after some of many were given.
fn so_far(failure: Failure, n_given: u32, count: u32) -> Failure {
    if count == 1 {
        return failure;
    }
    let kept = if n_given == 0 { "" } else { ", which stay held" };
    let message = format!("{n_given} of {count} were given{kept}: {}", failure.message);
    Failure { message, ..failure }
}

/// A failure to say what was given.
fn untold(failure: Failure, n_given: u32) -> Failure {
    let message =
        format!("{}; {n_given} were given and stay held: `whereabouts show leases` tells them", failure.message);
    Failure { message, ..failure }
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

fn answer_with(output: &Output, name: &str, wants: &[Want], allocated: &[Allocated]) -> Result<(), Failure> {
    let addresses: Vec<String> = allocated
        .iter()
        .zip(wants)
        .map(|(allocated, want)| format!("{}/{}", allocated.address, want.pool.cidr().prefix_len()))
        .collect();
    output.answer(
        || json!({ "name": name, "addresses": addresses, "reused": allocated.iter().all(|allocated| allocated.reused) }),
        || addresses.iter().map(|address| format!("{address}\n")).collect(),
    )
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
