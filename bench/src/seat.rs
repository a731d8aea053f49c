//! A contender in its place: a folder with the addresses that it holds.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::contender::{Contender, Kind};
use crate::held::{self, FIRST_HELD_CONTAINER};
use crate::measure::{self, Given, Run};

/// A contender with a state of its own on disk.
#[derive(Debug)]
pub struct Seat<'a> {
    /// Who sits here.
    pub contender: &'a Contender,
    /// Its state; its own folder, removed with the seat.
    state: tempfile::TempDir,
    /// What it reads on stdin.
    stdin: PathBuf,
    given: Mutex<Given>,
}

// === impl Seat ===

impl<'a> Seat<'a> {
    /// Makes a new state below `folder` in which the contender holds `held` addresses. The floors hold
    /// nothing.
    ///
    /// # Errors
    ///
    /// When the state cannot be written, or it is not known how ([`Contender::can_hold`]).
    pub fn take(contender: &'a Contender, held: u64, folder: &Path) -> Result<Self> {
        let state = tempfile::tempdir_in(folder).with_context(|| format!("a folder in {}", folder.display()))?;
        let stdin = state.path().join("stdin.json");
        let data_dir = state.path().join("state");
        fs::create_dir(&data_dir)?;
        let config = contender.config(&data_dir)?.unwrap_or(Value::Null);
        fs::write(&stdin, config.to_string())?;
        if held > 0 {
            match &contender.kind {
                Kind::FloorEmpty | Kind::FloorCommit | Kind::FloorRequests => {}
                Kind::HostLocal(_) => fill_host_local(&config, held)?,
                Kind::Ours(_) => held::fill(&config, held)?,
                Kind::Other(_) => bail!("{} cannot be filled", contender.name),
            }
        }
        Ok(Self { contender, state, stdin, given: Mutex::default() })
    }

    /// Runs one ADD for a new container, or what a floor does instead.
    ///
    /// # Errors
    ///
    /// When it fails, or gives what it had given before.
    pub fn add(&self) -> Result<Run> {
        let ledger = self.state.path().join("state/floor.redb");
        let arguments: &[&Path] = if self.contender.kind == Kind::FloorCommit { &[&ledger] } else { &[] };
        let run = measure::run(&self.contender.program, arguments, &self.stdin, "ADD")?;
        if !self.contender.is_floor() {
            let mut given = self.given.lock().map_err(|_| anyhow!("another thread panicked"))?;
            given.note(&run.stdout).with_context(|| self.contender.name.clone())?;
        }
        Ok(run)
    }

    /// Runs VERSION, which needs nothing but the program itself.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn version(&self) -> Result<Run> {
        measure::run::<&Path>(&self.contender.program, &[], &self.stdin, "VERSION")
    }
}

/// Writes what host-local has after it gave away the first `held` addresses of its only range, a /8: a file per
/// address, and one that says which was the last.
fn fill_host_local(config: &Value, held: u64) -> Result<()> {
    let text = |pointer: &str| {
        config.pointer(pointer).and_then(Value::as_str).with_context(|| format!("host-local needs {pointer}"))
    };
    let subnet = text("/ipam/ranges/0/0/subnet")?;
    let (network, _) = subnet.split_once('/').with_context(|| format!("{subnet} is no subnet"))?;
    let network: Ipv4Addr = network.parse().with_context(|| format!("{subnet} is no IPv4 subnet"))?;
    let folder = Path::new(text("/ipam/dataDir")?).join(text("/name")?);
    fs::create_dir_all(&folder)?;

    let mut last = String::new();
    for number in 0..held {
        // The network's own address and the gateway, which host-local takes to be the first one, are never given.
        let address = u32::try_from(number).ok().and_then(|number| u32::from(network).checked_add(2 + number));
        last = Ipv4Addr::from(address.with_context(|| format!("{held} addresses do not fit"))?).to_string();
        fs::write(folder.join(&last), format!("{}\r\neth0", measure::container(FIRST_HELD_CONTAINER + number)))?;
    }
    fs::write(folder.join("last_reserved_ip.0"), last)?;
    // What is still to be written back would be paid by whoever syncs first.
    rustix::fs::sync();
    Ok(())
}

/// The name of the file system that holds `folder`, or its number where the name is not known.
///
/// # Errors
///
/// When there is no such folder.
pub fn filesystem_of(folder: &Path) -> Result<String> {
    let status = rustix::fs::statfs(folder).with_context(|| folder.display().to_string())?;
    Ok(match status.f_type {
        0xef53 => "ext4".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlayfs".into(),
        0x2fc1_2fc1 => "zfs".into(),
        0xf2f5_2010 => "f2fs".into(),
        other => format!("file system {other:#x}"),
    })
}
