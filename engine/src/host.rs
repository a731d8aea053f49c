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
    /// This boot: the kernel's boot id, which every process of this kernel sees, in a container, too.
    /// [`BootId::UNKNOWN`] where it cannot be read.
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

/// The pid namespace of a host that is no container itself: the kernel gives it this inode at every boot
/// (`PROC_PID_INIT_INO`).
pub(crate) const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

// === impl HostFacts ===

impl HostFacts {
    /// Reads the facts. What cannot be read is left empty, and then nothing is concluded from it.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        Self {
            node: text("/proc/sys/kernel/hostname").into(),
            machine: text("/etc/machine-id").into(),
            boot: boot_of(&text("/proc/sys/kernel/random/boot_id")),
            pid_namespace: fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino()),
            may_end_boots: false,
        }
    }

    /// Whether this process can tell its boot from others. Where `/proc` is masked, it cannot.
    pub(crate) fn knows_its_boot(&self) -> bool {
        self.boot != BootId::UNKNOWN && self.pid_namespace != 0
    }
}

fn boot_of(boot_id: &str) -> BootId {
    let digits: String = boot_id.chars().filter(|digit| *digit != '-').collect();
    u128::from_str_radix(&digits, 16).map_or(BootId::UNKNOWN, |boot| BootId::from_bytes(boot.to_be_bytes()))
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
    fn what_is_no_boot_id_is_no_boot() {
        assert_ne!(boot_of("0f0f0f0f-0000-4000-8000-000000000000"), BootId::UNKNOWN);
        for id in ["", "not an id", "0f0f0f0f-0000-4000-8000-0000000000000f0f"] {
            assert_eq!(boot_of(id), BootId::UNKNOWN);
        }
    }

    #[test]
    fn two_looks_at_one_host_agree() {
        assert_eq!(HostFacts::read(), HostFacts::read());
    }
}
