//! A floor of `side-by-side`: what any process costs that makes one durable commit with our options.
//!
//! `floor-commit FILE` opens the file as the plugin opens its ledger, and adds one small row. It is the same code down
//! to the last sync, so that floor and product cannot drift apart; only nothing is allocated.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use whereabouts_engine::{LedgerFile, OpenOptions, probe};

/// About what a lease takes.
const ROW: [u8; 100] = [7; 100];

fn main() -> Result<()> {
    let path: PathBuf = std::env::args_os().nth(1).context("floor-commit FILE")?.into();
    let ledger = LedgerFile::open(&OpenOptions::new(path))?;
    // One holds the file at a time, so no two rows have one key.
    let key = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos().to_be_bytes();
    probe::put(&ledger, &[(&key, &ROW)])?;
    ledger.finish();
    Ok(())
}
