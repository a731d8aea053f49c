//! `check-config`: what a network configuration means, before a container depends on it.

mod overlaps;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::overlaps::Overlaps;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::typed::CheckConfig;
use crate::cni::{Environment, load_for_add};
use crate::config::{Datastore, Document, Loaded, RangeConfiguration, Surroundings, read_documents};

/// `data_dir` counts as the variable would for the plugin; unlike there, people name folders from where they are.
pub(super) fn check_config(
    typed: &CheckConfig,
    data_dir: Option<PathBuf>,
    environment: &Environment,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut surroundings = environment.surroundings();
    if let Some(folder) = data_dir {
        surroundings.data_dir = Some(std::path::absolute(&folder).unwrap_or(folder));
    }
    let mut overlaps = Overlaps::default();
    let mut exit = Exit::Success;
    for file in &typed.files {
        match check_file(file, &surroundings, output, &mut overlaps)? {
            Exit::Success => {}
            // A file of which nothing is known weighs more than one that is known to be wrong.
            worse if exit != Exit::Failure => exit = worse,
            _ => {}
        }
    }
    for sentence in overlaps.sentences() {
        output.answer(|| json!({ "warning": sentence }), || format!("warning: {sentence}\n"))?;
    }
    Ok(exit)
}

/// Says what the networks of a file mean, and what is wrong with them or with the file: the others are still to come.
fn check_file(
    file: &Path,
    surroundings: &Surroundings,
    output: &Output,
    overlaps: &mut Overlaps,
) -> Result<Exit, Failure> {
    let name = file.display().to_string();
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            tell_error(&name, &format!("cannot be read: {error}; name a file that you may read"), output)?;
            return Ok(Exit::Failure);
        }
    };
    let documents = match read_documents(&name, &bytes) {
        Ok(documents) => documents,
        Err(error) => {
            tell_error(&name, &error.to_string(), output)?;
            return Ok(Exit::Unsound);
        }
    };
    let mut exit = Exit::Success;
    for Document { origin, is_for_pods, network } in documents {
        let origin = if origin.is_empty() { name.clone() } else { format!("{name}: {origin}") };
        let use_for_pods = is_for_pods.then_some("a NetworkAttachmentDefinition, which is for Kubernetes pods");
        let loaded = network.map_err(Into::into).and_then(|network| load_for_add(&network, use_for_pods, surroundings));
        match loaded {
            Ok(loaded) => {
                overlaps.add(&origin, &loaded.configuration);
                tell(&origin, &loaded, output)?;
            }
            Err(error) => {
                exit = Exit::Unsound;
                tell_error(&origin, &error.to_string(), output)?;
            }
        }
    }
    Ok(exit)
}

fn tell_error(origin: &str, error: &str, output: &Output) -> Result<(), Failure> {
    output.answer(|| json!({ "file": origin, "error": error }), || format!("{origin}\n  error: {error}\n"))
}

fn tell(origin: &str, loaded: &Loaded, output: &Output) -> Result<(), Failure> {
    let Loaded { configuration, warnings } = loaded;
    output.answer(
        || {
            json!({
                "file": origin,
                "network": configuration.network,
                "networkName": configuration.network_name.as_str(),
                "datastore": datastore(&configuration.datastore),
                "kubeconfig": kubeconfig(&configuration.datastore),
                "dataDir": configuration.host.data_dir,
                "flatFile": configuration.flat_file,
                "private": !configuration.enable_overlapping_ranges,
                "ranges": configuration.ranges.iter().map(range_json).collect::<Vec<_>>(),
                "warnings": warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        },
        || {
            // Writing to a String cannot fail.
            let mut text = format!("{origin}\n");
            let named = configuration.network_name.as_str();
            let named = if named.is_empty() { "unnamed".to_owned() } else { named.to_owned() };
            let sharing = if configuration.enable_overlapping_ranges { "shared" } else { "private" };
            let _ = writeln!(
                text,
                "  network {named}, ranges {sharing}, leases in {} ({})",
                datastore(&configuration.datastore),
                configuration.host.data_dir.display()
            );
            if let Some(kubeconfig) = kubeconfig(&configuration.datastore) {
                let _ = writeln!(text, "  kubeconfig {kubeconfig}");
            }
            if let Some(flat_file) = &configuration.flat_file {
                let _ = writeln!(text, "  flat file {}", flat_file.display());
            }
            for range in &configuration.ranges {
                let view = range.view();
                let end = |address: Option<whereabouts_engine::Address>| {
                    address.map_or_else(|| "none".to_owned(), |address| address.to_string())
                };
                let (first, last) = (end(view.first()), end(view.last()));
                let _ = writeln!(
                    text,
                    "  {} = {}: {first} to {last}, {} addresses",
                    range.key(),
                    range.typed(),
                    view.count()
                );
                let excludes: Vec<String> = range.excludes().iter().map(ToString::to_string).collect();
                if !excludes.is_empty() {
                    let _ = writeln!(text, "    without {}", excludes.join(", "));
                }
                if let Some(gateway) = range.gateway() {
                    let _ = writeln!(text, "    gateway {gateway}");
                }
            }
            for warning in warnings {
                let _ = writeln!(text, "  warning: {warning}");
            }
            text
        },
    )
}

fn range_json(range: &RangeConfiguration) -> Value {
    let view = range.view();
    json!({
        "key": range.key(),
        "typed": range.typed(),
        "cidr": range.network().to_string(),
        "first": view.first().map(|address| address.to_string()),
        "last": view.last().map(|address| address.to_string()),
        "count": view.count().to_string(),
        "excludes": range.excludes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "gateway": range.gateway().map(|gateway| gateway.to_string()),
    })
}

fn kubeconfig(datastore: &Datastore) -> Option<&str> {
    if let Datastore::Kubernetes { kubeconfig } = datastore { Some(kubeconfig) } else { None }
}

fn datastore(datastore: &Datastore) -> &'static str {
    match datastore {
        Datastore::Local => "the ledger of this host",
        Datastore::Kubernetes { .. } => "Kubernetes",
        Datastore::Etcd(_) => "etcd",
    }
}
