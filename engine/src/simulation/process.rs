//! Processes: calls of the engine that can be stopped between any two of their waits.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::host::HostFacts;
use crate::lease::{Attachment, BootId};
use crate::ledger::memory::{MemoryLedger, MemoryRows};
use crate::ledger::{StorageError, Tables};
use crate::operations::{
    Allocate, AllocateError, Allocated, Check, CheckError, Collect, Environment, Host, Reinserted, Release,
    ReleaseError, Released, Settled,
};
use crate::space::Space;
use crate::store::local::Unit;
use crate::store::memory::{Client, Random, yield_once};
use crate::store::{ReadError, Store};

/// What a process is to do.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Add(Vec<Allocate>),
    Delete(Vec<Release>),
    Check(Vec<Check>),
    #[cfg(test)]
    Status(Vec<crate::operations::Want>),
    Collect(Collect),
    Settle {
        older_than: u64,
    },
    Freeze(Space, u64),
    Reinsert(Space),
    Thaw(Space),
}

/// What it answered.
#[derive(Debug)]
pub(super) enum Answer {
    Added(Vec<Result<Vec<Allocated>, AllocateError>>),
    Deleted(Vec<Result<Released, ReleaseError>>),
    Checked(Vec<Result<(), CheckError>>),
    #[cfg(test)]
    HasRoom(Vec<Result<(), AllocateError>>),
    Collected(Vec<Result<Released, ReleaseError>>),
    Settled(Settled),
    Frozen(bool),
    Reinserted(Result<Reinserted, ReadError>),
    Thawed(Result<(), ReadError>),
    /// The ledger failed.
    Broken(StorageError),
}

/// Milliseconds that pass when the schedule says so.
#[derive(Debug, Default)]
pub(super) struct Clock(Cell<u64>);

/// Clock, randomness and patience of one process.
#[derive(Debug)]
pub(super) struct ProcessEnvironment {
    pub(super) clock: Rc<Clock>,
    pub(super) random: Rc<RefCell<Random>>,
    pub(super) booted: u64,
    pub(super) deadline: u64,
    /// When it goes on; the scheduler leaves it alone until then.
    pub(super) wakes: Rc<Cell<u64>>,
}

/// Where a process runs.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) node: Arc<str>,
    pub(super) boot: BootId,
    pub(super) ledger: Rc<MemoryLedger>,
}

/// A call that is on its way. Dropping it is a crash.
pub(super) struct Process {
    pub(super) id: usize,
    pub(super) node: usize,
    pub(super) attachments: Vec<Attachment>,
    pub(super) wakes: Rc<Cell<u64>>,
    /// How many addresses a CHECK asks for. It occupies no sandbox: other calls for it may be under way.
    pub(super) checks: Option<usize>,
    /// The runtime has gone on without it.
    pub(super) is_abandoned: bool,
    future: Pin<Box<dyn Future<Output = Answer>>>,
}

// === impl Clock ===

impl Clock {
    pub(super) fn now(&self) -> u64 {
        self.0.get()
    }

    pub(super) fn advance_to(&self, then: u64) {
        self.0.set(self.now().max(then));
    }
}

// === impl ProcessEnvironment ===

impl Environment for ProcessEnvironment {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn boot_clock(&self) -> u64 {
        self.clock.now().saturating_sub(self.booted)
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().bits()
    }

    fn is_past_deadline(&self) -> bool {
        self.clock.now() >= self.deadline
    }

    async fn pause(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let until = self.clock.now().saturating_add(millis.max(1)).min(self.deadline.max(self.clock.now()));
        self.wakes.set(until);
        poll_fn(|_| if self.clock.now() >= until { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

// === impl Process ===

impl Process {
    /// A call against the store of a cluster.
    pub(super) fn in_cluster(
        (id, node): (usize, usize),
        work: Work,
        attachments: Vec<Attachment>,
        seat: Seat,
        client: Client,
        environment: ProcessEnvironment,
    ) -> Self {
        let wakes = Rc::clone(&environment.wakes);
        let future = async move {
            yield_once().await;
            let host = Host {
                store: &client,
                journal: &*seat.ledger,
                environment: &environment,
                node: seat.node,
                boot: seat.boot,
                lease_boot: Some(seat.boot),
                store_name: "cluster".into(),
            };
            let answer = carry_out(&host, work).await;
            // Everything is written down, and the answer is on its way.
            yield_once().await;
            answer
        };
        Self { id, node, attachments, wakes, checks: None, is_abandoned: false, future: Box::pin(future) }
    }

    /// A call against the ledger of this host. With `dies`, the process is killed before the commit.
    pub(super) fn in_ledger(
        (id, node): (usize, usize),
        work: Work,
        attachments: Vec<Attachment>,
        seat: Seat,
        environment: ProcessEnvironment,
        dies: bool,
    ) -> Self {
        let wakes = Rc::clone(&environment.wakes);
        let future = async move {
            yield_once().await;
            let answer = seat.ledger.transaction(|tables| transact(tables, &seat, &environment, work, dies));
            yield_once().await;
            answer.unwrap_or_else(Answer::Broken)
        };
        Self { id, node, attachments, wakes, checks: None, is_abandoned: false, future: Box::pin(future) }
    }

    /// Goes on until the next wait.
    pub(super) fn poll(&mut self) -> Option<Answer> {
        match self.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }
}

fn transact(
    mut tables: Tables<MemoryRows>,
    seat: &Seat,
    environment: &ProcessEnvironment,
    work: Work,
    dies: bool,
) -> (Tables<MemoryRows>, Result<Answer, StorageError>) {
    let facts = HostFacts {
        node: Arc::clone(&seat.node),
        machine: "machine".into(),
        boot: seat.boot,
        pid_namespace: 1,
        may_end_boots: true,
    };
    let (boot, lease_boot) = match crate::local::know_host(&mut tables, &facts, environment.now()) {
        Ok(boots) => boots,
        Err(error) => return (tables, Err(error)),
    };
    let unit = Unit::new(tables, boot, environment.now());
    let host = Host {
        store: &unit,
        journal: &unit,
        environment,
        node: Arc::clone(&seat.node),
        boot,
        lease_boot,
        store_name: "".into(),
    };
    let answer = crate::local::now_or_never(async { Ok(carry_out(&host, work).await) });
    let answer = match answer {
        Ok(Answer::Broken(error)) => Err(error),
        Ok(_) if dies => Err(StorageError::io("killed before the commit")),
        answer => answer,
    };
    (unit.into_tables(), answer)
}

async fn carry_out<S: Store, J: crate::ledger::Journal, E: Environment>(
    host: &Host<'_, S, J, E>,
    work: Work,
) -> Answer {
    let answer = match work {
        Work::Add(requests) => host.allocate(&requests).await.map(Answer::Added),
        Work::Delete(requests) => host.release(&requests).await.map(Answer::Deleted),
        Work::Check(requests) => host.check(&requests).await.map(Answer::Checked),
        #[cfg(test)]
        Work::Status(wants) => host.has_room(&wants).await.map(Answer::HasRoom),
        Work::Collect(list) => host.collect(&list).await.map(Answer::Collected),
        Work::Settle { older_than } => host.settle(older_than).await.map(Answer::Settled),
        Work::Freeze(space, epoch) => {
            Ok(Answer::Frozen(host.carry_out_freeze(&space, epoch, "an operator repairs it").await))
        }
        Work::Reinsert(space) => host.reinsert(&space).await.map(Answer::Reinserted),
        Work::Thaw(space) => Ok(Answer::Thawed(host.thaw(&space).await)),
    };
    answer.unwrap_or_else(Answer::Broken)
}
