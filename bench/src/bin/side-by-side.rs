//! Measures whole IPAM plugins beside each other and beside two floors. `--help` says how.

use std::io::{Write, stdout};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use whereabouts_bench::contender::{AtMostArgument, Contender, PluginArgument};
use whereabouts_bench::program::{Common, all_there, beside_this_program, filesystem_to_measure};
use whereabouts_bench::report;
use whereabouts_bench::scenario::{self, Effort, Outcome};

/// Measures whole IPAM plugins beside each other and beside two floors.
///
/// Every ADD is a process of its own for a container that was not there before, and the addresses stay held. The floors
/// are a process that does nothing and one that makes one durable commit with our options. Use release builds.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Another IPAM plugin and its configuration, a JSON file in which {data_dir} stands for the folder of its state.
    /// One of type host-local can be made to hold addresses beforehand.
    #[arg(long = "plugin", value_name = "NAME=PROGRAM,CONFIG")]
    plugins: Vec<PluginArgument>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Start, What::Add, What::Parallel])]
    scenarios: Vec<What>,
    /// Addresses held before the ADDs that are measured.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', default_values_t = [0, 10_000, 60_000, 1_000_000])]
    held: Vec<u64>,
    /// The most addresses that this contender is made to hold.
    #[arg(long, value_name = "NAME=ADDRESSES")]
    at_most: Vec<AtMostArgument>,
    /// Callers of the parallel scenario.
    #[arg(long, default_value_t = 16)]
    processes: usize,
    /// Rounds of each scenario; in each, every contender runs once.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Begin no new round of a scenario after so many seconds, once there were ten.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
}

/// A scenario by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// From the start of a program to its first byte (VERSION).
    Start,
    /// One ADD at a time.
    Add,
    /// Many processes at once.
    Parallel,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let beside = beside_this_program()?;
    let contenders = contenders(&arguments, &beside)?;
    let folder = arguments.common.folder(&beside);
    let machine = machine(folder)?;
    let effort = Effort {
        rounds: arguments.rounds,
        warm_up: arguments.common.warm_up,
        limit: Duration::from_secs(arguments.limit),
        at_most: arguments.at_most.iter().map(|most| (most.name.clone(), most.held)).collect(),
    };

    let mut outcomes = Vec::new();
    let mut done = |outcome: Outcome| -> Result<()> {
        report::write_table(&mut stdout(), &outcome)?;
        outcomes.push(outcome);
        Ok(())
    };
    writeln!(stdout(), "{}\n\n{}", describe(&machine), report::LEGEND)?;
    for what in &arguments.scenarios {
        match what {
            What::Start => done(scenario::start(&contenders, &effort, folder)?)?,
            What::Add => {
                for held in &arguments.held {
                    done(scenario::one_add(&contenders, *held, &effort, folder)?)?;
                }
            }
            What::Parallel => done(scenario::parallel(&contenders, arguments.processes, &effort, folder)?)?,
        }
    }
    arguments.common.write_json(|| report::to_json(&machine, &outcomes))
}

fn contenders(arguments: &Arguments, beside: &Path) -> Result<Vec<Contender>> {
    let mut contenders = vec![Contender::floor_empty(beside), Contender::floor_commit(beside)];
    contenders.extend(arguments.common.ours(beside).map(Contender::ours));
    for plugin in &arguments.plugins {
        contenders.push(Contender::from_argument(plugin)?);
    }
    all_there(&contenders)?;
    for AtMostArgument { name, .. } in &arguments.at_most {
        ensure!(contenders.iter().any(|contender| contender.name == *name), "--at-most: nobody is called {name}");
    }
    Ok(contenders)
}

/// What the figures depend on beside the programs.
fn machine(folder: &Path) -> Result<Value> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    Ok(json!({
        "cores": cores,
        "kernel": system.release().to_string_lossy(),
        "architecture": system.machine().to_string_lossy(),
        "filesystem": filesystem_to_measure(folder)?,
    }))
}

fn describe(machine: &Value) -> String {
    let of = |key: &str| machine.get(key).map(|value| value.to_string().replace('"', "")).unwrap_or_default();
    format!("{} cores, {}, Linux {}, {}", of("cores"), of("architecture"), of("kernel"), of("filesystem"))
}
