//! What the algorithm is handed from outside: clocks, randomness, patience.

use std::future::Future;
use std::time::Duration;

/// How long whoever lost its swap to another writer pauses at most, before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The first time. Shorter than a swap takes, it would be spent waiting for the same winner again.
    pub first: Duration,
    /// The next time, in hundredths of the time before.
    pub growth: u32,
    /// However often.
    pub longest: Duration,
}

/// Clocks, randomness and patience, as the caller has them.
pub trait Environment {
    /// Milliseconds since 1970. For people only: nothing is decided by it.
    fn now(&self) -> u64;

    /// Milliseconds since this host booted, time asleep included.
    fn boot_clock(&self) -> u64;

    /// 64 random bits that nobody else gets.
    fn random(&self) -> u64;

    /// Whether the caller has run out of time. What is under way is then left to be settled.
    fn is_past_deadline(&self) -> bool;

    /// How long the pauses after conflicts are. They should fit the time that a swap takes in the store.
    fn pauses(&self) -> Pauses {
        Pauses { first: Duration::from_millis(10), growth: 200, longest: Duration::from_secs(2) }
    }

    /// Waits, at most until the deadline.
    fn pause(&self, duration: Duration) -> impl Future<Output = ()>;
}

/// Pauses that grow, each of a random length up to its limit, so that those who met do not meet again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    limit: Option<Duration>,
}

impl Backoff {
    /// Waits longer each time; says whether there is time left.
    pub(crate) async fn pause(&mut self, environment: &impl Environment) -> bool {
        let Pauses { first, growth, longest } = environment.pauses();
        let limit = self.limit.map_or(first, |limit| limit.saturating_mul(growth) / 100).min(longest);
        self.limit = Some(limit);
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        environment.pause(Duration::from_micros(environment.random() % micros.saturating_add(1))).await;
        !environment.is_past_deadline()
    }
}
