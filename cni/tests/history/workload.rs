//! Pods that come and go on the nodes, as a runtime has it: one call at a time for a container, a DEL after every ADD
//! that failed, and DEL again until it succeeds.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use whereabouts_engine::{Address, View, ViewSpec};

use super::checker::Ranges;
use super::cluster::{Cluster, Node};
use super::events::{Event, Outcome, Owner, Verb};
use crate::support::{Answer, Call};

const INTERFACE: &str = "eth0";

/// The ranges that most pods have. Both are views of the same spaces: the narrow one lies in the wide one's first blocks,
/// and has no room left when these are full.
const SHARED: [Network; 2] = [
    Network { name: Cow::Borrowed("wide"), ranges: [Cow::Borrowed("10.0.0.0/23"), Cow::Borrowed("fd00::/119")] },
    Network { name: Cow::Borrowed("narrow"), ranges: [Cow::Borrowed("10.0.0.128/25"), Cow::Borrowed("fd00::80/121")] },
];

/// How many of the pods with shared ranges are in the wide network, of three.
const WIDE: usize = 2;

/// How likely a process is killed.
const KILLED: f64 = 0.08;

/// When at the latest it is killed: on a busy machine a call takes some 200 ms.
const KILLED_WITHIN: Duration = Duration::from_millis(400);

/// So many calls long the cluster fills, then as long it empties, and so on.
const TIDE: usize = 700;

/// How likely the next call for a pod that has addresses takes them away, while the cluster fills and while it empties.
const DELETED: [f64; 2] = [0.05, 0.5];

/// A network configuration.
#[derive(Debug, Clone)]
pub struct Network {
    name: Cow<'static, str>,
    ranges: [Cow<'static, str>; 2],
}

pub struct Workload<'c> {
    pub cluster: &'c Cluster,
    pub started: Instant,
    n_calls: usize,
    /// How many pods have shared ranges.
    n_shared: usize,
    begun: Mutex<usize>,
    one_more: Condvar,
    pods: Vec<Mutex<Pod>>,
    networks: Vec<Network>,
    /// For each network.
    ranges: Vec<Ranges>,
    events: Mutex<Vec<Event>>,
}

/// A pod, and what the runtime knows of it.
#[derive(Debug)]
pub struct Pod {
    owner: Owner,
    /// How many sandboxes it had.
    n_sandboxes: usize,
    /// The sandbox that has addresses, and the answer of its ADD.
    pub alive: Option<(String, Value)>,
    /// Sandboxes of which an ADD or a DEL did not succeed. The next call is their DEL.
    failed: Vec<String>,
    /// Sandboxes whose pod has a newer one by now, to be deleted some day.
    replaced: Vec<String>,
}

// === impl Workload ===

impl<'c> Workload<'c> {
    /// So many pods with shared ranges, and so many of which each has blocks for itself: there, nobody else's writes make
    /// a late one harmless.
    pub fn new(cluster: &'c Cluster, (n_shared, n_alone): (usize, usize), n_calls: usize) -> Self {
        let pod =
            |owner| Mutex::new(Pod { owner, n_sandboxes: 0, alive: None, failed: Vec::new(), replaced: Vec::new() });
        let alone = (0..n_alone).map(|number| Network {
            name: "alone".into(),
            ranges: [format!("10.1.{number}.0/24").into(), format!("fd01::{number:x}00/120").into()],
        });
        let networks: Vec<Network> = SHARED.into_iter().chain(alone).collect();
        let usable = |range: &str| -> Vec<IpAddr> {
            let spec: ViewSpec = range.parse().expect("a range");
            View::new(&spec).expect("a range").iter().map(Address::to_ip).collect()
        };
        Self {
            cluster,
            started: Instant::now(),
            n_calls,
            n_shared,
            begun: Mutex::default(),
            one_more: Condvar::new(),
            pods: (0..n_shared + n_alone).map(pod).collect(),
            ranges: networks.iter().map(|network| network.ranges.iter().map(|range| usable(range)).collect()).collect(),
            networks,
            events: Mutex::default(),
        }
    }

    fn network_of(&self, owner: Owner) -> usize {
        match owner.checked_sub(self.n_shared) {
            None => usize::from(owner % 3 >= WIDE),
            Some(alone) => SHARED.len() + alone,
        }
    }

    /// The configuration of a pod's network on its node.
    pub fn config(&self, owner: Owner) -> Value {
        let Network { name, ranges } = &self.networks[self.network_of(owner)];
        self.node_of(owner).config(name, &ranges.each_ref().map(|range| &**range))
    }

    /// The addresses of each range that a pod gets an address of.
    pub fn ranges_of(&self, owner: Owner) -> &Ranges {
        &self.ranges[self.network_of(owner)]
    }

    pub fn node_of(&self, owner: Owner) -> &'c Node {
        &self.cluster.nodes[owner % self.cluster.nodes.len()]
    }

    /// All calls so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().expect("nobody panicked").clone()
    }

    /// How many calls were begun.
    pub fn n_begun(&self) -> usize {
        *self.begun.lock().expect("nobody panicked")
    }

    /// Waits until so many calls were begun.
    pub fn wait_for(&self, n_calls: usize) {
        let begun = self.begun.lock().expect("nobody panicked");
        drop(self.one_more.wait_while(begun, |begun| *begun < n_calls).expect("nobody panicked"));
    }

    pub fn pods(&self) -> impl Iterator<Item = MutexGuard<'_, Pod>> {
        self.pods.iter().map(|pod| pod.lock().expect("nobody panicked"))
    }

    /// Makes calls for pods that nobody else is busy with, until all calls were begun.
    pub fn work(&self, mut rng: Rng) {
        while self.n_begun() < self.n_calls {
            let Ok(mut pod) = self.pods[rng.usize(..self.pods.len())].try_lock() else { continue };
            self.step(&mut pod, &mut rng);
        }
    }

    /// What a runtime does next for a pod.
    fn step(&self, pod: &mut Pod, rng: &mut Rng) {
        if !pod.failed.is_empty() {
            let container = pod.failed.swap_remove(rng.usize(..pod.failed.len()));
            return self.delete(pod, container, Some(rng));
        }
        if !pod.replaced.is_empty() && rng.bool() {
            let container = pod.replaced.swap_remove(rng.usize(..pod.replaced.len()));
            return self.delete(pod, container, Some(rng));
        }
        let Some((container, result)) = pod.alive.clone() else {
            let container = pod.new_sandbox();
            return self.add(pod, container, Some(rng));
        };
        let tide = DELETED[self.n_begun() / TIDE % DELETED.len()];
        match rng.f64() {
            drawn if drawn < tide => {
                pod.alive = None;
                self.delete(pod, container, Some(rng));
            }
            _ => match rng.u8(..10) {
                0..3 => self.add(pod, container, Some(rng)),
                3..5 => {
                    pod.alive = None;
                    pod.replaced.push(container);
                    let container = pod.new_sandbox();
                    self.add(pod, container, Some(rng));
                }
                5 => self.replace_at_once(pod, rng),
                _ => drop(self.call(pod.owner, Verb::Check, &container, Some(&result), Some(rng))),
            },
        }
    }

    /// ADD, and what comes of it.
    pub fn add(&self, pod: &mut Pod, container: String, rng: Option<&mut Rng>) {
        let added = self.call(pod.owner, Verb::Add, &container, None, rng);
        pod.added(container, added);
    }

    /// DEL, and what comes of it.
    pub fn delete(&self, pod: &mut Pod, container: String, rng: Option<&mut Rng>) {
        if self.call(pod.owner, Verb::Del, &container, None, rng).exit != Some(0) {
            pod.failed.push(container);
        }
    }

    /// The DEL of a sandbox and the ADD of the next one at the same time.
    fn replace_at_once(&self, pod: &mut Pod, rng: &mut Rng) {
        let Some((old, _)) = pod.alive.take() else { return };
        let new = pod.new_sandbox();
        let owner = pod.owner;
        let (mut one, mut other) = (rng.fork(), rng.fork());
        let (added, deleted) = std::thread::scope(|scope| {
            let deleting = scope.spawn(|| self.call(owner, Verb::Del, &old, None, Some(&mut one)));
            let added = self.call(owner, Verb::Add, &new, None, Some(&mut other));
            (added, deleting.join().expect("a call ends"))
        });
        pod.added(new, added);
        if deleted.exit != Some(0) {
            pod.failed.push(old);
        }
    }

    /// CHECK of what the pod has; says whether it succeeds.
    pub fn check(&self, pod: &Pod) -> bool {
        let Some((container, result)) = &pod.alive else { return true };
        self.call(pod.owner, Verb::Check, container, Some(result), None).exit == Some(0)
    }

    /// Deletes what failed before, and what has been replaced by a sandbox that failed. Nothing goes wrong any more.
    pub fn tidy(&self, pod: &mut Pod) {
        let mut gone = std::mem::take(&mut pod.failed);
        if pod.alive.is_none() {
            gone.append(&mut pod.replaced);
        }
        for container in gone {
            self.delete(pod, container, None);
        }
    }

    /// Deletes all that is there. Nothing goes wrong any more.
    pub fn delete_all(&self, pod: &mut Pod) {
        let alive = pod.alive.take().map(|(container, _)| container);
        for container in std::mem::take(&mut pod.replaced).into_iter().chain(alive) {
            self.delete(pod, container, None);
        }
    }

    /// Makes a call, kills it perhaps, and writes it down.
    fn call(
        &self,
        owner: Owner,
        verb: Verb,
        container: &str,
        previous: Option<&Value>,
        rng: Option<&mut Rng>,
    ) -> Answer {
        *self.begun.lock().expect("nobody panicked") += 1;
        self.one_more.notify_all();
        let begun = self.started.elapsed();
        let mut running = self.prepare(owner, verb, container, previous).start();
        let killed_after =
            rng.and_then(|rng| (rng.f64() < KILLED).then(|| KILLED_WITHIN.mul_f64(rng.f64() * rng.f64())));
        if let Some(moment) = killed_after {
            running.feed();
            // Not waiting for anything: the moments of the kills are to be spread over the life of a process.
            std::thread::sleep(moment);
            running.kill();
        }
        let answer = running.wait();
        let ended = self.started.elapsed();
        let outcome = match answer.exit {
            None => Outcome::Killed,
            Some(0) if verb == Verb::Add => Outcome::Answered(addresses(&answer)),
            Some(0) => Outcome::Answered(Vec::new()),
            Some(_) => {
                let (code, message) = answer.error();
                Outcome::Failed { code, message: message.to_owned() }
            }
        };
        let (container, log) = (container.to_owned(), answer.stderr.clone());
        let event = Event { begun, ended, verb, owner, container, outcome, log };
        self.events.lock().expect("nobody panicked").push(event);
        answer
    }

    fn prepare(&self, owner: Owner, verb: Verb, container: &str, previous: Option<&Value>) -> Call {
        let node = self.node_of(owner);
        let mut config = self.config(owner);
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        let verb = match verb {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
        };
        let call = node.plugin.attachment(verb, container, INTERFACE).stdin(&config);
        let call = node.simulated.env().iter().fold(call, |call, (key, value)| call.env(key, value));
        call.pod("default", &format!("pod-{owner}"), &format!("00000000-0000-4000-8000-{owner:012x}"))
    }
}

fn addresses(answer: &Answer) -> Vec<IpAddr> {
    let address = |text: String| text.split('/').next().and_then(|text| text.parse().ok());
    answer.addresses().into_iter().map(|text| address(text).expect("an address")).collect()
}

// === impl Pod ===

impl Pod {
    fn new_sandbox(&mut self) -> String {
        self.n_sandboxes += 1;
        format!("pod-{}-sandbox-{}", self.owner, self.n_sandboxes)
    }

    fn added(&mut self, container: String, answer: Answer) {
        if answer.exit == Some(0) {
            self.alive = Some((container, answer.ok().clone()));
        } else {
            self.alive = None;
            self.failed.push(container);
        }
    }
}
