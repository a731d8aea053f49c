//! One schedule: nodes, their processes and their store, and what the seed does to them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::model::{Hand, Model, Verdict, node_name};
use super::process::{Answer, Clock, Process, ProcessEnvironment, Seat, Work};
use super::runtime::{Runtime, State};
use super::{Failure, Summary};
use crate::address::Address;
use crate::block::Block;
use crate::index::Index;
use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner};
use crate::ledger::{Journal, StorageError};
use crate::offset::{BlockNumber, Offset};
use crate::operations::{Allocate, Release, Want};
use crate::space::{BlockId, Network, Pool, Sharing, Space};
use crate::spec::{Edges, ViewSpec};
use crate::store::Object;
use crate::store::memory::{Client, Faults, Identity, Key, MemoryStore, Random, Restore};
use crate::view::View;

/// The node of leases that were there before: it is no part of the simulation.
pub(super) const ELSEWHERE: &str = "elsewhere";
/// A schedule that does not end is wrong.
const STEPS_MAX: u64 = 200_000;
/// How often everything is settled and repaired before it counts as a failure.
const ROUNDS_MAX: usize = 12;

/// A configured range.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) pool: Pool,
    pub(super) sharing: Sharing,
    pub(super) view: Arc<View>,
    /// The store swaps several objects at once.
    pub(super) several_at_once: bool,
}

/// Where the blocks are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Local,
    PerBlock,
    Several,
}

struct Node {
    seat: Seat,
    booted: u64,
    runtime: Runtime,
}

/// A schedule under way.
pub(super) struct World {
    seed: u64,
    mode: Mode,
    random: Random,
    /// What the calls draw their numbers from.
    calls_random: Rc<RefCell<Random>>,
    clock: Rc<Clock>,
    plans: Rc<Vec<Plan>>,
    store: Rc<MemoryStore>,
    nodes: Vec<Node>,
    processes: Vec<Process>,
    n_processes: usize,
    model: Model,
    calls_left: u64,
    /// How many changes of a ledger the model has been told.
    n_changes: u64,
    /// Old images, lost and replaced objects belong to this schedule.
    has_losses: bool,
    was_lossy: bool,
    contradicted: BTreeSet<Address>,
    summary: Summary,
    trace: Option<Vec<String>>,
}

// === impl Plan ===

impl Plan {
    pub(super) fn space(&self) -> Space {
        self.pool.space(self.sharing)
    }

    pub(super) fn want(&self) -> Want {
        Want { pool: self.pool.clone(), sharing: self.sharing, view: Arc::clone(&self.view), exactly: None }
    }
}

/// Ranges that overlap, one that is soon full, both families, one that uses `.0`, one in a space of its own.
const RANGES: [(&str, bool, bool); 8] = [
    ("10.0.0.0/29", false, false),
    ("10.0.0.4-10.0.0.12/28", false, false),
    ("10.0.0.0/22", false, false),
    ("10.0.1.0/24", true, false),
    ("10.0.0.240-10.0.2.20/21", false, false),
    ("fd00::/125", false, false),
    ("fd00::/119", false, false),
    ("10.9.0.0/29", false, true),
];
/// Blocks that begin with this many addresses held, from the top down.
const FILLED: [(&str, u64); 3] = [("10.0.0.0", 244), ("10.0.1.0", 251), ("fd00::", 250)];

fn plans(random: &mut Random, several_at_once: bool) -> Result<Vec<Plan>, String> {
    let mut plans = Vec::new();
    while plans.is_empty() {
        for (text, uses_zero, is_private) in RANGES {
            if random.happens(500) {
                continue;
            }
            let mut spec: ViewSpec = text.parse().map_err(|error| format!("{error}"))?;
            if uses_zero {
                spec.edges = Edges::Usable;
            }
            let view = View::new(&spec).map_err(|error| error.to_string())?;
            let sharing = if is_private { Sharing::Private } else { Sharing::Shared };
            let pool = Pool::new(Network::unnamed(), spec.cidr);
            plans.push(Plan { pool, sharing, view: Arc::new(view), several_at_once });
        }
    }
    Ok(plans)
}

impl World {
    pub(super) fn new(seed: u64, is_traced: bool) -> Self {
        let mut random = Random::new(seed);
        let mode = match random.below(8) {
            0 => Mode::Local,
            1..5 => Mode::PerBlock,
            _ => Mode::Several,
        };
        // The ranges above are sound.
        let plans = Rc::new(plans(&mut random, mode != Mode::PerBlock).unwrap_or_default());
        let n_nodes = if mode == Mode::Local { 1 } else { 1 + random.position(4) };
        let seat = |node: usize| Seat {
            node: node_name(node),
            boot: BootId::from_bytes((1 + node as u128).to_be_bytes()),
            ledger: Rc::default(),
        };
        let nodes: Vec<Node> =
            (0..n_nodes).map(|at| Node { seat: seat(at), booted: 0, runtime: Runtime::default() }).collect();
        let ledgers = nodes.iter().map(|node| Rc::clone(&node.seat.ledger)).collect();
        let store = Rc::new(MemoryStore::new(random.bits(), mode == Mode::Several));
        let faults = [
            Faults::default(),
            Faults { unread: 10, lost_request: 20, lost_reply: 20, late: 20, refused: 10 },
            Faults { unread: 50, lost_request: 100, lost_reply: 100, late: 100, refused: 50 },
        ];
        store.set_faults(faults.get(random.position(3)).copied().unwrap_or_default());
        Self {
            seed,
            mode,
            calls_random: Rc::new(RefCell::new(Random::new(random.bits()))),
            clock: Rc::default(),
            model: Model::new(Rc::clone(&plans), ledgers, mode == Mode::Local, seat(0).boot),
            plans,
            store,
            nodes,
            processes: Vec::new(),
            n_processes: 0,
            n_changes: 0,
            calls_left: 8 + random.below(40),
            has_losses: mode != Mode::Local && random.happens(250),
            was_lossy: false,
            contradicted: BTreeSet::new(),
            summary: Summary::default(),
            trace: is_traced.then(Vec::new),
            random,
        }
    }

    pub(super) fn run(mut self) -> Result<Summary, Box<Failure>> {
        match self.play() {
            Ok(()) => Ok(self.summary),
            Err(reason) => Err(Box::new(Failure {
                seed: self.seed,
                step: self.model.step,
                reason,
                trace: self.trace.unwrap_or_default(),
            })),
        }
    }

    fn play(&mut self) -> Verdict {
        let ranges: Vec<String> = self.plans.iter().map(|plan| plan.pool.to_string()).collect();
        let (mode, n) = (self.mode, self.nodes.len());
        self.say(|| format!("{mode:?}, {n} nodes, ranges {}", ranges.join(", ")));
        self.fill()?;
        self.note_changes(None)?;
        while self.calls_left > 0 || !self.processes.is_empty() {
            self.step()?;
        }
        self.end()
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        let (step, now) = (self.model.step, self.clock.now());
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{step:>5} {now:>7} ms  {}", line()));
        }
    }

    /// Some blocks begin nearly full, or no schedule would ever see a full one.
    fn fill(&mut self) -> Verdict {
        let mut indexes: BTreeMap<Space, Index> = BTreeMap::new();
        let mut blocks = Vec::new();
        for (text, n) in FILLED {
            let address: Address = text.parse().map_err(|_| "not an address")?;
            let space = Space::shared(Network::unnamed(), address.family());
            if self.random.happens(400) || !self.plans.iter().any(|plan| plan.space() == space) {
                continue;
            }
            let id = space.block_of(address).ok_or("an address of the wrong family")?;
            let mut block = Block::empty(0);
            for at in 0..n {
                let offset = Offset::from(u8::try_from(255 - at).map_err(|error| error.to_string())?);
                block.insert(offset, filler(at)?);
            }
            block.advance();
            let index = indexes.entry(space.clone()).or_insert_with(|| Index::empty(0));
            index.existing.insert(id.number);
            blocks.push((id, block));
        }
        for index in indexes.values_mut() {
            index.advance();
        }
        if self.mode == Mode::Local {
            let node = self.nodes.first().ok_or("no node")?;
            let put = node.seat.ledger.record(|tables| {
                blocks.iter().try_for_each(|(id, block)| tables.set_block(id, block))?;
                indexes.iter().try_for_each(|(space, index)| tables.set_index(space, index))
            });
            return put.map_err(|error| error.to_string());
        }
        for (id, block) in blocks {
            self.store.put(&Key::Block(id.clone()), Some(Object::Block(id, block.into())), Identity::New);
        }
        for (space, index) in indexes {
            self.store.put(&Key::Index(space.clone()), Some(Object::Index(space, index.into())), Identity::New);
        }
        Ok(())
    }

    /// One step: a call begins, something goes wrong, or a process goes on until its next wait.
    fn step(&mut self) -> Verdict {
        self.tick()?;
        let roll = self.random.below(1000);
        let n_max = 2 + 2 * self.nodes.len();
        if self.calls_left > 0 && (self.processes.is_empty() || roll < 120) && self.processes.len() < n_max {
            self.calls_left -= 1;
            return self.begin_some();
        }
        if roll >= 965 {
            return self.go_wrong();
        }
        self.go_on()
    }

    fn tick(&mut self) -> Verdict {
        self.model.step += 1;
        self.summary.steps += 1;
        if self.model.step > STEPS_MAX {
            return Err("it does not end".to_owned());
        }
        self.clock.advance_to(self.clock.now() + self.random.below(6));
        Ok(())
    }

    /// Lets a process that does not wait for time go on.
    fn go_on(&mut self) -> Verdict {
        let now = self.clock.now();
        let ready: Vec<usize> = (0..self.processes.len())
            .filter(|&at| self.processes.get(at).is_some_and(|it| it.wakes.get() <= now))
            .collect();
        let Some(&at) = ready.get(self.random.position(ready.len())) else {
            let next = self.processes.iter().map(|process| process.wakes.get()).min();
            self.clock.advance_to(next.unwrap_or(now));
            return Ok(());
        };
        let Some(process) = self.processes.get_mut(at) else { return Ok(()) };
        let id = process.id;
        let answer = process.poll();
        self.note_changes(Some(id))?;
        let Some(answer) = answer else { return Ok(()) };
        let process = self.processes.swap_remove(at);
        self.say(|| format!("process {id} on node{} answers {}", process.node, short(&answer)));
        self.note_answer(process, answer)
    }

    // --- calls ---

    fn begin_some(&mut self) -> Verdict {
        let at = self.random.position(self.nodes.len());
        if let Some(space) = self.frozen_space()
            && self.random.happens(200)
        {
            let repaired = self.repair(&space)?;
            self.say(|| format!("repair of {space}: {repaired}"));
            return Ok(());
        }
        if self.random.happens(20)
            && let Some((block, offset, hand)) = self.model.some_held(self.random.position(64))
        {
            return self.begin_operator(at, &block, offset, &hand);
        }
        let plans = Rc::clone(&self.plans);
        let Some(node) = self.nodes.get_mut(at) else { return Ok(()) };
        let Some(mut plot) = node.runtime.plot(&mut self.random, at, &plans, true) else { return Ok(()) };
        if let Work::Check(checks) = &mut plot.work {
            for check in checks {
                check.addresses = self.model.addresses(&check.attachment);
            }
        }
        for attachment in &plot.lets_go {
            self.model.let_go(at, attachment)?;
            self.abandon_those(at, std::slice::from_ref(attachment));
        }
        self.begin(at, plot.work, plot.attachments)
    }

    /// An operator frees an address, whoever has it.
    fn begin_operator(&mut self, at: usize, block: &BlockId, offset: Offset, hand: &Hand) -> Verdict {
        let (address, attachment) = (block.address_at(offset), &hand.attachment);
        if self.processes.iter().any(|process| process.attachments.contains(attachment)) {
            return Ok(());
        }
        self.model.drop_hand(block, offset);
        self.model.forgive(block, offset);
        let work = Work::Delete(vec![Release::Address {
            space: block.space.clone(),
            address,
            operation: Some(hand.operation),
        }]);
        self.begin(at, work, Vec::new())
    }

    fn begin(&mut self, at: usize, work: Work, attachments: Vec<Attachment>) -> Verdict {
        self.n_processes += 1;
        self.summary.calls += 1;
        let id = self.n_processes;
        self.say(|| format!("process {id} on node{at} begins {}", plain(&work)));
        let requests: Vec<Allocate> = match &work {
            Work::Add(requests) => requests.clone(),
            _ => Vec::new(),
        };
        let is_repair = matches!(work, Work::Reinsert(_) | Work::Thaw(_) | Work::Freeze(..));
        self.model.begin(id, at, requests, is_repair)?;
        let checks = match &work {
            Work::Check(checks) => Some(checks.iter().map(|check| check.addresses.len()).sum()),
            _ => None,
        };
        let deadline = self.clock.now() + 500 + self.random.below(20_000);
        let Some(node) = self.nodes.get(at) else { return Ok(()) };
        let environment = ProcessEnvironment {
            clock: Rc::clone(&self.clock),
            random: Rc::clone(&self.calls_random),
            booted: node.booted,
            deadline,
            wakes: Rc::new(Cell::new(0)),
        };
        let seat = node.seat.clone();
        let mut process = if self.mode == Mode::Local {
            let dies = self.random.happens(60);
            Process::in_ledger((id, at), work, attachments, seat, environment, dies)
        } else {
            let client = Client::new(&self.store, id, at);
            Process::in_cluster((id, at), work, attachments, seat, client, environment)
        };
        process.checks = checks;
        self.processes.push(process);
        Ok(())
    }

    fn note_answer(&mut self, process: Process, answer: Answer) -> Verdict {
        let (at, is_abandoned) = (process.node, process.is_abandoned);
        let n_granted = match &answer {
            Answer::Added(answers) => answers.iter().filter(|answer| answer.is_ok()).count(),
            _ => 0,
        };
        self.summary.granted += n_granted as u64;
        match &answer {
            Answer::Broken(StorageError::Io { .. }) if self.mode == Mode::Local => {}
            Answer::Broken(error) => return Err(format!("the ledger failed: {error}")),
            Answer::Added(answers) => self.model.answered(process.id, answers)?,
            _ => {}
        }
        if is_abandoned {
            return Ok(());
        }
        match &answer {
            Answer::Deleted(answers) => {
                for (attachment, answer) in process.attachments.iter().zip(answers) {
                    let is_muddled = self.is_muddled(at, attachment);
                    match answer {
                        Ok(released) if released.queued.is_empty() && released.ambiguous.is_empty() && !is_muddled => {
                            self.model.released(at, attachment)?;
                        }
                        Ok(_) => {}
                        Err(error) => return Err(format!("DEL of {attachment} failed: {error}")),
                    }
                }
            }
            Answer::Checked(answers) => {
                let n_addresses = process.checks.unwrap_or_default();
                for (attachment, answer) in process.attachments.iter().zip(answers) {
                    let is_unread = matches!(answer, Err(crate::operations::CheckError::Store(_)));
                    if !self.is_muddled(at, attachment) {
                        self.model.checked(process.id, attachment, n_addresses, answer.is_ok() || is_unread)?;
                    }
                }
            }
            _ => {}
        }
        if !matches!(answer, Answer::Added(_) | Answer::Deleted(_) | Answer::Broken(_)) || process.checks.is_some() {
            return Ok(());
        }
        let Some(node) = self.nodes.get_mut(at) else { return Ok(()) };
        for (n, attachment) in process.attachments.iter().enumerate() {
            for sandbox in node.runtime.those(std::slice::from_ref(attachment)) {
                sandbox.is_busy = false;
                sandbox.state = match (&answer, sandbox.state) {
                    (Answer::Added(answers), _) if answers.get(n).is_some_and(Result::is_ok) => State::Up,
                    (Answer::Deleted(_), _) => State::Gone,
                    (_, state) => state,
                };
            }
        }
        Ok(())
    }

    fn is_muddled(&mut self, at: usize, attachment: &Attachment) -> bool {
        let Some(node) = self.nodes.get_mut(at) else { return true };
        node.runtime.those(std::slice::from_ref(attachment)).any(|sandbox| sandbox.is_muddled)
    }

    /// The runtime goes on without the calls that are under way for these attachments.
    fn abandon_those(&mut self, at: usize, attachments: &[Attachment]) {
        for process in &mut self.processes {
            let is_theirs = process.attachments.iter().any(|attachment| attachments.contains(attachment));
            if process.node == at && is_theirs && !process.is_abandoned {
                process.is_abandoned = true;
                self.model.abandon(process.id);
            }
        }
    }

    // --- what goes wrong ---

    fn go_wrong(&mut self) -> Verdict {
        match self.random.below(100) {
            // Without a process there is nothing to crash or to abandon.
            0..40 if self.processes.is_empty() => {}
            0..30 => {
                let at = self.random.position(self.processes.len());
                self.crash(at);
            }
            30..40 => {
                // The runtime's patience ends before the call does, and it calls again.
                let at = self.random.position(self.processes.len());
                self.abandon(at);
            }
            40..44 => self.reboot()?,
            44..56 => {
                let group = self.random.position(self.nodes.len());
                let is_cut_off = self.random.happens(400);
                self.say(|| format!("node{group} is {}", if is_cut_off { "cut off" } else { "let in" }));
                self.store.set_cut_off(group, is_cut_off);
            }
            56..85 => {
                let is_lost = self.random.happens(300);
                self.say(|| format!("a swap on its way {}", if is_lost { "is lost" } else { "lands" }));
                self.store.land_one(is_lost);
                self.note_changes(None)?;
            }
            85..90 => self.store.take_image(),
            _ if self.has_losses => self.lose_something()?,
            _ => {}
        }
        Ok(())
    }

    fn crash(&mut self, at: usize) {
        let process = self.processes.swap_remove(at);
        self.summary.crashes += 1;
        self.say(|| format!("process {} on node{} crashes", process.id, process.node));
        self.model.abandon(process.id);
        self.leave_sandboxes(&process, false);
    }

    fn abandon(&mut self, at: usize) {
        let Some(process) = self.processes.get_mut(at) else { return };
        process.is_abandoned = true;
        let (id, node, is_check) = (process.id, process.node, process.checks.is_some());
        let attachments = process.attachments.clone();
        self.model.abandon(id);
        self.say(|| format!("nobody waits for process {id} on node{node} any more"));
        if is_check {
            return;
        }
        if let Some(node) = self.nodes.get_mut(node) {
            for sandbox in node.runtime.those(&attachments) {
                sandbox.is_busy = false;
                sandbox.is_muddled = true;
            }
        }
    }

    fn leave_sandboxes(&mut self, process: &Process, is_over: bool) {
        let Some(node) = self.nodes.get_mut(process.node) else { return };
        if process.is_abandoned || process.checks.is_some() {
            return;
        }
        for sandbox in node.runtime.those(&process.attachments) {
            sandbox.is_busy = false;
            if is_over {
                sandbox.state = State::Gone;
            }
        }
    }

    /// All processes of a node end, and its boot.
    fn reboot(&mut self) -> Verdict {
        let at = self.random.position(self.nodes.len());
        while let Some(process) = self.processes.iter().position(|process| process.node == at) {
            self.crash(process);
        }
        let boot = BootId::from_bytes((u128::from(self.model.step) << 8 | at as u128).to_be_bytes());
        let Some(node) = self.nodes.get_mut(at) else { return Ok(()) };
        node.seat.boot = boot;
        node.booted = self.clock.now();
        if self.mode == Mode::Local {
            self.model.let_go_of_boot(at, boot);
            for sandbox in &mut node.runtime.sandboxes {
                sandbox.state = State::Gone;
            }
        }
        self.say(|| format!("node{at} reboots"));
        Ok(())
    }

    fn lose_something(&mut self) -> Verdict {
        let keys = self.store.keys();
        let Some(key) = keys.get(self.random.position(keys.len())).cloned() else { return Ok(()) };
        self.was_lossy = true;
        match self.random.below(5) {
            0 => {
                self.say(|| "an old image is restored in new versions".to_owned());
                self.store.restore(Restore::NewVersions);
            }
            1 => {
                self.say(|| "an old image is restored in old versions, after all calls have ended".to_owned());
                while !self.processes.is_empty() {
                    self.crash(0);
                }
                self.store.restore(Restore::OldVersions);
            }
            2 => {
                self.say(|| format!("{key:?} is made again"));
                let object = self.store.get(&key).map(|object| (*object).clone());
                self.store.put(&key, object, Identity::New);
            }
            _ => {
                self.say(|| format!("{key:?} is lost"));
                self.store.put(&key, None, Identity::Same);
            }
        }
        self.note_changes(None)
    }

    // --- the model ---

    /// Tells the model what changed.
    fn note_changes(&mut self, process: Option<usize>) -> Verdict {
        if self.mode == Mode::Local {
            return self.note_local_changes(process);
        }
        for decided in self.store.take_decided() {
            if let Key::Block(id) = decided.key {
                self.model.decided(decided.writer, id, decided.expected)?;
            }
        }
        for change in self.store.take_changes() {
            self.say(|| {
                format!(
                    "  {} by {:?}",
                    change_text(&change.key, change.after.as_deref()),
                    change.writer.as_ref().map(|(writer, _)| *writer)
                )
            });
            let writer = change.writer.as_ref().map(|(writer, expected)| (*writer, expected));
            match (&change.key, change.after.as_deref()) {
                (Key::Block(id), Some(Object::Block(_, block))) => {
                    let block = (Rc::new(Block::clone(block)), change.identity);
                    self.model.block_changed(writer, id, Some(block))?;
                }
                (Key::Index(space), Some(Object::Index(_, index))) => {
                    let index = (Rc::new(Index::clone(index)), change.identity);
                    self.model.index_changed(writer.map(|(writer, _)| writer), space, Some(index))?;
                }
                (Key::Block(id), _) => self.model.block_changed(writer, id, None)?,
                (Key::Index(space), _) => self.model.index_changed(writer.map(|(writer, _)| writer), space, None)?,
            }
        }
        Ok(())
    }

    fn note_local_changes(&mut self, process: Option<usize>) -> Verdict {
        let Some(node) = self.nodes.first() else { return Ok(()) };
        // Reading all of it is most of the work of a schedule, and most steps change nothing.
        let n_changes = node.seat.ledger.n_changes();
        if std::mem::replace(&mut self.n_changes, n_changes) == n_changes {
            return Ok(());
        }
        let spaces: BTreeSet<Space> = self.plans.iter().map(Plan::space).collect();
        let mut blocks = Vec::new();
        let mut indexes = Vec::new();
        let looked = node.seat.ledger.look(|tables| {
            for space in &spaces {
                indexes.extend(tables.index(space)?.map(|index| (space.clone(), index)));
                tables.each_block_from(space, None, |id, block| {
                    blocks.push((id, block));
                    Ok(std::ops::ControlFlow::Continue(()))
                })?;
            }
            Ok(())
        });
        looked.map_err(|error| error.to_string())?;
        for (space, index) in indexes {
            self.model.local_index(&space, index);
        }
        for (id, block) in blocks {
            self.model.local_block(process, &id, block)?;
        }
        Ok(())
    }

    fn frozen_space(&self) -> Option<Space> {
        self.plans.iter().map(Plan::space).find(|space| self.model.is_frozen(space))
    }

    // --- the end ---

    /// Runs one call alone until it answers.
    fn run_alone(&mut self, at: usize, work: Work) -> Result<Answer, String> {
        self.begin(at, work, Vec::new())?;
        let mut process = self.processes.pop().ok_or("it did not begin")?;
        loop {
            self.tick()?;
            self.clock.advance_to(process.wakes.get());
            let answer = process.poll();
            self.note_changes(Some(process.id))?;
            if let Some(answer) = answer {
                let id = process.id;
                self.say(|| format!("process {id} on node{at} answers {}", short(&answer)));
                return Ok(answer);
            }
        }
    }

    /// What `whereabouts repair` does: the space is frozen for all, every node puts back what it proves, and it is
    /// opened again. Says whether all of it could be done.
    fn repair(&mut self, space: &Space) -> Result<bool, String> {
        self.summary.repairs += 1;
        if !matches!(self.run_alone(0, Work::Freeze(space.clone(), self.model.epoch(space)))?, Answer::Frozen(true)) {
            return Ok(false);
        }
        for at in 0..self.nodes.len() {
            match self.run_alone(at, Work::Reinsert(space.clone()))? {
                Answer::Reinserted(Ok(reinserted)) => {
                    self.contradicted.extend(reinserted.contradictions.iter().map(|found| found.address));
                }
                _ => return Ok(false),
            }
        }
        Ok(matches!(self.run_alone(0, Work::Thaw(space.clone()))?, Answer::Thawed(Ok(()))))
    }

    /// Faults end: everything settles.
    fn end(&mut self) -> Verdict {
        self.say(|| "the end begins".to_owned());
        while !self.processes.is_empty() {
            self.crash(0);
        }
        self.store.set_faults(Faults::default());
        self.store.heal();
        if self.mode != Mode::Local {
            for _ in 0..self.random.below(4) {
                self.store.land_one(false);
                self.note_changes(None)?;
            }
            self.settle_all()?;
            while self.store.n_on_their_way() > 0 {
                self.say(|| "a swap on its way lands, too late".to_owned());
                self.store.land_one(false);
                self.note_changes(None)?;
            }
        }
        self.model.judge_end(&self.contradicted)
    }

    fn settle_all(&mut self) -> Verdict {
        let spaces: BTreeSet<Space> = self.plans.iter().map(Plan::space).collect();
        let mut is_first = true;
        for _ in 0..ROUNDS_MAX {
            let mut n_open = 0;
            for space in &spaces {
                if self.model.is_frozen(space) || is_first && self.was_lossy {
                    self.repair(space)?;
                }
            }
            is_first = false;
            for at in 0..self.nodes.len() {
                match self.run_alone(at, Work::Settle { older_than: 0 })? {
                    Answer::Settled(settled) => n_open += settled.open,
                    answer => return Err(format!("settling failed: {answer:?}")),
                }
            }
            if n_open == 0 && !spaces.iter().any(|space| self.model.is_frozen(space)) {
                return Ok(());
            }
        }
        Err("it does not settle".to_owned())
    }
}

/// A lease of a host that is no part of the simulation.
pub(super) fn filler(at: u64) -> Result<Lease, String> {
    let name = format!("filler{at}");
    Ok(Lease {
        state: LeaseState::Active,
        operation: OperationId::from_bytes((at + 1).to_be_bytes()),
        attachment: Attachment::named(&name),
        owner: Owner::Named(name.into()),
        node: ELSEWHERE.into(),
        boot: None,
        pool: "10.200.0.0/16".parse().map_err(|_| "not a network")?,
        provider: None,
        since: 0,
    })
}

fn plain(work: &Work) -> String {
    let Work::Add(requests) = work else { return format!("{work:?}") };
    let want = |want: &Want| match want.exactly {
        Some(exactly) => format!("{exactly} of {}", want.pool),
        None => want.pool.to_string(),
    };
    let text = |request: &Allocate| {
        let wants: Vec<String> = request.wants.iter().map(want).collect();
        format!("{} ({:?}) wants {}", request.attachment.container, request.owner, wants.join(", "))
    };
    format!("ADD {}", requests.iter().map(text).collect::<Vec<_>>().join("; "))
}

fn short(answer: &Answer) -> String {
    match answer {
        Answer::Deleted(answers) | Answer::Collected(answers) => {
            let text = |answer: &Result<crate::Released, crate::ReleaseError>| match answer {
                Ok(released) => {
                    let freed: Vec<String> = released
                        .freed
                        .iter()
                        .map(|(address, lease)| format!("{address} {}", lease.operation))
                        .collect();
                    format!("freed {freed:?} queued {:?} ambiguous {}", released.queued, released.ambiguous.len())
                }
                Err(error) => format!("error: {error}"),
            };
            answers.iter().map(text).collect::<Vec<_>>().join("; ")
        }
        Answer::Added(answers) => {
            let text = |answer: &Result<Vec<_>, crate::AllocateError>| match answer {
                Ok(allocated) => {
                    let addresses: Vec<String> = allocated
                        .iter()
                        .map(|one: &crate::Allocated| format!("{} by {}", one.address, one.operation))
                        .collect();
                    addresses.join(" + ")
                }
                Err(error) => format!("error: {error}"),
            };
            answers.iter().map(text).collect::<Vec<_>>().join("; ")
        }
        other => format!("{other:?}"),
    }
}

fn change_text(key: &Key, after: Option<&Object>) -> String {
    match (key, after) {
        (Key::Block(id), Some(Object::Block(_, block))) => {
            let leases: Vec<String> = block
                .iter()
                .filter(|(_, lease)| &*lease.node != ELSEWHERE)
                .map(|(offset, lease)| format!(".{offset} {} {}", lease.attachment.container, lease.operation))
                .collect();
            let frozen = if block.is_frozen() { " FROZEN" } else { "" };
            format!(
                "{id} epoch {} seq {}{frozen}: {} held, {}",
                block.epoch(),
                block.sequence(),
                block.n_used(),
                leases.join(", ")
            )
        }
        (Key::Index(space), Some(Object::Index(_, index))) => {
            let list =
                |set: &crate::BlockSet| set.iter().map(|number| number.get().to_string()).collect::<Vec<_>>().join(" ");
            format!(
                "index of {space} epoch {} seq {}: existing {}; full {}; but zero {}; frozen {:?}",
                index.epoch(),
                index.sequence(),
                list(index.existing()),
                list(index.full()),
                list(index.full_but_zero()),
                index.frozen()
            )
        }
        (key, _) => format!("{key:?} is gone"),
    }
}

/// The blocks of a run.
pub(super) fn numbers(span: crate::BlockSpan) -> impl Iterator<Item = BlockNumber> {
    span.iter()
}
