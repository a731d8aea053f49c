//! The figures of a cluster for people and for programs: the times as in every table, and what the cluster paid.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::counts::Counts;
use super::scenario::{Outcome, Traffic, What};
use crate::report;

/// Explains what [`crate::report::LEGEND`] does not.
pub const LEGEND: &str = "\
The table `per ADD` is what the API server and etcd counted while only this one asked, divided by the addresses.
  requests   all of them, those that were turned away included
  per swap   PUTs and PATCHes of the plugin's own objects for each one that was accepted
  logged     bytes in etcd's write-ahead log, through which goes everything that is written; put: keys and values
  failed     ADDs that gave no address
";

/// Writes the tables of one scenario.
///
/// # Errors
///
/// When `to` cannot be written.
pub fn write_tables(to: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    report::write_table(to, &outcome.times)?;
    writeln!(
        to,
        "{:<20}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}",
        "per ADD", "requests", "per swap", "logged", "put", "failed", "ADDs"
    )?;
    for (series, traffic) in outcome.times.series.iter().zip(&outcome.traffic) {
        if series.kind.asks_no_cluster() {
            continue;
        }
        write!(to, "{:<20}", series.name)?;
        for (value, decimals) in [
            (traffic.requests_per_add(), 2),
            (traffic.attempts_per_swap(), 2),
            (traffic.logged_per_add(), 0),
            (traffic.put_per_add(), 0),
        ] {
            match value {
                Some(value) => write!(to, "{value:>10.decimals$}")?,
                None => write!(to, "{:>10}", "")?,
            }
        }
        writeln!(to, "{:>10}{:>9}", traffic.failed, traffic.adds)?;
    }
    writeln!(to)
}

/// Everything that was found out, for programs.
pub fn to_json(machine: &Value, outcomes: &[Outcome]) -> Value {
    let scenarios: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let series = outcome.times.series.iter().zip(&outcome.traffic).map(|(series, traffic)| {
                let mut all = report::series_to_json(&outcome.times, series);
                if let Value::Object(fields) = &mut all {
                    fields.insert("cluster".into(), traffic_to_json(traffic));
                }
                all
            });
            let series: Vec<Value> = series.collect();
            json!({
                "what": what_to_json(outcome.what),
                "title": outcome.times.title,
                "series": series,
                "left_out": outcome.times.left_out,
            })
        })
        .collect();
    json!({ "machine": machine, "scenarios": scenarios })
}

fn what_to_json(what: What) -> Value {
    match what {
        What::Add => json!({ "add": 1 }),
        What::Parallel(callers) => json!({ "parallel": callers }),
        What::Fill(prefix) => json!({ "fill": prefix }),
    }
}

fn traffic_to_json(traffic: &Traffic) -> Value {
    json!({
        "adds": traffic.adds,
        "failed": traffic.failed,
        "requests_per_add": traffic.requests_per_add(),
        "attempts_per_swap": traffic.attempts_per_swap(),
        "etcd_logged_bytes_per_add": traffic.logged_per_add(),
        "etcd_put_bytes_per_add": traffic.put_per_add(),
        "counted": Counts::to_json(&traffic.counts),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Kind;
    use crate::scenario::{self, Series};

    #[test]
    fn what_the_cluster_paid_is_told_of_those_who_asked_it() {
        let series = |name: &str, kind: Kind| Series {
            name: name.into(),
            kind,
            milliseconds: vec![1.0],
            per_second: Vec::new(),
        };
        let times = scenario::Outcome {
            title: "a title".into(),
            series: vec![series("floor: commit", Kind::FloorCommit), series("ours", Kind::Ours(Value::Null))],
            left_out: Vec::new(),
        };
        let counts = Counts { logged: 5000, put: 100, ..Counts::default() };
        let traffic = Traffic { adds: 10, counts, ..Traffic::default() };
        let outcome = Outcome { what: What::Add, times, traffic: vec![Traffic::default(), traffic] };
        let mut text = Vec::new();
        write_tables(&mut text, &outcome).unwrap();
        let text = String::from_utf8(text).unwrap();
        let (_, paid) = text.split_once("per ADD").unwrap();
        let line = paid.lines().find(|line| line.starts_with("ours")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["ours", "0.00", "500", "10", "0", "10"]);
        assert!(!paid.contains("floor: commit"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() < 100), "{text}");
        let json = to_json(&Value::Null, &[outcome]);
        assert_eq!(json["scenarios"][0]["series"][1]["cluster"]["etcd_logged_bytes_per_add"], 500.0);
        assert_eq!(json["scenarios"][0]["what"]["add"], 1);
    }
}
