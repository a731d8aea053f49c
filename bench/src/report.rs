//! The figures for people, in plain text of less than 100 columns, and for programs, as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::contender::Kind;
use crate::scenario::{Outcome, Series};
use crate::statistics::{Summary, median_ratio};

/// Explains the columns once, above the tables.
pub const LEGEND: &str = "\
Times are of whole processes, in milliseconds, from before the start until the end.
  - empty, - reqs    median of (this - that floor in the same round)
  x empty, x commit, x reqs, x ours    median of (this / the other one in the same round);
             in the table of rates, of the rates: what is above 1 is faster
";

/// Writes the table of one scenario.
///
/// # Errors
///
/// When `to` cannot be written.
pub fn write_table(to: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    writeln!(to, "{}", outcome.title)?;
    let floor = Floor::of(outcome);
    writeln!(
        to,
        "{:<20}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}",
        "", "median", "p90", "p99", "max", floor.minus, "x empty", floor.times, "x ours"
    )?;
    let paired = outcome.series.iter().all(|series| series.per_second.is_empty());
    for series in &outcome.series {
        let Some(summary) = Summary::of(&series.milliseconds) else { continue };
        let compared = if paired { Compared::of(outcome, series, milliseconds) } else { Compared::default() };
        write!(to, "{:<20}", series.name)?;
        for value in [summary.median, summary.p90, summary.p99, summary.max] {
            write!(to, "{value:>10.2}")?;
        }
        match compared.above_floor {
            Some(value) => write!(to, "{value:>10.2}")?,
            None => write!(to, "{:>10}", "")?,
        }
        write_ratios(to, &compared)?;
    }
    if !paired {
        write_rates(to, outcome, &floor)?;
    }
    for why in &outcome.left_out {
        writeln!(to, "(not here: {why})")?;
    }
    writeln!(to)
}

fn write_rates(to: &mut impl Write, outcome: &Outcome, floor: &Floor) -> io::Result<()> {
    writeln!(to, "{:<20}{:>10}{:>40}{:>9}{:>9}{:>9}", "per second", "median", "", "x empty", floor.times, "x ours")?;
    for series in &outcome.series {
        let Some(summary) = Summary::of(&series.per_second) else { continue };
        write!(to, "{:<20}{:>10.1}{:>40}", series.name, summary.median, "")?;
        write_ratios(to, &Compared::of(outcome, series, per_second))?;
    }
    Ok(())
}

/// The last three columns and the end of the line.
fn write_ratios(to: &mut impl Write, compared: &Compared) -> io::Result<()> {
    for ratio in [compared.to_empty, compared.to_floor, compared.to_ours] {
        match ratio {
            Some(ratio) if ratio >= 100.0 => write!(to, "{ratio:>9.0}")?,
            Some(ratio) => write!(to, "{ratio:>9.2}")?,
            None => write!(to, "{:>9}", "")?,
        }
    }
    writeln!(to)
}

/// Everything that was found out, for programs.
pub fn to_json(machine: &Value, outcomes: &[Outcome]) -> Value {
    let scenarios: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let series: Vec<Value> = outcome.series.iter().map(|series| series_to_json(outcome, series)).collect();
            json!({ "title": outcome.title, "series": series, "left_out": outcome.left_out })
        })
        .collect();
    json!({ "machine": machine, "scenarios": scenarios })
}

pub(crate) fn series_to_json(outcome: &Outcome, series: &Series) -> Value {
    let parallel = !series.per_second.is_empty();
    let compared = Compared::of(outcome, series, if parallel { per_second } else { milliseconds });
    json!({
        "name": series.name,
        "what": series.kind.to_string(),
        "process": Summary::of(&series.milliseconds).map(|summary| summary.to_json("ms")),
        "rate": Summary::of(&series.per_second).map(|summary| summary.to_json("per_second")),
        Floor::of(outcome).above_name: compared.above_floor.filter(|_| !parallel),
        "ratio_to_empty": compared.to_empty,
        Floor::of(outcome).ratio_name: compared.to_floor,
        "ratio_to_ours": compared.to_ours,
    })
}

/// The floor that a scenario is held against, and what its columns are called.
struct Floor {
    minus: &'static str,
    times: &'static str,
    above_name: &'static str,
    ratio_name: &'static str,
    /// What the difference is taken to.
    is_base: fn(&Kind) -> bool,
    /// What the second ratio is taken to.
    is_floor: fn(&Kind) -> bool,
}

/// A series beside the floors and ours, round by round.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// How much more it is than the floor: the empty process, or in a cluster the one with the requests.
    pub(crate) above_floor: Option<f64>,
    to_empty: Option<f64>,
    to_floor: Option<f64>,
    pub(crate) to_ours: Option<f64>,
}

type Values = fn(&Series) -> &[f64];

pub(crate) fn milliseconds(series: &Series) -> &[f64] {
    &series.milliseconds
}

pub(crate) fn per_second(series: &Series) -> &[f64] {
    &series.per_second
}

// === impl Floor ===

impl Floor {
    fn of(outcome: &Outcome) -> Self {
        let in_cluster = outcome.series.iter().any(|series| series.kind == Kind::FloorRequests);
        if in_cluster {
            let is_floor = |kind: &Kind| *kind == Kind::FloorRequests;
            Self {
                minus: "- reqs",
                times: "x reqs",
                above_name: "above_requests_ms",
                ratio_name: "ratio_to_requests",
                is_base: is_floor,
                is_floor,
            }
        } else {
            Self {
                minus: "- empty",
                times: "x commit",
                above_name: "above_empty_ms",
                ratio_name: "ratio_to_commit",
                is_base: |kind| *kind == Kind::FloorEmpty,
                is_floor: |kind| *kind == Kind::FloorCommit,
            }
        }
    }
}

// === impl Compared ===

impl Compared {
    pub(crate) fn of(outcome: &Outcome, series: &Series, values: Values) -> Self {
        let find = |wanted: fn(&Kind) -> bool| outcome.series.iter().find(|other| wanted(&other.kind)).map(values);
        let floor = Floor::of(outcome);
        let ratio = |other: Option<&[f64]>| median_ratio(values(series), other?);
        let above = |base: &[f64]| {
            let differences: Vec<f64> = values(series).iter().zip(base).map(|(this, base)| this - base).collect();
            Summary::of(&differences).map(|summary| summary.median)
        };
        Self {
            above_floor: find(floor.is_base).and_then(above),
            to_empty: ratio(find(|kind| *kind == Kind::FloorEmpty)),
            to_floor: ratio(find(floor.is_floor)),
            to_ours: ratio(find(|kind| matches!(kind, Kind::Ours(_)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, kind: Kind, milliseconds: &[f64], per_second: &[f64]) -> Series {
        Series { name: name.into(), kind, milliseconds: milliseconds.into(), per_second: per_second.into() }
    }

    fn outcome(parallel: bool) -> Outcome {
        let rate = |rates: &'static [f64]| if parallel { rates } else { &[] };
        Outcome {
            title: "a title".into(),
            series: vec![
                series("floor: empty", Kind::FloorEmpty, &[1.0, 2.0], rate(&[400.0, 200.0])),
                series("floor: commit", Kind::FloorCommit, &[2.0, 4.0], rate(&[200.0, 100.0])),
                series("whereabouts", Kind::Ours(Value::Null), &[3.0, 6.0], rate(&[100.0, 50.0])),
                series("host-local", Kind::HostLocal(Value::Null), &[600.0, 1200.0], rate(&[10.0, 5.0])),
            ],
            left_out: vec!["other: why".into()],
        }
    }

    fn table(outcome: &Outcome) -> String {
        let mut text = Vec::new();
        write_table(&mut text, outcome).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_table_compares_within_rounds_and_is_narrow() {
        let text = table(&outcome(false));
        let line = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.trim_start_matches(name).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("whereabouts"), "4.50 6.00 6.00 6.00 3.00 3.00 1.50 1.00");
        assert_eq!(line("host-local"), "900.00 1200.00 1200.00 1200.00 898.50 600 300 200");
        assert!(text.contains("(not here: other: why)"));
        assert!(text.lines().all(|line| line.chars().count() < 100), "{text}");
    }

    #[test]
    fn in_a_cluster_the_floor_is_the_one_with_the_requests() {
        let mut outcome = outcome(false);
        outcome.series.push(series("floor: requests", Kind::FloorRequests, &[2.5, 5.5], &[]));
        let text = table(&outcome);
        assert!(text.contains("- reqs") && text.contains("x reqs") && !text.contains("x commit"), "{text}");
        let json = to_json(&Value::Null, &[outcome]);
        assert_eq!(json["scenarios"][0]["series"][2]["above_requests_ms"], 0.5);
    }

    #[test]
    fn rates_are_compared_as_rates() {
        let text = table(&outcome(true));
        assert!(text.contains("per second"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() < 100), "{text}");
        let json = to_json(&Value::Null, &[outcome(true)]);
        let ours = &json["scenarios"][0]["series"][2];
        assert_eq!(ours["rate"]["median_per_second"], 75.0);
        assert_eq!(ours["ratio_to_commit"], 0.5);
        assert_eq!(json["scenarios"][0]["series"][3]["ratio_to_ours"], 0.1);
    }
}
