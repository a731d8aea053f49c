//! `migrate`: import what the Go plugin has given away; and, by `--back`, let it have everything again.

mod back;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use whereabouts_engine::{AdoptError, Adopted, Network, Space};

use super::exit::{Exit, Failure};
use super::leases::network_of;
use super::output::Output;
use super::settings::Settings;
use super::typed::Migrate;
use crate::stores::kubernetes::{Exempt, Fate, Fence, Finding, Freed, KubernetesHost, MigrateError, Plan, PlannedPool};

/// How long all of it may take: with a hundred thousand addresses it is a minute, and the pools may take a few until they
/// are quiet.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What to take away by hand where no policy can.
const RIGHTS: &str = "this API server has no ValidatingAdmissionPolicy (Kubernetes 1.30 or newer), so take the rights of \
     the Go plugin away by hand: in its ClusterRole (`kubectl edit clusterrole whereabouts-cni`), for ippools and \
     overlappingrangeipreservations of whereabouts.cni.cncf.io, remove the verbs create, update, patch and delete, and \
     leave get, list and watch. Then run this again with --fenced";

pub(super) fn migrate(typed: &Migrate, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let scratch = Scratch::new()?;
    let kubeconfig = settings.known_kubeconfig()?;
    let mut host = settings.cluster_of(&scratch.0, PATIENCE)?;
    if let Some(namespace) = &typed.namespace {
        host = host.in_namespace(namespace.clone());
    }
    if typed.unfence {
        return unfence(&host, output);
    }
    if let Some(address) = typed.free {
        return free(&host, address.into(), &network_of(&typed.network)?, output);
    }
    if typed.back {
        return back::go_back(typed, &host, output);
    }
    host.find_pools()?;
    if !typed.dry_run {
        keep_out(typed, &host, Exempt::Nobody, output)?;
    }
    let private: BTreeSet<String> = typed.private.iter().cloned().collect();
    let (plan, mark) = host.plan_migration(&private)?;
    let adopted = if typed.dry_run { host.would_migrate(&plan)? } else { host.migrate(&plan, &mark)? };
    output
        .answer(|| report_json(typed, &kubeconfig, &plan, &adopted), || report(typed, &kubeconfig, &plan, &adopted))?;
    let is_odd = plan.count(Fate::Quarantined) + plan.count(Fate::NotImported) > 0;
    Ok(if is_odd { Exit::Unsound } else { Exit::Success })
}

/// Raises the fence, and waits until everybody is out who was in.
fn keep_out(typed: &Migrate, host: &KubernetesHost, exempt: Exempt, output: &Output) -> Result<(), Failure> {
    if typed.fenced {
        output.note("the fence is yours (--fenced): nobody must write to the Go plugin's pools");
    } else {
        match host.raise_fence(exempt)? {
            Fence::Raised => output.note("the fence is up: the Go plugin's pools can no longer be written"),
            Fence::Unsupported => return Err(Failure::new(Exit::Failure, RIGHTS)),
        }
    }
    output.note(format_args!("waiting until the pools have been quiet for {} s", typed.quiet));
    Ok(host.wait_until_quiet(Duration::from_secs(typed.quiet))?)
}

fn unfence(host: &KubernetesHost, output: &Output) -> Result<Exit, Failure> {
    let was_there = host.lower_fence()?;
    output.answer(
        || json!({ "unfenced": was_there }),
        || (if was_there { "the fence is gone\n" } else { "there is no fence\n" }).to_owned(),
    )?;
    Ok(Exit::Success)
}

fn free(
    host: &KubernetesHost,
    address: whereabouts_engine::Address,
    network: &Network,
    output: &Output,
) -> Result<Exit, Failure> {
    match host.free_migrated(address, network)? {
        Freed::Yes(holding) => {
            output.answer(
                || json!({ "address": address.to_string(), "heldBy": holding.lease.to_string() }),
                || format!("{address} was held by {}\n", holding.lease),
            )?;
            Ok(Exit::Success)
        }
        Freed::NotHeld => Err(Failure::new(Exit::NotHeld, format_args!("nobody holds {address} in network {network}"))),
        Freed::Refused(holding) => Err(Failure::new(
            Exit::Held,
            format_args!(
                "{address} is held by {}, to whom the plugin gave it itself; it is freed with the container",
                holding.lease
            ),
        )),
        Freed::Several(holdings) => {
            let spaces: Vec<String> = holdings.iter().map(|holding| holding.space.to_string()).collect();
            Err(Failure::usage(format_args!("{address} is held in several spaces: {}", spaces.join(", "))))
        }
    }
}

/// The command that frees the address of a finding, if it is held.
fn command(typed: &Migrate, kubeconfig: &Path, finding: &Finding) -> Option<String> {
    let address = finding.address?;
    let mut command = format!("whereabouts migrate --kubeconfig {}", kubeconfig.display());
    if let Some(namespace) = &typed.namespace {
        command.push_str(&format!(" --namespace {namespace}"));
    }
    command.push_str(&format!(" --free {address}"));
    if !finding.network.is_empty() {
        command.push_str(&format!(" --network {}", finding.network));
    }
    Some(command)
}

fn report(typed: &Migrate, kubeconfig: &Path, plan: &Plan, adopted: &[(Space, Adopted)]) -> String {
    let mut text = String::new();
    for pool in &plan.pools {
        text.push_str(&pool_line(pool));
    }
    text.extend(plan.findings.iter().map(finding_text));
    let commands: BTreeSet<String> =
        plan.findings.iter().filter_map(|finding| command(typed, kubeconfig, finding)).collect();
    if !commands.is_empty() {
        text.push_str("what is held is freed, once you know that nobody uses it, by\n");
        for command in commands {
            text.push_str(&format!("  {command}\n"));
        }
    }
    let added = if typed.dry_run { "would be imported" } else { "imported" };
    for (space, Adopted { n_added, n_present }) in adopted {
        text.push_str(&format!("{space}: {n_added} {added}, {n_present} were there already\n"));
    }
    let (quarantined, held, lost) =
        (plan.count(Fate::Quarantined), plan.count(Fate::Held), plan.count(Fate::NotImported));
    text.push_str(&format!("{quarantined} quarantined, {held} held without a pod on a node, {lost} not imported\n"));
    text
}

fn finding_text(finding: &Finding) -> String {
    let Finding { address, reason, fate, object, holders, .. } = finding;
    let address = address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
    let mut text = format!("{address}: {}: {reason} ({object})\n", fate.as_str());
    for holder in holders {
        text.push_str(&format!("  {holder}\n"));
    }
    text
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "object": finding.object, "network": finding.network, "holders": finding.holders,
        "address": finding.address.map(|address| address.to_string()), "reason": finding.reason,
        "fate": finding.fate.as_str(),
    })
}

fn of_network(network: Option<&str>) -> String {
    match network {
        None => "of no network".to_owned(),
        Some("") => "of the unnamed network".to_owned(),
        Some(network) => format!("of network {network}"),
    }
}

fn pool_line(pool: &PlannedPool) -> String {
    let network = of_network(pool.network.as_deref());
    let mut line = format!(
        "pool {} ({} {network}): {} addresses, {} of them reserved across pools",
        pool.name, pool.range, pool.n_allocations, pool.n_reserved
    );
    if pool.is_private {
        line.push_str(", a space of its own");
    } else if pool.n_allocations > 0 && pool.n_reserved == 0 {
        line.push_str("; if its configuration says enable_overlapping_ranges: false, name it with --private");
    }
    if pool.is_imported {
        line.push_str("; imported before");
    }
    line.push('\n');
    line
}

fn report_json(typed: &Migrate, kubeconfig: &Path, plan: &Plan, adopted: &[(Space, Adopted)]) -> Value {
    let pools: Vec<Value> = plan
        .pools
        .iter()
        .map(|pool| {
            json!({
                "name": pool.name, "network": pool.network, "range": pool.range, "private": pool.is_private,
                "allocations": pool.n_allocations, "reserved": pool.n_reserved, "importedBefore": pool.is_imported,
            })
        })
        .collect();
    let findings: Vec<Value> = plan
        .findings
        .iter()
        .map(|finding| {
            let mut value = finding_json(finding);
            if let Some(value) = value.as_object_mut() {
                value.insert("free".to_owned(), json!(command(typed, kubeconfig, finding)));
            }
            value
        })
        .collect();
    let spaces: Vec<Value> = adopted
        .iter()
        .map(|(space, adopted)| {
            json!({
                "space": space.to_string(), "network": space.network().as_str(),
                "added": adopted.n_added, "present": adopted.n_present,
            })
        })
        .collect();
    json!({ "dryRun": typed.dry_run, "pools": pools, "spaces": spaces, "findings": findings })
}

/// A folder for a ledger that nobody needs afterwards: this is a host without containers, whatever else runs here.
struct Scratch(PathBuf);

// === impl Scratch ===

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let failed = |path: &Path, error| {
            Failure::new(Exit::Failure, format_args!("cannot create {}: {error}; see TMPDIR", path.display()))
        };
        let parent = std::env::temp_dir();
        for attempt in 0_u32.. {
            let path = parent.join(format!("whereabouts-migrate-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => {}
                Err(error) => return Err(failed(&path, error)),
            }
        }
        Err(Failure::new(Exit::Failure, "no folder can be made"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is empty of meaning, and the folder is one for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Arbiter(error) => error.into(),
            MigrateError::Store(error) | MigrateError::Adopt(AdoptError::Store(error)) => {
                crate::stores::ArbiterError::Store(error).into()
            }
            MigrateError::Adopt(error @ AdoptError::Held(_)) => Self::new(
                Exit::Held,
                format_args!(
                    "{error}; nothing was imported: delete those pods or, where the Go plugin's entry is of a pod that is \
                     gone, that entry, and run this again"
                ),
            ),
            error @ MigrateError::Restless(_) => Self::new(Exit::Busy, error),
            error @ (MigrateError::NoSuchPool(_) | MigrateError::Elsewhere { .. } | MigrateError::NothingHeld(_)) => {
                Self::usage(error)
            }
            error @ MigrateError::Frozen { .. } => Self::new(Exit::Unsound, error),
            error @ MigrateError::Adopt(_) => Self::new(Exit::Unsound, error),
            error => Self::new(Exit::Failure, error),
        }
    }
}
