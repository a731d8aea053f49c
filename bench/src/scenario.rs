//! What is measured: one ADD, many at once, and the start of the program.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::contender::{Contender, Kind};
use crate::seat::Seat;

/// With nothing held beforehand, a state serves this many rounds before all contenders get a new one: what one of them
/// has given must not weigh on its next figure.
const ROUNDS_PER_EMPTY_STATE: usize = 20;

/// ADDs that each of the parallel callers makes, one after the other, in one round.
pub(crate) const ADDS_PER_CALLER: usize = 4;

/// Rounds that are run whatever they cost: fewer have no median worth printing.
const FEWEST_ROUNDS: usize = 10;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Rounds of each scenario.
    pub rounds: usize,
    /// Rounds before the first one that counts.
    pub warm_up: usize,
    /// No new round is begun after this time, if there were at least ten.
    pub limit: Duration,
    /// The most addresses that the contender of this name is made to hold; more would take too long.
    pub at_most: HashMap<String, u64>,
}

/// What a scenario found out. All series have one value per round, in the order of the rounds.
#[derive(Debug)]
pub struct Outcome {
    /// What was done, for people.
    pub title: String,
    /// Who took part, in the order in which they were given.
    pub series: Vec<Series>,
    /// Who did not, and why.
    pub left_out: Vec<String>,
}

/// What one contender did.
#[derive(Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Milliseconds of each process. One per round, but many per round where processes ran in parallel.
    pub milliseconds: Vec<f64>,
    /// Processes per second in each round; empty where they did not run in parallel.
    pub per_second: Vec<f64>,
}

/// One ADD at a time with `held` addresses held beforehand.
///
/// # Errors
///
/// When a contender fails.
pub fn one_add(contenders: &[Contender], held: u64, effort: &Effort, folder: &Path) -> Result<Outcome> {
    let (able, left_out) = able(contenders, held, effort);
    let mut table = Table::new(&able);
    let mut seats = Vec::new();
    let started = Instant::now();
    let mut round = 0;
    while effort.goes_on(round, started) {
        if seats.is_empty() || (held == 0 && round % ROUNDS_PER_EMPTY_STATE == 0) {
            seats.clear();
            for contender in &able {
                seats.push(Seat::take(contender, held, folder)?);
            }
            for _ in 0..effort.warm_up.max(1) {
                // The first ADD of all makes the state; it is another question what that costs.
                seats.iter().try_for_each(|seat| seat.add().map(drop))?;
            }
        }
        for (place, seat) in in_turn(&seats, round) {
            table.note(place, seat.add()?.took);
        }
        round += 1;
    }
    let title = format!("one ADD, {} addresses held before, {round} rounds", thousands(held));
    Ok(Outcome { title, series: table.series, left_out })
}

/// `callers` at the same time, each with one ADD after the other, beginning with nothing held.
///
/// # Errors
///
/// When a contender fails.
pub fn parallel(contenders: &[Contender], callers: usize, effort: &Effort, folder: &Path) -> Result<Outcome> {
    let able: Vec<&Contender> = contenders.iter().collect();
    let mut table = Table::new(&able);
    let started = Instant::now();
    let mut round = 0;
    while effort.goes_on(round, started) {
        let mut seats = Vec::new();
        for contender in &able {
            let seat = Seat::take(contender, 0, folder)?;
            seat.add()?;
            seats.push(seat);
        }
        for (place, seat) in in_turn(&seats, round) {
            let (took, each) = burst(callers, |_| ADDS_PER_CALLER, |_| Ok(seat.add()?.took))?;
            let processes = each.len();
            each.into_iter().for_each(|took| table.note(place, took));
            table.note_rate(place, processes, took);
        }
        round += 1;
    }
    let title = format!("{callers} processes in parallel, each {ADDS_PER_CALLER} ADDs in a row, {round} rounds");
    Ok(Outcome { title, series: table.series, left_out: Vec::new() })
}

/// From before the start to the first byte of the answer to VERSION. The floor that does nothing answers nothing: its
/// figure is the end of its stdout.
///
/// # Errors
///
/// When a contender fails.
pub fn start(contenders: &[Contender], effort: &Effort, folder: &Path) -> Result<Outcome> {
    let able: Vec<&Contender> = contenders.iter().filter(|contender| contender.kind != Kind::FloorCommit).collect();
    let seats = able.iter().map(|contender| Seat::take(contender, 0, folder)).collect::<Result<Vec<_>>>()?;
    for _ in 0..effort.warm_up {
        seats.iter().try_for_each(|seat| seat.version().map(drop))?;
    }
    let mut table = Table::new(&able);
    let started = Instant::now();
    let mut round = 0;
    while effort.goes_on(round, started) {
        for (place, seat) in in_turn(&seats, round) {
            table.note(place, seat.version()?.first_byte);
        }
        round += 1;
    }
    let title = format!("start to first byte (VERSION), {round} rounds");
    Ok(Outcome { title, series: table.series, left_out: Vec::new() })
}

/// All callers begin together, and each makes its ADDs one after the other; how long all took, and what came of each.
pub(crate) fn burst<T: Send>(
    callers: usize,
    adds_of: impl Fn(usize) -> usize,
    add: impl Fn(usize) -> Result<T> + Sync,
) -> Result<(Duration, Vec<T>)> {
    let ready = Barrier::new(callers + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                let (ready, add, adds) = (&ready, &add, adds_of(caller));
                scope.spawn(move || {
                    ready.wait();
                    (0..adds).map(|_| add(caller)).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        let mut each = Vec::new();
        for thread in threads {
            each.extend(thread.join().map_err(|_| anyhow!("a caller panicked"))??);
        }
        Ok((start.elapsed(), each))
    })
}

/// Those that can be made to hold so many addresses, and why the others cannot.
fn able<'a>(contenders: &'a [Contender], held: u64, effort: &Effort) -> (Vec<&'a Contender>, Vec<String>) {
    let mut left_out = Vec::new();
    let able = contenders.iter().filter(|contender| {
        let why = if !contender.can_hold(held) {
            "nothing is known about how to make it hold addresses"
        } else if effort.at_most.get(&contender.name).is_some_and(|most| held > *most) {
            "not asked to hold so many"
        } else {
            return true;
        };
        left_out.push(format!("{}: {why}", contender.name));
        false
    });
    (able.collect(), left_out)
}

/// The seats in the order in which they run in this round: each round begins with another one, so that none always
/// follows the same neighbour.
pub(crate) fn in_turn<T>(seats: &[T], round: usize) -> impl Iterator<Item = (usize, &T)> {
    seats.iter().enumerate().cycle().skip(round % seats.len().max(1)).take(seats.len())
}

/// A number as people read it.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The series while they grow.
pub(crate) struct Table {
    pub(crate) series: Vec<Series>,
}

// === impl Table ===

impl Table {
    pub(crate) fn new(contenders: &[&Contender]) -> Self {
        let series = |contender: &&Contender| Series {
            name: contender.name.clone(),
            kind: contender.kind.clone(),
            milliseconds: Vec::new(),
            per_second: Vec::new(),
        };
        Self { series: contenders.iter().map(series).collect() }
    }

    pub(crate) fn note(&mut self, place: usize, took: Duration) {
        if let Some(series) = self.series.get_mut(place) {
            series.milliseconds.push(took.as_secs_f64() * 1e3);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "processes of one round are few")]
    pub(crate) fn note_rate(&mut self, place: usize, processes: usize, took: Duration) {
        if let Some(series) = self.series.get_mut(place) {
            series.per_second.push(processes as f64 / took.as_secs_f64());
        }
    }
}

// === impl Effort ===

impl Effort {
    fn goes_on(&self, round: usize, started: Instant) -> bool {
        round < self.rounds && (round < FEWEST_ROUNDS || started.elapsed() < self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effort(rounds: usize) -> Effort {
        Effort { rounds, warm_up: 1, limit: Duration::from_secs(60), at_most: HashMap::new() }
    }

    #[test]
    fn each_round_begins_with_another_one_and_runs_all() {
        let order = |round| in_turn(&["a", "b", "c"], round).map(|(_, name)| *name).collect::<String>();
        assert_eq!([order(0), order(1), order(2), order(3)], ["abc", "bca", "cab", "abc"]);
        assert_eq!(in_turn::<u8>(&[], 5).count(), 0);
    }

    #[test]
    fn who_cannot_hold_so_many_is_left_out_and_named() {
        let config = serde_json::json!({ "ipam": { "type": "static" } });
        let other = Contender { name: "static".into(), program: "/bin/true".into(), kind: Kind::Other(config.clone()) };
        let known = Contender { name: "host-local".into(), program: "/bin/true".into(), kind: Kind::HostLocal(config) };
        let all = [other, known];
        let mut effort = effort(1);
        effort.at_most.insert("host-local".into(), 10);
        assert_eq!(able(&all, 0, &effort).0.len(), 2);
        assert_eq!(able(&all, 10, &effort).0.len(), 1);
        let (able, left_out) = able(&all, 11, &effort);
        assert!(able.is_empty());
        assert!(left_out[0].starts_with("static: ") && left_out[1].starts_with("host-local: "), "{left_out:?}");
    }

    #[test]
    fn every_contender_has_a_value_for_every_round() {
        let folder = tempfile::tempdir().unwrap();
        let floor = |name: &str| Contender { name: name.into(), program: "/bin/true".into(), kind: Kind::FloorEmpty };
        let contenders = [floor("a"), floor("b")];
        let outcome = one_add(&contenders, 0, &effort(25), folder.path()).unwrap();
        assert!(outcome.series.iter().all(|series| series.milliseconds.len() == 25), "{outcome:?}");
        let outcome = parallel(&contenders, 3, &effort(2), folder.path()).unwrap();
        assert!(outcome.series.iter().all(|series| series.milliseconds.len() == 2 * 3 * ADDS_PER_CALLER));
        assert!(outcome.series.iter().all(|series| series.per_second.len() == 2), "{outcome:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "states are removed");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 10_000, 1_000_000].map(thousands), ["0", "999", "10,000", "1,000,000"]);
    }
}
