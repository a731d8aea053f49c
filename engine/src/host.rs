//! The host that this process runs on: its name, its boot, its clocks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::lease::BootId;
use crate::operations::Environment;

/// What a ledger wants to know of its host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostFacts {
    /// The name of the node, for people; by default the host's name.
    pub node: Arc<str>,
    /// What tells this machine from a copy of it (`/etc/machine-id`); empty where there is no such thing.
    pub machine: Arc<str>,
    /// This boot: the kernel's boot id with the start of process 1, which differs between the runs of a host that is
    /// a container itself. [`BootId::UNKNOWN`] where either cannot be read.
    pub boot: BootId,
    /// The inode of this process's pid namespace; 0 where it cannot be read.
    pub pid_namespace: u64,
    /// Whether the caller may conclude that an earlier boot is over and its leases with it. Only a runtime's call
    /// may, never a command that somebody runs, perhaps inside a container.
    pub may_end_boots: bool,
}

/// A host's clocks and randomness, with no patience: in a ledger nothing ever waits.
///
/// A caller that waits for a store wraps it: its clocks and randomness with a deadline and pauses of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostEnvironment;

// === impl HostFacts ===

impl HostFacts {
    /// Reads the facts. What cannot be read is left empty, and then nothing is concluded from it.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        Self {
            node: text("/proc/sys/kernel/hostname").into(),
            machine: text("/etc/machine-id").into(),
            boot: boot_of(&text("/proc/sys/kernel/random/boot_id"), &text("/proc/1/stat")),
            pid_namespace: fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino()),
            may_end_boots: false,
        }
    }

    /// Whether this process can tell its boot from others. Where `/proc` is masked or hides process 1, it cannot.
    pub(crate) fn knows_its_boot(&self) -> bool {
        self.boot != BootId::UNKNOWN && self.pid_namespace != 0
    }
}

/// Half of the answer would look like another boot, and end the leases of this one.
fn boot_of(boot_id: &str, stat: &str) -> BootId {
    let digits: String = boot_id.chars().filter(|digit| *digit != '-').collect();
    match (u128::from_str_radix(&digits, 16), start_of_process_one(stat)) {
        (Ok(kernel), Some(start)) => BootId::from_bytes((kernel ^ u128::from(start)).to_be_bytes()),
        _ => BootId::UNKNOWN,
    }
}

/// In clock ticks after the kernel's start: the 22nd field of `/proc/1/stat`, whose second one may have spaces.
fn start_of_process_one(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

// === impl HostEnvironment ===

impl Environment for HostEnvironment {
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn boot_clock(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
        seconds.saturating_mul(1000).saturating_add(millis)
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => u64::from_le_bytes(bytes),
            // Before the kernel's pool is ready; a hash seeded by the standard library is as good as it gets.
            _ => std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), self.now()),
        }
    }

    fn is_past_deadline(&self) -> bool {
        false
    }

    fn pause(&self, _: Duration) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_process_one_is_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "1 (in it) d) S 0 1 1 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 1 0 4711 22 23";
        assert_eq!(start_of_process_one(stat), Some(4711));
    }

    #[test]
    fn half_an_answer_is_no_boot() {
        let (id, stat) =
            ("0f0f0f0f-0000-4000-8000-000000000000", "1 (init) S 0 1 1 0 -1 0 5 6 7 8 9 10 11 12 20 0 1 0 7 2 3");
        assert_ne!(boot_of(id, stat), BootId::UNKNOWN);
        for (id, stat) in [("", stat), ("not an id", stat), (id, ""), (id, "1 (init) S 0")] {
            assert_eq!(boot_of(id, stat), BootId::UNKNOWN);
        }
    }

    #[test]
    fn two_looks_at_one_host_agree() {
        assert_eq!(HostFacts::read(), HostFacts::read());
    }
}
