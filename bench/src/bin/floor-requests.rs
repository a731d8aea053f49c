//! The floor of `side-by-side-cluster`: what any process costs that reads and replaces an object of a cluster between
//! two durable commits.
//!
//! `floor-requests HOST:PORT CA TOKEN-FILE OBJECT LEDGER` connects with TLS, reads a block, commits, puts a block with
//! another lease's bytes in its place, and commits again. The commits are those of `floor-commit`, each on a file that
//! was closed before, as a plugin leaves it that does not keep others of its host waiting while it waits for the cluster.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use whereabouts_bench::cluster::connection::Connection;
use whereabouts_engine::{LedgerFile, OpenOptions, probe};

/// About what a lease takes.
const ROW: [u8; 100] = [7; 100];

/// What a lease of a pod adds to the data of a block.
const BYTES_PER_LEASE: usize = 84;

/// When there are so many leases in a block, the next one goes into another.
const LEASES: usize = 255;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, ca, token, object, ledger] = arguments.as_slice() else {
        anyhow::bail!("floor-requests HOST:PORT CA TOKEN-FILE OBJECT LEDGER");
    };
    let token = std::fs::read_to_string(token).context("the token")?;
    let mut connection = Connection::open(address, Path::new(ca), token)?;
    let read = connection.ask("GET", object, None)?;
    ensure!(read.status == 200, "GET was answered with {}: {}", read.status, String::from_utf8_lossy(&read.body));
    let next = next(serde_json::from_slice(&read.body)?).context("no block")?;
    commit(PathBuf::from(ledger))?;
    let written = connection.ask("PUT", object, Some(&serde_json::to_vec(&next)?))?;
    let said = String::from_utf8_lossy(&written.body);
    ensure!(written.status == 200, "PUT was answered with {}: {said}", written.status);
    let _: Value = serde_json::from_slice(&written.body)?;
    commit(PathBuf::from(ledger))
}

/// The block with one lease more, or with none when it was full.
fn next(mut block: Value) -> Option<Value> {
    let metadata = block.get("metadata")?;
    let metadata = json!({
        "name": metadata.get("name")?,
        "resourceVersion": metadata.get("resourceVersion")?,
        "uid": metadata.get("uid")?,
        "managedFields": [{}],
    });
    let data = block.pointer("/spec/data")?.as_str()?;
    let more = if data.len() >= LEASES * BYTES_PER_LEASE {
        String::new()
    } else {
        // Any byte will do: nothing on the way compresses it.
        format!("{data}{}", "w".repeat(BYTES_PER_LEASE))
    };
    let used = more.len() / BYTES_PER_LEASE;
    let spec = block.get_mut("spec")?;
    for (key, value) in [("data", json!(more)), ("used", json!(used)), ("free", json!(256 - used))] {
        spec.as_object_mut()?.insert(key.to_owned(), value);
    }
    block.as_object_mut()?.insert("metadata".to_owned(), metadata);
    Some(block)
}

fn commit(path: PathBuf) -> Result<()> {
    let ledger = LedgerFile::open(&OpenOptions::new(path))?;
    // One holds the file at a time, so no two rows have one key.
    let key = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos().to_be_bytes();
    probe::put(&ledger, &[(&key, &ROW)])?;
    ledger.finish();
    Ok(())
}
