//! A long history on a real API server and a real etcd: eight nodes, twenty plugin processes at a time, 300 pods on two
//! overlapping dual-stack ranges and 30 on ranges of their own. Processes are killed, servers are stopped and killed, and a proxy loses, delays and
//! refuses requests. Whatever happens, no address has two holders, what was answered is durable, and when all faults are
//! over everything settles.
//!
//! `WHEREABOUTS_HISTORY_SEED` repeats the plan of a run (the processes' races are their own), and
//! `WHEREABOUTS_HISTORY_CALLS` makes it longer or shorter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what cannot be looked at ends the test")]

mod history;
mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use history::checker::{Ranges, check, report};
use history::cluster::Cluster;
use history::events::{Event, Outcome, Snapshot, Verb};
use history::faults::{LATEST, plan, rules};
use history::workload::Workload;
use support::skip::skip;

const NODES: usize = 8;
const PODS: usize = 300;
/// Pods of which each has ranges for itself.
const ALONE: usize = 30;
const AT_ONCE: usize = 20;

/// As many as go into some three minutes on two cores.
const CALLS: usize = 5000;

/// Calls from one outage to the next, on average.
const CALLS_PER_OUTAGE: usize = 500;

/// How often somebody looks into the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long what earlier calls have left may stay when nothing goes wrong any more: after 5 s anybody takes over.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// The number in an environment variable, if it is set.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?.into_string().unwrap();
    Some(text.parse().unwrap_or_else(|error| panic!("{variable} = {text}: {error}; write a number")))
}

/// Past libtest, which would keep the words of a test that passes to itself.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn a_history_with_faults_of_all_kinds_has_one_holder_for_each_address() {
    let seed = number("WHEREABOUTS_HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let n_calls = number("WHEREABOUTS_HISTORY_CALLS").map_or(CALLS, |calls| usize::try_from(calls).unwrap());
    let cluster = match Cluster::start(NODES) {
        Ok(cluster) => cluster,
        Err(why) => return skip("a_history_with_faults_of_all_kinds_has_one_holder_for_each_address", &why),
    };
    say(&format!("history: WHEREABOUTS_HISTORY_SEED={seed} WHEREABOUTS_HISTORY_CALLS={n_calls}"));
    let mut rng = Rng::with_seed(seed);
    let workload = Workload::new(&cluster, (PODS, ALONE), n_calls);
    cluster.proxy.set(rules(&mut rng));
    let outages = plan(&mut rng, n_calls, CALLS_PER_OUTAGE);
    let (stop, stopped) = mpsc::channel::<()>();
    let snapshots = std::thread::scope(|scope| {
        let looking = scope.spawn(|| look(&workload, stopped));
        let failing = scope.spawn(|| {
            for outage in outages {
                workload.wait_for(outage.at);
                outage.happen(&cluster.control_plane);
            }
        });
        let working: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let rng = rng.fork();
                scope.spawn(|| workload.work(rng))
            })
            .collect();
        working.into_iter().for_each(|working| working.join().unwrap());
        failing.join().unwrap();
        cluster.proxy.set([]);
        // What was to land late has landed, or never will.
        let _ = cluster.proxy.wait_until(LATEST, |_| false);
        drop(stop);
        looking.join().unwrap()
    });
    let took = workload.started.elapsed();
    let faults = cluster.proxy.requests().iter().filter(|seen| seen.fault.is_some()).count();
    let events = workload.events();
    say(&format!(
        "history: {} in {took:.0?}, {faults} of {} requests met a fault, {} looks",
        summary(&events),
        cluster.proxy.requests().len(),
        snapshots.len(),
    ));

    for mut pod in workload.pods() {
        workload.tidy(&mut pod);
    }
    let problems = [settle(&workload), differences(&workload), tell(&workload, &snapshots)].concat();
    assert!(problems.is_empty(), "seed {seed}, after the last fault: {problems}");

    for mut pod in workload.pods() {
        assert!(workload.check(&pod), "seed {seed}: {:?}", workload.events().last());
        // Asked again, it has what it had; the checker compares.
        if let Some((container, _)) = pod.alive.clone() {
            workload.add(&mut pod, container, None);
            assert!(pod.alive.is_some(), "seed {seed}: {:?}", workload.events().last());
        }
    }
    for mut pod in workload.pods() {
        workload.delete_all(&mut pod);
    }
    let problems = [settle(&workload), differences(&workload), tell(&workload, &snapshots)].concat();
    assert!(problems.is_empty(), "seed {seed}, after the last DEL: {problems}");
    assert_eq!(cluster.contents().unwrap().leases().count(), 0);
    say(&format!("history: {:.0?} in all", workload.started.elapsed()));
}

/// Looks into the cluster until it is told to stop.
fn look(workload: &Workload<'_>, stopped: mpsc::Receiver<()>) -> Vec<Snapshot> {
    let mut snapshots = Vec::new();
    while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        snapshots.extend(workload.cluster.look(workload.started));
    }
    snapshots
}

/// A further call on each node carries out what earlier ones have left; says what stays undone.
fn settle(workload: &Workload<'_>) -> String {
    let started = Instant::now();
    for (number, node) in workload.cluster.nodes.iter().enumerate() {
        let config = workload.config(number);
        while node.ledger().n_under_way().unwrap() > 0 {
            let call = node.plugin.attachment("DEL", "nobody", "eth0").stdin(&config);
            let call = node.simulated.env().iter().fold(call, |call, (key, value)| call.env(key, value));
            let answer = call.run();
            answer.ok();
            let left = node.ledger().n_under_way().unwrap();
            if left > 0 && started.elapsed() >= SETTLES_WITHIN {
                return format!("\n{left} intents stay open on {}: {}", node.simulated.name, answer.stderr);
            }
        }
    }
    String::new()
}

/// In words for people what the cluster and the ledgers have that no pod has, and the other way round.
fn differences(workload: &Workload<'_>) -> String {
    let contents = workload.cluster.contents().unwrap();
    let mut wrong = contents.contradictions();
    let mut expected: BTreeMap<IpAddr, String> = BTreeMap::new();
    for event in last_answers(workload) {
        for address in event.given().unwrap() {
            if let Some(other) = expected.insert(*address, event.container.clone()) {
                wrong.push(format!("{address} was given to {other} and {}", event.container));
            }
        }
    }
    let there: BTreeMap<IpAddr, String> =
        contents.leases().map(|(address, lease)| (address, lease.attachment.container.to_string())).collect();
    compare("the cluster", &there, &expected, &mut wrong);
    let mut known = BTreeMap::new();
    for node in &workload.cluster.nodes {
        for (attachment, addresses) in node.ledger().attachments().unwrap() {
            for address in addresses {
                known.insert(address.to_ip(), attachment.container.to_string());
            }
        }
    }
    compare("the ledger of its node", &known, &expected, &mut wrong);
    wrong.iter().map(|wrong| format!("\n{wrong}")).collect()
}

/// For each pod that has addresses, the answer that gave it these.
fn last_answers(workload: &Workload<'_>) -> Vec<Event> {
    let mut answers: BTreeMap<String, Event> = workload
        .events()
        .into_iter()
        .filter(|event| event.given().is_some())
        .fold(BTreeMap::new(), |mut all, event| {
            all.insert(event.container.clone(), event);
            all
        });
    workload.pods().filter_map(|pod| answers.remove(&pod.alive.as_ref()?.0)).collect()
}

fn compare(
    whose: &str,
    there: &BTreeMap<IpAddr, String>,
    expected: &BTreeMap<IpAddr, String>,
    wrong: &mut Vec<String>,
) {
    for (address, container) in there {
        match expected.get(address) {
            None => wrong.push(format!("{address} of {container}, which is gone, is still in {whose}")),
            Some(other) if other != container => {
                wrong.push(format!("{address} was given to {other}, and {whose} says {container}"));
            }
            Some(_) => {}
        }
    }
    for (address, container) in expected.iter().filter(|(address, _)| !there.contains_key(address)) {
        wrong.push(format!("{address} was given to {container}, and {whose} does not have it"));
    }
}

/// What the checker says of all calls so far.
fn tell(workload: &Workload<'_>, snapshots: &[Snapshot]) -> String {
    let events = workload.events();
    let violations = check(&events, snapshots, |owner| workload.ranges_of(owner));
    if violations.is_empty() { String::new() } else { report(&violations, &events) }
}

/// How many calls there were, and what came of them.
fn summary(events: &[Event]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in events {
        let came = match &event.outcome {
            Outcome::Answered(_) => "answered".to_owned(),
            Outcome::Failed { code, .. } => format!("error {code}"),
            Outcome::Killed => "killed".to_owned(),
        };
        *counts.entry(format!("{:?} {came}", event.verb)).or_default() += 1;
    }
    format!("{} calls {counts:?}", events.len())
}

/// Calls of two pods, one after the other, for the checker.
struct Told {
    events: Vec<Event>,
    ranges: Ranges,
}

impl Told {
    fn new() -> Self {
        let range = (1..5).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        Self { events: Vec::new(), ranges: vec![range] }
    }

    /// A second for each call.
    fn then(mut self, verb: Verb, owner: usize, container: &str, outcome: Outcome) -> Self {
        let begun = Duration::from_secs(self.events.len() as u64);
        let (ended, container, log) = (begun + Duration::from_millis(500), container.to_owned(), String::new());
        self.events.push(Event { begun, ended, verb, owner, container, outcome, log });
        self
    }

    fn add(self, owner: usize, container: &str, last: u8) -> Self {
        self.then(Verb::Add, owner, container, Outcome::Answered(vec![IpAddr::from([10, 0, 0, last])]))
    }

    fn del(self, owner: usize, container: &str) -> Self {
        self.then(Verb::Del, owner, container, Outcome::Answered(Vec::new()))
    }

    fn violations(&self, snapshots: &[Snapshot]) -> Vec<String> {
        check(&self.events, snapshots, |_| &self.ranges).into_iter().map(|violation| violation.what).collect()
    }
}

fn failed(code: u64) -> Outcome {
    Outcome::Failed { code, message: "no".to_owned() }
}

/// Seen from then for a moment; the last number of the address, and who has it.
fn seen(at: u64, leases: &[(u8, &str)]) -> Snapshot {
    let leases = leases.iter().map(|(last, container)| (IpAddr::from([10, 0, 0, *last]), (*container).to_owned()));
    let begun = Duration::from_secs(at) + Duration::from_millis(600);
    let ended = begun + Duration::from_millis(100);
    Snapshot { begun, ended, leases: leases.collect(), frozen: Vec::new() }
}

#[test]
fn the_checker_lets_pass_what_is_right() {
    let told = Told::new().add(1, "a", 1).add(2, "b", 2).add(1, "a", 1).add(1, "a2", 1).del(1, "a").del(1, "a2");
    let told = told.add(2, "b2", 2).del(2, "b").add(3, "c", 1);
    assert_eq!(told.violations(&[seen(1, &[(1, "a"), (2, "b")]), seen(4, &[(1, "a2"), (2, "b")])]), [""; 0]);
    // An ADD that failed may have taken the addresses along, and its DEL freed them.
    let told = Told::new().add(1, "a", 1).then(Verb::Add, 1, "a2", Outcome::Killed).del(1, "a2").add(2, "b", 1);
    assert_eq!(told.violations(&[]), [""; 0]);
    let told = Told::new().add(1, "a", 1).then(Verb::Add, 1, "a2", failed(11)).del(1, "a2").add(1, "a3", 2);
    assert_eq!(told.violations(&[]), [""; 0]);
}

#[track_caller]
fn named(told: Told, snapshots: &[Snapshot], words: &str) {
    let violations = told.violations(snapshots);
    assert!(violations.iter().any(|what| what.contains(words)), "{words} is not among {violations:?}");
}

#[test]
fn the_checker_names_an_address_with_two_holders() {
    named(Told::new().add(1, "a", 1).add(2, "b", 1), &[], "10.0.0.1 is held by a and b at once");
    // The late DEL of a sandbox that has been replaced ends nothing.
    let told = Told::new().add(1, "a", 1).add(1, "a2", 1).del(1, "a").add(2, "b", 1);
    named(told, &[], "10.0.0.1 is held by a2 and b at once");
}

#[test]
fn the_checker_names_another_answer_to_the_same_question() {
    named(Told::new().add(1, "a", 1).add(1, "a", 2), &[], "another answer");
    named(Told::new().add(1, "a", 1).add(1, "a2", 2), &[], "another answer");
}

#[test]
fn the_checker_names_what_was_answered_and_is_gone() {
    let told = || Told::new().add(1, "a", 1).add(2, "b", 2);
    named(told(), &[seen(0, &[])], "10.0.0.1 was given to a, and the cluster says that nobody has it");
    named(told(), &[seen(0, &[(1, "c")])], "the cluster says that c has it");
    named(told().then(Verb::Check, 1, "a", failed(102)), &[], "a CHECK fails");
    let frozen = Snapshot { frozen: vec!["IPv4: it is older".to_owned()], ..seen(0, &[(1, "a")]) };
    named(told(), &[frozen], "frozen though nothing was lost: IPv4: it is older");
}

#[test]
fn the_checker_names_answers_that_may_not_be() {
    named(Told::new().then(Verb::Del, 1, "a", failed(11)), &[], "a DEL fails");
    named(Told::new().then(Verb::Add, 1, "a", failed(5)), &[], "an ADD fails by an error");
    named(Told::new().add(1, "a", 9), &[], "not one of each range");
    let full = Told::new().add(1, "a", 1).then(Verb::Add, 2, "b", failed(100));
    named(full, &[seen(0, &[(1, "a")])], "3 addresses were free, 1 ADDs were made, and a range is full");
}
