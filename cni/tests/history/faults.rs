//! What goes wrong during a history.

use std::time::Duration;

use fastrand::Rng;
use whereabouts_testbed::{ControlPlane, Fault, Rule};

/// How long after it was sent a request may still land.
pub const LATEST: Duration = Duration::from_secs(8);

/// One of eight requests meets a fault.
const FAULTS: [(f64, Fault); 9] = [
    (0.025, Fault::DropReply),
    (0.02, Fault::DropRequest),
    (0.03, Fault::Delay(Duration::from_millis(200))),
    (0.015, Fault::LandLate(Duration::from_millis(80))),
    (0.01, Fault::LandLate(Duration::from_secs(3))),
    (0.002, Fault::Silence { lands_after: Some(Duration::from_secs(1)) }),
    (0.01, Fault::Cut),
    (0.005, Fault::TooManyRequests { retry_after_seconds: 1 }),
    (0.01, Fault::ServerError(500)),
];

/// What a write meets that nobody else's makes harmless: it lands when its call has been given up, and the DEL after it.
const TOO_LATE: [(f64, Fault); 1] = [(0.06, Fault::Silence { lands_after: Some(LATEST) })];

/// A part of the names of blocks that one pod has for itself.
const ALONE: &str = "-ipv4-10-1-";

/// A server that is away for a while.
#[derive(Debug, Clone, Copy)]
pub enum Outage {
    ApiserverStops,
    ApiserverIsKilled,
    EtcdStops,
    EtcdIsKilled,
    BothAreKilled,
}

const OUTAGES: [Outage; 5] =
    [Outage::ApiserverStops, Outage::ApiserverIsKilled, Outage::EtcdStops, Outage::EtcdIsKilled, Outage::BothAreKilled];

/// An outage that begins when so many calls were begun.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub at: usize,
    pub outage: Outage,
    pub lasts: Duration,
}

/// What the proxy does to requests.
pub fn rules(rng: &mut Rng) -> [Rule; 2] {
    [Rule::random(rng.u64(..), TOO_LATE).method("PUT").path(ALONE), Rule::random(rng.u64(..), FAULTS)]
}

/// An outage in every `every` of so many calls; all kinds in turn.
pub fn plan(rng: &mut Rng, n_calls: usize, every: usize) -> Vec<Planned> {
    let mut outages = OUTAGES;
    rng.shuffle(&mut outages);
    (0..n_calls / every)
        .map(|number| Planned {
            at: number * every + rng.usize(..every),
            outage: outages[number % outages.len()],
            lasts: Duration::from_millis(rng.u64(200..8000)),
        })
        .collect()
}

impl Planned {
    /// Takes the server away, and brings it back. It answers again when this returns.
    pub fn happen(self, control_plane: &ControlPlane) {
        let wait = || std::thread::sleep(self.lasts);
        match self.outage {
            Outage::ApiserverStops => {
                control_plane.pause_apiserver();
                wait();
                control_plane.resume_apiserver();
            }
            Outage::ApiserverIsKilled => {
                control_plane.kill_apiserver();
                control_plane.start_apiserver();
            }
            Outage::EtcdStops => {
                control_plane.pause_etcd();
                wait();
                control_plane.resume_etcd();
            }
            Outage::EtcdIsKilled => {
                control_plane.kill_etcd();
                wait();
                control_plane.start_etcd();
            }
            Outage::BothAreKilled => {
                control_plane.kill_apiserver();
                control_plane.kill_etcd();
                control_plane.start_etcd();
                control_plane.start_apiserver();
            }
        }
    }
}
