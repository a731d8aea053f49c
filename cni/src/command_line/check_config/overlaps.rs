//! Ranges that have addresses in common, within a configuration and across all that are checked.

use std::collections::BTreeMap;

use whereabouts_engine::{Family, IpNet, Range};

use crate::config::{Configuration, RangeConfiguration};

/// Every range that was seen.
#[derive(Debug, Default)]
pub(super) struct Overlaps {
    seen: Vec<Use>,
    n_configurations: usize,
}

/// A range of a configuration.
#[derive(Debug)]
struct Use {
    /// Which of the configurations; several may be of one network.
    configuration: usize,
    /// The name of the CNI network, or where the configuration stands.
    user: String,
    /// The range as people know it: `ipRanges[0].range = 10.0.0.0/24`.
    range: String,
    network_name: String,
    cidr: IpNet,
    /// From the first to the last address that it hands out.
    ends: Option<Range>,
    is_private: bool,
}

// === impl Overlaps ===

impl Overlaps {
    /// Takes down the ranges of a configuration that was found at `origin`.
    pub(super) fn add(&mut self, origin: &str, configuration: &Configuration) {
        let user = configuration.network.as_deref().unwrap_or(origin);
        let to_use = |range: &RangeConfiguration| Use {
            configuration: self.n_configurations,
            user: user.to_owned(),
            range: format!("{} = {}", range.key(), range.typed()),
            network_name: configuration.network_name.as_str().to_owned(),
            cidr: range.network(),
            ends: range.view().first().zip(range.view().last()).and_then(|(first, last)| Range::new(first, last)),
            is_private: !configuration.enable_overlapping_ranges,
        };
        self.seen.extend(configuration.ranges.iter().map(to_use));
        self.n_configurations += 1;
    }

    /// What is to be said of them, one sentence each.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut sentences = self.shared_pools();
        for (at, one) in self.seen.iter().enumerate() {
            for other in self.seen.iter().skip(at + 1) {
                sentences.extend(one.overlap(other));
            }
        }
        sentences
    }

    /// Pools that several networks have: usual, and good to know.
    fn shared_pools(&self) -> Vec<String> {
        let mut users: BTreeMap<(&str, Family, IpNet), Vec<&str>> = BTreeMap::new();
        for seen in &self.seen {
            let family = if matches!(seen.cidr, IpNet::V4(_)) { Family::V4 } else { Family::V6 };
            let users = users.entry((&seen.network_name, family, seen.cidr)).or_default();
            if !users.contains(&seen.user.as_str()) {
                users.push(&seen.user);
            }
        }
        let shared = users.into_iter().filter(|(_, users)| users.len() > 1);
        shared
            .map(|((network_name, _, cidr), users)| {
                format!("{cidr} of {} is shared by {}", of_network(network_name), users.join(", "))
            })
            .collect()
    }
}

// === impl Use ===

impl Use {
    fn overlap(&self, other: &Self) -> Option<String> {
        if self.network_name != other.network_name {
            return None;
        }
        let is_one_pool = self.cidr == other.cidr;
        let (one, two) = if self.configuration == other.configuration {
            (self.range.clone(), other.range.clone())
        } else {
            (format!("{}: {}", self.user, self.range), format!("{}: {}", other.user, other.range))
        };
        if is_one_pool && self.is_private != other.is_private {
            return Some(format!(
                "{one} and {two} are one pool, and enable_overlapping_ranges differs: while one of them holds \
                 addresses, an ADD of the other is refused; set it to the same value in both"
            ));
        }
        let both = self.ends?.intersect(other.ends?)?;
        let both = format!("{one} and {two} overlap from {} to {}", both.first(), both.last());
        if !is_one_pool && (self.is_private || other.is_private) {
            Some(format!(
                "{both}, and enable_overlapping_ranges = false keeps them from knowing of each other: an address may be \
                 given twice; set it to true, or take the ranges apart"
            ))
        } else if self.configuration == other.configuration {
            Some(format!("{both}: each container takes an address of both; remove one if a single address is meant"))
        } else if is_one_pool {
            // Said of the pool as a whole.
            None
        } else {
            Some(format!("{both}: they share these addresses, and none is given twice"))
        }
    }
}

fn of_network(name: &str) -> String {
    if name.is_empty() { "the unnamed network".to_owned() } else { format!("network {name}") }
}
