//! Measures whole IPAM plugins beside each other and beside two floors. `--help` says how.

use std::fs;
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use whereabouts_bench::contender::{AtMostArgument, Contender, PluginArgument};
use whereabouts_bench::scenario::{self, Effort, Outcome};
use whereabouts_bench::{report, seat};

/// Measures whole IPAM plugins beside each other and beside two floors.
///
/// Every ADD is a process of its own for a container that was not there before, and the addresses stay held. The floors
/// are a process that does nothing and one that makes one durable commit with our options. Use release builds.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// This project's plugin [default: `whereabouts` beside this program].
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// Leave this project's plugin out.
    #[arg(long, conflicts_with = "ours")]
    without_ours: bool,
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
    /// Rounds before the first one that counts.
    #[arg(long, default_value_t = 5)]
    warm_up: usize,
    /// Begin no new round of a scenario after so many seconds, once there were ten.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
    /// Where the states are kept while it runs: on the disk that is to be measured [default: beside this program].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Write all figures to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
    let folder = arguments.folder.clone().unwrap_or(beside);
    let machine = machine(&folder)?;
    let effort = Effort {
        rounds: arguments.rounds,
        warm_up: arguments.warm_up,
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
            What::Start => done(scenario::start(&contenders, &effort, &folder)?)?,
            What::Add => {
                for held in &arguments.held {
                    done(scenario::one_add(&contenders, *held, &effort, &folder)?)?;
                }
            }
            What::Parallel => done(scenario::parallel(&contenders, arguments.processes, &effort, &folder)?)?,
        }
    }
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report::to_json(&machine, &outcomes));
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn beside_this_program() -> Result<PathBuf> {
    let itself = std::env::current_exe().context("where this program is")?;
    Ok(itself.parent().context("a program lies in a folder")?.to_owned())
}

fn contenders(arguments: &Arguments, beside: &Path) -> Result<Vec<Contender>> {
    let mut contenders = vec![Contender::floor_empty(beside), Contender::floor_commit(beside)];
    if !arguments.without_ours {
        let ours = arguments.ours.clone().unwrap_or_else(|| beside.join("whereabouts"));
        contenders.push(Contender::ours(ours));
    }
    for plugin in &arguments.plugins {
        contenders.push(Contender::from_argument(plugin)?);
    }
    for Contender { name, program, .. } in &contenders {
        ensure!(program.is_file(), "{name}: there is no program {}", program.display());
    }
    for AtMostArgument { name, .. } in &arguments.at_most {
        ensure!(contenders.iter().any(|contender| contender.name == *name), "--at-most: nobody is called {name}");
    }
    Ok(contenders)
}

/// What the figures depend on beside the programs.
fn machine(folder: &Path) -> Result<Value> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let filesystem = seat::filesystem_of(folder)?;
    if filesystem == "tmpfs" {
        writeln!(stderr(), "warning: {} is in memory, where syncing costs nothing", folder.display())?;
    }
    Ok(json!({
        "cores": cores,
        "kernel": system.release().to_string_lossy(),
        "architecture": system.machine().to_string_lossy(),
        "filesystem": filesystem,
    }))
}

fn describe(machine: &Value) -> String {
    let of = |key: &str| machine.get(key).map(|value| value.to_string().replace('"', "")).unwrap_or_default();
    format!("{} cores, {}, Linux {}, {}", of("cores"), of("architecture"), of("kernel"), of("filesystem"))
}
