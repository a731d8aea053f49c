//! The figures for people, in plain text of less than 100 columns, and for programs, as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::contender::Kind;
use crate::scenario::{Outcome, Series};
use crate::statistics::{Summary, median_ratio};

/// Explains the columns once, above the tables.
pub const LEGEND: &str = "\
Times are of whole processes, in milliseconds, from before the start until the end.
  - empty    median of (this - the empty process of the same round)
  x empty, x commit, x ours    median of (this / the other one in the same round);
             in the table of rates, of the rates: what is above 1 is faster
";

/// Writes the table of one scenario.
///
/// # Errors
///
/// When `to` cannot be written.
pub fn write_table(to: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    writeln!(to, "{}", outcome.title)?;
    writeln!(
        to,
        "{:<20}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}",
        "", "median", "p90", "p99", "max", "- empty", "x empty", "x commit", "x ours"
    )?;
    let paired = outcome.series.iter().all(|series| series.per_second.is_empty());
    for series in &outcome.series {
        let Some(summary) = Summary::of(&series.milliseconds) else { continue };
        let compared = if paired { Compared::of(outcome, series, milliseconds) } else { Compared::default() };
        write!(to, "{:<20}", series.name)?;
        for value in [summary.median, summary.p90, summary.p99, summary.max] {
            write!(to, "{value:>10.2}")?;
        }
        match compared.above_empty {
            Some(value) => write!(to, "{value:>10.2}")?,
            None => write!(to, "{:>10}", "")?,
        }
        write_ratios(to, &compared)?;
    }
    if !paired {
        write_rates(to, outcome)?;
    }
    for why in &outcome.left_out {
        writeln!(to, "(not here: {why})")?;
    }
    writeln!(to)
}

fn write_rates(to: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    writeln!(to, "{:<20}{:>10}{:>39}{:>9}{:>9}{:>9}", "per second", "median", "", "x empty", "x commit", "x ours")?;
    for series in &outcome.series {
        let Some(summary) = Summary::of(&series.per_second) else { continue };
        write!(to, "{:<20}{:>10.1}{:>40}", series.name, summary.median, "")?;
        write_ratios(to, &Compared::of(outcome, series, per_second))?;
    }
    Ok(())
}

/// The last three columns and the end of the line.
fn write_ratios(to: &mut impl Write, compared: &Compared) -> io::Result<()> {
    for ratio in [compared.to_empty, compared.to_commit, compared.to_ours] {
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

fn series_to_json(outcome: &Outcome, series: &Series) -> Value {
    let parallel = !series.per_second.is_empty();
    let compared = Compared::of(outcome, series, if parallel { per_second } else { milliseconds });
    json!({
        "name": series.name,
        "what": series.kind.to_string(),
        "process": Summary::of(&series.milliseconds).map(|summary| summary.to_json("ms")),
        "rate": Summary::of(&series.per_second).map(|summary| summary.to_json("per_second")),
        "above_empty_ms": compared.above_empty.filter(|_| !parallel),
        "ratio_to_empty": compared.to_empty,
        "ratio_to_commit": compared.to_commit,
        "ratio_to_ours": compared.to_ours,
    })
}

/// A series beside the floors and ours, round by round.
#[derive(Debug, Default)]
struct Compared {
    above_empty: Option<f64>,
    to_empty: Option<f64>,
    to_commit: Option<f64>,
    to_ours: Option<f64>,
}

type Values = fn(&Series) -> &[f64];

fn milliseconds(series: &Series) -> &[f64] {
    &series.milliseconds
}

fn per_second(series: &Series) -> &[f64] {
    &series.per_second
}

// === impl Compared ===

impl Compared {
    fn of(outcome: &Outcome, series: &Series, values: Values) -> Self {
        let find = |wanted: fn(&Kind) -> bool| outcome.series.iter().find(|other| wanted(&other.kind)).map(values);
        let empty = find(|kind| *kind == Kind::FloorEmpty);
        let ratio = |other: Option<&[f64]>| median_ratio(values(series), other?);
        let above = |empty: &[f64]| {
            let differences: Vec<f64> = values(series).iter().zip(empty).map(|(this, empty)| this - empty).collect();
            Summary::of(&differences).map(|summary| summary.median)
        };
        Self {
            above_empty: empty.and_then(above),
            to_empty: ratio(empty),
            to_commit: ratio(find(|kind| *kind == Kind::FloorCommit)),
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
