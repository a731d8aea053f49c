//! What the API server and etcd count: requests by what was asked for and answered, and bytes that were written.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use whereabouts_testbed::EtcdBytes;

/// Requests of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// What they were about, in the plural.
    pub resource: String,
    /// The method, or `LIST` and `WATCH`.
    pub verb: String,
    /// The status of the answers.
    pub code: u16,
    /// Whether the resource is defined by a plugin.
    pub is_custom: bool,
}

/// Counters that only grow, or what was added to them between two moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Requests that were answered.
    pub requests: BTreeMap<RequestKind, u64>,
    /// Bytes that went into etcd's write-ahead log: all that is written comes through it once, before it is answered.
    pub logged: u64,
    /// Bytes of the keys and values in it.
    pub put: u64,
}

// === impl RequestKind ===

impl RequestKind {
    /// Of a line of the API server's metrics; `None` for all that no plugin asks for.
    fn of(labels: &str) -> Option<Self> {
        let label = |name: &str| {
            labels.split("\",").find_map(|label| Some(label.split_once("=\"").filter(|(key, _)| *key == name)?.1))
        };
        let (group, resource) = (label("group")?, label("resource")?);
        let is_custom = group.contains('.') && !group.ends_with(".k8s.io");
        // Of the other resources the API server reads some itself, all the time; these are what a plugin needs.
        if !is_custom && !matches!(resource, "leases" | "pods" | "nodes" | "configmaps") {
            return None;
        }
        let code = label("code")?.parse().ok()?;
        Some(Self { resource: resource.into(), verb: label("verb")?.into(), code, is_custom })
    }

    /// Whether it put an object of a plugin in place of another one, or was to.
    fn is_swap(&self) -> bool {
        self.is_custom && matches!(self.verb.as_str(), "PUT" | "PATCH")
    }
}

// === impl Counts ===

impl Counts {
    /// What is in the API server's metrics, and what etcd has counted.
    pub fn new(metrics: &str, etcd: &EtcdBytes) -> Self {
        let mut counts = Self { requests: BTreeMap::new(), logged: etcd.logged, put: etcd.put };
        for line in metrics.lines() {
            let Some((labels, value)) =
                line.strip_prefix("apiserver_request_total{").and_then(|line| line.rsplit_once("\"} "))
            else {
                continue;
            };
            if let (Some(kind), Ok(value)) = (RequestKind::of(labels), value.parse::<f64>()) {
                // Whole numbers below 2^53, with an exponent when they are large.
                *counts.requests.entry(kind).or_default() += value as u64;
            }
        }
        counts
    }

    /// What was added since.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut requests = self.requests.clone();
        for (kind, count) in &earlier.requests {
            if let Some(now) = requests.get_mut(kind) {
                *now = now.saturating_sub(*count);
            }
        }
        requests.retain(|_, count| *count > 0);
        let (logged, put) = (self.logged.saturating_sub(earlier.logged), self.put.saturating_sub(earlier.put));
        Self { requests, logged, put }
    }

    /// Adds what was counted at another time.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.requests {
            *self.requests.entry(kind.clone()).or_default() += count;
        }
        self.logged += other.logged;
        self.put += other.put;
    }

    /// How many requests there were.
    pub fn n_requests(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Replacements of a plugin's objects: how many were tried, and how many accepted.
    pub fn swaps(&self) -> (u64, u64) {
        let swaps = || self.requests.iter().filter(|(kind, _)| kind.is_swap());
        let accepted = swaps().filter(|(kind, _)| (200..300).contains(&kind.code));
        (swaps().map(|(_, count)| count).sum(), accepted.map(|(_, count)| count).sum())
    }

    /// All of it, for programs.
    pub fn to_json(&self) -> Value {
        let request = |(kind, count): (&RequestKind, &u64)| json!({ "verb": kind.verb, "resource": kind.resource, "code": kind.code, "count": count });
        let requests: Vec<Value> = self.requests.iter().map(request).collect();
        json!({ "requests": requests, "etcd_logged_bytes": self.logged, "etcd_put_bytes": self.put })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# HELP apiserver_request_total [STABLE] Counter of apiserver requests.
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="namespaces",scope="resource",subresource="",verb="GET",version="v1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 7
apiserver_request_total{code="200",component="apiserver",dry_run="",group="ipam.whereabouts.dev",resource="ipblocks",scope="resource",subresource="",verb="PUT",version="v1alpha1"} 1.5e+03
apiserver_request_total{code="409",component="apiserver",dry_run="",group="ipam.whereabouts.dev",resource="ipblocks",scope="resource",subresource="",verb="PUT",version="v1alpha1"} 500
apiserver_request_total{code="200",component="apiserver",dry_run="",group="ipam.whereabouts.dev",resource="ipblocks",scope="resource",subresource="",verb="GET",version="v1alpha1"} 4
apiserver_request_total{code="x",component="apiserver",dry_run="",group="ipam.whereabouts.dev",resource="ipblocks",scope="resource",subresource="",verb="GET",version="v1alpha1"} 4
apiserver_request_total{ 4
apiserver_request_total{code="200"} many
apiserver_request_duration_seconds_count{code="200"} 9
"#;

    fn bytes(logged: u64) -> EtcdBytes {
        EtcdBytes { database: 0, database_in_use: 0, received: 0, sent: 0, put: 1, puts: 0, logged, syncs: 0 }
    }

    #[test]
    fn what_plugins_ask_for_is_counted_and_nothing_else() {
        let counts = Counts::new(METRICS, &bytes(10));
        assert_eq!(counts.n_requests(), 7 + 1500 + 500 + 4);
        assert_eq!(counts.swaps(), (2000, 1500), "a lease is a lock, and no swap");
        assert_eq!(Counts::new("", &bytes(0)).n_requests(), 0);
    }

    #[test]
    fn what_happened_in_between_is_what_counts() {
        let before = Counts::new(METRICS, &bytes(10));
        let after = Counts::new(&METRICS.replace(" 500\n", " 505\n"), &bytes(110));
        let mut between = after.since(&before);
        assert_eq!((between.n_requests(), between.swaps(), between.logged), (5, (5, 0), 100));
        between.add(&after.since(&before));
        assert_eq!((between.n_requests(), between.logged), (10, 200));
        assert_eq!(between.to_json()["requests"].as_array().unwrap().len(), 1);
        assert_eq!(before.since(&after).n_requests(), 0, "a server that was started again counts from 0");
    }
}
