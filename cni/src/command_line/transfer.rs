//! `export` and `import`: a backup as lines of JSON. The first line says what it is.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use whereabouts_engine::{
    Attachment, BootId, Create, Holding, Holdings, ImportError, Lease, LeaseState, OperationId, Owner, Pod, Pool,
    Sharing, Space,
};

use super::exit::{Exit, Failure};
use super::leases::{lease_json, network_of};
use super::output::Output;
use super::settings::Settings;
use super::time::rfc3339;
use super::typed::{Export, Import};

/// What this version writes and reads.
const FORMAT: u64 = 1;

pub(super) fn export(typed: &Export, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let ledger = settings.read()?;
    let mut out: Box<dyn Write> = match &typed.file {
        Some(path) => Box::new(BufWriter::new(create(path)?)),
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let head = json!({
        "whereabouts": "export", "format": FORMAT, "host": &*ledger.facts().node, "time": rfc3339(now * 1000),
    });
    let failed = |error| match &typed.file {
        Some(path) => Failure::new(Exit::Failure, format_args!("cannot write {}: {error}", path.display())),
        None => Failure::output(error),
    };
    writeln!(out, "{head}").map_err(failed)?;
    let progress = output.progress("exporting", None);
    let mut result = Ok(());
    let mut n = 0_u64;
    ledger.each_holding(&Holdings::default(), |holding| {
        progress.inc(1);
        n += 1;
        result = writeln!(out, "{}", to_line(&holding));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result.and_then(|()| out.flush()).map_err(failed)?;
    progress.finish_and_clear();
    if let Some(path) = &typed.file {
        File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
        output.note(format_args!("{n} leases are in {}", path.display()));
    }
    Ok(Exit::Success)
}

/// A new file that nobody else reads: an older backup is not overwritten.
fn create(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        let cure = if error.kind() == io::ErrorKind::AlreadyExists { "; name a new file" } else { "" };
        Failure::new(Exit::Failure, format_args!("cannot create {}: {error}{cure}", path.display()))
    })
}

pub(super) fn import(typed: &Import, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let name = typed.file.display();
    let input: Box<dyn BufRead> = if typed.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&typed.file);
        Box::new(BufReader::new(
            file.map_err(|error| Failure::new(Exit::Failure, format_args!("cannot read {name}: {error}")))?,
        ))
    };
    let mut holdings = Vec::new();
    for (at, line) in input.lines().enumerate() {
        let line = line.map_err(|error| Failure::new(Exit::Failure, format_args!("cannot read {name}: {error}")))?;
        let wrong = |reason: &str| {
            Failure::new(Exit::Failure, format_args!("{name}, line {}: {reason}; nothing was imported", at + 1))
        };
        let json: Value = serde_json::from_str(&line).map_err(|error| wrong(&error.to_string()))?;
        if at == 0 {
            if json.get("whereabouts").and_then(Value::as_str) != Some("export") {
                return Err(wrong("this is not what `whereabouts export` writes"));
            }
            if json.get("format").and_then(Value::as_u64) != Some(FORMAT) {
                return Err(wrong("this format is not known; use the version that wrote it, or a newer one"));
            }
            continue;
        }
        holdings.push(from_line(&json).map_err(|reason| wrong(&reason))?);
    }
    if holdings.is_empty() {
        output.warn(format_args!("{name} has no leases"));
    }
    let ledger = settings.open(Create::IfMissing)?;
    let imported = ledger.import(&holdings).map_err(|error| match error {
        ImportError::Ledger(error) => error.into(),
        ImportError::Conflicts(_) | ImportError::Sharing { .. } => Failure::new(Exit::Held, error),
        error => Failure::new(Exit::Failure, error),
    })?;
    output.answer(
        || json!({ "added": imported.n_added, "present": imported.n_present, "over": imported.n_over }),
        || {
            let (added, present, over) = (imported.n_added, imported.n_present, imported.n_over);
            format!("{added} added, {present} were here already, {over} ended with their boot\n")
        },
    )?;
    Ok(Exit::Success)
}

/// Everything of a lease, for people and for [`from_line`].
fn to_line(holding: &Holding) -> Value {
    let lease = &holding.lease;
    let mut json = lease_json(&holding.space, holding.address, lease);
    if let Some(object) = json.as_object_mut() {
        object.insert("boot".to_owned(), json!(lease.boot.map(|boot| boot.to_string())));
        object.insert("provider".to_owned(), json!(lease.provider.as_deref()));
        object.insert("sinceMilliseconds".to_owned(), json!(lease.since));
    }
    json
}

fn from_line(json: &Value) -> Result<Holding, String> {
    let network = network_of(text(json, "network")?).map_err(|failure| failure.message)?;
    let address: whereabouts_engine::Address = parsed(json, "address")?;
    let space = match optional(json, "private") {
        Some(_) => Pool::new(network, parsed(json, "private")?).space(Sharing::Private),
        None => Space::shared(network, address.family()),
    };
    let state = match text(json, "state")? {
        "active" => LeaseState::Active,
        "pending" => LeaseState::Pending,
        "releasing" => LeaseState::Releasing,
        "quarantined" => LeaseState::Quarantined,
        other => return Err(format!("state {other} is not known")),
    };
    let operation = u64::from_str_radix(text(json, "operation")?, 16).map_err(|error| format!("operation: {error}"))?;
    let boot = optional(json, "boot").map(|boot| u128::from_str_radix(boot, 16)).transpose();
    let boot = boot.map_err(|error| format!("boot: {error}"))?;
    let lease = Lease {
        state,
        operation: OperationId::from_bytes(operation.to_be_bytes()),
        attachment: Attachment::new(text(json, "container")?, text(json, "interface")?, text(json, "cniNetwork")?),
        owner: owner(json.get("owner").ok_or("owner is missing")?)?,
        node: text(json, "node")?.into(),
        boot: boot.map(|boot| BootId::from_bytes(boot.to_be_bytes())),
        pool: parsed(json, "pool")?,
        provider: optional(json, "provider").map(Arc::from),
        since: json.get("sinceMilliseconds").and_then(Value::as_u64).ok_or("sinceMilliseconds is not a number")?,
    };
    Ok(Holding { space, address, lease })
}

fn owner(json: &Value) -> Result<Owner, String> {
    let pod = |json: &Value| -> Result<Pod, String> {
        Ok(Pod {
            namespace: text(json, "namespace")?.into(),
            name: text(json, "name")?.into(),
            uid: optional(json, "uid").map(Arc::from),
        })
    };
    let with_pod = json.get("pod").filter(|pod| !pod.is_null());
    match text(json, "kind")? {
        "container" => Ok(Owner::Container),
        "pod" => Ok(Owner::Pod(pod(with_pod.ok_or("pod is missing")?)?)),
        "sticky" => Ok(Owner::Sticky { name: text(json, "name")?.into(), pod: with_pod.map(pod).transpose()? }),
        "name" => Ok(Owner::Named(text(json, "name")?.into())),
        other => Err(format!("owner kind {other} is not known")),
    }
}

fn optional<'j>(json: &'j Value, key: &str) -> Option<&'j str> {
    json.get(key).and_then(Value::as_str)
}

fn text<'j>(json: &'j Value, key: &str) -> Result<&'j str, String> {
    optional(json, key).ok_or_else(|| format!("{key} is missing, or not a text"))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(json: &Value, key: &str) -> Result<T, String> {
    text(json, key)?.parse().map_err(|error| format!("{key}: {error}"))
}
