//! `check-config`: what a network configuration means, before a container depends on it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::output::Output;
use super::typed::CheckConfig;
use crate::cni::Environment;
use crate::config::{Configuration, Datastore, Loaded, RangeConfiguration, StaticArguments, read_documents};

/// Who uses a range: file and network, for each network name and CIDR.
type Users = BTreeMap<(String, String), Vec<String>>;

pub(super) fn check_config(typed: &CheckConfig, environment: &Environment, output: &Output) -> Result<Exit, Failure> {
    let mut users = Users::new();
    let mut is_sound = true;
    for file in &typed.files {
        is_sound &= check_file(file, environment, output, &mut users)?;
    }
    for ((network, range), names) in users.iter().filter(|(_, names)| names.len() > 1) {
        let of = if network.is_empty() { "the unnamed network".to_owned() } else { format!("network {network}") };
        output.warn(format_args!("{range} of {of} is shared by {}", names.join(", ")));
    }
    Ok(if is_sound { Exit::Success } else { Exit::Unsound })
}

/// Says what the networks of a file mean; whether all of them can be used.
fn check_file(file: &Path, environment: &Environment, output: &Output, users: &mut Users) -> Result<bool, Failure> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::new(Exit::Failure, format_args!("cannot read {name}: {error}")))?;
    let documents = read_documents(&name, &bytes).map_err(|error| Failure::new(Exit::Unsound, error))?;
    if documents.is_empty() {
        return Err(Failure::new(Exit::Unsound, format_args!("{name}: no plugin here has whereabouts as its IPAM")));
    }
    let mut is_sound = true;
    for document in documents {
        let origin = if document.origin.is_empty() { name.clone() } else { format!("{name}: {}", document.origin) };
        let surroundings = environment.surroundings();
        let loaded = document.network.and_then(|network| {
            let loaded = Configuration::load(&network, &StaticArguments::default(), &surroundings)?;
            loaded.configuration.require_available(None)?;
            Ok(loaded)
        });
        match loaded {
            Ok(loaded) => tell(&origin, &loaded, output, users)?,
            Err(error) => {
                is_sound = false;
                output.answer(
                    || json!({ "file": origin, "error": error.to_string() }),
                    || format!("{origin}\n  error: {error}\n"),
                )?;
            }
        }
    }
    Ok(is_sound)
}

fn tell(origin: &str, loaded: &Loaded, output: &Output, users: &mut Users) -> Result<(), Failure> {
    let Loaded { configuration, warnings } = loaded;
    let user = configuration.network.clone().unwrap_or_else(|| origin.to_owned());
    for range in &configuration.ranges {
        let key = (configuration.network_name.as_str().to_owned(), range.network().to_string());
        let names = users.entry(key).or_default();
        if !names.contains(&user) {
            names.push(user.clone());
        }
    }
    output.answer(
        || {
            json!({
                "file": origin,
                "network": configuration.network,
                "networkName": configuration.network_name.as_str(),
                "datastore": datastore(&configuration.datastore),
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

fn datastore(datastore: &Datastore) -> &'static str {
    match datastore {
        Datastore::Local => "the ledger of this host",
        Datastore::Kubernetes { .. } => "Kubernetes",
        Datastore::Etcd(_) => "etcd",
    }
}
