//! One damaged row of a host's own ledger: what stands in it is refused and told, and nothing else suffers.
//!
//! The rows are damaged through redb, so that its pages are sound and only the record is not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

#[path = "support/rows.rs"]
mod rows;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use whereabouts_engine::{
    Allocate, AllocateError, Attachment, BootId, Check, Collect, Disagreement, HostFacts, Ledger, Network, OpenOptions,
    Owner, Pod, Pool, Release, ReleaseError, Released, RepairError, Sharing, Spool, View, ViewSpec, Want,
    spool_release,
};

const BLUE: &str = "10.0.0.0/24";
const RED: &str = "10.0.1.0/24";

struct Host {
    _folder: tempfile::TempDir,
    path: PathBuf,
    boot: u8,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("ledger.redb"), _folder: folder, boot: 1 }
    }

    fn facts(&self) -> HostFacts {
        HostFacts {
            node: "host".into(),
            machine: "machine".into(),
            boot: BootId::from_bytes([self.boot; 16]),
            pid_namespace: 1,
            may_end_boots: true,
        }
    }

    fn open(&self) -> Ledger {
        Ledger::open(&OpenOptions::new(&self.path), self.facts()).unwrap()
    }

    /// Asks for an address of each range.
    fn add(&self, container: &str, owner: Owner, ranges: &[&str]) -> Result<Vec<String>, AllocateError> {
        let wants = ranges.iter().map(|range| want(range)).collect();
        let request = Allocate { attachment: Attachment::new(container, "eth0", "net"), owner, wants };
        let answer = self.open().allocate(&[request]).unwrap().remove(0)?;
        Ok(answer.iter().map(|allocated| allocated.address.to_string()).collect())
    }

    fn verify(&self) -> Vec<Disagreement> {
        self.open().verify().unwrap().disagreements
    }

    fn damage(&self, table: &str, part: &[u8]) {
        rows::damage(&self.path, table, part);
    }

    fn remove(&self, table: &str, part: &[u8]) {
        rows::change(&self.path, table, part, |_| None);
    }
}

fn want(range: &str) -> Want {
    let spec: ViewSpec = range.parse().unwrap();
    Want {
        pool: Pool::new(Network::unnamed(), spec.cidr),
        sharing: Sharing::Shared,
        view: View::new(&spec).unwrap().into(),
        exactly: None,
    }
}

fn pod(name: &str) -> Owner {
    Owner::Pod(Pod { namespace: "default".into(), name: name.into(), uid: None })
}

fn release(container: &str) -> Release {
    Release::Attachment { container: container.into(), interface: "eth0".into(), network: Some("net".into()) }
}

/// The end of the key of the block that has 10.0.`third`.0.
fn block(third: u8) -> [u8; 4] {
    [0, 10, 0, third]
}

fn held(ledger: &Ledger, container: &str) -> Vec<String> {
    let held = ledger.held_by(&Attachment::new(container, "eth0", "net")).unwrap();
    held.iter().map(ToString::to_string).collect()
}

/// Three containers, one in each of two blocks and one in both.
fn host_with_three() -> Host {
    let host = Host::new();
    assert_eq!(host.add("in-blue", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.1"]);
    assert_eq!(host.add("in-red", Owner::Container, &[RED]).unwrap(), ["10.0.1.1"]);
    assert_eq!(host.add("in-both", pod("web"), &[BLUE, RED]).unwrap(), ["10.0.0.2", "10.0.1.2"]);
    host
}

#[test]
fn a_damaged_block_keeps_its_own_addresses_and_no_others() {
    let host = host_with_three();
    host.damage("blocks", &block(0));
    let ledger = host.open();
    let answers = ledger.release(&[release("in-blue"), release("in-red"), release("in-both")]).unwrap();
    let kept = |at: usize| match &answers[at] {
        Err(ReleaseError::Kept { addresses, reason }) => {
            assert!(reason.contains("damaged") && reason.contains("whereabouts"), "{reason}");
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(kept(0), ["10.0.0.1"]);
    assert_eq!(answers[1].as_ref().unwrap().freed.len(), 1);
    assert_eq!(kept(2), ["10.0.0.2"]);
    // What could be freed is free. Nobody will ask for the rest again, so the repair frees it.
    assert_eq!(ledger.release(&[release("in-blue")]).unwrap(), [Ok(Released::default())]);
    drop(ledger);
    assert_eq!(host.add("next", Owner::Container, &[RED]).unwrap(), ["10.0.1.1"]);
    host.open().repair().unwrap();
    assert_eq!(host.verify(), []);
    assert_eq!(host.add("one", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.1"]);
    assert_eq!(host.add("two", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.2"]);
}

/// DEL succeeds, and its runtime does not ask again: what could not be read then is free once it can be.
#[test]
fn what_was_to_be_released_while_it_could_not_be_read_is_freed_by_the_repair() {
    for (table, part, container) in [
        ("attachments", &b"in-blue"[..], "in-blue"),
        ("attachments", b"in-both", "in-both"),
        ("blocks", &block(0), "in-both"),
    ] {
        for is_spooled in [false, true] {
            let host = host_with_three();
            let before =
                if is_spooled { Some(spool_release(&host.path, &host.facts(), container, "eth0", None)) } else { None };
            host.damage(table, part);
            if before.is_none() {
                assert!(host.open().release(&[release(container)]).unwrap()[0].is_err());
                assert!(host.open().release(&[release("in-red")]).unwrap()[0].is_ok());
            }
            let repaired = host.open().repair().unwrap();
            let freed: Vec<String> = repaired.freed.iter().map(ToString::to_string).collect();
            let expected: &[&str] = match (table, container) {
                (_, "in-blue") => &["10.0.0.1"],
                ("attachments", _) => &["10.0.0.2", "10.0.1.2"],
                // The block is put together again without it.
                _ => &[],
            };
            assert_eq!(freed, expected, "{table} {container} {is_spooled}");
            assert_eq!(host.verify(), [], "{table} {container} {is_spooled}");
            assert_eq!(held(&host.open(), container), [""; 0], "{table} {container} {is_spooled}");
            let others = ["in-blue", "in-both"].into_iter().filter(|other| *other != container);
            for other in others {
                assert!(!held(&host.open(), other).is_empty(), "{other} is nobody's to free");
            }
            assert_eq!(host.open().repair().unwrap(), whereabouts_engine::Repaired::default(), "it is done once");
        }
    }
}

#[test]
fn gc_frees_what_it_can_read_and_tells_the_rest() {
    for (table, part, n_told, left) in [
        // Nobody will list them again: the repair frees them.
        ("blocks", &block(0)[..], 2, vec![]),
        ("attachments", b"in-blue", 1, vec!["in-blue"]),
        ("owners", b"web", 0, vec![]),
    ] {
        let host = host_with_three();
        host.damage(table, part);
        let ledger = host.open();
        let list = Collect { network: "net".into(), valid: BTreeSet::new(), grace: 0 };
        let answers = ledger.collect(&list).unwrap();
        let told: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert_eq!(told.len(), n_told, "{table}: {told:?}");
        let attachments = ["in-blue", "in-red", "in-both"];
        let is_left = |container: &&str| match ledger.attachments(container) {
            Ok(found) => !found.is_empty(),
            Err(_) => true,
        };
        assert_eq!(attachments.into_iter().filter(is_left).collect::<Vec<_>>(), left, "{table}");
        drop(ledger);
        assert_eq!(host.add("next", Owner::Container, &[RED]).unwrap(), ["10.0.1.1"], "{table}");
    }
}

#[test]
fn an_add_passes_a_damaged_block_by_and_calls_no_range_full_for_it() {
    for lost in [false, true] {
        let host = host_with_three();
        if lost {
            host.remove("blocks", &block(0));
        } else {
            host.damage("blocks", &block(0));
        }
        assert_eq!(host.add("wide", Owner::Container, &["10.0.0.0/23"]).unwrap(), ["10.0.1.3"]);
        let refused = host.add("narrow", Owner::Container, &[BLUE]).unwrap_err();
        let said = refused.to_string();
        assert!(matches!(refused, AllocateError::Store(_)), "{refused:?}");
        assert!(said.contains(if lost { "gone" } else { "damaged" }), "{said}");
        // Nothing was frozen by it, and the owner of an address in there is not given another one.
        assert_eq!(host.add("red", Owner::Container, &[RED]).unwrap(), ["10.0.1.4"]);
        assert!(host.add("again", pod("web"), &[BLUE]).is_err());
    }
}

#[test]
fn a_damaged_index_stops_its_own_network_after_a_boot_and_no_other() {
    let mut host = Host::new();
    let other = "fd00::/64";
    assert_eq!(host.add("c1", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.1"]);
    assert_eq!(host.add("c2", Owner::Container, &[other]).unwrap(), ["fd00::1"]);
    // The key of the index of IPv4 in the unnamed network, whole.
    host.damage("indexes", &[0, 4, 0]);
    host.boot = 2;
    assert_eq!(host.add("c3", Owner::Container, &[other]).unwrap(), ["fd00::1"], "the earlier boot's lease is over");
    let refused = host.add("c4", Owner::Container, &[BLUE]).unwrap_err().to_string();
    assert!(refused.contains("indexes") && refused.contains("damaged"), "{refused}");
}

#[test]
fn a_spooled_release_that_fails_keeps_nobody_from_the_ledger() {
    let host = host_with_three();
    let spool = |container: &str| spool_release(&host.path, &host.facts(), container, "eth0", Some("net")).unwrap();
    spool("in-blue");
    spool("in-both");
    spool("in-red");
    host.damage("blocks", &block(0));
    host.damage("attachments", b"in-both");
    // Opening it carries out what can be, and leaves the others to a repair.
    assert_eq!(host.add("next", Owner::Container, &[RED]).unwrap(), ["10.0.1.1"]);
    assert_eq!(Spool::peek(&host.path).unwrap().records.len(), 0);
    assert_eq!(held(&host.open(), "in-blue"), [""; 0]);
}

// === repair ===

#[test]
fn a_block_is_put_together_again_from_what_its_holders_know() {
    for lost in [false, true] {
        let mut host = host_with_three();
        host.add("c4", Owner::Sticky { name: "db-0".into(), pod: None }, &[BLUE]).unwrap();
        if lost {
            host.remove("blocks", &block(0));
        } else {
            host.damage("blocks", &block(0));
        }
        assert!(!host.verify().is_empty());
        let repaired = host.open().repair().unwrap();
        let blocks: Vec<String> = repaired.blocks.iter().map(ToString::to_string).collect();
        assert_eq!(blocks.len(), 1);
        assert!(blocks[0].contains("10.0.0.0"), "{blocks:?}");
        assert_eq!(host.verify(), []);
        // Everybody has what he had, and the next one gets what is free.
        assert_eq!(host.add("in-both-2", pod("web"), &[BLUE, RED]).unwrap(), ["10.0.0.2", "10.0.1.2"]);
        assert_eq!(host.add("next", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.4"]);
        let check = Check {
            attachment: Attachment::new("in-blue", "eth0", "net"),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        assert_eq!(host.open().check(&[check]).unwrap(), [Ok(())]);
        // What dies with a boot still does, and what outlives it still does.
        host.boot = 2;
        assert_eq!(host.add("c5", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.1"]);
        assert_eq!(host.add("c6", Owner::Sticky { name: "db-0".into(), pod: None }, &[BLUE]).unwrap(), ["10.0.0.3"]);
    }
}

#[test]
fn any_other_row_is_mended_from_the_blocks() {
    for (table, part) in [("indexes", &[0_u8, 4, 0][..]), ("attachments", b"in-both"), ("owners", b"web")] {
        for lost in [false, true] {
            let host = host_with_three();
            if lost {
                host.remove(table, part);
            } else {
                host.damage(table, part);
            }
            assert!(!host.verify().is_empty(), "{table}: verify overlooks it");
            host.open().repair().unwrap();
            assert_eq!(host.verify(), [], "{table}");
            assert_eq!(host.add("in-both-2", pod("web"), &[BLUE, RED]).unwrap(), ["10.0.0.2", "10.0.1.2"], "{table}");
            let again = host.open().repair().unwrap();
            assert_eq!(again, whereabouts_engine::Repaired::default(), "{table}: a sound ledger stays as it is");
        }
    }
}

#[test]
fn a_damaged_row_of_the_ledger_itself_is_mended_too() {
    for part in [&b"host"[..], b"identity", b"sharing/"] {
        let mut host = host_with_three();
        host.damage("meta", part);
        assert!(!host.verify().is_empty(), "verify overlooks it");
        let repaired = host.open().repair().unwrap();
        assert!(repaired.n_rows > 0, "{repaired:?}");
        assert_eq!(host.verify(), []);
        // Everybody has what he had, for as long as the boot lasts.
        assert_eq!(host.add("in-both", pod("web"), &[BLUE, RED]).unwrap(), ["10.0.0.2", "10.0.1.2"]);
        assert_eq!(host.add("next", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.3"]);
        host.boot = 2;
        assert_eq!(host.add("c5", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.1"], "the earlier boot is over");
    }
    // Between the damage and the repair there was another boot.
    let mut host = host_with_three();
    for at in 0..252 {
        host.add(&format!("c{at}"), Owner::Container, &[BLUE]).unwrap();
    }
    assert!(matches!(host.add("one-more", Owner::Container, &[BLUE]), Err(AllocateError::RangeFull { .. })));
    host.damage("meta", b"host");
    host.boot = 2;
    host.open().repair().unwrap();
    assert_eq!(host.add("c6", Owner::Container, &[BLUE]).unwrap(), ["10.0.0.1"]);
}

#[test]
fn a_damaged_row_of_the_history_hides_no_other() {
    let host = host_with_three();
    let ledger = host.open();
    ledger.release(&[release("in-blue")]).unwrap();
    ledger.release(&[release("in-red")]).unwrap();
    drop(ledger);
    host.damage("history", &block(0));
    let ledger = host.open();
    let past = |address: &str| ledger.history(address.parse().unwrap()).unwrap().len();
    assert_eq!((past("10.0.0.1"), past("10.0.1.1")), (0, 1));
    drop(ledger);
    assert!(!host.verify().is_empty());
    host.open().repair().unwrap();
    assert_eq!(host.verify(), []);
}

/// Nobody can tell whether the attachment holds an address in the block: it might be given to another.
#[test]
fn a_block_and_an_attachment_that_are_both_damaged_are_not_guessed_at() {
    let host = host_with_three();
    host.damage("blocks", &block(0));
    host.damage("attachments", b"in-blue");
    let refused = host.open().repair().unwrap_err();
    assert!(matches!(refused, RepairError::Unknown { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains("10.0.0.0") && said.contains("in-blue") && said.contains("export"), "{said}");
    assert!(host.add("c4", Owner::Container, &[BLUE]).is_err(), "nothing was changed");
}

#[test]
fn verify_reads_the_spool_too() {
    let host = host_with_three();
    let spool = host.path.with_file_name("ledger.redb.spool");
    spool_release(&host.path, &host.facts(), "never", "eth0", None).unwrap();
    spool_release(&host.path, &host.facts(), "seen", "eth0", None).unwrap();
    let mut bytes = std::fs::read(&spool).unwrap();
    bytes[45] ^= 1;
    std::fs::write(&spool, &bytes).unwrap();
    let verify = |path: &Path| {
        let mut options = OpenOptions::new(path);
        options.access = whereabouts_engine::Access::Read;
        Ledger::open(&options, host.facts()).unwrap().verify().unwrap().disagreements
    };
    let found = verify(&host.path);
    assert!(matches!(&found[..], [Disagreement::Spool(said)] if said.contains("ledger.redb")), "{found:?}");
    std::fs::write(&spool, b"").unwrap();
    let found = verify(&host.path);
    assert!(matches!(&found[..], [Disagreement::Spool(said)] if said.contains("damaged")), "{found:?}");
    drop(host.open());
    assert_eq!(verify(&host.path), [], "whoever writes has made a new one");
}
