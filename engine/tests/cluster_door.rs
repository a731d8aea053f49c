//! What a caller is told at the door to a store that others use too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what cannot be looked at ends the test")]

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use whereabouts_engine::memory_store::{Client, MemoryStore};
use whereabouts_engine::{
    Allocate, AllocateError, Attachment, Block, BlockId, ClusterLedger, Environment, HostEnvironment, HostFacts, Index,
    LedgerFile, Listed, Network, OpenOptions, Outcome, Owner, Pool, Promises, ReadError, Sharing, Space, Store, Stored,
    Swap, View, ViewSpec, Want,
};

/// A store that breaks down in the middle of a call, while another process begins to work with the ledger; by then the
/// call's time is up.
struct BreaksDown {
    store: Client,
    ledger: PathBuf,
    breaks_down: Cell<bool>,
    other_process: RefCell<Option<LedgerFile>>,
}

impl Store for BreaksDown {
    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn read_index(&self, space: &Space) -> Result<Option<Stored<Index>>, ReadError> {
        self.store.read_index(space).await
    }

    async fn read_block(&self, block: &BlockId) -> Result<Option<Stored<Block>>, ReadError> {
        self.store.read_block(block).await
    }

    async fn swap(&self, swaps: Vec<Swap>) -> Vec<Outcome> {
        if !self.breaks_down.get() {
            return self.store.swap(swaps).await;
        }
        self.other_process.replace(LedgerFile::open(&OpenOptions::new(&self.ledger)).ok());
        vec![Outcome::Unknown { reason: "the cluster is away".to_owned() }; swaps.len()]
    }

    async fn list_blocks(&self, space: &Space) -> Result<Vec<Listed>, ReadError> {
        self.store.list_blocks(space).await
    }

    async fn list_spaces(&self) -> Result<Vec<Space>, ReadError> {
        self.store.list_spaces().await
    }

    async fn confirm(&self) -> Result<(), ReadError> {
        self.store.confirm().await
    }
}

impl Environment for BreaksDown {
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

fn request(container: &str) -> Allocate {
    let spec: ViewSpec = "10.0.0.0/24".parse().unwrap();
    Allocate {
        attachment: Attachment::new(container, "eth0", "net"),
        owner: Owner::Container,
        wants: vec![Want {
            pool: Pool::new(Network::unnamed(), "10.0.0.0/24".parse().unwrap()),
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
    let store = BreaksDown {
        store: Client::new(&Rc::new(MemoryStore::new(1, false)), 0, 0),
        ledger: path.clone(),
        breaks_down: Cell::new(false),
        other_process: RefCell::default(),
    };
    let ledger =
        |patience| ClusterLedger::open(OpenOptions::new(&path), HostFacts::read(), Instant::now() + patience).unwrap();
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
