//! What a backup says: a line that names it, a line for each lease, and a line with their number, without which it was
//! cut off. Whatever the plugin would not write into a ledger is not read from a backup either.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, BufRead, Read};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use whereabouts_engine::{
    Address, Attachment, BootId, Edges, Holding, IpNet, Lease, LeaseState, Network, OperationId, Owner, Pod, Pool,
    Sharing, Space, View, ViewSpec,
};

use super::leases::{check_name, lease_json};
use crate::cni::{Environment, EnvironmentError};
use crate::config::shorten;
use crate::time::rfc3339;

/// What this version writes and reads.
const FORMAT: u64 = 1;

/// The longest line, in bytes. A lease has some 700, and 10,000 when all its texts are as long as they may be.
const LINE_LIMIT: u64 = 64 * 1024;

/// The longest text, in bytes: what a Kubernetes object may be called.
const TEXT_LIMIT: usize = 253;

/// The last millisecond of the year 9999.
const LAST_MOMENT: u64 = 253_402_300_799_999;

/// A backup that was read to its end.
pub(super) struct Backup {
    /// By space and address.
    pub(super) holdings: Vec<Holding>,
    /// How many rows of the ledger could not be read when it was exported.
    pub(super) n_damaged: u64,
}

/// Why a backup cannot be used: follows the name of the file.
#[derive(Debug)]
pub(super) enum Unusable {
    Read(io::Error),
    Line { number: u64, wrong: String },
    NotWhole(&'static str),
}

impl Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, ": cannot be read: {error}"),
            Self::Line { number, wrong } => write!(f, ", line {number}: {wrong}"),
            Self::NotWhole(how) => write!(f, ": {how}; take another backup"),
        }
    }
}

// === writing ===

/// The line that says what it is.
pub(super) fn first_line(host: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let head = json!({ "whereabouts": "export", "format": FORMAT, "host": host, "time": rfc3339(now * 1000) });
    format!("{head}\n")
}

/// Everything of a lease, for people and for [`read`].
pub(super) fn to_line(holding: &Holding) -> String {
    let lease = &holding.lease;
    let mut json = lease_json(&holding.space, holding.address, lease);
    if let Some(object) = json.as_object_mut() {
        object.insert("boot".to_owned(), json!(lease.boot.map(|boot| boot.to_string())));
        object.insert("provider".to_owned(), json!(lease.provider.as_deref()));
        object.insert("sinceMilliseconds".to_owned(), json!(lease.since));
    }
    format!("{json}\n")
}

/// The line that says that nothing is missing before it, and how much of the ledger could not be read.
pub(super) fn last_line(n_leases: u64, n_damaged: usize) -> String {
    format!("{}\n", json!({ "whereabouts": "end", "leases": n_leases, "damaged": n_damaged }))
}

// === reading ===

/// Reads a backup to its end.
pub(super) fn read(input: &mut dyn BufRead) -> Result<Backup, Unusable> {
    let mut lines = Lines { input, number: 0 };
    let head = lines.next()?.ok_or(Unusable::NotWhole("it is empty"))?;
    if head.get("whereabouts").and_then(Value::as_str) != Some("export") {
        return Err(lines.wrong("this is not what `whereabouts export` writes; name a file that it has written"));
    }
    if head.get("format").and_then(Value::as_u64) != Some(FORMAT) {
        let format = head.get("format").unwrap_or(&Value::Null);
        let cure = "use the version that wrote it, or a newer one";
        return Err(lines.wrong(format_args!("format = {format}: this version knows {FORMAT}; {cure}")));
    }
    let mut holdings = BTreeMap::new();
    let end = loop {
        let json =
            lines.next()?.ok_or(Unusable::NotWhole("it was cut off, because the line that ends it is missing"))?;
        if json.get("whereabouts").is_some() {
            break json;
        }
        let holding = holding(&json).map_err(|wrong| lines.wrong(wrong))?;
        let (place, number) = ((holding.space.clone(), holding.address), lines.number);
        if let Some((_, before)) = holdings.insert(place, (holding, number)) {
            let key = Wrong::new(&json, "address", format_args!("line {before} has it, too; leave one of them out"));
            return Err(lines.wrong(key));
        }
    };
    let n_leases = u64::try_from(holdings.len()).unwrap_or(u64::MAX);
    let told = end.get("leases").and_then(Value::as_u64);
    if end.get("whereabouts").and_then(Value::as_str) != Some("end") || told != Some(n_leases) {
        let cure = "lines were lost, or edited: take another backup, or mend this line";
        return Err(lines.wrong(format_args!("{n_leases} leases precede this line, which says {end}; {cure}")));
    }
    if lines.next()?.is_some() {
        return Err(lines.wrong("something follows the line that ends the backup; import one backup after the other"));
    }
    let n_damaged = end.get("damaged").and_then(Value::as_u64).unwrap_or(0);
    Ok(Backup { holdings: holdings.into_values().map(|(holding, _)| holding).collect(), n_damaged })
}

struct Lines<'i> {
    input: &'i mut dyn BufRead,
    number: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<Value>, Unusable> {
        let mut line = Vec::new();
        self.number += 1;
        (&mut *self.input).take(LINE_LIMIT + 1).read_until(b'\n', &mut line).map_err(Unusable::Read)?;
        if line.is_empty() {
            return Ok(None);
        }
        if u64::try_from(line.len()).map_or(true, |length| length > LINE_LIMIT) {
            return Err(self.wrong(format_args!("it has more than {LINE_LIMIT} bytes, which no lease needs; mend it")));
        }
        let json = serde_json::from_slice(&line);
        json.map(Some).map_err(|error| self.wrong(format_args!("not JSON ({error}); take another backup, or mend it")))
    }

    fn wrong(&self, wrong: impl Display) -> Unusable {
        Unusable::Line { number: self.number, wrong: wrong.to_string() }
    }
}

/// What is wrong with a key of a line.
#[derive(Debug)]
struct Wrong(String);

impl Wrong {
    fn new(json: &Value, key: &str, wrong: impl Display) -> Self {
        match json.get(key) {
            Some(value) => Self(format!("{key} = {}: {wrong}", shorten(&value.to_string()))),
            None => Self(format!("{key} is missing: {wrong}")),
        }
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn holding(json: &Value) -> Result<Holding, Wrong> {
    let network = Network::new(text(json, "network")?).map_err(|error| Wrong::new(json, "network", error))?;
    let address: Address = parsed(json, "address", "an address such as 10.0.0.1")?;
    let pool = cidr(json, "pool")?;
    let space = match optional(json, "private")? {
        Some(_) => Pool::new(network, cidr(json, "private")?).space(Sharing::Private),
        None => Space::shared(network, address.family()),
    };
    let state = match text(json, "state")? {
        "active" => LeaseState::Active,
        "pending" => LeaseState::Pending,
        "releasing" => LeaseState::Releasing,
        "quarantined" => LeaseState::Quarantined,
        _ => return Err(Wrong::new(json, "state", "write active, pending, releasing or quarantined")),
    };
    let owner = owner(json.get("owner").unwrap_or(&Value::Null))?;
    let boot = optional(json, "boot")?.map(|_| hexadecimal(json, "boot")).transpose()?;
    let since = json.get("sinceMilliseconds").and_then(Value::as_u64).filter(|since| *since <= LAST_MOMENT);
    let lease = Lease {
        state,
        operation: OperationId::from_bytes(hexadecimal(json, "operation")?),
        attachment: attachment(json, &owner)?,
        owner,
        node: short(json, "node")?.into(),
        boot: boot.map(BootId::from_bytes),
        pool,
        provider: optional(json, "provider")?.map(|_| short(json, "provider").map(Arc::from)).transpose()?,
        since: since.ok_or_else(|| Wrong::new(json, "sinceMilliseconds", "write milliseconds since 1970"))?,
    };
    if !lease.is_for(&space, address) {
        let wrong = match space.private_cidr() {
            Some(cidr) if cidr != pool => format!("the private range {cidr} has no other pool; mend pool or private"),
            _ => format!("not in pool {pool}; mend address or pool"),
        };
        return Err(Wrong::new(json, "address", wrong));
    }
    Ok(Holding { space, address, lease })
}

/// By the rules of CNI, for what CNI attached; a name of the command line stands for itself.
fn attachment(json: &Value, owner: &Owner) -> Result<Attachment, Wrong> {
    let (container, interface) = (text(json, "container")?, text(json, "interface")?);
    let attachment = Attachment::new(container, interface, text(json, "cniNetwork")?);
    if let Owner::Named(name) = owner {
        if attachment != Attachment::named(name) {
            let cure = "with an owner of kind name, write its name as the container, and no interface or cniNetwork";
            return Err(Wrong::new(json, "container", cure));
        }
        return Ok(attachment);
    }
    let environment = Environment::from_pairs([("CNI_CONTAINERID", container), ("CNI_IFNAME", interface)]);
    let wrong = |key, error| match error {
        EnvironmentError::Invalid { problem, .. } => Wrong::new(json, key, problem),
        error => Wrong::new(json, key, error),
    };
    environment.container_id().map_err(|error| wrong("container", error))?;
    environment.interface().map_err(|error| wrong("interface", error))?;
    // Names of networks and ids of containers have the same rule.
    let network = Environment::from_pairs([("CNI_CONTAINERID", &*attachment.network)]);
    if network.container_id().is_err() {
        let rule = "use at most 253 letters, digits, '_', '.' and '-', and begin with a letter or a digit";
        return Err(Wrong::new(json, "cniNetwork", rule));
    }
    Ok(attachment)
}

fn owner(json: &Value) -> Result<Owner, Wrong> {
    let of_owner = |Wrong(wrong)| Wrong(format!("owner: {wrong}"));
    let name = || {
        let name = text(json, "name")?;
        check_name(name).map_err(|cure| Wrong::new(json, "name", cure))?;
        Ok(name)
    };
    let pod = || match json.get("pod") {
        None | Some(Value::Null) => Ok(None),
        Some(pod) => {
            if short(pod, "name")?.is_empty() {
                return Err(Wrong::new(pod, "name", "write the name of the pod"));
            }
            let uid = optional(pod, "uid")?.map(|_| short(pod, "uid").map(Arc::from)).transpose()?;
            Ok(Some(Pod { namespace: short(pod, "namespace")?.into(), name: short(pod, "name")?.into(), uid }))
        }
    };
    let owner = match text(json, "kind").map_err(of_owner)? {
        "container" => Ok(Owner::Container),
        "pod" => pod().and_then(|pod| pod.map(Owner::Pod).ok_or_else(|| Wrong::new(json, "pod", "write the pod"))),
        "sticky" => name().and_then(|name| Ok(Owner::Sticky { name: name.into(), pod: pod()? })),
        "name" => name().map(|name| Owner::Named(name.into())),
        _ => Err(Wrong::new(json, "kind", "write container, pod, sticky or name")),
    };
    owner.map_err(of_owner)
}

/// A CIDR that a range can have.
fn cidr(json: &Value, key: &str) -> Result<IpNet, Wrong> {
    let cidr: IpNet = parsed(json, key, "a CIDR such as 10.0.0.0/24")?;
    if cidr != cidr.trunc() {
        return Err(Wrong::new(json, key, format_args!("it has host bits; write {}", cidr.trunc())));
    }
    let spec = ViewSpec { edges: Edges::Usable, ..ViewSpec::new(cidr) };
    View::new(&spec).map_err(|error| Wrong::new(json, key, error))?;
    Ok(cidr)
}

fn hexadecimal<const N: usize>(json: &Value, key: &str) -> Result<[u8; N], Wrong> {
    let digits = text(json, key)?;
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2 * N && !digits.starts_with('+'));
    let bytes = number.and_then(|number| number.to_be_bytes().last_chunk::<N>().copied());
    bytes.ok_or_else(|| Wrong::new(json, key, format_args!("write {} hexadecimal digits", 2 * N)))
}

/// A text that a lease can carry.
fn short<'j>(json: &'j Value, key: &str) -> Result<&'j str, Wrong> {
    let text = text(json, key)?;
    if text.len() > TEXT_LIMIT || text.chars().any(char::is_control) {
        let cure = format_args!("write at most {TEXT_LIMIT} bytes without control characters");
        return Err(Wrong::new(json, key, cure));
    }
    Ok(text)
}

fn text<'j>(json: &'j Value, key: &str) -> Result<&'j str, Wrong> {
    json.get(key).and_then(Value::as_str).ok_or_else(|| Wrong::new(json, key, "write a text"))
}

/// A text, or `null`, or nothing.
fn optional<'j>(json: &'j Value, key: &str) -> Result<Option<&'j str>, Wrong> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => text(json, key).map(Some),
    }
}

fn parsed<T: FromStr<Err: Display>>(json: &Value, key: &str, such_as: &str) -> Result<T, Wrong> {
    text(json, key)?.parse().map_err(|error| Wrong::new(json, key, format_args!("{error}; write {such_as}")))
}
