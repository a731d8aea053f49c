//! What the algorithm is handed from outside: clocks, randomness, patience.

use std::future::Future;
use std::time::Duration;

/// The first pause after a conflict. A swap takes some 10 ms in a cluster, so a shorter one would be spent waiting
/// for the same winner again.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

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

    /// Waits, at most until the deadline.
    fn pause(&self, duration: Duration) -> impl Future<Output = ()>;
}

/// Pauses that grow, each of a random length up to its limit, so that those who met do not meet again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Waits longer each time; says whether there is time left.
    pub(crate) async fn pause(&mut self, environment: &impl Environment) -> bool {
        let limit = PAUSE_FIRST.saturating_mul(1 << self.attempts.min(16)).min(PAUSE_MAX);
        self.attempts = self.attempts.saturating_add(1);
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        environment.pause(Duration::from_micros(environment.random() % micros.saturating_add(1))).await;
        !environment.is_past_deadline()
    }
}
