//! What must be true of every history.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::events::{Event, Hold, Outcome, Owner, Snapshot, Verb, holds_of};
use super::faults::LATEST;

/// How long after its process has ended a call without an answer may still change something: its last request lands late.
const AFTERLIFE: Duration = LATEST.saturating_add(Duration::from_secs(1));

/// How much of an owner's history is shown before what is wrong.
const SHOWN_BEFORE: Duration = Duration::from_secs(60);

/// The codes by which an ADD may fail here: the cluster is away or contended, or the range is full.
const ADD_MAY_FAIL: [u64; 2] = [TRY_AGAIN_LATER, EXHAUSTED];

const TRY_AGAIN_LATER: u64 = 11;
const EXHAUSTED: u64 = 100;

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Violation {
    pub what: String,
    /// When it showed.
    pub at: Duration,
    /// Whose calls tell how it came about.
    pub owners: Vec<Owner>,
}

/// The ranges of a network configuration, an address of each of which an ADD gets.
pub type Ranges = Vec<Vec<IpAddr>>;

/// Everything that is wrong. `ranges_of` says which addresses each range has that an owner gets addresses of.
pub fn check<'a>(
    events: &'a [Event],
    snapshots: &[Snapshot],
    ranges_of: impl Fn(Owner) -> &'a Ranges,
) -> Vec<Violation> {
    let mut by_owner: BTreeMap<Owner, Vec<&Event>> = BTreeMap::new();
    for event in events {
        by_owner.entry(event.owner).or_default().push(event);
    }
    for events in by_owner.values_mut() {
        events.sort_by_key(|event| event.begun);
    }
    let holds: Vec<Hold> = by_owner.values().flat_map(|events| holds_of(events)).collect();
    let mut violations = Vec::new();
    answers(events, &ranges_of, &mut violations);
    for events in by_owner.values() {
        same_answer(events, &mut violations);
    }
    one_holder(&holds, &mut violations);
    durable(&holds, snapshots, &mut violations);
    full_is_full(events, snapshots, &ranges_of, &mut violations);
    violations.sort_by_key(|violation| violation.at);
    violations
}

/// Every answer is one that may be given, and an ADD gives an address of each range.
fn answers<'a>(events: &[Event], ranges_of: &impl Fn(Owner) -> &'a Ranges, violations: &mut Vec<Violation>) {
    for event in events {
        let wrong = match (&event.outcome, event.verb) {
            (Outcome::Killed, _) => None,
            (Outcome::Answered(addresses), Verb::Add) => {
                let ranges = ranges_of(event.owner);
                let fit = addresses.iter().zip(ranges).all(|(address, range)| range.contains(address));
                (addresses.len() != ranges.len() || !fit).then_some("the addresses are not one of each range")
            }
            (Outcome::Answered(_), _) => None,
            // A server that has just started, on a busy machine, may forbid everything for longer than a call waits.
            (Outcome::Failed { message, .. }, Verb::Add | Verb::Check) if message.contains("403 Forbidden") => None,
            (Outcome::Failed { code, .. }, Verb::Add) => {
                (!ADD_MAY_FAIL.contains(code)).then_some("an ADD fails by an error that nothing here explains")
            }
            (Outcome::Failed { .. }, Verb::Del) => Some("a DEL fails although this host can queue it"),
            (Outcome::Failed { code, .. }, Verb::Check) => {
                (*code != TRY_AGAIN_LATER).then_some("a CHECK fails for a container that was answered")
            }
        };
        violations.extend(wrong.map(|what| Violation {
            what: format!("{what}: {event}"),
            at: event.ended,
            owners: vec![event.owner],
        }));
    }
}

/// An ADD for an owner that holds addresses is answered with these. All events are of one owner.
fn same_answer(events: &[&Event], violations: &mut Vec<Violation>) {
    for (at, event) in events.iter().enumerate() {
        let Some(given) = event.given() else { continue };
        let Some((before, held)) =
            events[..at].iter().enumerate().rev().find_map(|(at, event)| Some((at, event.given()?)))
        else {
            continue;
        };
        // Whoever asks for less or more in between has left it open what is held: by a DEL of the container that has the
        // addresses, or by an ADD without an answer, which its DEL undoes.
        let is_open = events.iter().enumerate().any(|(other, event)| {
            let is_between = other > before && other != at && event.begun < events[at].ended;
            let is_of_it = event.container == events[before].container;
            is_between && (event.verb == Verb::Add || event.verb == Verb::Del && is_of_it)
        });
        if !is_open && given != held {
            violations.push(Violation {
                what: format!("the same question gets another answer: {event}, after {}", events[before]),
                at: event.ended,
                owners: vec![event.owner],
            });
        }
    }
}

/// No two owners hold an address at once.
fn one_holder(holds: &[Hold], violations: &mut Vec<Violation>) {
    let mut by_address: BTreeMap<IpAddr, Vec<&Hold>> = BTreeMap::new();
    for hold in holds {
        for address in &hold.addresses {
            by_address.entry(*address).or_default().push(hold);
        }
    }
    for (address, mut holds) in by_address {
        holds.sort_by_key(|hold| hold.from);
        for (at, hold) in holds.iter().enumerate() {
            for later in holds[at + 1..].iter().take_while(|later| later.from < hold.until) {
                if later.owner != hold.owner {
                    let (first, second) = (&hold.container, &later.container);
                    violations.push(Violation {
                        what: format!("{address} is held by {first} and {second} at once"),
                        at: later.from,
                        owners: vec![hold.owner, later.owner],
                    });
                }
            }
        }
    }
}

/// What was answered is in the cluster, in every moment in which somebody looked.
fn durable(holds: &[Hold], snapshots: &[Snapshot], violations: &mut Vec<Violation>) {
    let mut told = BTreeSet::new();
    for snapshot in snapshots {
        for reason in &snapshot.frozen {
            if told.insert(reason.clone()) {
                let what = format!("a space is frozen though nothing was lost: {reason}");
                violations.push(Violation { what, at: snapshot.ended, owners: Vec::new() });
            }
        }
        for hold in holds.iter().filter(|hold| hold.from <= snapshot.begun && snapshot.ended <= hold.until) {
            for address in &hold.addresses {
                let found = snapshot.leases.get(address);
                if found != Some(&hold.container) && told.insert(format!("{} {address}", hold.container)) {
                    let instead = found.map_or("nobody", |container| container);
                    violations.push(Violation {
                        what: format!(
                            "{address} was given to {}, and the cluster says that {instead} has it",
                            hold.container
                        ),
                        at: snapshot.ended,
                        owners: vec![hold.owner],
                    });
                }
            }
        }
    }
}

/// A range is called full only if it can have been full: in the last look before the call began, no more was free than
/// calls have asked for since.
fn full_is_full<'a>(
    events: &[Event],
    snapshots: &[Snapshot],
    ranges_of: &impl Fn(Owner) -> &'a Ranges,
    violations: &mut Vec<Violation>,
) {
    let adds: Vec<&Event> = events.iter().filter(|event| event.verb == Verb::Add).collect();
    for event in &adds {
        if !matches!(event.outcome, Outcome::Failed { code: EXHAUSTED, .. }) {
            continue;
        }
        let Some(before) = snapshots.iter().rev().find(|snapshot| snapshot.ended <= event.begun) else { continue };
        let may_take = |add: &&&Event| {
            let afterlife = if add.given().is_some() { Duration::ZERO } else { AFTERLIFE };
            add.ended + afterlife >= before.begun && add.begun <= event.ended
        };
        let since = adds.iter().filter(may_take).count();
        let free = |range: &Vec<IpAddr>| range.iter().filter(|address| !before.leases.contains_key(address)).count();
        let least = ranges_of(event.owner).iter().map(free).min().unwrap_or(0);
        if least > since {
            violations.push(Violation {
                what: format!("{least} addresses were free, {since} ADDs were made, and a range is full: {event}"),
                at: event.ended,
                owners: vec![event.owner],
            });
        }
    }
}

/// The violations with what led to them, for people.
pub fn report(violations: &[Violation], events: &[Event]) -> String {
    let mut text = String::new();
    for violation in violations.iter().take(10) {
        let _ = writeln!(text, "\n{:.3} s: {}", violation.at.as_secs_f64(), violation.what);
        for owner in &violation.owners {
            let _ = writeln!(text, "  the calls of pod {owner}:");
            let from = violation.at.saturating_sub(SHOWN_BEFORE);
            let mut shown: Vec<&Event> = events
                .iter()
                .filter(|event| event.owner == *owner && event.ended >= from && event.begun <= violation.at)
                .collect();
            shown.sort_by_key(|event| event.begun);
            for event in shown {
                let _ = writeln!(text, "    {event}");
                for line in event.log.lines() {
                    let _ = writeln!(text, "        {line}");
                }
            }
        }
    }
    let _ = writeln!(text, "\n{} violations", violations.len());
    text
}
