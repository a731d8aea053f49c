//! What a caller is told at the door to a store that others use too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot be looked at ends the test"
)]

#[path = "support/rows.rs"]
mod rows;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use whereabouts_engine::memory_store::{Client, MemoryStore};
use whereabouts_engine::{
    Allocate, AllocateError, Attachment, Block, BlockId, BlockNumber, ClusterLedger, Environment, HostEnvironment,
    HostFacts, Index, KnownStore, LedgerFile, Listed, Network, Object, OpenOptions, Outcome, Owner, Pod, Pool,
    Promises, ReadError, Release, Sharing, Space, Store, Stored, Swap, View, ViewSpec, Waited, Want, spool_release,
};

/// A store to which things happen in the middle of a call.
struct Staged {
    memory: Rc<MemoryStore>,
    store: Client,
    ledger: PathBuf,
    /// It answers no swap, another process begins to work with the ledger meanwhile, and then the call's time is up.
    breaks_down: Cell<bool>,
    other_process: RefCell<Option<LedgerFile>>,
    /// Happens before the next block is read.
    before_read: Cell<Option<Box<dyn FnOnce()>>>,
    /// Happens after blocks were listed and before the caller has the list.
    after_list: Cell<Option<Box<dyn FnOnce()>>>,
}

impl Store for Staged {
    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn read_index(&self, space: &Space) -> Result<Option<Stored<Index>>, ReadError> {
        self.store.read_index(space).await
    }

    async fn read_block(&self, block: &BlockId) -> Result<Option<Stored<Block>>, ReadError> {
        if let Some(happens) = self.before_read.take() {
            happens();
        }
        self.store.read_block(block).await
    }

    async fn swap(&self, swaps: Vec<Swap>) -> Vec<Outcome> {
        if !self.breaks_down.get() {
            return self.store.swap(swaps).await;
        }
        self.other_process.replace(LedgerFile::open(&OpenOptions::new(&self.ledger)).ok());
        vec![Outcome::Unknown { reason: "the cluster is away".to_owned() }; swaps.len()]
    }

    async fn list_blocks(&self, space: &Space) -> Result<Vec<Listed<BlockNumber, Block>>, ReadError> {
        let listed = self.store.list_blocks(space).await;
        if let Some(happens) = self.after_list.take() {
            happens();
        }
        listed
    }

    async fn list_indexes(&self) -> Result<Vec<Listed<Space, Index>>, ReadError> {
        self.store.list_indexes().await
    }

    async fn confirm(&self) -> Result<(), ReadError> {
        self.store.confirm().await
    }
}

impl Environment for Staged {
    fn now(&self) -> u64 {
        HostEnvironment.now()
    }

    fn boot_clock(&self) -> u64 {
        HostEnvironment.boot_clock()
    }

    fn random(&self) -> u64 {
        HostEnvironment.random()
    }

    fn is_past_deadline(&self) -> bool {
        self.breaks_down.get()
    }

    async fn pause(&self, _: Duration) {}
}

fn to_its_end<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer;
        }
    }
}

impl Staged {
    fn new(ledger: &Path) -> Self {
        let memory = Rc::new(MemoryStore::new(1, false));
        Self {
            store: Client::new(&memory, 0, 0),
            memory,
            ledger: ledger.to_owned(),
            breaks_down: Cell::new(false),
            other_process: RefCell::default(),
            before_read: Cell::default(),
            after_list: Cell::default(),
        }
    }

    /// The only block of the store.
    fn block(&self) -> Arc<Block> {
        let keys = self.memory.keys();
        let mut blocks = keys.iter().filter_map(|key| match &*self.memory.get(key)? {
            Object::Block(_, block) => Some(Arc::clone(block)),
            Object::Index(..) => None,
        });
        blocks.next().unwrap()
    }
}

fn ledger(path: &Path, patience: Duration) -> ClusterLedger {
    ClusterLedger::open(OpenOptions::new(path), HostFacts::read(), Instant::now() + patience).unwrap()
}

fn request(container: &str) -> Allocate {
    request_of(container, "10.0.0.0/24")
}

fn request_of(container: &str, range: &str) -> Allocate {
    let spec: ViewSpec = range.parse().unwrap();
    Allocate {
        attachment: Attachment::new(container, "eth0", "net"),
        owner: Owner::Container,
        wants: vec![Want {
            pool: Pool::new(Network::unnamed(), spec.cidr),
            sharing: Sharing::Shared,
            view: Arc::new(View::new(&spec).unwrap()),
            exactly: None,
        }],
    }
}

/// Without this, people would look for a process that hangs, on a host on which none does.
#[test]
fn a_call_whose_store_broke_down_says_so_even_if_it_cannot_be_undone_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let store = Staged::new(&path);
    let ledger = |patience| ledger(&path, patience);
    let first = ledger(Duration::from_secs(60));
    to_its_end(first.on(&store, &store).allocate(&[request("a")])).unwrap().remove(0).unwrap();
    drop(first);

    let second = ledger(Duration::from_secs(2));
    store.breaks_down.set(true);
    let answer = to_its_end(second.on(&store, &store).allocate(&[request("b")])).unwrap().remove(0);
    assert!(store.other_process.take().is_some(), "nobody else used the ledger");
    let Err(AllocateError::Busy { reason }) = &answer else { panic!("{answer:?}") };
    assert_eq!(reason, "the cluster is away");

    // What was left is settled by the next call for the container.
    store.breaks_down.set(false);
    drop(second);
    let third = ledger(Duration::from_secs(60));
    assert_eq!(third.n_under_way().unwrap(), 1);
    assert!(to_its_end(third.on(&store, &store).allocate(&[request("b")])).unwrap().remove(0).is_ok());
    assert_eq!(third.n_under_way().unwrap(), 0);
}

/// Another call on the same host, in a thread of its own. Says whether it was served, and what it holds then.
fn other_call(path: &Path, container: &str, patience: Duration) -> thread::JoinHandle<(bool, Vec<String>)> {
    let (path, container) = (path.to_owned(), container.to_owned());
    thread::spawn(move || {
        let ledger = ledger(&path, patience);
        let served = matches!(ledger.wait_to_allocate(&request(&container), "kubeconfig"), Waited::Served(_));
        (served, held_by(&ledger, &container))
    })
}

fn held_by(ledger: &ClusterLedger, container: &str) -> Vec<String> {
    let held = ledger.leases_of(&Attachment::new(container, "eth0", "net")).unwrap();
    held.iter().map(|(address, _)| address.to_string()).collect()
}

/// There is no event for a file that another thread makes and writes.
fn until_waiting(path: &Path, n: usize) {
    let started = Instant::now();
    let folder = PathBuf::from(format!("{}.waiting", path.display()));
    let is_waiting = |file: &fs::DirEntry| file.metadata().is_ok_and(|metadata| metadata.len() > 0);
    let all = |folder: &Path| fs::read_dir(folder).into_iter().flatten().map(Result::unwrap).collect::<Vec<_>>();
    while all(&folder).iter().flat_map(|turn| all(&turn.path())).filter(is_waiting).count() != n {
        assert!(started.elapsed() < Duration::from_secs(20));
        thread::yield_now();
    }
}

const LONG: Duration = Duration::from_secs(120);

#[test]
fn those_who_wait_on_one_host_are_served_by_one_swap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let (store, first) = (Staged::new(&path), ledger(&path, LONG));
    let Waited::Turn(turn) = first.wait_to_allocate(&request("first"), "kubeconfig") else {
        panic!("nobody was there")
    };
    let others: Vec<_> = (0..8).map(|number| other_call(&path, &format!("c{number}"), LONG)).collect();
    until_waiting(&path, 8);
    let answer = to_its_end(first.on(&store, &store).allocate_for_all(&request("first"), &turn)).unwrap().unwrap();
    assert_eq!(answer[0].address.to_string(), "10.0.0.1");
    drop(first);
    let mut held = BTreeSet::new();
    for other in others {
        let (served, addresses) = other.join().unwrap();
        assert!(served);
        held.extend(addresses);
    }
    assert_eq!(held.len(), 8, "each has its own: {held:?}");
    assert_eq!(store.block().sequence(), 1, "the block was written once");
}

/// What is claimed for one who is gone would be nobody's: its DEL may have been here already.
#[test]
fn for_one_who_stops_waiting_nothing_is_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let (store, first) = (Staged::new(&path), ledger(&path, LONG));
    let Waited::Turn(turn) = first.wait_to_allocate(&request("first"), "kubeconfig") else {
        panic!("nobody was there")
    };
    let other = other_call(&path, "impatient", Duration::from_secs(4));
    until_waiting(&path, 1);
    store.before_read.set(Some(Box::new(move || assert_eq!(other.join().unwrap(), (false, vec![])))));
    let answer = to_its_end(first.on(&store, &store).allocate_for_all(&request("first"), &turn)).unwrap().unwrap();
    assert_eq!(answer[0].address.to_string(), "10.0.0.1", "it takes the place of the other");
    assert!(held_by(&first, "impatient").is_empty());
    assert_eq!(first.n_under_way().unwrap(), 0);
    assert_eq!(store.block().iter().count(), 1);
}

/// A name has one address, whatever pods come with it: two of them at once are as two calls, one after the other.
#[test]
fn what_waits_with_one_name_is_not_given_one_address_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let (store, first) = (Staged::new(&path), ledger(&path, LONG));
    let sticky = |container: &str, uid: &str| {
        let pod = Pod { namespace: "default".into(), name: "db".into(), uid: Some(uid.into()) };
        Allocate { owner: Owner::Sticky { name: "db".into(), pod: Some(pod) }, ..request(container) }
    };
    let before = to_its_end(first.on(&store, &store).allocate(&[sticky("c0", "u0")])).unwrap().remove(0).unwrap();
    let Waited::Turn(turn) = first.wait_to_allocate(&request("first"), "kubeconfig") else {
        panic!("nobody was there")
    };
    let others: Vec<_> = ["u1", "u2"]
        .into_iter()
        .map(|uid| {
            let (path, request) = (path.clone(), sticky(&format!("c-{uid}"), uid));
            thread::spawn(move || {
                matches!(ledger(&path, LONG).wait_to_allocate(&request, "kubeconfig"), Waited::Served(_))
            })
        })
        .collect();
    until_waiting(&path, 2);
    to_its_end(first.on(&store, &store).allocate_for_all(&request("first"), &turn)).unwrap().unwrap();
    drop(first);
    let served: Vec<bool> = others.into_iter().map(|other| other.join().unwrap()).collect();
    assert_eq!(served.iter().filter(|served| **served).count(), 1, "one after the other");
    let ledger = ledger(&path, LONG);
    let held = ["u1", "u2"].map(|uid| held_by(&ledger, &format!("c-{uid}")));
    assert_eq!(held.concat(), [before[0].address.to_string()]);
    assert_eq!(ledger.n_under_way().unwrap(), 0);
}

/// The DEL of one who died while another carried out its request, on a day when the ledger cannot be written.
#[test]
fn what_is_queued_after_a_caller_has_died_frees_what_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let (store, first) = (Staged::new(&path), ledger(&path, LONG));
    let Waited::Turn(turn) = first.wait_to_allocate(&request("first"), "kubeconfig") else {
        panic!("nobody was there")
    };
    let other = other_call(&path, "dies", LONG);
    until_waiting(&path, 1);
    let ledger_path = path.clone();
    store.before_read.set(Some(Box::new(move || {
        thread::sleep(Duration::from_millis(20));
        spool_release(&ledger_path, &HostFacts::read(), "dies", "eth0", None).unwrap();
        thread::sleep(Duration::from_millis(20));
    })));
    let host = first.on(&store, &store);
    to_its_end(host.allocate_for_all(&request("first"), &turn)).unwrap().unwrap();
    assert_eq!(store.block().iter().count(), 2);
    to_its_end(host.carry_out_spooled()).unwrap();
    assert_eq!(store.block().iter().count(), 1, "what was queued is carried out");
    drop(first);
    other.join().unwrap();
}

/// Who carries out what was spooled waits for the store, and the runtime adds one of those containers again meanwhile.
#[test]
fn a_container_that_is_added_again_while_spooled_releases_are_carried_out_keeps_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let store = Staged::new(&path);
    let add = |container: &str| {
        let ledger = ledger(&path, LONG);
        to_its_end(ledger.on(&store, &store).allocate(&[request(container)])).unwrap().remove(0).unwrap();
    };
    add("leaves");
    add("returns");
    thread::sleep(Duration::from_millis(2));
    for container in ["leaves", "returns"] {
        spool_release(&path, &HostFacts::read(), container, "eth0", None).unwrap();
    }
    thread::sleep(Duration::from_millis(2));
    let (memory, same_path) = (Rc::clone(&store.memory), path.clone());
    store.before_read.set(Some(Box::new(move || {
        let (client, ledger) = (Client::new(&memory, 1, 0), ledger(&same_path, LONG));
        let added = to_its_end(ledger.on(&client, &HostEnvironment).allocate(&[request("returns")]));
        added.unwrap().remove(0).unwrap();
    })));
    let holders =
        || -> Vec<String> { store.block().iter().map(|(_, lease)| lease.attachment.container.to_string()).collect() };
    for _ in 0..2 {
        let ledger = ledger(&path, LONG);
        to_its_end(ledger.on(&store, &store).carry_out_spooled()).unwrap();
        assert_eq!(holders(), ["returns"]);
    }
}

/// This moment, as many milliseconds later.
struct Later(u64);

impl Environment for Later {
    fn now(&self) -> u64 {
        HostEnvironment.now() + self.0
    }

    fn boot_clock(&self) -> u64 {
        HostEnvironment.boot_clock() + self.0
    }

    fn random(&self) -> u64 {
        HostEnvironment.random()
    }

    fn is_past_deadline(&self) -> bool {
        false
    }

    async fn pause(&self, _: Duration) {}
}

/// Who asks whether there is room is not kept from anything by what has changed elsewhere meanwhile: not for long.
#[test]
fn a_range_is_full_for_a_minute_after_it_was_found_so_or_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let [here, there] = ["here.redb", "there.redb"].map(|name| folder.path().join(name));
    let store = Staged::new(&here);
    let add = |ledger: &Path, container: &str, range: &str| {
        let ledger = self::ledger(ledger, LONG);
        to_its_end(ledger.on(&store, &store).allocate(&[request_of(container, range)])).unwrap().remove(0)
    };
    let release = |ledger: &Path, container: &str| {
        let ledger = self::ledger(ledger, LONG);
        let (container, interface) = (container.into(), "eth0".into());
        let request = Release::Attachment { container, interface, network: None };
        let released = to_its_end(ledger.on(&store, &store).release(&[request])).unwrap().remove(0).unwrap();
        assert_eq!(released.freed.len(), 1);
    };
    let room_after = |milliseconds: u64, range: &str| {
        let answers = ledger(&here, LONG).has_room(&request_of("", range).wants, &Later(milliseconds));
        answers.unwrap().remove(0)
    };
    let range = "10.0.0.0/30";
    assert_eq!(room_after(0, range), Ok(()), "of what this host has never used it knows nothing");
    add(&here, "a", range).unwrap();
    add(&there, "b", range).unwrap();
    assert_eq!(room_after(0, range), Ok(()), "nobody has found it full");
    let refused = add(&here, "c", range).unwrap_err();
    assert!(matches!(refused, AllocateError::RangeFull { .. }), "{refused}");
    assert_eq!(room_after(0, range), Err(refused.clone()), "as the allocation has said it");
    assert_eq!(room_after(59_000, range), Err(refused.clone()));
    assert_eq!(room_after(60_000, range), Ok(()), "others may have made room by then");
    for (other, has_room) in [("10.0.0.0/29", true), ("10.0.1.0/30", true), ("10.0.0.1-10.0.0.2/29", false)] {
        assert_eq!(room_after(0, other).is_ok(), has_room, "{other}");
    }
    // What somebody has all the time, or of another range, is no room.
    add(&here, "a", range).unwrap();
    add(&here, "elsewhere", "10.0.1.0/30").unwrap();
    release(&here, "elsewhere");
    assert_eq!(room_after(0, range), Err(refused.clone()));

    release(&there, "b");
    assert_eq!(room_after(0, range), Err(refused.clone()), "the other host does not say it");
    add(&here, "c", range).unwrap();
    assert_eq!(room_after(0, range), Ok(()), "there was room");
    assert_eq!(add(&here, "d", range).unwrap_err(), refused);
    release(&here, "a");
    assert_eq!(room_after(0, range), Ok(()), "this host has made some");

    let mut nothing = request_of("", "10.0.2.0/24").wants;
    let mut spec: ViewSpec = "10.0.2.0/24".parse().unwrap();
    spec.excludes.push(spec.cidr);
    nothing[0].view = Arc::new(View::new(&spec).unwrap());
    let full = ledger(&here, LONG).has_room(&nothing, &HostEnvironment).unwrap().remove(0).unwrap_err();
    assert!(full.to_string().contains("10.0.2.0/24 has no address to give"), "{full}");
}

/// Whoever has the turn knows afterwards what it has found, for itself and for those whose requests it carries out.
#[test]
fn whoever_has_the_turn_remembers_which_ranges_are_full() {
    let folder = tempfile::tempdir().unwrap();
    let [here, there] = ["here.redb", "there.redb"].map(|name| folder.path().join(name));
    let store = Staged::new(&here);
    let narrow = |container: &str| request_of(container, "10.0.1.0/30");
    let (first, elsewhere) = (ledger(&here, LONG), ledger(&there, LONG));
    for container in ["a", "b"] {
        to_its_end(elsewhere.on(&store, &store).allocate(&[narrow(container)])).unwrap().remove(0).unwrap();
    }
    let Waited::Turn(turn) = first.wait_to_allocate(&narrow("c"), "kubeconfig") else { panic!("nobody was there") };
    to_its_end(first.on(&store, &store).allocate_for_all(&narrow("c"), &turn)).unwrap().unwrap_err();
    let has_room = || first.has_room(&narrow("").wants, &HostEnvironment).unwrap()[0].is_ok();
    assert!(!has_room());

    let release = Release::Attachment { container: "a".into(), interface: "eth0".into(), network: None };
    to_its_end(elsewhere.on(&store, &store).release(&[release])).unwrap().remove(0).unwrap();
    let Waited::Turn(turn) = first.wait_to_allocate(&request("first"), "kubeconfig") else {
        panic!("nobody was there")
    };
    let (path, other) = (here.clone(), narrow("c"));
    let other =
        thread::spawn(move || matches!(ledger(&path, LONG).wait_to_allocate(&other, "kubeconfig"), Waited::Served(_)));
    until_waiting(&here, 1);
    to_its_end(first.on(&store, &store).allocate_for_all(&request("first"), &turn)).unwrap().unwrap();
    assert!(has_room());
    drop(first);
    assert!(other.join().unwrap());
}

/// Two calls that find out at the same time that the kubeconfig leads to another cluster begin one new ledger.
#[test]
fn a_ledger_is_begun_anew_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let known = |identity: &str| KnownStore { identity: identity.into(), address: "kubeconfig".into() };
    let store = Staged::new(&path);
    let one = ledger(&path, LONG);
    one.set_store(&known("here")).unwrap();
    one.begin_anew(&known("there")).unwrap();
    to_its_end(one.on(&store, &store).allocate(&[request("a")])).unwrap().remove(0).unwrap();
    drop(one);
    let other = ledger(&path, LONG);
    other.begin_anew(&known("there")).unwrap();
    assert_eq!(held_by(&other, "a"), ["10.0.0.1"], "what the first one wrote down is there");
    other.begin_anew(&known("elsewhere")).unwrap();
    assert!(held_by(&other, "a").is_empty());
}

#[test]
fn other_spaces_do_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let first = ledger(&path, LONG);
    let Waited::Turn(_turn) = first.wait_to_allocate(&request("first"), "kubeconfig") else { panic!("served") };
    let second = ledger(&path, LONG);
    for (request, store) in [(request_of("second", "fd00::/64"), "kubeconfig"), (request("second"), "another")] {
        let asked = Instant::now();
        assert!(matches!(second.wait_to_allocate(&request, store), Waited::Turn(_)));
        assert!(asked.elapsed() < LONG / 4);
    }
}

// === What a ledger learns from the store ===

/// A node whose containers have addresses and whose ledger is lost.
struct Rebuilding {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: Staged,
}

// === impl Rebuilding ===

impl Rebuilding {
    fn of(containers: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Staged::new(folder.path());
        let before = ledger(&folder.path().join("before.redb"), LONG);
        for container in containers {
            to_its_end(before.on(&store, &store).allocate(&[request(container)])).unwrap().remove(0).unwrap();
        }
        let path = folder.path().join("ledger.redb");
        let known = KnownStore { identity: "here".into(), address: "kubeconfig".into() };
        ledger(&path, LONG).set_store(&known).unwrap();
        Self { path, store, _folder: folder }
    }

    fn ledger(&self) -> ClusterLedger {
        ledger(&self.path, LONG)
    }

    fn rebuild(&self) {
        let ledger = self.ledger();
        to_its_end(ledger.on(&self.store, &self.store).rebuild_if_behind()).unwrap().unwrap();
    }

    /// Another call on this host, after the rebuilding one has the list of blocks.
    fn meanwhile(&self, call: impl FnOnce(&ClusterLedger, &Client) + 'static) {
        let (memory, path) = (Rc::clone(&self.store.memory), self.path.clone());
        self.store.after_list.set(Some(Box::new(move || call(&ledger(&path, LONG), &Client::new(&memory, 1, 0)))));
    }

    fn holders(&self) -> Vec<String> {
        self.store.block().iter().map(|(_, lease)| lease.attachment.container.to_string()).collect()
    }
}

fn del(ledger: &ClusterLedger, store: &Client, container: &str) {
    let host = ledger.on(store, &HostEnvironment);
    to_its_end(host.rebuild_if_behind()).unwrap().unwrap();
    let release = Release::Attachment { container: container.into(), interface: "eth0".into(), network: None };
    to_its_end(host.release(&[release])).unwrap().remove(0).unwrap();
}

fn add(ledger: &ClusterLedger, store: &Client, container: &str) {
    to_its_end(ledger.on(store, &HostEnvironment).allocate(&[request(container)])).unwrap().remove(0).unwrap();
}

/// Otherwise its address would never be given away on this node again, and a repair would bring the lease back.
#[test]
fn what_is_released_while_a_ledger_is_rebuilt_is_not_learned() {
    let node = Rebuilding::of(&["leaves", "stays"]);
    node.meanwhile(|ledger, store| del(ledger, store, "leaves"));
    node.rebuild();
    assert_eq!(node.holders(), ["stays"]);
    assert!(held_by(&node.ledger(), "leaves").is_empty());
    assert_eq!(held_by(&node.ledger(), "stays"), ["10.0.0.2"]);
}

#[test]
fn what_is_given_again_while_a_ledger_is_rebuilt_can_be_released() {
    let node = Rebuilding::of(&["again", "stays"]);
    thread::sleep(Duration::from_millis(2));
    node.meanwhile(|ledger, store| {
        del(ledger, store, "again");
        add(ledger, store, "again");
    });
    node.rebuild();
    assert_eq!(held_by(&node.ledger(), "again"), ["10.0.0.1"]);
    del(&node.ledger(), &node.store.store, "again");
    assert_eq!(node.holders(), ["stays"]);
}

/// It has read the lists of an older epoch than the one that another call has met since.
#[test]
fn a_ledger_that_was_overtaken_by_a_repair_is_not_complete() {
    let node = Rebuilding::of(&["stays"]);
    node.meanwhile(|ledger, store| {
        let space = request("any").wants.remove(0).space();
        let host = ledger.on(store, &HostEnvironment);
        assert!(to_its_end(host.freeze(&space, "restored")).unwrap());
        to_its_end(host.thaw(&space)).unwrap();
        add(ledger, store, "new");
    });
    node.rebuild();
    assert!(!node.ledger().is_complete().unwrap());
    node.rebuild();
    assert!(node.ledger().is_complete().unwrap());
}

/// The store knows what it said.
#[test]
fn a_damaged_row_stops_neither_others_nor_the_release_of_what_it_was_about() {
    let node = Rebuilding::of(&["damaged", "stays"]);
    node.rebuild();
    rows::damage(&node.path, "attachments", b"damaged");
    spool_release(&node.path, &HostFacts::read(), "damaged", "eth0", None).unwrap();
    let ledger = node.ledger();
    to_its_end(ledger.on(&node.store, &node.store).carry_out_spooled()).unwrap();
    assert_eq!(node.holders(), ["stays"]);

    rows::damage(&node.path, "attachments", b"stays");
    assert!(!ledger.knows("stays", "eth0").unwrap());
    del(&ledger, &node.store.store, "stays");
    assert!(node.holders().is_empty());
}
