//! One process carries out what others wait for, and nothing depends on it.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use whereabouts_engine::{
    Allocate, AllocateError, Allocated, Attachment, BootId, HostFacts, Ledger, LedgerError, Network, OpenOptions,
    Owner, Pool, Sharing, View, ViewSpec, Waited, Want,
};

fn facts(node: &str) -> HostFacts {
    HostFacts {
        node: node.into(),
        machine: "machine".into(),
        boot: BootId::from_bytes([1; 16]),
        pid_namespace: 1,
        may_end_boots: true,
    }
}

fn options(folder: &Path) -> OpenOptions {
    let mut options = OpenOptions::new(folder.join("ledger.redb"));
    options.wait = Duration::from_secs(30);
    options
}

fn request(container: &str, range: &str) -> Allocate {
    let spec: ViewSpec = range.parse().unwrap();
    let view = View::new(&spec).unwrap().into();
    let want = Want { pool: Pool::new(Network::unnamed(), spec.cidr), sharing: Sharing::Shared, view, exactly: None };
    Allocate { attachment: Attachment::new(container, "eth0", "net"), owner: Owner::Container, wants: vec![want] }
}

/// How a call came to its answer.
#[derive(Debug, PartialEq)]
enum By {
    Another,
    Itself,
}

fn call(options: &OpenOptions, node: &str, request: &Allocate) -> (By, Result<Vec<Allocated>, AllocateError>) {
    match Ledger::open_to_allocate(options, facts(node), request).unwrap() {
        Waited::Served(allocated) => (By::Another, Ok(allocated)),
        Waited::Turn(ledger) => (By::Itself, ledger.allocate_for_all(request).unwrap()),
    }
}

fn waiting(folder: &Path) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(folder.join("ledger.redb.waiting")) else { return Vec::new() };
    files.map(|file| file.unwrap().path()).collect()
}

/// There is no event for a file that another thread makes and locks.
fn until(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < Duration::from_secs(20));
        thread::yield_now();
    }
}

fn has_waiting(folder: &Path, n: usize) -> bool {
    waiting(folder).iter().filter(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0)).count() == n
}

#[test]
fn those_who_wait_are_served_in_one_commit_and_each_gets_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let leader = Ledger::open(&options, facts("here")).unwrap();
    let served: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> = (0..16)
            .map(|number| {
                let options = &options;
                scope.spawn(move || call(options, "here", &request(&format!("c{number}"), "10.0.0.0/24")))
            })
            .collect();
        until(|| has_waiting(folder.path(), 16));
        assert_eq!(leader.allocate_for_all(&request("leader", "10.0.0.0/24")).unwrap().unwrap().len(), 1);
        drop(leader);
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let mut addresses = BTreeSet::new();
    for (by, answer) in &served {
        assert_eq!(*by, By::Another);
        addresses.insert(answer.as_ref().unwrap()[0].address.to_string());
    }
    assert_eq!(addresses.len(), 16);
    assert!(waiting(folder.path()).is_empty(), "nothing is left behind");
    let ledger = Ledger::open(&options, facts("here")).unwrap();
    for (number, (_, answer)) in served.iter().enumerate() {
        let held = ledger.held_by(&Attachment::new(&format!("c{number}"), "eth0", "net")).unwrap();
        assert_eq!(held, [answer.as_ref().unwrap()[0].address]);
    }
}

#[test]
fn who_gets_nothing_from_another_looks_itself_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let leader = Ledger::open(&options, facts("here")).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| call(&options, "here", &request("late", "10.0.0.0/30")));
        until(|| has_waiting(folder.path(), 1));
        for container in ["c1", "c2"] {
            leader.allocate(&[request(container, "10.0.0.0/30")]).unwrap()[0].as_ref().unwrap();
        }
        assert!(leader.allocate_for_all(&request("c3", "10.0.0.0/30")).unwrap().is_err());
        drop(leader);
        let (by, answer) = waiter.join().unwrap();
        assert_eq!(by, By::Itself);
        assert!(matches!(answer, Err(AllocateError::RangeFull { .. })), "{answer:?}");
    });
}

/// Another name of the node, or another boot, would be written into its leases.
#[test]
fn who_sees_another_host_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let leader = Ledger::open(&options, facts("here")).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| call(&options, "there", &request("c1", "10.0.0.0/24")));
        until(|| has_waiting(folder.path(), 1));
        leader.allocate_for_all(&request("leader", "10.0.0.0/24")).unwrap().unwrap();
        drop(leader);
        let (by, answer) = waiter.join().unwrap();
        assert_eq!((by, answer.unwrap()[0].address.to_string()), (By::Itself, "10.0.0.2".to_owned()));
    });
}

/// What a process that was killed has left, and bytes that no process has written.
#[test]
fn a_request_that_nobody_waits_with_is_removed_and_not_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let leader = Ledger::open(&options, facts("here")).unwrap();
    let mut impatient = options.clone();
    impatient.wait = Duration::from_secs(1);
    let copy = thread::scope(|scope| {
        let waiter = scope.spawn(|| Ledger::open_to_allocate(&impatient, facts("here"), &request("c1", "10.0.0.0/24")));
        until(|| has_waiting(folder.path(), 1));
        let copy = fs::read(&waiting(folder.path())[0]).unwrap();
        assert!(waiter.join().unwrap().is_err());
        copy
    });
    let left = folder.path().join("ledger.redb.waiting");
    fs::write(left.join("1-0"), copy).unwrap();
    fs::write(left.join("1-1"), b"no record at all").unwrap();
    let given = leader.allocate_for_all(&request("c2", "10.0.0.0/24")).unwrap().unwrap();
    assert_eq!(given[0].address.to_string(), "10.0.0.1");
    assert!(waiting(folder.path()).is_empty());
    assert!(leader.held_by(&Attachment::new("c1", "eth0", "net")).unwrap().is_empty());
}

#[test]
fn without_a_place_to_wait_everybody_works_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let leader = Ledger::open(&options, facts("here")).unwrap();
    fs::write(folder.path().join("ledger.redb.waiting"), b"no folder").unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| call(&options, "here", &request("c1", "10.0.0.0/24")));
        leader.allocate_for_all(&request("leader", "10.0.0.0/24")).unwrap().unwrap();
        drop(leader);
        assert_eq!(waiter.join().unwrap().1.unwrap()[0].address.to_string(), "10.0.0.2");
    });
}

#[test]
fn a_wait_that_is_given_up_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.wait = Duration::from_millis(30);
    let leader = Ledger::open(&options, facts("here")).unwrap();
    let given_up = Ledger::open_to_allocate(&options, facts("here"), &request("c1", "10.0.0.0/24"));
    assert!(matches!(given_up, Err(LedgerError::File(_))), "{given_up:?}");
    assert!(waiting(folder.path()).is_empty());
    leader.allocate_for_all(&request("leader", "10.0.0.0/24")).unwrap().unwrap();
    assert!(leader.held_by(&Attachment::new("c1", "eth0", "net")).unwrap().is_empty());
}
