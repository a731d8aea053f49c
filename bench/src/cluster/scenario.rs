//! What is measured before a cluster: one ADD, many at once on one range, and how a range fills.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::counts::Counts;
use super::seat::{Added, Seat};
use super::{Cluster, Ranges, n_assignable};
use crate::scenario::{self, Table, burst, in_turn, thousands};

/// The range of a scenario that does not fill it, as the length of its prefix: room for 400 callers' ADDs.
const ROOMY: u8 = 20;

/// ADDs of each contender in its turn while a range is filled: the servers' counters cost some 100 ms to read.
const ADDS_PER_TURN: usize = 128;

/// ADDs that are made for the sake of the servers' counters, after those that are timed.
const ADDS_COUNTED: usize = 20;

/// Rounds that are run whatever they cost.
const FEWEST_ROUNDS: usize = 2;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Rounds of one ADD each.
    pub rounds: usize,
    /// Rounds before the first one that counts.
    pub warm_up: usize,
    /// Rounds of many callers.
    pub bursts: usize,
    /// ADDs that each of them makes, one after the other.
    pub adds_per_caller: usize,
    /// Callers while a range is filled.
    pub fill_callers: usize,
    /// No new round, and no new turn of a fill, is begun after this time.
    pub limit: Duration,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// One ADD at a time.
    Add,
    /// So many callers at once.
    Parallel(usize),
    /// The range with this length of its prefix was filled.
    Fill(u8),
}

/// What a scenario found out.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub what: What,
    /// The times.
    pub times: scenario::Outcome,
    /// What it cost the cluster, in the order of the series.
    pub traffic: Vec<Traffic>,
}

/// What a contender's ADDs cost the cluster, and how many failed.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// ADDs that gave an address while the counters were looked at.
    pub adds: u64,
    /// What was counted meanwhile.
    pub counts: Counts,
    /// ADDs that failed, of all.
    pub failed: u64,
    /// What the first of them said.
    pub words: Option<String>,
}

/// The outcome while it grows.
struct Notes<'a> {
    cluster: &'a Cluster,
    table: Table,
    traffic: Vec<Traffic>,
}

/// One ADD at a time, always on the same node. The floors run along.
///
/// # Errors
///
/// When a floor or our own plugin fails.
pub fn one_add(cluster: &Cluster, seats: &mut [Seat<'_>], ranges: &mut Ranges, effort: &Effort) -> Result<Outcome> {
    let mut notes = Notes::new(cluster, seats);
    ask_of_new_ranges(seats, ranges, ROOMY)?;
    for _ in 0..effort.warm_up.max(1) {
        seats.iter().try_for_each(|seat| seat.add(0).map(drop))?;
    }
    let started = Instant::now();
    let mut round = 0;
    while effort.goes_on(round, effort.rounds, started) {
        for (place, seat) in in_turn(seats, round) {
            match seat.add(0)? {
                Added::Address(took) => notes.table.note(place, took),
                // Round by round it could not be compared any more.
                Added::Failed(words) => bail!("{} fails though nobody is in its way: {words}", seat.contender.name),
            }
        }
        round += 1;
    }
    for (place, seat) in seats.iter().enumerate() {
        notes.counted(place, || Ok(((), (0..ADDS_COUNTED).map(|_| seat.add(0)).collect::<Result<_>>()?)))?;
    }
    Ok(notes.outcome(What::Add, format!("one ADD at a time, {round} rounds")))
}

/// `callers` at the same time on one range, each round on a new one. The floors would be in each other's way, and are
/// not there.
///
/// # Errors
///
/// When our own plugin fails.
pub fn parallel(
    cluster: &Cluster,
    seats: &mut [Seat<'_>],
    callers: usize,
    ranges: &mut Ranges,
    effort: &Effort,
) -> Result<Outcome> {
    let mut notes = Notes::new(cluster, seats);
    let started = Instant::now();
    let mut round = 0;
    while effort.goes_on(round, effort.bursts, started) {
        ask_of_new_ranges(seats, ranges, ROOMY)?;
        seats.iter().try_for_each(|seat| seat.add(0).map(drop))?;
        for (place, seat) in in_turn(seats, round) {
            notes.turn(place, || burst(callers, |_| effort.adds_per_caller, |caller| seat.add(caller)))?;
        }
        round += 1;
    }
    let adds = effort.adds_per_caller;
    Ok(notes
        .outcome(What::Parallel(callers), format!("{callers} in parallel, each {adds} ADDs in a row, {round} rounds")))
}

/// Fills a range, each contender one of its own, in turns of some ADDs.
///
/// # Errors
///
/// When our own plugin fails.
pub fn fill(
    cluster: &Cluster,
    seats: &mut [Seat<'_>],
    prefix: u8,
    ranges: &mut Ranges,
    effort: &Effort,
) -> Result<Outcome> {
    let mut notes = Notes::new(cluster, seats);
    ask_of_new_ranges(seats, ranges, prefix)?;
    let (all, started) = (n_assignable(prefix), Instant::now());
    let (mut done, mut round) = (0, 0);
    while done < all && effort.goes_on(round, usize::MAX, started) {
        let adds = ADDS_PER_TURN.min(all - done);
        let callers = effort.fill_callers.clamp(1, adds);
        for (place, seat) in in_turn(seats, round) {
            let share = |caller| adds / callers + usize::from(caller < adds % callers);
            notes.turn(place, || burst(callers, share, |caller| seat.add(caller)))?;
        }
        done += adds;
        round += 1;
    }
    let (done, all) = (thousands(done as u64), thousands(all as u64));
    let title = format!("a /{prefix} filled by {} callers, {done} of its {all} addresses", effort.fill_callers);
    Ok(notes.outcome(What::Fill(prefix), title))
}

fn ask_of_new_ranges(seats: &mut [Seat<'_>], ranges: &mut Ranges, prefix: u8) -> Result<()> {
    seats.iter_mut().try_for_each(|seat| seat.ask_of(&ranges.take(prefix)?))
}

// === impl Effort ===

impl Effort {
    fn goes_on(&self, round: usize, rounds: usize, started: Instant) -> bool {
        round < rounds && (round < FEWEST_ROUNDS || started.elapsed() < self.limit)
    }
}

// === impl Notes ===

impl<'a> Notes<'a> {
    fn new(cluster: &'a Cluster, seats: &[Seat<'_>]) -> Self {
        let contenders: Vec<_> = seats.iter().map(|seat| seat.contender).collect();
        Self { cluster, table: Table::new(&contenders), traffic: vec![Traffic::default(); seats.len()] }
    }

    /// A turn of one contender with many ADDs.
    fn turn(&mut self, place: usize, work: impl FnOnce() -> Result<(Duration, Vec<Added>)>) -> Result<()> {
        let (took, each) = self.counted(place, work)?;
        let addresses = each.iter().filter_map(|added| match added {
            Added::Address(took) => Some(*took),
            Added::Failed(_) => None,
        });
        let mut adds = 0;
        for took in addresses {
            self.table.note(place, took);
            adds += 1;
        }
        self.table.note_rate(place, adds, took);
        Ok(())
    }

    /// Looks at the counters before and after.
    fn counted<T>(&mut self, place: usize, work: impl FnOnce() -> Result<(T, Vec<Added>)>) -> Result<(T, Vec<Added>)> {
        let before = self.cluster.counts()?;
        let (result, each) = work()?;
        let counts = self.cluster.counts()?.since(&before);
        if let Some(traffic) = self.traffic.get_mut(place) {
            traffic.note(&each, &counts);
        }
        Ok((result, each))
    }

    fn outcome(self, what: What, title: String) -> Outcome {
        let left_out = self.traffic.iter().zip(&self.table.series).filter_map(|(traffic, series)| {
            Some(format!("{} of {} ADDs: {}", traffic.failed, series.name, traffic.words.as_deref()?))
        });
        let left_out = left_out.collect();
        Outcome { what, times: scenario::Outcome { title, series: self.table.series, left_out }, traffic: self.traffic }
    }
}

// === impl Traffic ===

impl Traffic {
    fn note(&mut self, each: &[Added], counts: &Counts) {
        for added in each {
            match added {
                Added::Address(_) => self.adds += 1,
                Added::Failed(words) => {
                    self.failed += 1;
                    self.words.get_or_insert_with(|| words.clone());
                }
            }
        }
        self.counts.add(counts);
    }

    /// Requests for each address that was given; `None` without any.
    pub fn requests_per_add(&self) -> Option<f64> {
        self.per_add(self.counts.n_requests())
    }

    /// Bytes in etcd's write-ahead log for each address.
    pub fn logged_per_add(&self) -> Option<f64> {
        self.per_add(self.counts.logged)
    }

    /// Bytes of keys and values for each address.
    pub fn put_per_add(&self) -> Option<f64> {
        self.per_add(self.counts.put)
    }

    /// How often a plugin tried to replace an object for each time that it did.
    pub fn attempts_per_swap(&self) -> Option<f64> {
        let (tried, accepted) = self.counts.swaps();
        quotient(tried, accepted)
    }

    fn per_add(&self, count: u64) -> Option<f64> {
        quotient(count, self.adds)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counters of minutes are far below 2^53")]
fn quotient(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_the_first_one_is_told() {
        let mut traffic = Traffic::default();
        assert_eq!((traffic.requests_per_add(), traffic.attempts_per_swap()), (None, None));
        let each = [Added::Failed("a".into()), Added::Address(Duration::ZERO), Added::Failed("b".into())];
        traffic.note(&each, &Counts { logged: 700, put: 70, ..Counts::default() });
        traffic.note(&[Added::Address(Duration::ZERO)], &Counts { logged: 300, ..Counts::default() });
        assert_eq!((traffic.adds, traffic.failed, traffic.words.as_deref()), (2, 2, Some("a")));
        assert_eq!((traffic.logged_per_add(), traffic.put_per_add()), (Some(500.0), Some(35.0)));
    }

    #[test]
    fn a_few_rounds_are_run_whatever_they_cost() {
        let limit = Duration::ZERO;
        let effort = Effort { rounds: 9, warm_up: 1, bursts: 9, adds_per_caller: 1, fill_callers: 1, limit };
        let ran = (0..).take_while(|round| effort.goes_on(*round, 9, Instant::now())).count();
        assert_eq!(ran, FEWEST_ROUNDS);
        assert!(!effort.goes_on(1, 1, Instant::now()));
    }
}
