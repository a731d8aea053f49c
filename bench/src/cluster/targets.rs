//! What this project means to reach in a cluster, and whether a run did.

use std::io::{self, Write};

use super::scenario::{Outcome, Traffic, What};
use crate::contender::Kind;
use crate::report::{Compared, milliseconds, per_second};
use crate::scenario::Series;
use crate::statistics::Summary;

/// Milliseconds that one ADD may take above the floor.
const ABOVE_FLOOR: f64 = 6.0;

/// How many times as long another plugin is to take for one ADD.
const TIMES_FASTER: f64 = 4.0;

/// The callers for whom the rates are compared, and how many times that of another plugin ours is to be.
const RATE: (usize, f64) = (32, 5.0);

/// The range that is filled where bytes are compared, and which part of another plugin's ours are to be.
const BYTES: (u8, f64) = (20, 0.4);

/// One target and what a run found.
#[derive(Debug, PartialEq)]
pub struct Finding {
    /// What is to be reached.
    pub target: String,
    /// What was found.
    pub found: f64,
    /// Whether that is it.
    pub is_reached: bool,
}

/// What these outcomes say of the targets: of each that something is known about.
pub fn findings(outcomes: &[Outcome]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for outcome in outcomes {
        let series = || outcome.times.series.iter().zip(&outcome.traffic);
        let Some(ours) = series().find(|(series, _)| matches!(series.kind, Kind::Ours(_))) else { continue };
        let what = &outcome.times.title;
        findings.push(at_most(format!("{what}: ADDs that fail"), count(ours.1.failed), 0.0));
        if outcome.what == What::Add
            && let Some(above) = Compared::of(&outcome.times, ours.0, milliseconds).above_floor
        {
            findings.push(at_most(format!("{what}: ms above a GET, a PUT and two commits"), above, ABOVE_FLOOR));
        }
        for other in series().filter(|(series, _)| matches!(series.kind, Kind::Other(_))) {
            findings.extend(beside(outcome, ours, other));
        }
    }
    findings
}

/// What is to be reached beside another plugin.
fn beside(outcome: &Outcome, ours: (&Series, &Traffic), other: (&Series, &Traffic)) -> Vec<Finding> {
    let (what, name) = (&outcome.times.title, &other.0.name);
    let mut findings = Vec::new();
    match outcome.what {
        What::Add => {
            let times = Compared::of(&outcome.times, other.0, milliseconds).to_ours;
            let target = format!("{what}: times as fast as {name}");
            findings.extend(times.map(|times| at_least(target, times, TIMES_FASTER)));
        }
        What::Parallel(callers) if callers == RATE.0 => {
            // How fast it is beside ours, turned around.
            let rate = Compared::of(&outcome.times, other.0, per_second).to_ours.map(|rate| 1.0 / rate);
            let target = format!("{what}: times the rate of {name}");
            findings.extend(rate.map(|rate| at_least(target, rate, RATE.1)));
            if let (Some(ours), Some(theirs)) = (Summary::of(&ours.0.milliseconds), Summary::of(&other.0.milliseconds))
            {
                let target = format!("{what}: longest ADD, as a part of that of {name}");
                findings.push(at_most(target, ours.max / theirs.max, 1.0));
            }
        }
        What::Fill(prefix) if prefix == BYTES.0 => {
            let bytes = ours.1.logged_per_add().zip(other.1.logged_per_add());
            let target = format!("{what}: bytes that etcd writes per lease, as a part of those for {name}");
            findings.extend(bytes.map(|(ours, theirs)| at_most(target, ours / theirs, BYTES.1)));
        }
        What::Parallel(_) | What::Fill(_) => {}
    }
    findings
}

fn at_most(target: String, found: f64, most: f64) -> Finding {
    Finding { target: format!("{target}, at most {most}"), found, is_reached: found <= most }
}

fn at_least(target: String, found: f64, least: f64) -> Finding {
    Finding { target: format!("{target}, at least {least}"), found, is_reached: found >= least }
}

#[expect(clippy::cast_precision_loss, reason = "ADDs of minutes are few")]
fn count(count: u64) -> f64 {
    count as f64
}

/// Writes them, one on a line.
///
/// # Errors
///
/// When `to` cannot be written.
pub fn write(to: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    writeln!(to, "What is to be reached")?;
    for Finding { target, found, is_reached } in findings {
        writeln!(to, "  {} {found:>9.2}  {target}", if *is_reached { "reached" } else { "MISSED " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::counts::Counts;
    use crate::scenario;
    use serde_json::Value;

    fn outcome(what: What, of: [(Kind, f64, f64, u64); 3]) -> Outcome {
        let (mut series, mut traffic) = (Vec::new(), Vec::new());
        for (kind, milliseconds, rate, logged) in of {
            let (milliseconds, per_second) = (vec![milliseconds], vec![rate]);
            series.push(Series { name: "name".into(), kind, milliseconds, per_second });
            let counts = Counts { logged, ..Counts::default() };
            traffic.push(Traffic { adds: 1, counts, ..Traffic::default() });
        }
        let times = scenario::Outcome { title: "title".into(), series, left_out: Vec::new() };
        Outcome { what, times, traffic }
    }

    fn found(what: What) -> Vec<(f64, bool)> {
        let of = [
            (Kind::FloorRequests, 10.0, 1.0, 1),
            (Kind::Ours(Value::Null), 15.0, 60.0, 400),
            (Kind::Other(Value::Null), 45.0, 10.0, 1000),
        ];
        findings(&[outcome(what, of)]).iter().map(|finding| (finding.found, finding.is_reached)).collect()
    }

    #[test]
    fn each_scenario_has_its_targets() {
        assert_eq!(found(What::Add), [(0.0, true), (5.0, true), (3.0, false)]);
        assert_eq!(found(What::Parallel(32)), [(0.0, true), (6.0, true), (15.0 / 45.0, true)]);
        assert_eq!(found(What::Parallel(4)), [(0.0, true)]);
        assert_eq!(found(What::Fill(20)), [(0.0, true), (0.4, true)]);
        let mut text = Vec::new();
        write(&mut text, &[at_least("fast".into(), 3.0, 4.0)]).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "What is to be reached\n  MISSED       3.00  fast, at least 4\n");
    }
}
