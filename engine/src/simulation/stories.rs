//! Schedules told by hand: what happens so rarely that no handful of seeds would show it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::model::node_name;
use super::process::{Answer, Clock, Process, ProcessEnvironment, Seat, Work};
use super::world::filler;
use crate::address::Address;
use crate::block::Block;
use crate::index::Index;
use crate::lease::{Attachment, BootId, Owner};
use crate::operations::{Allocate, AllocateError, Release, Want};
use crate::space::{Network, Pool, Sharing, Space};
use crate::spec::ViewSpec;
use crate::store::memory::{Client, Identity, Key, MemoryStore, Random};
use crate::store::{Object, ReadError};
use crate::view::View;

/// Three nodes and their store, in which the sticky name `db` moves about.
struct Story {
    store: Rc<MemoryStore>,
    seats: Vec<Seat>,
    random: Rc<RefCell<Random>>,
    clock: Rc<Clock>,
}

const RANGE: &str = "10.0.0.0/29";

fn want(range: &str, sharing: Sharing) -> Want {
    let spec: ViewSpec = range.parse().unwrap();
    let pool = Pool::new(Network::unnamed(), spec.cidr);
    Want { pool, sharing, view: Arc::new(View::new(&spec).unwrap()), exactly: None }
}

impl Story {
    fn new() -> Self {
        let seat = |node: usize| Seat {
            node: node_name(node),
            boot: BootId::from_bytes((1 + node as u128).to_be_bytes()),
            ledger: Rc::default(),
        };
        Self {
            store: Rc::new(MemoryStore::new(1, false)),
            seats: (0..3).map(seat).collect(),
            random: Rc::new(RefCell::new(Random::new(1))),
            clock: Rc::default(),
        }
    }

    fn begin(&self, node: usize, work: Work) -> Process {
        let environment = ProcessEnvironment {
            clock: Rc::clone(&self.clock),
            random: Rc::clone(&self.random),
            booted: 0,
            deadline: self.clock.now() + 1000,
            wakes: Rc::new(Cell::new(0)),
        };
        let client = Client::new(&self.store, node, node);
        Process::in_cluster((node, node), work, Vec::new(), self.seats[node].clone(), client, environment)
    }

    fn finish(&self, mut process: Process) -> Answer {
        let step = |_| {
            self.clock.advance_to(self.clock.now() + 1);
            process.poll()
        };
        (0..1000).find_map(step).expect("nothing is in its way")
    }

    fn add(&self, node: usize, container: &str) -> Process {
        let want = Want { exactly: Some("10.0.0.1".parse().unwrap()), ..want(RANGE, Sharing::Shared) };
        let owner = Owner::Sticky { name: "db".into(), pod: None };
        let attachment = Attachment::new(container, "eth0", "net");
        self.begin(node, Work::Add(vec![Allocate { attachment, owner, wants: vec![want] }]))
    }

    /// An ADD of any address that the want can have.
    fn add_any(&self, node: usize, container: &str, want: &Want) -> Process {
        let attachment = Attachment::new(container, "eth0", "net");
        let wants = vec![want.clone()];
        self.begin(node, Work::Add(vec![Allocate { attachment, owner: Owner::Container, wants }]))
    }

    /// The one answer of an ADD, with the address that it gave.
    fn given(&self, process: Process) -> Result<Address, AllocateError> {
        let Answer::Added(mut answers) = self.finish(process) else { panic!("not an answer to an ADD") };
        answers.remove(0).map(|allocated| allocated[0].address)
    }

    /// An ADD that succeeds.
    fn added(&self, node: usize, container: &str) {
        let process = self.add(node, container);
        let Answer::Added(answers) = self.finish(process) else { panic!("not an answer to an ADD") };
        assert!(answers[0].is_ok(), "{answers:?}");
    }

    /// An ADD whose process is killed once it has the address in the store.
    fn killed(&self, node: usize, container: &str) {
        let mut process = self.add(node, container);
        while self.holder() != Some(container.to_owned()) {
            assert!(process.poll().is_none(), "it is killed before it can answer");
        }
    }

    /// Puts a block in place that is full but for its .254.
    fn fill(&self, want: &Want) {
        let id = want.space().block_of("10.0.0.1".parse().unwrap()).unwrap();
        let (mut block, mut index) = (Block::empty(0), Index::empty(0));
        for at in (0..=u8::MAX).filter(|at| *at != 254) {
            block.insert(at.into(), filler(at.into()).unwrap());
        }
        index.existing.insert(id.number);
        let (space, index) = (want.space(), index.into());
        self.store.put(&Key::Block(id.clone()), Some(Object::Block(id, block.into())), Identity::New);
        self.store.put(&Key::Index(space.clone()), Some(Object::Index(space, index)), Identity::New);
    }

    /// Whether the index calls the only block of a space fuller than it is.
    fn is_marked_wrongly(&self, want: &Want) -> bool {
        let id = want.space().block_of("10.0.0.1".parse().unwrap()).unwrap();
        let (index, block) = (self.store.get(&Key::Index(want.space())), self.store.get(&Key::Block(id.clone())));
        let (Some(Object::Index(_, index)), Some(Object::Block(_, block))) = (index.as_deref(), block.as_deref())
        else {
            panic!("neither is taken away")
        };
        index.mark(id.number) > block.fullness()
    }

    /// How many addresses of its only block a space has given away.
    fn n_held(&self, want: &Want) -> usize {
        let id = want.space().block_of("10.0.0.1".parse().unwrap()).unwrap();
        match self.store.get(&Key::Block(id)).as_deref() {
            Some(Object::Block(_, block)) => block.iter().count(),
            _ => 0,
        }
    }

    fn delete(&self, node: usize, container: &str) {
        let release =
            Release::Attachment { container: container.into(), interface: "eth0".into(), network: Some("net".into()) };
        let process = self.begin(node, Work::Delete(vec![release]));
        let Answer::Deleted(answers) = self.finish(process) else { panic!("not an answer to a DEL") };
        assert!(answers[0].as_ref().unwrap().queued.is_empty());
    }

    fn settle(&self, node: usize) {
        let process = self.begin(node, Work::Settle { older_than: 0 });
        let Answer::Settled(settled) = self.finish(process) else { panic!("nothing was settled") };
        assert_eq!(settled.open, 0);
    }

    /// Which container has the address.
    fn holder(&self) -> Option<String> {
        let address: Address = "10.0.0.1".parse().unwrap();
        let id = Space::shared(Network::unnamed(), address.family()).block_of(address).unwrap();
        let object = self.store.get(&Key::Block(id))?;
        let Object::Block(_, block) = &*object else { panic!("not a block") };
        block.get(crate::Offset::of(address)).map(|lease| lease.attachment.container.to_string())
    }
}

#[test]
fn a_move_that_fails_gives_the_address_back() {
    let story = Story::new();
    story.added(0, "old");
    story.killed(1, "new");
    story.settle(1);
    assert_eq!(story.holder().as_deref(), Some("old"));
    story.delete(0, "old");
    assert_eq!(story.holder(), None);
}

#[test]
fn a_move_that_fails_gives_nothing_back_to_what_was_deleted_meanwhile() {
    let story = Story::new();
    story.added(0, "old");
    story.killed(1, "new");
    story.delete(0, "old");
    assert_eq!(story.holder().as_deref(), Some("new"), "its call may yet succeed");
    story.settle(1);
    assert_eq!(story.holder(), None);
}

#[test]
fn a_move_that_succeeds_keeps_the_address_when_the_old_one_is_deleted() {
    let story = Story::new();
    story.added(0, "old");
    story.added(1, "new");
    story.delete(0, "old");
    assert_eq!(story.holder().as_deref(), Some("new"));
    story.delete(1, "new");
    assert_eq!(story.holder(), None);
}

/// Two moves that fail are undone in either order, with the old one deleted at any time, or never.
#[test]
fn moves_that_fail_one_upon_the_other_are_undone_in_any_order() {
    for order in [[1, 2], [2, 1]] {
        for deleted_at in [0, 1, 2, 3] {
            let story = Story::new();
            story.added(0, "old");
            story.killed(1, "new");
            story.killed(2, "newer");
            for (at, node) in order.into_iter().enumerate() {
                if deleted_at == at {
                    story.delete(0, "old");
                }
                story.settle(node);
            }
            if deleted_at == 2 {
                story.delete(0, "old");
            }
            let kept = (deleted_at == 3).then_some("old");
            assert_eq!(story.holder().as_deref(), kept, "undone on {order:?}, deleted at {deleted_at}");
        }
    }
}

/// The old node's sandbox is made anew there while another node holds the address and has not answered yet.
#[test]
fn what_a_node_replaces_itself_does_not_come_back() {
    let story = Story::new();
    story.added(0, "old");
    story.killed(1, "new");
    story.added(0, "again");
    story.settle(1);
    assert_eq!(story.holder().as_deref(), Some("again"));
    story.delete(0, "old");
    assert_eq!(story.holder().as_deref(), Some("again"));
    story.delete(0, "again");
    assert_eq!(story.holder(), None);
}

/// At whatever moment another node makes the block that a call was about to make, the call goes on in it.
#[test]
fn a_block_that_another_makes_meanwhile_is_used() {
    let want = want("10.0.0.254-10.0.1.9/23", Sharing::Shared);
    for steps in 0..20 {
        let story = Story::new();
        for (node, address) in [(1, "10.0.0.254"), (0, "10.0.0.255")] {
            let given = story.given(story.add_any(node, address, &want));
            assert_eq!(given.map(|address| address.to_string()).as_deref(), Ok(address), "it fills its first block");
        }
        let mut process = story.add_any(1, "interrupted", &want);
        if (0..steps).any(|_| process.poll().is_some()) {
            return;
        }
        let first = story.given(story.add_any(0, "first", &want));
        let second = story.given(process);
        assert!(first.is_ok() && second.is_ok() && first != second, "after {steps} steps: {first:?}, {second:?}");
    }
    panic!("it never ends");
}

/// A host that has used a pool as shared, and has nothing of it any more, sees that another uses it as private since.
#[test]
fn a_pool_that_became_private_meanwhile_is_not_shared_again() {
    let (shared, private) = (want(RANGE, Sharing::Shared), want(RANGE, Sharing::Private));
    let story = Story::new();
    assert!(story.given(story.add_any(0, "old", &shared)).is_ok());
    story.delete(0, "old");
    assert!(story.given(story.add_any(1, "private", &private)).is_ok());
    let refused = story.given(story.add_any(0, "shared", &shared));
    assert!(matches!(refused, Err(AllocateError::Sharing { asked: Sharing::Shared, .. })), "{refused:?}");
    assert_eq!((story.n_held(&shared), story.n_held(&private)), (0, 1));
    story.delete(1, "private");
    assert!(story.given(story.add_any(0, "shared", &shared)).is_ok());
}

/// Two nodes that begin to use a pool in different ways, however their steps mix, do not both succeed.
#[test]
fn a_pool_is_never_private_and_shared_at_once() {
    let (shared, private) = (want(RANGE, Sharing::Shared), want(RANGE, Sharing::Private));
    for [first, second] in [[&shared, &private], [&private, &shared]] {
        for steps in 0.. {
            assert!(steps < 100, "it never ends");
            let story = Story::new();
            let mut process = story.add_any(0, "first", first);
            if (0..steps).any(|_| process.poll().is_some()) {
                break;
            }
            let answers = [story.given(story.add_any(1, "second", second)), story.given(process)];
            let n_given = answers.iter().filter(|answer| answer.is_ok()).count();
            assert!(n_given < 2, "after {steps} steps: {answers:?}");
            let n_held = story.n_held(first) + story.n_held(second);
            assert_eq!(n_held, n_given, "what is refused is not held, after {steps} steps: {answers:?}");
        }
    }
}

/// What cannot be read is not waited for: whoever deletes a container, or repairs, hears of it at once.
#[test]
fn an_object_that_cannot_be_read_keeps_nobody_waiting() {
    let want = want("10.0.0.0/24", Sharing::Shared);
    let story = Story::new();
    for number in 0..256 {
        // The last one finds the block full, and marks it.
        assert_eq!(story.given(story.add_any(0, &format!("c{number}"), &want)).is_ok(), number < 254);
    }
    story.store.spoil(&Key::Index(want.space()));
    let started = story.clock.now();
    let release = Release::Attachment { container: "c7".into(), interface: "eth0".into(), network: Some("net".into()) };
    let Answer::Deleted(answers) = story.finish(story.begin(0, Work::Delete(vec![release]))) else { panic!() };
    assert_eq!(answers[0].as_ref().unwrap().freed.len(), 1, "its block can be read: {answers:?}");
    let frozen = story.finish(story.begin(0, Work::Freeze(want.space(), 0)));
    assert!(matches!(frozen, Answer::Frozen(false)));
    let thawed = story.finish(story.begin(0, Work::Thaw(want.space())));
    assert!(matches!(thawed, Answer::Thawed(Err(ReadError::Unsound { .. }))));
    assert!(story.clock.now() - started < 100, "nobody waits until its deadline, which is 1000 ms");
}

/// STATUS costs the same however much is held.
#[test]
fn whether_there_is_room_is_known_without_a_scan() {
    let story = Story::new();
    let (full, wide) = (want("10.0.0.0/24", Sharing::Shared), want("10.0.0.0/16", Sharing::Shared));
    let has_room = |want: &Want| {
        let before = story.store.n_reads();
        let process = story.begin(1, Work::Status(vec![want.clone()]));
        let Answer::HasRoom(rooms) = story.finish(process) else { panic!("not an answer to a STATUS") };
        (rooms[0].is_ok(), story.store.n_reads() - before)
    };
    // The other way's index, its own, and a block.
    for number in 0..1100 {
        assert!(story.given(story.add_any(0, &format!("c{number}"), &wide)).is_ok());
    }
    let (is_ok, n_reads) = has_room(&wide);
    assert!(is_ok && n_reads <= 3, "{n_reads} reads with 1,100 held in five blocks");
    assert!(!has_room(&full).0);
}

/// A call that marks a full block is so slow that another settles what it left, and dies once it has marked. Whatever
/// happens between its steps, no block with room stays marked.
#[test]
fn a_mark_of_a_call_that_was_given_up_does_not_stay() {
    let want = want("10.0.0.0/24", Sharing::Shared);
    for steps in 0.. {
        assert!(steps < 100, "it never ends");
        let mut has_ended = false;
        for more in 0..20 {
            let story = Story::new();
            story.fill(&want);
            assert!(story.given(story.add_any(0, "last", &want)).is_ok());
            let mut process = story.add_any(0, "too-late", &want);
            has_ended = (0..steps).any(|_| process.poll().is_some());
            if has_ended {
                break;
            }
            story.delete(0, "last");
            story.settle(0);
            let _ = (0..more).find_map(|_| {
                story.clock.advance_to(story.clock.now() + 20);
                process.poll()
            });
            drop(process);
            story.settle(0);
            assert!(!story.is_marked_wrongly(&want), "killed {more} steps after {steps}");
        }
        if has_ended {
            break;
        }
    }
}
