//! Deterministic simulation: many nodes, several processes on each, one faulty store, one seed.
//!
//! A schedule is everything that happens for a seed: which calls are made, in which order they go on, what the store
//! loses, delays, refuses and restores, who crashes when. After every step the model is asked; when faults
//! end, everything must settle. A seed that fails, fails again.

mod model;
mod process;
mod runtime;
#[cfg(test)]
mod stories;
mod world;

use std::fmt;

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// How many steps it took.
    pub steps: u64,
    /// How many calls were made.
    pub calls: u64,
    /// How many requests for addresses were granted.
    pub granted: u64,
    /// How often a space was frozen and repaired.
    pub repairs: u64,
    /// How many processes crashed.
    pub crashes: u64,
}

/// A schedule in which something that must be true was not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of the schedule.
    pub seed: u64,
    /// At which step it failed.
    pub step: u64,
    /// What was wrong.
    pub reason: String,
    /// What happened until then; empty unless it was asked for.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {} failed at step {}: {}", self.seed, self.step, self.reason)
    }
}

impl std::error::Error for Failure {}

impl Summary {
    /// Adds what another schedule came to.
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.calls += other.calls;
        self.granted += other.granted;
        self.repairs += other.repairs;
        self.crashes += other.crashes;
    }
}

/// Runs the schedule of a seed.
///
/// # Errors
/// [`Failure`] says what was wrong; with a trace where `is_traced`.
pub fn run(seed: u64, is_traced: bool) -> Result<Summary, Box<Failure>> {
    world::World::new(seed, is_traced).run()
}
