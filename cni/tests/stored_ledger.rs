//! A ledger that an earlier build has written is read as it was meant, so that no change of the format goes unnoticed.
//!
//! Before the first release the format may change, and then the fixture is made anew:
//!
//! ```sh
//! cargo test -p whereabouts --test stored_ledger -- --ignored make_the_fixture
//! ```
//!
//! What a release has written stays as it is: a later format gets a fixture of its own beside it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "this is a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use whereabouts_engine::{
    Allocate, Attachment, BootId, HostFacts, Ledger, Network, OpenOptions, Owner, Pod, Pool, Release, Sharing, View,
    ViewSpec, Want, spool_release,
};

const FILES: [&str; 2] = ["ledger.redb", "ledger.redb.spool"];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger-0.1.0")
}

/// What is held in the fixture: address, network, private pool, pool, owner, container, interface, CNI network.
fn expected() -> Vec<Value> {
    let lease = |address: &str,
                 network: &str,
                 pool: &str,
                 is_private: bool,
                 owner: Value,
                 [id, ifname, of]: [&str; 3]| {
        json!({
            "address": address, "network": network, "private": is_private.then_some(pool), "pool": pool,
            "state": "active", "owner": owner, "container": id, "interface": ifname, "cniNetwork": of, "node": "node-1",
        })
    };
    let pod = |name: &str, uid: Option<&str>| json!({ "namespace": "shop", "name": name, "uid": uid });
    let with_uid = pod("web-0", Some("6c0e5f0a-1b2c-4d3e-8f90-a1b2c3d4e5f6"));
    let sticky = json!({ "kind": "sticky", "name": "db", "pod": pod("db-0", None) });
    let named = json!({ "kind": "name", "name": "printer" });
    let printer = ["printer", "", ""];
    vec![
        lease("10.0.0.1", "", "10.0.0.0/24", false, json!({ "kind": "container" }), ["c1", "eth0", "pods"]),
        lease("10.0.0.2", "", "10.0.0.0/24", false, json!({ "kind": "pod", "pod": with_uid }), ["c2", "eth0", "pods"]),
        lease("10.0.0.4", "", "10.0.0.0/24", false, sticky, ["c4", "net1", "pods"]),
        lease("10.0.0.5", "", "10.0.0.0/24", false, named.clone(), printer),
        lease("10.9.0.1", "", "10.9.0.0/24", true, named.clone(), printer),
        lease("fd00::1", "", "fd00::/64", false, json!({ "kind": "container" }), ["c1", "eth0", "pods"]),
        lease("10.0.0.1", "blue", "10.0.0.0/16", false, named, printer),
    ]
}

fn whereabouts(data_dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whereabouts"));
    let output = command.env_clear().args(arguments).arg("--data-dir").arg(data_dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?}: {said}\nWas the format changed? The head of this file says what to do."
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What is held, without what differs from one making of the fixture to the next.
fn leases(data_dir: &Path) -> Vec<Value> {
    let told = whereabouts(data_dir, &["show", "leases", "--json"]);
    let leases = told.lines().map(|line| {
        let mut lease: Value = serde_json::from_str(line).unwrap();
        for key in ["operation", "since"] {
            assert!(lease.as_object_mut().unwrap().remove(key).is_some_and(|value| value.is_string()), "{line}");
        }
        lease
    });
    leases.collect()
}

#[test]
fn a_ledger_of_version_0_1_0_is_read_and_used() {
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        fs::copy(fixture().join(file), folder.path().join(file)).unwrap();
    }
    assert!(whereabouts(folder.path(), &["verify"]).starts_with("sound"));
    assert_eq!(leases(folder.path()), expected());
    assert!(
        whereabouts(folder.path(), &["who", "10.0.0.3"])
            .contains("pod shop/web-1 (container c3/eth0 of network pods)  on node ")
    );
    let picture = whereabouts(folder.path(), &["show", "10.0.0.0/24", "--network", ""]);
    assert!(picture.contains("\n10.0.0.0        x##.##...."), "{picture}");

    // What was queued is carried out by whoever writes next, who gets the lowest address.
    assert_eq!(whereabouts(folder.path(), &["allocate", "10.0.0.0/24", "--name", "new"]), "10.0.0.1/24\n");
    let queued = |lease: &Value| lease["container"] == "c1" || lease["container"] == "new";
    let old = expected().into_iter().filter(|lease| !queued(lease)).collect::<Vec<_>>();
    assert_eq!(leases(folder.path()).into_iter().filter(|lease| !queued(lease)).collect::<Vec<_>>(), old);
    assert_eq!(leases(folder.path()).len(), old.len() + 1);
    assert!(whereabouts(folder.path(), &["verify"]).starts_with("sound"));
}

/// Nothing of the machine on which it is made comes into it.
#[test]
#[ignore = "makes the fixture anew"]
fn make_the_fixture() {
    let folder = fixture();
    fs::create_dir_all(&folder).unwrap();
    let beside = ["ledger.redb.lock"];
    for file in FILES.iter().chain(&beside) {
        let _ = fs::remove_file(folder.join(file));
    }
    let facts = HostFacts {
        node: "node-1".into(),
        machine: "0123456789abcdef0123456789abcdef".into(),
        boot: BootId::from_bytes([7; 16]),
        // No pid namespace has this inode, so that no test is told that its boot is over.
        pid_namespace: 1,
        may_end_boots: true,
    };
    let options = OpenOptions::new(folder.join("ledger.redb"));
    let ledger = Ledger::open(&options, facts.clone()).unwrap();
    let want = |network: &str, range: &str, sharing: Sharing| Want {
        pool: Pool::new(Network::new(network).unwrap(), range.parse().unwrap()),
        sharing,
        view: View::new(&ViewSpec::new(range.parse().unwrap())).unwrap().into(),
        exactly: None,
    };
    let pod =
        |name: &str, uid: Option<&str>| Pod { namespace: "shop".into(), name: name.into(), uid: uid.map(Into::into) };
    let take = |attachment: Attachment, owner: Owner, wants: Vec<Want>| {
        for answer in ledger.allocate(&[Allocate { attachment, owner, wants }]).unwrap() {
            answer.unwrap();
        }
    };
    let shared = || want("", "10.0.0.0/24", Sharing::Shared);
    let c1 = Attachment::new("c1", "eth0", "pods");
    take(c1, Owner::Container, vec![shared(), want("", "fd00::/64", Sharing::Shared)]);
    let web = pod("web-0", Some("6c0e5f0a-1b2c-4d3e-8f90-a1b2c3d4e5f6"));
    take(Attachment::new("c2", "eth0", "pods"), Owner::Pod(web), vec![shared()]);
    take(Attachment::new("c3", "eth0", "pods"), Owner::Pod(pod("web-1", None)), vec![shared()]);
    let sticky = Owner::Sticky { name: "db".into(), pod: Some(pod("db-0", None)) };
    take(Attachment::new("c4", "net1", "pods"), sticky, vec![shared()]);
    let wants = vec![shared(), want("", "10.9.0.0/24", Sharing::Private), want("blue", "10.0.0.0/16", Sharing::Shared)];
    take(Attachment::named("printer"), Owner::Named("printer".into()), wants);
    let c3 = Release::Attachment { container: "c3".into(), interface: "eth0".into(), network: Some("pods".into()) };
    for answer in ledger.release(&[c3]).unwrap() {
        assert_eq!(answer.unwrap().freed.len(), 1);
    }
    drop(ledger);
    spool_release(&options.path, &facts, "c1", "eth0", Some("pods")).unwrap();
    fs::remove_file(folder.join("ledger.redb.lock")).unwrap();
}
