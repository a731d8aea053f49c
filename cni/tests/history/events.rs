//! What a history is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A pod, by its number: what keeps its addresses across sandboxes.
pub type Owner = usize;

/// A call of the plugin, from before its process was started until it had ended.
#[derive(Debug, Clone)]
pub struct Event {
    pub begun: Duration,
    pub ended: Duration,
    pub verb: Verb,
    pub owner: Owner,
    pub container: String,
    pub outcome: Outcome,
    /// What the process wrote to stderr.
    pub log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Check,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded; an ADD gave these addresses.
    Answered(Vec<IpAddr>),
    /// It answered with an error of CNI.
    Failed { code: u64, message: String },
    /// It was killed before it had answered.
    Killed,
}

/// All leases of the cluster at one moment between `begun` and `ended`.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub begun: Duration,
    pub ended: Duration,
    /// The container that holds the address.
    pub leases: BTreeMap<IpAddr, String>,
    /// Of each space that is frozen, why.
    pub frozen: Vec<String>,
}

/// Addresses that an owner holds through a container, from the answer of the ADD until something was asked for that ends
/// it: the DEL of the container, or an ADD for another sandbox of the owner, which takes the addresses over.
#[derive(Debug, Clone)]
pub struct Hold {
    pub owner: Owner,
    pub container: String,
    pub addresses: Vec<IpAddr>,
    pub from: Duration,
    pub until: Duration,
}

// === impl Event ===

impl Event {
    /// The addresses that an ADD was answered with.
    pub fn given(&self) -> Option<&[IpAddr]> {
        match &self.outcome {
            Outcome::Answered(addresses) if self.verb == Verb::Add => Some(addresses),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begun, ended) = (self.begun.as_secs_f64(), self.ended.as_secs_f64());
        let verb = match self.verb {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
        };
        write!(f, "{begun:9.3} to {ended:9.3} s  {verb:5} {:18} ", self.container)?;
        match &self.outcome {
            Outcome::Answered(addresses) if addresses.is_empty() => write!(f, "done"),
            Outcome::Answered(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                write!(f, "{}", addresses.join(", "))
            }
            Outcome::Failed { code, message } => write!(f, "error {code}: {message}"),
            Outcome::Killed => write!(f, "killed"),
        }
    }
}

/// The owner's events must be in order of their beginnings.
pub fn holds_of(events: &[&Event]) -> Vec<Hold> {
    let mut holds: Vec<Hold> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let Some(addresses) = event.given() else { continue };
        let ends = |later: &&&Event| match later.verb {
            Verb::Del => later.container == event.container,
            Verb::Add => later.container != event.container,
            Verb::Check => false,
        };
        // What ends it may have begun before it was answered: such a hold is none.
        let until = events[at + 1..].iter().find(ends).map_or(Duration::MAX, |later| later.begun);
        if until > event.ended {
            let (owner, container) = (event.owner, event.container.clone());
            holds.push(Hold { owner, container, addresses: addresses.to_vec(), from: event.ended, until });
        }
    }
    holds
}
