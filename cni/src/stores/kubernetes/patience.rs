//! The time that a call has, and how it waits.

use std::cell::Cell;
use std::time::{Duration, Instant};

use whereabouts_engine::{Environment, HostEnvironment, Pauses};

/// The clocks of this host, and a deadline.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Cell<Instant>,
    /// When a cluster that has not answered once is given up; the deadline where that is not earlier.
    silent_until: Cell<Instant>,
    started: Instant,
    has_answered: Cell<bool>,
    forbidden_since: Cell<Option<Instant>>,
}

// === impl Patience ===

impl Patience {
    /// Until the deadline, but for a cluster that does not answer at all only as long as `silence`.
    pub(super) fn new(deadline: Instant, silence: Duration) -> Self {
        let started = Instant::now();
        let patience = Self {
            deadline: Cell::new(deadline),
            silent_until: Cell::new(deadline),
            started,
            has_answered: Cell::new(false),
            forbidden_since: Cell::new(None),
        };
        patience.wait_at_most(silence);
        patience
    }

    /// Waits for a cluster that has not answered once no longer than this, from the beginning of the call.
    pub(super) fn wait_at_most(&self, silence: Duration) {
        let until = self.started.checked_add(silence).unwrap_or(self.silent_until.get());
        self.silent_until.set(until.min(self.silent_until.get()));
    }

    /// How much time is left.
    pub(super) fn left(&self) -> Duration {
        self.deadline.get().saturating_duration_since(Instant::now())
    }

    /// Something was forbidden. Whether the first time was no longer ago than this, and time is left.
    pub(super) fn note_forbidden(&self, time: Duration) -> bool {
        let since = self.forbidden_since.get().unwrap_or_else(Instant::now);
        self.forbidden_since.set(Some(since));
        since.elapsed() < time && !self.left().is_zero()
    }

    /// The API server has answered a question.
    pub(super) fn note_answer(&self) {
        self.has_answered.set(true);
    }

    /// A request got no answer, or none that is one.
    pub(super) fn note_silence(&self) {
        if !self.has_answered.get() && Instant::now() >= self.silent_until.get() {
            self.deadline.set(Instant::now());
        }
    }
}

/// A swap takes some 15 ms. With pauses that double, whoever has lost often sleeps on long after the others are done;
/// with these, 32 calls of 8 nodes got their addresses in a third of the time. The longest is for clusters in which a
/// thousand nodes meet.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(20), growth: 125, longest: Duration::from_secs(1) };

impl Environment for Patience {
    fn pauses(&self) -> Pauses {
        PAUSES
    }

    fn now(&self) -> u64 {
        HostEnvironment.now()
    }

    fn boot_clock(&self) -> u64 {
        HostEnvironment.boot_clock()
    }

    fn random(&self) -> u64 {
        HostEnvironment.random()
    }

    fn is_past_deadline(&self) -> bool {
        self.left().is_zero()
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration.min(self.left())).await;
    }
}
