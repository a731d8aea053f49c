//! Whole plugins beside each other where a cluster is the store: one API server for all of them, nodes of its own and
//! ranges of its own for each.
//!
//! What is said of fairness in the crate's documentation holds here, too. Beside it:
//!
//! - Callers that run at the same time are spread among nodes, each with a state and a kubeconfig of its own.
//! - The containers are sandboxes of pods, each of a pod of its own, and the calls say so as containerd does.
//! - What the API server and etcd counted is read before and after each turn of a plugin, while nobody else asks.
//! - The floor is a program that connects as a plugin must, reads an object of a block's size, replaces it, and makes
//!   two durable commits with our options.

pub mod connection;
pub mod counts;
pub mod report;
pub mod scenario;
pub mod seat;
pub mod targets;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use whereabouts_testbed::ControlPlane;

use self::counts::Counts;

/// Namespace and name of the service account in deploy/kubernetes/rbac.yaml.
pub const ACCOUNT: (&str, &str) = ("kube-system", "whereabouts");

/// Where the blocks are.
const BLOCKS: &str = "/apis/ipam.whereabouts.dev/v1alpha1/namespaces/kube-system/ipblocks";

/// The object that the floor replaces. It is a block of a network that no plugin is asked about.
const FLOOR_BLOCK: &str = "floor-of-the-benchmark";

/// A control plane with what the plugins need of it.
#[derive(Debug)]
pub struct Cluster {
    control_plane: ControlPlane,
}

/// Hands out ranges that were not used before.
#[derive(Debug, Default)]
pub struct Ranges {
    /// Behind the last address of the last range, counted from 10.0.0.0.
    next: u32,
}

// === impl Cluster ===

impl Cluster {
    /// Starts a control plane and applies our manifests and these.
    ///
    /// # Errors
    ///
    /// Says in words for people why there is none here.
    pub fn start(manifests: &[PathBuf]) -> Result<Self> {
        let control_plane = ControlPlane::start().map_err(|error| anyhow!(error))?;
        control_plane.apply(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes"));
        for manifest in manifests {
            control_plane.apply(manifest);
        }
        control_plane.ensure_service_account(ACCOUNT.0, ACCOUNT.1);
        let cluster = Self { control_plane };
        let spec = json!({ "network": "floor", "cidr": "10.0.0.0/24", "used": 0, "free": 256, "data": "" });
        let object = json!({
            "apiVersion": "ipam.whereabouts.dev/v1alpha1", "kind": "IPBlock",
            "metadata": { "name": FLOOR_BLOCK }, "spec": spec,
        });
        cluster.control_plane.create(BLOCKS, &object);
        Ok(cluster)
    }

    /// The servers.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The path of the object that the floor replaces.
    pub fn floor_path() -> String {
        format!("{BLOCKS}/{FLOOR_BLOCK}")
    }

    /// What the servers have counted until now.
    ///
    /// # Errors
    ///
    /// When the API server does not say it.
    pub fn counts(&self) -> Result<Counts> {
        match self.control_plane.request("GET", "/metrics", None) {
            Ok((200, Value::String(metrics))) => Ok(Counts::new(&metrics, &self.control_plane.etcd_bytes())),
            Ok((status, answer)) => bail!("the API server shows no metrics: {status} {answer}"),
            Err(error) => Err(anyhow!(error)).context("the API server shows no metrics"),
        }
    }
}

// === impl Ranges ===

impl Ranges {
    /// The next range with this length of its prefix.
    ///
    /// # Errors
    ///
    /// When 10.0.0.0/8 is used up, or cannot hold it.
    pub fn take(&mut self, prefix: u8) -> Result<String> {
        let size = match prefix {
            9..=30 => 1_u32 << (32 - prefix),
            _ => bail!("a range of the benchmark is a /9 to a /30, not a /{prefix}"),
        };
        let first = self.next.next_multiple_of(size);
        let behind = first.saturating_add(size);
        if behind > 1 << 24 {
            bail!("10.0.0.0/8 has no room for another /{prefix}");
        }
        self.next = behind;
        let [_, b, c, d] = first.to_be_bytes();
        Ok(format!("10.{b}.{c}.{d}/{prefix}"))
    }
}

/// How many addresses of a range with this length of its prefix are given away: neither the first nor the last, nor any
/// that ends in .0.
pub fn n_assignable(prefix: u8) -> usize {
    let size = 1_usize << 32_u8.saturating_sub(prefix).min(24);
    (size - size.div_ceil(256)).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_aligned_and_follow_each_other() {
        let mut ranges = Ranges::default();
        let taken: Vec<String> = [24, 24, 20, 24].iter().map(|prefix| ranges.take(*prefix).unwrap()).collect();
        assert_eq!(taken, ["10.0.0.0/24", "10.0.1.0/24", "10.0.16.0/20", "10.0.32.0/24"]);
    }

    #[test]
    fn ranges_come_to_an_end() {
        let mut ranges = Ranges::default();
        for prefix in [0, 8, 31, 200] {
            assert!(ranges.take(prefix).is_err(), "/{prefix}");
        }
        assert_eq!(ranges.take(9).unwrap(), "10.0.0.0/9");
        assert_eq!(ranges.take(9).unwrap(), "10.128.0.0/9");
        assert!(ranges.take(30).is_err());
    }

    #[test]
    fn what_can_be_given_away_is_known() {
        assert_eq!([24, 20, 28].map(n_assignable), [254, 4079, 14]);
    }
}
