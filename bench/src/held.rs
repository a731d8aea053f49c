//! Addresses that are held: a ledger as the CNI calls of many containers leave it, and the request that each makes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use whereabouts_engine::{
    Allocate, Attachment, HostFacts, IpNet, Ledger, Network, OpenOptions, Owner, Pool, Sharing, View, ViewSpec, Want,
};

use crate::measure;

/// First number of the containers that were there before: far from those that a measurement adds.
pub const FIRST_HELD_CONTAINER: u64 = 1 << 40;

/// Requests that go into one commit while a ledger is filled.
const FILL_BATCH: u64 = 4096;

/// What a plugin is asked for by the containers of one network without pods: an address of one range.
#[derive(Debug, Clone)]
pub struct Requests {
    network: String,
    want: Want,
}

// === impl Requests ===

impl Requests {
    /// For addresses of `range`, by containers of the CNI network `network`.
    ///
    /// # Errors
    ///
    /// When nothing of the range can be assigned.
    pub fn new(network: &str, range: IpNet) -> Result<Self> {
        let view: Arc<View> = View::new(&ViewSpec::new(range))?.into();
        let pool = Pool::new(Network::unnamed(), range);
        Ok(Self { network: network.into(), want: Want { pool, sharing: Sharing::Shared, view, exactly: None } })
    }

    /// The request of the container with this number.
    pub fn of(&self, number: u64) -> Allocate {
        self.by(&measure::container(number))
    }

    /// The request of the container with this id.
    pub fn by(&self, container: &str) -> Allocate {
        let attachment = Attachment::new(container, "eth0", &self.network);
        Allocate { attachment, owner: Owner::Container, wants: vec![self.want.clone()] }
    }
}

/// Opens the ledger in the folder of a plugin's state, as the plugin does when a runtime calls it.
///
/// # Errors
///
/// When it cannot be opened.
pub fn open(data_dir: &Path) -> Result<Ledger> {
    let mut facts = HostFacts::read();
    facts.may_end_boots = true;
    Ok(Ledger::open(&OpenOptions::new(data_dir.join("ledger.redb")), facts)?)
}

/// Gives `count` addresses away, to the containers from the number `first` on.
///
/// # Errors
///
/// When the ledger cannot be written, or the range is full.
pub fn hold(ledger: &Ledger, requests: &Requests, first: u64, count: u64) -> Result<()> {
    let mut done = 0;
    while done < count {
        let size = FILL_BATCH.min(count - done);
        let batch: Vec<Allocate> = (done..done + size).map(|number| requests.of(first + number)).collect();
        for answer in ledger.allocate(&batch)? {
            ensure!(answer?.len() == 1, "one want, one address");
        }
        done += size;
    }
    Ok(())
}

/// Lets `held` containers hold the lowest addresses of the range in a configuration of ours.
///
/// # Errors
///
/// When the configuration has no plain range, or the ledger cannot be written.
pub fn fill(config: &Value, held: u64) -> Result<()> {
    let text = |pointer: &str| {
        config.pointer(pointer).and_then(Value::as_str).with_context(|| format!("whereabouts needs {pointer}"))
    };
    let range = text("/ipam/range")?;
    let range: IpNet = range.parse().with_context(|| format!("{range} is no range that can be filled"))?;
    let requests = Requests::new(text("/name")?, range)?;
    let ledger = open(Path::new(text("/ipam/data_dir")?))?;
    hold(&ledger, &requests, FIRST_HELD_CONTAINER, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_next_container_gets_the_address_behind_those_that_are_held() {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({ "name": "bench", "ipam": { "range": "10.0.0.0/8", "data_dir": folder.path() } });
        fill(&config, 5_000).unwrap();
        let requests = Requests::new("bench", "10.0.0.0/8".parse().unwrap()).unwrap();
        let answers = open(folder.path()).unwrap().allocate(&[requests.of(1)]).unwrap();
        // 255 addresses of each /24, because none that ends in .0 is given: 5,000 = 19 · 255 + 155.
        assert_eq!(answers[0].as_ref().unwrap()[0].address.to_string(), "10.0.19.156");
    }
}
