//! Runs the schedules of many seeds, and prints the first that fails with all that happened.
//!
//! ```text
//! cargo run --release --example simulate -p whereabouts-engine -- --seeds 0..1000000 --jobs 2
//! ```
#![expect(clippy::print_stdout, reason = "it is a program for people")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};
use whereabouts_engine::simulation::{self, Failure, Summary};

/// How often a line says how far it has come.
const REPORT_EVERY: u64 = 50_000;

struct Arguments {
    seeds: Range<u64>,
    jobs: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { seeds, jobs } = arguments()?;
    let began = Instant::now();
    let (done, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Summary::default());
    let failures: Mutex<Vec<Box<Failure>>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for job in 0..jobs {
            let (seeds, done, is_over, total, failures) = (seeds.clone(), &done, &is_over, &total, &failures);
            scope.spawn(move || {
                for seed in seeds.skip(usize::try_from(job).unwrap_or(0)).step_by(usize::try_from(jobs).unwrap_or(1)) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    match simulation::run(seed, false) {
                        Ok(summary) => total.lock().unwrap_or_else(PoisonError::into_inner).add(summary),
                        Err(failure) => {
                            is_over.store(true, Ordering::Relaxed);
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        }
                    }
                    let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if n % REPORT_EVERY == 0 {
                        println!("{n} schedules, {:.0} a second", rate(n, began));
                    }
                }
            });
        }
    });
    let n = done.load(Ordering::Relaxed);
    let total = total.into_inner().unwrap_or_default();
    println!("{n} schedules, {:.0} a second: {total:?}", rate(n, began));
    let first = failures.into_inner().unwrap_or_default().into_iter().min_by_key(|failure| failure.seed);
    if let Some(first) = first {
        match simulation::run(first.seed, true) {
            Err(failure) => println!("{failure}"),
            Ok(_) => println!("{first}\nbut it does not fail again"),
        }
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn rate(n: u64, began: Instant) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX)) / began.elapsed().as_secs_f64().max(0.001)
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut arguments = Arguments { seeds: 0..10_000, jobs: 1 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--seeds" => {
                let (first, end) = value.split_once("..").with_context(|| format!("--seeds {value}: write 0..1000"))?;
                arguments.seeds = first.parse()?..end.parse()?;
            }
            "--jobs" => arguments.jobs = value.parse::<u64>()?.max(1),
            _ => bail!("{word} is not known: there are --seeds FIRST..END and --jobs N"),
        }
    }
    Ok(arguments)
}
