//! Measures whole IPAM plugins beside each other before one API server. `--help` says how.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use whereabouts_bench::cluster::scenario::{self, Effort, Outcome};
use whereabouts_bench::cluster::seat::Seat;
use whereabouts_bench::cluster::{Cluster, Ranges, report, targets};
use whereabouts_bench::contender::{Contender, PluginArgument};
use whereabouts_bench::program::{Common, all_there, beside_this_program, filesystem_to_measure};
use whereabouts_bench::report::LEGEND;

/// Measures whole IPAM plugins beside each other where a cluster is the store.
///
/// It starts an etcd and an API server of its own. Every ADD is a process for the sandbox of a pod that was not there
/// before, and the addresses stay held; callers that run at the same time are spread among nodes. The floors are a
/// process that does nothing, one that makes a durable commit, and one that makes a GET, a PUT and two commits. The
/// servers' states are in the system's folder for temporary files (TMPDIR). Use release builds.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Another IPAM plugin and its configuration, a JSON file in which {kubeconfig} stands for the way to the API server,
    /// {range} for the range, and {data_dir} for a folder of the node.
    #[arg(long = "plugin", value_name = "NAME=PROGRAM,CONFIG")]
    plugins: Vec<PluginArgument>,
    /// A file or a folder with what another plugin needs in the cluster, such as definitions of resources.
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Add, What::Parallel, What::Fill])]
    scenarios: Vec<What>,
    /// Callers of the parallel scenario.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 16, 32, 100])]
    callers: Vec<usize>,
    /// ADDs that each of them makes, one after the other.
    #[arg(long, default_value_t = 2)]
    adds_per_caller: usize,
    /// Nodes of each plugin, among which its callers are spread.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    nodes: u16,
    /// The ranges that are filled, as the lengths of their prefixes.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', default_values_t = [24, 20])]
    fill: Vec<u8>,
    /// Callers that fill a range.
    #[arg(long, default_value_t = 4)]
    fill_callers: usize,
    /// Rounds of one ADD each; in each, every contender runs once.
    #[arg(long, default_value_t = 150)]
    rounds: usize,
    /// Rounds of each number of parallel callers.
    #[arg(long, default_value_t = 4)]
    bursts: usize,
    /// Begin no new round of a scenario after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    limit: u64,
}

/// A scenario by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// One ADD at a time.
    Add,
    /// Many callers at once, each round on a new range.
    Parallel,
    /// A range until it is full.
    Fill,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let beside = beside_this_program()?;
    let contenders = contenders(&arguments, &beside)?;
    let folder = arguments.common.folder(&beside);
    let cluster = Cluster::start(&arguments.manifests)?;
    let machine = machine(folder, &cluster)?;
    let mut outcomes = Vec::new();
    writeln!(stdout(), "{machine}\n\n{LEGEND}{}", report::LEGEND)?;
    measure(&arguments, &contenders, &cluster, folder, |outcome| {
        report::write_tables(&mut stdout(), &outcome)?;
        outcomes.push(outcome);
        Ok(())
    })?;
    targets::write(&mut stdout(), &targets::findings(&outcomes))?;
    arguments.common.write_json(|| report::to_json(&machine, &outcomes))
}

fn measure(
    arguments: &Arguments,
    contenders: &[Contender],
    cluster: &Cluster,
    folder: &Path,
    mut done: impl FnMut(Outcome) -> Result<()>,
) -> Result<()> {
    let effort = Effort {
        rounds: arguments.rounds,
        warm_up: arguments.common.warm_up,
        bursts: arguments.bursts,
        adds_per_caller: arguments.adds_per_caller,
        fill_callers: arguments.fill_callers,
        limit: Duration::from_secs(arguments.limit),
    };
    let mut ranges = Ranges::default();
    let mut seats = Vec::new();
    for contender in contenders {
        let mut seat = Seat::take(contender, cluster, arguments.nodes.into(), folder)?;
        seat.ask_of(&ranges.take(24)?)?;
        seat.begin()?;
        seats.push(seat);
    }
    // They come first, and run along where no two of them run at the same time.
    let n_floors = contenders.iter().filter(|contender| contender.is_floor()).count();
    for what in &arguments.scenarios {
        let (_, plugins) = seats.split_at_mut(n_floors);
        match what {
            What::Add => done(scenario::one_add(cluster, &mut seats, &mut ranges, &effort)?)?,
            What::Parallel => {
                for callers in &arguments.callers {
                    done(scenario::parallel(cluster, plugins, *callers, &mut ranges, &effort)?)?;
                }
            }
            What::Fill => {
                for prefix in &arguments.fill {
                    done(scenario::fill(cluster, plugins, *prefix, &mut ranges, &effort)?)?;
                }
            }
        }
    }
    Ok(())
}

fn contenders(arguments: &Arguments, beside: &Path) -> Result<Vec<Contender>> {
    let mut contenders =
        vec![Contender::floor_empty(beside), Contender::floor_commit(beside), Contender::floor_requests(beside)];
    contenders.extend(arguments.common.ours(beside).map(Contender::ours_in_cluster));
    for plugin in &arguments.plugins {
        contenders.push(Contender::from_argument_in_cluster(plugin)?);
    }
    all_there(&contenders)?;
    Ok(contenders)
}

/// What the figures depend on beside the programs.
fn machine(folder: &Path, cluster: &Cluster) -> Result<Value> {
    let of_servers = cluster.control_plane().folder();
    Ok(json!({
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "filesystem_of_nodes": filesystem_to_measure(folder)?,
        "filesystem_of_servers": filesystem_to_measure(of_servers)?,
    }))
}
