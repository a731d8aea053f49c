//! What was typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Gives containers IP addresses that are unique.
///
/// As a CNI plugin it is called by a runtime, with CNI_COMMAND set. As a command it works on the ledger of this host:
/// root's is the plugin's, by data_dir of the plugin's flat file, else /var/lib/cni/whereabouts/ledger.redb; an ordinary
/// user's is ~/.local/state/whereabouts/ledger.redb.
#[derive(Debug, Parser)]
#[command(name = "whereabouts", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 not understood, 3 not held, 4 range full, 5 held by another, \
                        6 unsound, 7 busy.")]
pub(super) struct Typed {
    /// The folder of the ledger [env: WHEREABOUTS_DATA_DIR]. Without either, it is data_dir of the flat file that
    /// WHEREABOUTS_CONFIGURATION names; then for root that of the flat file in the usual places
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(super) data_dir: Option<PathBuf>,
    /// Work on this Kubernetes cluster and not on the ledger of this host: show, who, release, verify, export, repair,
    /// migrate. Without it, a host that has no ledger of its own goes by KUBECONFIG, else by what its plugin works with
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take an address of each range, or nothing
    Allocate(Allocate),
    /// Give addresses back
    Release(Release),
    /// Show networks, ranges, leases, or how full a range is
    Show(Show),
    /// Say who holds an address, and who held it
    Who(Who),
    /// Walk through the whole ledger and say what disagrees
    Verify,
    /// Open a frozen space of a cluster again: first on every node, then once with --open; or, with --local, mend this
    /// host's own ledger
    Repair(Repair),
    /// Import what the Go plugin has given away in a cluster: once, before nodes are switched over
    Migrate(Migrate),
    /// Write all leases as lines of JSON
    Export(Export),
    /// Put the leases of an export back; never beside another holder
    Import(Import),
    /// Say what a network configuration means; --data-dir counts as WHEREABOUTS_DATA_DIR would for the plugin
    CheckConfig(CheckConfig),
    /// Write a script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man page
    Man,
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    /// Put together again what of this host's own ledger cannot be read, from what can
    #[arg(long, conflicts_with_all = ["open", "lost"])]
    pub(super) local: bool,
    /// Freeze all spaces first: etcd was restored from a backup, and whoever has not seen what is missing cannot know it
    #[arg(long, conflicts_with = "local")]
    pub(super) restored: bool,
    /// Open the spaces, if all nodes have reported
    #[arg(long)]
    pub(super) open: bool,
    /// A node that is gone for good, and with it whatever ran there; may be given more than once
    #[arg(long, value_name = "NODE", requires = "open")]
    pub(super) lost: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Where the Go plugin has its pools, and this one its blocks; by default the namespace of the kubeconfig's context,
    /// else kube-system
    #[arg(long)]
    pub(super) namespace: Option<String>,
    /// Write nothing, and say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Raise no fence: the rights of the Go plugin have been taken away otherwise
    #[arg(long)]
    pub(super) fenced: bool,
    /// A pool, by the name of its object, that is configured with enable_overlapping_ranges: false; may be given more than
    /// once
    #[arg(long, value_name = "POOL")]
    pub(super) private: Vec<String>,
    /// For how many seconds the pools must not have changed
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(super) quiet: u64,
    /// Free an address that was imported, once you know that nobody uses it
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["dry_run", "fenced", "private", "unfence"])]
    pub(super) free: Option<IpAddr>,
    /// The network of that address
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, requires = "free")]
    pub(super) network: String,
    /// Take the fence away, and do nothing else
    #[arg(long, conflicts_with_all = ["dry_run", "fenced", "private"])]
    pub(super) unfence: bool,
    /// Go back: give no address away here any more, and write who holds what into the Go plugin's pools and reservations
    #[arg(long, conflicts_with_all = ["private", "unfence", "free"])]
    pub(super) back: bool,
    /// With --back: make the pools that are missing, as the Go plugin would make them
    #[arg(long, requires = "back")]
    pub(super) make_pools: bool,
}

#[derive(Debug, Args)]
pub(super) struct Allocate {
    /// Ranges: a CIDR such as 10.0.0.0/24, or 10.0.0.10-10.0.0.20/24
    #[arg(required = true, value_name = "RANGE")]
    pub(super) ranges: Vec<String>,
    /// Who holds the addresses; the same name gets the same ones again. Without it a new name is made up
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The network; ranges of different networks never collide
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) network: String,
    /// Never hand out these: CIDRs or addresses
    #[arg(long, value_name = "CIDR")]
    pub(super) exclude: Vec<String>,
    /// Never hand out the gateway
    #[arg(long, value_name = "ADDRESS")]
    pub(super) gateway: Vec<IpAddr>,
    /// Take this very address
    #[arg(long, value_name = "ADDRESS")]
    pub(super) address: Option<IpAddr>,
    /// How many times, each for a new name
    #[arg(long, default_value_t = 1, conflicts_with_all = ["name", "address"], hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) count: u32,
    /// The range is a space of its own, whatever else overlaps it
    #[arg(long)]
    pub(super) private: bool,
    /// Every address is usable: network, broadcast, .0, /31, /32
    #[arg(long)]
    pub(super) l3: bool,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("what").required(true).multiple(true)))]
pub(super) struct Release {
    /// Addresses, whoever holds them
    #[arg(group = "what", value_name = "ADDRESS")]
    pub(super) addresses: Vec<IpAddr>,
    /// What this name holds
    #[arg(long, group = "what")]
    pub(super) name: Option<String>,
    /// What this container holds
    #[arg(long, group = "what", value_name = "ID")]
    pub(super) container: Option<String>,
    /// Only this interface of the container
    #[arg(long, requires = "container")]
    pub(super) interface: Option<String>,
    /// Only in this network
    #[arg(long)]
    pub(super) network: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// What to show: networks, ranges, leases, or a range such as 10.0.0.0/24
    #[arg(default_value = "ranges")]
    pub(super) what: String,
    /// For leases: only those in this range
    pub(super) range: Option<String>,
    /// Only this network
    #[arg(long)]
    pub(super) network: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Who {
    /// The address
    pub(super) address: IpAddr,
    /// Who held it then: RFC 3339 such as 2026-11-24T08:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(super) at: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The file, which must not be there yet; standard output without one
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file that an export has written; `-` is standard input
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// Confs, conflists, or NetworkAttachmentDefinitions in JSON or YAML
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
}

/// What `show` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    Networks,
    Ranges,
    Leases,
}
