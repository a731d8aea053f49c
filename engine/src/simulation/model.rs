//! What must be true after every step, told from the answers that callers got and from every change of a block.
//!
//! A *hand* is an address that somebody was told is theirs, and that nobody has begun to release. The model judges by
//! its own rules: nothing here calls the code that it judges.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use super::world::{ELSEWHERE, Plan};
use crate::address::Address;
use crate::block::{Block, Fullness};
use crate::index::Index;
use crate::intent::{Purpose, Seen};
use crate::lease::{Attachment, BootId, Lease, OperationId, Owner};
use crate::ledger::memory::MemoryLedger;
use crate::ledger::{Journal, Tables};
use crate::offset::Offset;
use crate::operations::{Allocate, AllocateError, Allocated, Want};
use crate::space::{BlockId, Space};
use crate::store::Version;

/// What is wrong, in a sentence.
pub(super) type Verdict = Result<(), String>;

type Place = (BlockId, Offset);

/// An address in somebody's hands.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub(super) node: usize,
    pub(super) attachment: Attachment,
    owner: Owner,
    pub(super) operation: OperationId,
    /// Since which step the address has been in this owner's hands without a break.
    since: u64,
    /// The store lost the lease. Nothing is promised before a repair, but that a host which saw it does not give the
    /// address away.
    pub(super) is_lost: bool,
}

/// What a host's ledger said of a block when a call decided to swap it.
#[derive(Clone, Debug, Default)]
struct Knew {
    seen: Option<Seen>,
    /// What its containers have.
    proven: Vec<(Offset, Attachment)>,
}

/// A call of which the model knows, for as long as something of it may land.
#[derive(Debug)]
struct Call {
    node: usize,
    started: u64,
    requests: Vec<Allocate>,
    /// For each request, the addresses that its owner or attachment had when the call began, by the index of the want.
    /// With them, whether the attachment itself had them.
    had: Vec<Vec<(usize, Place, bool)>>,
    /// The blocks that this host remembered as closed for ordinary views when the call began.
    remembered: BTreeMap<Space, Index>,
    /// The same at the end of each other call of this host since.
    remembered_since: Vec<(Space, Index)>,
    /// What containers of this host had by its ledger when the call began or since. The store may have lost it, and it is
    /// not given away.
    proven: BTreeSet<Place>,
    /// Nobody listens any more.
    is_abandoned: bool,
    /// A repair may put leases into frozen blocks.
    is_repair: bool,
}

#[derive(Clone, Debug)]
struct Known<T> {
    object: Rc<T>,
    identity: u64,
}

/// The state of the world as it should be.
#[derive(Debug)]
pub(super) struct Model {
    plans: Rc<Vec<Plan>>,
    ledgers: Vec<Rc<MemoryLedger>>,
    /// In a ledger everything is exact, and nothing is under way between steps.
    is_local: bool,
    /// The boot of the host of a ledger.
    boot: BootId,
    pub(super) step: u64,
    blocks: BTreeMap<BlockId, Known<Block>>,
    indexes: BTreeMap<Space, Known<Index>>,
    hands: BTreeMap<Place, Hand>,
    calls: BTreeMap<usize, Call>,
    /// The last step at which an address was held.
    last_held: BTreeMap<Place, u64>,
    /// Since which step a block has had room for a plan's view without a break; `u64::MAX` when it has none.
    room_since: BTreeMap<(usize, BlockId), u64>,
    /// The last step at which a lease followed another at an address, and whose the other was.
    last_followed: BTreeMap<Place, (u64, Attachment)>,
    /// The last step at which the index marked a block.
    last_marked: BTreeMap<BlockId, u64>,
    /// The last step at which a fault changed a block.
    last_fault: BTreeMap<BlockId, u64>,
    /// Leases that an old image brought back.
    zombies: BTreeSet<OperationId>,
    /// Leases that a fault took away.
    lost: BTreeSet<OperationId>,
    /// Leases that ended on another node, which cannot tell the one that holds them: a sticky owner moved, or an
    /// operator freed the address.
    moved: BTreeSet<OperationId>,
    /// The lease that an operation replaced on its own node.
    replaced: BTreeMap<OperationId, OperationId>,
    /// Blocks whose marks a fault may have made wrong.
    unmarkable: BTreeSet<BlockId>,
    /// Whether the store has lost or brought back anything.
    was_lossy: bool,
    /// What a call's host had seen of a block when the call decided to swap a version of it, for the first time.
    knew: BTreeMap<(usize, BlockId, Version), Knew>,
    /// Since which step the index has listed a block.
    listed_since: BTreeMap<BlockId, u64>,
    /// Blocks that a fault took away, and when.
    gone: BTreeMap<BlockId, u64>,
}

/// By the words of the design: UID with namespace and name, or the sticky name alone.
fn is_same_owner(one: &Owner, two: &Owner) -> bool {
    match (one, two) {
        (Owner::Pod(one), Owner::Pod(two)) => {
            one.namespace == two.namespace && one.name == two.name && one.uid == two.uid
        }
        (Owner::Sticky { name: one, .. }, Owner::Sticky { name: two, .. }) | (Owner::Named(one), Owner::Named(two)) => {
            one == two
        }
        _ => false,
    }
}

/// Whether a lease may follow another at the same address: a newer call of the same attachment, or of the same owner on
/// the same node; a sticky owner wherever it is.
fn may_follow(owner: &Owner, attachment: &Attachment, node: &str, next: &Lease) -> bool {
    let same_owner = is_same_owner(owner, &next.owner) && attachment.interface == next.attachment.interface;
    let here = node == &*next.node || matches!(owner, Owner::Sticky { .. });
    here && (same_owner || *attachment == next.attachment)
}

// === impl Hand ===

impl Hand {
    fn may_be(&self, lease: &Lease, nodes: &str) -> bool {
        lease.operation == self.operation || may_follow(&self.owner, &self.attachment, nodes, lease)
    }
}

pub(super) fn node_name(node: usize) -> Arc<str> {
    format!("node{node}").into()
}

impl Model {
    pub(super) fn new(plans: Rc<Vec<Plan>>, ledgers: Vec<Rc<MemoryLedger>>, is_local: bool, boot: BootId) -> Self {
        Self {
            plans,
            ledgers,
            is_local,
            boot,
            step: 0,
            blocks: BTreeMap::new(),
            indexes: BTreeMap::new(),
            hands: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_held: BTreeMap::new(),
            last_followed: BTreeMap::new(),
            room_since: BTreeMap::new(),
            last_marked: BTreeMap::new(),
            last_fault: BTreeMap::new(),
            zombies: BTreeSet::new(),
            lost: BTreeSet::new(),
            moved: BTreeSet::new(),
            replaced: BTreeMap::new(),
            unmarkable: BTreeSet::new(),
            was_lossy: false,
            knew: BTreeMap::new(),
            listed_since: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    // --- calls ---

    pub(super) fn begin(&mut self, process: usize, node: usize, requests: Vec<Allocate>, is_repair: bool) -> Verdict {
        let mut had = Vec::new();
        let mut remembered = BTreeMap::new();
        // A call that nobody listens to may have taken an address over for a later sandbox, which is gone again by now.
        let is_anybody_unheard = self.calls.values().any(|call| call.node == node && call.is_abandoned);
        for request in &requests {
            let mut places = Vec::new();
            for (at, want) in request.wants.iter().enumerate() {
                let space = want.space();
                for (place, hand) in &self.hands {
                    let is_it = place.0.space == space
                        && !hand.is_lost
                        && hand.node == node
                        && !(is_anybody_unheard && is_given_up(&self.ledgers, place, hand))
                        && (hand.attachment == request.attachment
                            || is_same_owner(&hand.owner, &request.owner)
                                && hand.attachment.interface == request.attachment.interface);
                    let lease = self.lease(place);
                    if is_it && lease.is_some_and(|lease| lease.pool == want.pool.cidr()) {
                        places.push((at, place.clone(), hand.attachment == request.attachment));
                    }
                }
                if let Some(index) = self.remembered(node, &space)? {
                    remembered.insert(space, index);
                }
            }
            had.push(places);
        }
        let call = Call {
            node,
            started: self.step,
            requests,
            had,
            remembered,
            remembered_since: Vec::new(),
            proven: proven_places(self.ledgers.get(node).ok_or("no such node")?)?,
            is_abandoned: false,
            is_repair,
        };
        self.calls.insert(process, call);
        Ok(())
    }

    fn remembered(&self, node: usize, space: &Space) -> Result<Option<Index>, String> {
        if self.is_local {
            return Ok(None);
        }
        let Some(ledger) = self.ledgers.get(node) else { return Ok(None) };
        ledger.look(|tables| tables.index(space)).map_err(|error| error.to_string())
    }

    /// Nobody listens to these processes any more.
    pub(super) fn abandon(&mut self, process: usize) {
        if let Some(call) = self.calls.get_mut(&process) {
            call.is_abandoned = true;
        }
    }

    /// A call ends, and leaves to those that are under way on its host what it has seen of the indexes.
    fn note_remembered(&mut self, process: usize) -> Verdict {
        let Some(Call { node, requests, .. }) = self.calls.get(&process) else { return Ok(()) };
        let node = *node;
        let spaces: BTreeSet<Space> =
            requests.iter().flat_map(|request| request.wants.iter().map(Want::space)).collect();
        self.note_proven(node)?;
        for space in spaces {
            let Some(index) = self.remembered(node, &space)? else { continue };
            for (other, call) in &mut self.calls {
                if *other != process && call.node == node && !call.is_abandoned {
                    call.remembered_since.push((space.clone(), index.clone()));
                }
            }
        }
        Ok(())
    }

    /// What containers of a host have now by its ledger, for all calls that are under way on it.
    fn note_proven(&mut self, node: usize) -> Verdict {
        let proven = proven_places(self.ledgers.get(node).ok_or("no such node")?)?;
        for call in self.calls.values_mut().filter(|call| call.node == node) {
            call.proven.extend(proven.iter().cloned());
        }
        Ok(())
    }

    /// A release has begun: what the attachments have is in nobody's hands any more.
    pub(super) fn let_go(&mut self, node: usize, attachment: &Attachment) -> Verdict {
        self.hands.retain(|_, hand| hand.node != node || hand.attachment != *attachment);
        // A sandbox that was made, but whose maker did not hear of it, has taken over from the one before it.
        let ledger = self.ledgers.get(node).ok_or("no such node")?;
        let row = ledger.look(|tables| tables.attachment(attachment)).map_err(|error| error.to_string())?;
        for held in row.into_iter().flat_map(|row| row.held) {
            self.hands.remove(&(held.block, held.offset));
        }
        Ok(())
    }

    /// A boot is over, and in a ledger all leases that die with it are.
    pub(super) fn let_go_of_boot(&mut self, node: usize, boot: BootId) {
        self.boot = boot;
        self.hands.retain(|_, hand| hand.node != node || matches!(hand.owner, Owner::Sticky { .. } | Owner::Named(_)));
    }

    /// An answer to an ADD.
    pub(super) fn answered(&mut self, process: usize, answers: &[Result<Vec<Allocated>, AllocateError>]) -> Verdict {
        self.note_remembered(process)?;
        let Some(call) = self.calls.remove(&process) else { return Err("an answer without a question".to_owned()) };
        let verdict = self.judge_answers(&call, answers);
        self.calls.insert(process, call);
        verdict
    }

    fn judge_answers(&mut self, call: &Call, answers: &[Result<Vec<Allocated>, AllocateError>]) -> Verdict {
        if answers.len() != call.requests.len() {
            return Err(format!("{} answers to {} requests", answers.len(), call.requests.len()));
        }
        let n_failed = answers.iter().zip(&call.requests).filter(|(answer, _)| answer.is_err());
        let n_failed: usize = n_failed.map(|(_, request)| request.wants.len()).sum();
        for (at, (answer, request)) in answers.iter().zip(&call.requests).enumerate() {
            match answer {
                Ok(allocated) => {
                    let taken = self.judge_allocated(call, request, allocated)?;
                    self.judge_same_answer(call, at, &taken, answers)?;
                }
                Err(AllocateError::RangeFull { pool, .. }) => {
                    let want = request.wants.iter().find(|want| want.pool == *pool);
                    let want = want.ok_or_else(|| format!("{pool} is full, and nobody asked for it"))?;
                    let others = n_failed.saturating_sub(1);
                    self.judge_full(call, want, others)?;
                }
                Err(AllocateError::AlreadyHeld { asked, .. }) => {
                    let want = request.wants.iter().find(|want| want.exactly == Some(*asked));
                    let want = want.ok_or_else(|| format!("{asked} was refused, and nobody asked for it"))?;
                    let block = want.space().block_of(*asked).ok_or("an address of the wrong family")?;
                    let place = (block, Offset::of(*asked));
                    let was_held = self.lease(&place).is_some()
                        || self.last_held.get(&place).is_some_and(|&last| last >= call.started);
                    if !was_held && answers.len() == 1 {
                        return Err(format!("{asked} was called held, and nobody held it during the call"));
                    }
                }
                Err(AllocateError::NotInPool { .. } | AllocateError::Sharing { .. }) => {
                    return Err(format!("a sound request was refused: {answer:?}"));
                }
                Err(error) if self.is_local => return Err(format!("a ledger answered {error}")),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Judges what a request got; the answer is where that is, and is empty where nobody listens.
    fn judge_allocated(
        &mut self,
        call: &Call,
        request: &Allocate,
        allocated: &[Allocated],
    ) -> Result<Vec<Place>, String> {
        let (attachment, wants) = (&request.attachment, &request.wants);
        if allocated.len() != wants.len() {
            return Err(format!("{attachment} got {} addresses for {} wants", allocated.len(), wants.len()));
        }
        if call.is_abandoned {
            // What it took over from the sandbox before it, it keeps, whether anybody hears of it or not.
            for (want, allocated) in wants.iter().zip(allocated) {
                let block = want.space().block_of(allocated.address).ok_or("an address of the wrong family")?;
                let place = (block, Offset::of(allocated.address));
                // Where the store has lost it meanwhile, the ledger says so.
                let is_given_up = |hand: &Hand| hand.node == call.node && is_given_up(&self.ledgers, &place, hand);
                if self.lease(&place).is_some_and(|lease| lease.operation == allocated.operation)
                    || self.hands.get(&place).is_some_and(is_given_up)
                {
                    self.hands.remove(&place);
                }
            }
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        for (want, allocated) in wants.iter().zip(allocated) {
            let address = allocated.address;
            let block = want.space().block_of(address).ok_or("an address of the wrong family")?;
            let place = (block, Offset::of(address));
            if taken.contains(&place) {
                return Err(format!("{attachment} got {address} twice"));
            }
            taken.push(place.clone());
            if want.exactly.is_some_and(|exactly| exactly != address) {
                return Err(format!("{attachment} asked for another address than {address}"));
            }
            if want.exactly.is_none() && !want.view.contains(address) {
                return Err(format!("{attachment} got {address}, which is not in the view of {}", want.pool));
            }
            let is_faulty = self.last_fault.get(&place.0).is_some_and(|&last| last >= call.started);
            let mut is_lost = false;
            match self.lease(&place) {
                Some(lease) if lease.operation == allocated.operation => {
                    if lease.attachment != *attachment {
                        return Err(format!("the lease of {address} names {} and not {attachment}", lease.attachment));
                    }
                }
                // Another sandbox of the same owner has it already, and may even be deleted again.
                Some(lease) if may_follow(&request.owner, attachment, &node_name(call.node), lease) => continue,
                _ if self.last_followed.get(&place).is_some_and(|(last, _)| *last >= call.started) => {
                    if is_faulty {
                        self.hands.remove(&place);
                    }
                    continue;
                }
                _ if is_faulty => is_lost = true,
                found => return Err(format!("{attachment} was told {address}, but the store has {found:?}")),
            }
            if !is_lost && self.lease(&place).is_some_and(|lease| lease.operation == allocated.operation) {
                let was_followed = self.last_followed.get(&place).is_some_and(|(last, _)| *last >= call.started);
                let ledger = self.ledgers.get(call.node).ok_or("no such node")?;
                if is_faulty && was_followed && !is_recorded(ledger, attachment, &place, allocated.operation)? {
                    // It had passed on before this answer, and an old image brought it back.
                    continue;
                }
                self.judge_recorded(call.node, attachment, &place, allocated.operation)?;
            }
            if let Some(hand) = self.hands.get(&place)
                && !hand.is_lost
                && !(hand.attachment == *attachment
                    || is_same_owner(&hand.owner, &request.owner)
                        && (hand.node == call.node || matches!(hand.owner, Owner::Sticky { .. })))
            {
                if is_lost {
                    // A fault took it from this call before its answer, and a host that could not know gave it away.
                    continue;
                }
                return Err(format!("{address} was told to {attachment}, and {} has it", hand.attachment));
            }
            let hand = Hand {
                node: call.node,
                attachment: attachment.clone(),
                owner: request.owner.clone(),
                operation: allocated.operation,
                since: self.hands.get(&place).map_or(self.step, |before| before.since),
                is_lost,
            };
            self.hands.insert(place, hand);
        }
        Ok(taken)
    }

    /// Durable before visible: the row of the attachment is there when its caller hears of it.
    fn judge_recorded(&self, node: usize, attachment: &Attachment, place: &Place, operation: OperationId) -> Verdict {
        let ledger = self.ledgers.get(node).ok_or("no such node")?;
        let is_there = is_recorded(ledger, attachment, place, operation)?;
        let address = place.0.address_at(place.1);
        if is_there { Ok(()) } else { Err(format!("{attachment} was told {address}, and the ledger does not know")) }
    }

    /// Same question, same answer.
    fn judge_same_answer(
        &self,
        call: &Call,
        at: usize,
        taken: &[Place],
        answers: &[Result<Vec<Allocated>, AllocateError>],
    ) -> Verdict {
        let request = call.requests.get(at).filter(|_| !taken.is_empty());
        let Some(request) = request else { return Ok(()) };
        // What an earlier request of the batch got for the same owner is the owner's too.
        let is_sibling = |(other, _): &(&Allocate, _)| is_same_owner(&other.owner, &request.owner);
        let of_siblings = call.requests.iter().zip(answers).take(at).filter(is_sibling);
        let of_siblings: BTreeSet<Address> =
            of_siblings.filter_map(|(_, answer)| answer.as_ref().ok()).flatten().map(|one| one.address).collect();
        let had = call.had.get(at).map(Vec::as_slice).unwrap_or_default();
        for (at, want) in request.wants.iter().enumerate() {
            if want.exactly.is_some() {
                continue;
            }
            // Asking for this very address beside it may have used it up.
            let still = |place: &&Place| {
                self.hands.get(*place).is_some_and(|hand| {
                    !hand.is_lost
                        && hand.since <= call.started
                        && (hand.attachment == request.attachment || is_same_owner(&hand.owner, &request.owner))
                })
            };
            // What another sandbox took over is its own no more, nor its owner's once that one is being deleted: its call
            // was through, whether anybody heard of it or not.
            let is_left = |place: &Place, own: bool| {
                let (hand, lease) = (self.hands.get(place)?, self.lease(place)?);
                let has_passed = lease.operation != hand.operation && has_passed(&self.ledgers, lease.operation);
                let is_held =
                    || is_recorded(self.ledgers.get(call.node)?, &lease.attachment, place, lease.operation).ok();
                Some(if own { hand.attachment == request.attachment && !has_passed } else { !has_passed || is_held()? })
            };
            let those = |own: bool| -> Vec<&Place> {
                let mine = had.iter().filter(|(of, place, is_own)| {
                    *of == at && (!own || *is_own) && is_left(place, own).unwrap_or(!own)
                });
                mine.map(|(_, place, _)| place).filter(still).collect()
            };
            // Its own come before those of other sandboxes of its owner.
            let own = those(true);
            let is_own = !own.is_empty();
            let before = if is_own { own } else { those(false) };
            if before.is_empty() || before.iter().any(|place| taken.iter().any(|taken| taken == *place)) {
                continue;
            }
            // Of an owner with several addresses, any of them will do.
            let is_another_of_them = |place: &Place| {
                self.last_followed
                    .get(place)
                    .is_some_and(|(last, of)| *last >= call.started && (!is_own || *of == request.attachment))
            };
            let is_of_sibling = |place: &Place| !is_own && of_siblings.contains(&place.0.address_at(place.1));
            if taken.get(at).is_some_and(|place| is_another_of_them(place) || is_of_sibling(place)) {
                continue;
            }
            let (block, offset) = before.first().ok_or("it is not empty")?;
            return Err(format!(
                "{} had {} of {}, asked again, and got {:?}",
                request.attachment,
                block.address_at(*offset),
                want.pool,
                taken.get(at).map(|(block, offset)| block.address_at(*offset))
            ));
        }
        Ok(())
    }

    /// A range is called full only when it is: every address was held at some moment of the call, or its block was
    /// marked.
    fn judge_full(&self, call: &Call, want: &Want, n_others: usize) -> Verdict {
        let space = want.space();
        let mut free = Vec::new();
        for address in want.view.iter() {
            let Some(block) = space.block_of(address) else { continue };
            let place = (block, Offset::of(address));
            let was_held =
                self.lease(&place).is_some() || self.last_held.get(&place).is_some_and(|&last| last >= call.started);
            let is_marked = self.is_marked(&place.0) || self.last_marked.get(&place.0) >= Some(&call.started);
            if !was_held && (self.is_local || !is_marked) {
                free.push(address);
            }
        }
        // What another request of the batch was about to take was not free either.
        if let Some(first) = free.first().filter(|_| free.len() > n_others) {
            return Err(format!("{} was called full, and {first} was free all the time", want.pool));
        }
        Ok(())
    }

    fn is_marked(&self, id: &BlockId) -> bool {
        self.indexes.get(&id.space).is_some_and(|index| index.object.mark(id.number) != Fullness::Open)
    }

    /// The answer to a CHECK of something that is in its caller's hands.
    pub(super) fn checked(
        &self,
        process: usize,
        attachment: &Attachment,
        n_addresses: usize,
        is_fine: bool,
    ) -> Verdict {
        let started = self.calls.get(&process).map_or(0, |call| call.started);
        let mine = || self.hands.iter().filter(|(_, hand)| hand.attachment == *attachment);
        // While another sandbox of the same owner takes over, and may yet give back, either answer is true.
        let is_disputed = mine().count() != n_addresses
            || mine().any(|(place, hand)| {
                // Or it got them again while this call was under way.
                hand.is_lost
                    || hand.since > started
                    || self.lease(place).is_none_or(|lease| lease.operation != hand.operation)
                    || self.last_followed.get(place).is_some_and(|(last, _)| *last >= started)
                    || self.last_fault.contains_key(&place.0) && is_given_up(&self.ledgers, place, hand)
                    // Or they were taken out of the store, and put back, meanwhile.
                    || self.last_fault.get(&place.0).is_some_and(|&last| last >= started)
            });
        if n_addresses > 0 && !is_disputed && !is_fine {
            return Err(format!("CHECK of {attachment} failed, which has its addresses"));
        }
        Ok(())
    }

    /// A DEL was answered with success: nothing of the attachment is left, or it is written down.
    pub(super) fn released(&self, node: usize, attachment: &Attachment) -> Verdict {
        let ledger = self.ledgers.get(node).ok_or("no such node")?;
        let intents = ledger.look(Tables::intents).map_err(|error| error.to_string())?;
        for (id, known) in &self.blocks {
            for (offset, lease) in known.object.iter().chain(known.object.covered()) {
                if lease.attachment != *attachment || self.zombies.contains(&lease.operation) {
                    continue;
                }
                let is_open = intents.iter().any(|(_, intent)| names_block(&intent.purpose, id));
                if !is_open {
                    return Err(format!("{attachment} was deleted, and still holds {}", id.address_at(offset)));
                }
            }
        }
        Ok(())
    }

    /// The addresses that an attachment was told.
    pub(super) fn addresses(&self, attachment: &Attachment) -> Vec<Address> {
        let mine = self.hands.iter().filter(|(_, hand)| hand.attachment == *attachment && !hand.is_lost);
        mine.map(|((block, offset), _)| block.address_at(*offset)).collect()
    }

    /// An address that is held, of those that have a hand.
    pub(super) fn some_held(&self, n: usize) -> Option<(BlockId, Offset, Hand)> {
        let at = n.checked_rem(self.hands.len())?;
        self.hands.iter().nth(at).map(|((block, offset), hand)| (block.clone(), *offset, hand.clone()))
    }

    pub(super) fn drop_hand(&mut self, block: &BlockId, offset: Offset) {
        self.hands.remove(&(block.clone(), offset));
    }

    /// An operator takes an address away: its attachment is not asked for it any more.
    pub(super) fn forgive(&mut self, block: &BlockId, offset: Offset) {
        for call in self.calls.values_mut() {
            for had in &mut call.had {
                had.retain(|(_, place, _)| *place != (block.clone(), offset));
            }
        }
    }

    /// A block of a ledger, as it is after a step.
    pub(super) fn local_block(&mut self, process: Option<usize>, id: &BlockId, block: Block) -> Verdict {
        if self.blocks.get(id).is_some_and(|known| *known.object == block) {
            return Ok(());
        }
        match process {
            Some(process) => {
                let block = (Rc::new(block), 1);
                self.block_changed(Some((process, &Version::absent())), id, Some(block))
            }
            None => {
                self.blocks.insert(id.clone(), Known { object: Rc::new(block), identity: 1 });
                self.note_room(id);
                Ok(())
            }
        }
    }

    /// An index of a ledger, as it is after a step: to be told before the blocks that changed in the same transaction.
    pub(super) fn local_index(&mut self, space: &Space, index: Index) {
        self.indexes.insert(space.clone(), Known { object: Rc::new(index), identity: 1 });
    }

    pub(super) fn epoch(&self, space: &Space) -> u64 {
        self.indexes.get(space).map_or(0, |index| index.object.epoch())
    }

    pub(super) fn is_frozen(&self, space: &Space) -> bool {
        self.indexes.get(space).is_some_and(|index| index.object.frozen().is_some())
    }

    fn lease(&self, (block, offset): &Place) -> Option<&Lease> {
        self.blocks.get(block)?.object.get(*offset)
    }

    // --- changes ---

    pub(super) fn index_changed(
        &mut self,
        writer: Option<usize>,
        space: &Space,
        after: Option<(Rc<Index>, u64)>,
    ) -> Verdict {
        self.was_lossy |= writer.is_none();
        let before = match after {
            Some((object, identity)) => self.indexes.insert(space.clone(), Known { object, identity }),
            None => self.indexes.remove(space),
        };
        let now = self.indexes.get(space).map(|known| Rc::clone(&known.object));
        for number in before.iter().flat_map(|known| known.object.full_but_zero().iter()) {
            self.last_marked.insert(BlockId { space: space.clone(), number }, self.step);
        }
        if let (Some(before), Some(now)) = (&before, &now)
            && writer.is_some()
            && before.object.frozen().is_none()
        {
            let unlisted = before.object.existing().iter().find(|number| !now.existing().contains(*number));
            if let Some(number) = unlisted {
                return Err(format!("block {number:?} of {space} was taken out of the index"));
            }
        }
        for number in now.iter().flat_map(|now| now.existing().iter()) {
            if before.as_ref().is_none_or(|before| !before.object.existing().contains(number)) {
                self.listed_since.insert(BlockId { space: space.clone(), number }, self.step);
            }
        }
        let known: Vec<BlockId> = self.blocks.keys().filter(|id| id.space == *space).cloned().collect();
        let is_repair = writer.and_then(|writer| self.calls.get(&writer)).is_some_and(|call| call.is_repair);
        if let Some(reason) = now.as_ref().and_then(|now| now.frozen())
            && before.as_ref().is_none_or(|before| before.object.frozen().is_none())
            && !(self.was_lossy || is_repair)
        {
            return Err(format!("{space} is frozen though nothing was lost: {reason}"));
        }
        if writer.is_none() {
            self.unmarkable.extend(known);
            return Ok(());
        }
        if let (Some(before), Some(now)) = (before, now)
            && before.object.frozen().is_some()
            && now.frozen().is_none()
        {
            self.unmarkable.retain(|id| id.space != *space);
        }
        known.iter().try_for_each(|id| self.judge_mark(id))
    }

    /// A mark that says more than is true is on its way out: somebody's intent names the block.
    fn judge_mark(&self, id: &BlockId) -> Verdict {
        let Some(index) = self.indexes.get(&id.space) else { return Ok(()) };
        let fullness = self.blocks.get(id).map_or(Fullness::Open, |known| known.object.fullness());
        if index.object.mark(id.number) <= fullness || self.unmarkable.contains(id) {
            return Ok(());
        }
        for ledger in &self.ledgers {
            let intents = ledger.look(Tables::intents).map_err(|error| error.to_string())?;
            if intents.iter().any(|(_, intent)| names_block(&intent.purpose, id)) {
                return Ok(());
            }
        }
        Err(format!(
            "the index calls {id} {:?}, it is {fullness:?}, and no intent says so",
            index.object.mark(id.number)
        ))
    }

    /// A call is about to swap a block on this version of it.
    pub(super) fn decided(&mut self, process: usize, id: BlockId, expected: Version) -> Verdict {
        let call = self.calls.get(&process).ok_or("a swap of nobody")?;
        let ledger = self.ledgers.get(call.node).ok_or("no such node")?;
        let seen = ledger.look(|tables| tables.seen_block(&id)).map_err(|error| error.to_string())?;
        let of_block = proven_by(ledger)?.into_iter().filter(|((block, _), _)| *block == id);
        let proven: Vec<_> = of_block.map(|((_, offset), attachment)| (offset, attachment)).collect();
        let knew = self.knew.entry((process, id, expected)).or_insert_with(|| Knew { seen, proven: proven.clone() });
        // Decided anew on the same version, it may go by what was released meanwhile.
        knew.proven.retain(|known| proven.contains(known));
        let node = call.node;
        self.note_proven(node)
    }

    pub(super) fn block_changed(
        &mut self,
        writer: Option<(usize, &Version)>,
        id: &BlockId,
        after: Option<(Rc<Block>, u64)>,
    ) -> Verdict {
        self.was_lossy |= writer.is_none();
        let before = match &after {
            Some((object, identity)) => {
                self.blocks.insert(id.clone(), Known { object: Rc::clone(object), identity: *identity })
            }
            None => self.blocks.remove(id),
        };
        let verdict = match writer {
            None => {
                self.fault(id, before.as_ref(), after.as_ref().map(|(block, _)| &**block));
                Ok(())
            }
            Some((process, expected)) => {
                let after = after.as_ref().map(|(block, _)| &**block).ok_or("a call took a block away")?;
                let knew = self.knew.get(&(process, id.clone(), expected.clone())).cloned().unwrap_or_default();
                self.judge_block(process, id, before.as_ref(), after, &knew)
            }
        };
        self.note_room(id);
        verdict?;
        if writer.is_some() { self.judge_mark(id) } else { Ok(()) }
    }

    fn note_room(&mut self, id: &BlockId) {
        for (at, plan) in self.plans.iter().enumerate() {
            if plan.space() != id.space {
                continue;
            }
            let offsets = plan.view.offsets(id.number);
            if offsets.is_empty() {
                continue;
            }
            let has_room = self.blocks.get(id).is_none_or(|known| known.object.lowest_free(&offsets).is_some());
            let since = self.room_since.entry((at, id.clone())).or_insert(0);
            if !has_room {
                *since = u64::MAX;
            } else if *since == u64::MAX {
                *since = self.step;
            }
        }
    }

    fn fault(&mut self, id: &BlockId, before: Option<&Known<Block>>, after: Option<&Block>) {
        self.last_fault.insert(id.clone(), self.step);
        self.unmarkable.insert(id.clone());
        match after {
            None => self.gone.insert(id.clone(), self.step),
            Some(_) => self.gone.remove(id),
        };
        let operations = |block: Option<&Block>| -> BTreeMap<Offset, OperationId> {
            block.map(|block| block.iter().map(|(at, lease)| (at, lease.operation)).collect()).unwrap_or_default()
        };
        let was = operations(before.map(|known| &*known.object));
        let is = operations(after);
        for (offset, operation) in &was {
            self.last_held.insert((id.clone(), *offset), self.step);
            if is.get(offset) != Some(operation) {
                self.lost.insert(*operation);
            }
        }
        for (offset, operation) in &is {
            if was.get(offset) != Some(operation) {
                // Undone, it gives the address back to another that is gone.
                let mut next = Some(*operation);
                while let Some(operation) = next.filter(|operation| self.zombies.insert(*operation)) {
                    next = self.replaced.get(&operation).copied();
                }
            }
        }
        let places = self.hands.range_mut((id.clone(), Offset::ZERO)..=(id.clone(), Offset::LAST));
        let mut passed = Vec::new();
        for (place @ (_, offset), hand) in places {
            if let Some(operation) = was.get(offset).filter(|operation| **operation != hand.operation)
                && has_passed(&self.ledgers, *operation)
            {
                passed.push(place.clone());
                continue;
            }
            let lease = after.and_then(|block| block.get(*offset));
            let is_as_it_was = lease.is_some_and(|lease| was.get(offset) == Some(&lease.operation));
            let is_back = lease.is_some_and(|lease| lease.operation == hand.operation);
            hand.is_lost = !is_back && (hand.is_lost || !is_as_it_was);
        }
        for place in passed {
            self.hands.remove(&place);
        }
    }

    /// `seen` is what the call's host had seen of the block when the call decided on the swap.
    fn judge_block(
        &mut self,
        process: usize,
        id: &BlockId,
        before: Option<&Known<Block>>,
        after: &Block,
        knew: &Knew,
    ) -> Verdict {
        let was: BTreeMap<Offset, &Lease> = before.iter().flat_map(|known| known.object.iter()).collect();
        let is: BTreeMap<Offset, &Lease> = after.iter().collect();
        if let Some(known) = before
            && after.sequence() <= known.object.sequence()
        {
            return Err(format!("{id} was written without raising its sequence"));
        }
        let call = self.calls.get(&process).ok_or("a swap of nobody")?;
        let (started, node) = (call.started, node_name(call.node));
        if before.is_none() && !after.is_frozen() {
            // Absent is not free. Where the index did not list it yet when the call began, nobody had taken an address
            // in it, and what was lost is an empty block.
            if self.gone.get(id).is_some_and(|&since| since < started)
                && self.listed_since.get(id).is_none_or(|&since| since < started)
                && self.indexes.get(&id.space).is_some_and(|index| index.object.existing().contains(id.number))
            {
                return Err(format!("{id} is listed and was lost, and was made again as if it were new"));
            }
            self.gone.remove(id);
            if !after.used().is_empty() && !self.promises_several() {
                return Err(format!("{id} was made with somebody in it"));
            }
        }
        let mut news = Vec::new();
        for (&offset, &lease) in &is {
            let old = was.get(&offset).copied();
            if old.is_some_and(|old| old.operation == lease.operation) {
                continue;
            }
            let address = id.address_at(offset);
            if let Some(old) = old
                && !may_follow(&old.owner, &old.attachment, &old.node, lease)
                && !(self.is_local && old.boot.is_some_and(|boot| boot != self.boot))
                && !self.is_brought_back(process, &(id.clone(), offset), old)
            {
                return Err(format!("{address} was taken from {old} on {} for {lease} on {}", old.node, lease.node));
            }
            if let Some(old) = old {
                self.last_followed.insert((id.clone(), offset), (self.step, old.attachment.clone()));
                if old.node == lease.node {
                    self.replaced.insert(lease.operation, old.operation);
                } else {
                    self.note_moved(old.operation);
                }
            }
            news.push((offset, lease, old.is_none()));
        }
        for (&offset, lease) in &was {
            if !is.contains_key(&offset) {
                if lease.node != node {
                    self.note_moved(lease.operation);
                }
                self.last_held.insert((id.clone(), offset), self.step);
            }
        }
        let call = self.calls.get(&process).ok_or("a swap of nobody")?;
        if !news.is_empty() && before.is_some_and(|known| known.object.is_frozen()) && !call.is_repair {
            return Err(format!("{id} is frozen, and somebody took an address in it"));
        }
        for &(offset, lease, is_new) in &news {
            if is_new && !call.is_repair {
                let is_others =
                    |(at, attachment): &&(Offset, Attachment)| *at == offset && *attachment != lease.attachment;
                if !self.is_local
                    && let Some((_, attachment)) = knew.proven.iter().find(is_others)
                {
                    let address = id.address_at(offset);
                    return Err(format!(
                        "{address} was given to {lease}, and by the node's own ledger {attachment} has it"
                    ));
                }
                self.judge_choice(call, id, offset, lease, after)?;
            }
        }
        self.judge_hands(process, id, before, after, knew.seen.as_ref())
    }

    /// A lease ended on another node, and with it what it would give the address back to were it undone.
    fn note_moved(&mut self, operation: OperationId) {
        let mut next = Some(operation);
        while let Some(operation) = next.filter(|operation| self.moved.insert(*operation)) {
            next = self.replaced.get(&operation).copied();
        }
    }

    fn promises_several(&self) -> bool {
        self.plans.first().is_some_and(|plan| plan.several_at_once)
    }

    /// Lowest free: of the block as it is swapped, and of the first block that may have room.
    fn judge_choice(&self, call: &Call, id: &BlockId, offset: Offset, lease: &Lease, after: &Block) -> Verdict {
        let address = id.address_at(offset);
        let request = call.requests.iter().find(|request| request.attachment == lease.attachment);
        let Some(request) = request else {
            return Ok(());
        };
        let want = request.wants.iter().find(|want| want.pool.cidr() == lease.pool && want.space() == id.space);
        let want =
            want.ok_or_else(|| format!("{address} was taken for a pool that {} does not want", lease.attachment))?;
        if request.wants.iter().any(|want| want.exactly == Some(address)) {
            return Ok(());
        }
        // In one transaction, an earlier request of the batch may have had it for the same owner.
        let is_sibling = |other: &&Allocate| is_same_owner(&other.owner, &request.owner);
        if self.is_local && call.requests.iter().filter(is_sibling).count() > 1 {
            return Ok(());
        }
        // What its own containers have, a node does not give away, though the store may have lost it.
        let assignable = |id: &BlockId| {
            let mut offsets = want.view.offsets(id.number);
            let places = (id.clone(), Offset::ZERO)..=(id.clone(), Offset::LAST);
            for (_, offset) in call.proven.range(places).filter(|_| !self.is_local) {
                offsets.remove(offset.get().into());
            }
            offsets
        };
        if let Some(lower) = after.lowest_free(&assignable(id))
            && lower < offset
        {
            return Err(format!("{address} was taken, and {} is free", id.address_at(lower)));
        }
        if !self.is_local && (call.requests.len() > 1 || request.wants.len() > 1) {
            return Ok(());
        }
        let plan = self.plans.iter().position(|plan| plan.pool == want.pool).ok_or("no such plan")?;
        let remembered = match call.remembered.get(&id.space) {
            Some(index) => Some(index.clone()),
            None => self.remembered(call.node, &id.space)?,
        };
        let now_remembered = self.remembered(call.node, &id.space)?;
        for number in want.view.block_spans().flat_map(super::world::numbers).take_while(|number| *number < id.number) {
            let block = BlockId { space: id.space.clone(), number };
            let has_room = self.room_since.get(&(plan, block.clone())).is_none_or(|&since| since < call.started);
            if want.view.offsets(number).is_empty() || !has_room {
                continue;
            }
            let is_marked_in = |index: &Index| index.mark(number) != Fullness::Open;
            let marks = |index: &Option<Index>| index.as_ref().is_some_and(is_marked_in);
            let is_marked = self.is_marked(&block)
                || self.last_marked.get(&block) >= Some(&call.started)
                || call.remembered_since.iter().any(|(space, index)| *space == id.space && is_marked_in(index))
                || marks(&remembered)
                || marks(&now_remembered);
            let mut free = assignable(&block);
            if let Some(known) = self.blocks.get(&block) {
                free -= known.object.used();
            }
            let places = (block.clone(), Offset::ZERO)..=(block.clone(), Offset::LAST);
            for ((_, offset), _) in self.last_held.range(places).filter(|(_, last)| **last >= call.started) {
                free.remove(offset.get().into());
            }
            if self.is_local || !(is_marked || free.is_empty()) {
                return Err(format!("{address} was taken, and {block} has had room all the time"));
            }
        }
        Ok(())
    }

    /// What is in somebody's hands stays there.
    fn judge_hands(
        &mut self,
        process: usize,
        id: &BlockId,
        before: Option<&Known<Block>>,
        after: &Block,
        seen: Option<&Seen>,
    ) -> Verdict {
        let call = self.calls.get(&process).ok_or("a swap of nobody")?;
        let now = before.map(|known| Seen {
            epoch: known.object.epoch(),
            sequence: known.object.sequence(),
            identity: known.identity.to_be_bytes().to_vec(),
        });
        let knows_better = match (seen, &now) {
            (Some(seen), Some(now)) => {
                (now.epoch, now.sequence) < (seen.epoch, seen.sequence)
                    || now.epoch == seen.epoch && now.identity != seen.identity
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        let mut passed = Vec::new();
        for (place @ (_, offset), hand) in self.hands.range_mut((id.clone(), Offset::ZERO)..=(id.clone(), Offset::LAST))
        {
            let address = id.address_at(*offset);
            let lease = after.get(*offset);
            let is_kept = match hand.is_lost {
                // What an old image brought back of the same owner is not what is in its hands.
                true => lease.is_some_and(|lease| lease.operation == hand.operation),
                false => lease.is_some_and(|lease| hand.may_be(lease, &node_name(hand.node))),
            };
            if is_kept {
                hand.is_lost = false;
                continue;
            }
            let is_new = lease.is_some_and(|lease| {
                before.and_then(|known| known.object.get(*offset)).is_none_or(|old| old.operation != lease.operation)
            });
            if hand.is_lost && (!is_new || !knows_better || call.is_repair) {
                continue;
            }
            // An old image brought it back, which its host knows: it may be deleted, or replaced by what its host proves.
            if (lease.is_none() || call.is_repair)
                && self.last_fault.contains_key(id)
                && is_given_up(&self.ledgers, place, hand)
            {
                passed.push(place.clone());
                continue;
            }
            let old = before.and_then(|known| known.object.get(*offset));
            if let Some(old) = old.filter(|old| old.operation != hand.operation && lease.is_none())
                && has_passed(&self.ledgers, old.operation)
            {
                // That one may be deleted.
                passed.push(place.clone());
                continue;
            }
            return Err(format!(
                "{address} is in the hands of {}, and the block gives it to {}",
                hand.attachment,
                lease.map_or_else(|| "nobody".to_owned(), ToString::to_string)
            ));
        }
        for place in passed {
            self.hands.remove(&place);
        }
        Ok(())
    }

    /// Whether an old image brought a lease back of which the repairing host knows that its own container has given it up.
    fn is_brought_back(&self, process: usize, place: &Place, old: &Lease) -> bool {
        let Some(call) = self.calls.get(&process) else { return false };
        let ledger = self.ledgers.get(call.node);
        call.is_repair
            && self.last_fault.contains_key(&place.0)
            && *old.node == *node_name(call.node)
            && ledger.is_some_and(|ledger| is_recorded(ledger, &old.attachment, place, old.operation) == Ok(false))
    }

    // --- the end ---

    /// When everything is settled: no lease without its attachment, no attachment without its lease, nothing under way,
    /// marks that are right or low, and the blocks that the index lists.
    pub(super) fn judge_end(&self, contradicted: &BTreeSet<Address>) -> Verdict {
        let mut rows: BTreeMap<Place, Vec<(OperationId, Attachment)>> = BTreeMap::new();
        for ledger in &self.ledgers {
            let (intents, attachments) = ledger
                .look(|tables| {
                    let mut attachments = Vec::new();
                    tables.each_attachment(&[], |attachment, row| {
                        attachments.push((attachment, row));
                        Ok(std::ops::ControlFlow::Continue(()))
                    })?;
                    Ok((tables.intents()?, attachments))
                })
                .map_err(|error| error.to_string())?;
            if let Some((operation, intent)) = intents.first() {
                return Err(format!("intent {operation} is still open at the end: {:?}", intent.purpose));
            }
            for (attachment, row) in attachments {
                if row.held.is_empty() {
                    return Err(format!("{attachment} has a row and holds nothing"));
                }
                for held in row.held {
                    let of = rows.entry((held.block, held.offset)).or_default();
                    of.push((held.operation, attachment.clone()));
                }
            }
        }
        for (place, of) in &rows {
            let lease = self.lease(place);
            for (operation, attachment) in of {
                let address = place.0.address_at(place.1);
                let is_right =
                    lease.is_some_and(|lease| lease.operation == *operation && lease.attachment == *attachment);
                let was_taken_over = self.moved.contains(operation);
                let is_contradicted = contradicted.contains(&address);
                if !is_right && !was_taken_over && !is_contradicted {
                    return Err(format!(
                        "{attachment} has a row for {address} by {operation}, and the store has {lease:?}"
                    ));
                }
            }
        }
        for (id, known) in &self.blocks {
            for (offset, lease) in known.object.iter() {
                let place = (id.clone(), offset);
                let has_row =
                    rows.get(&place).is_some_and(|of| of.iter().any(|(operation, _)| *operation == lease.operation));
                let address = id.address_at(offset);
                if !has_row && !self.zombies.contains(&lease.operation) && &*lease.node != ELSEWHERE {
                    return Err(format!("{lease} holds {address}, and no attachment says so"));
                }
            }
            // The row is of the newest sandbox with that name, and with it the older ones go.
            for (offset, lease) in known.object.covered() {
                let row = rows.get(&(id.clone(), offset)).into_iter().flatten();
                let has_row = row.into_iter().any(|(_, attachment)| *attachment == lease.attachment);
                if !has_row && !self.zombies.contains(&lease.operation) {
                    let address = id.address_at(offset);
                    return Err(format!("{lease} could get {address} back, and no attachment says so"));
                }
            }
            if known.object.is_frozen() {
                return Err(format!("{id} is still frozen"));
            }
        }
        for (place, hand) in &self.hands {
            let address = place.0.address_at(place.1);
            let lease = self.lease(place);
            let is_kept = lease.is_some_and(|lease| hand.may_be(lease, &node_name(hand.node)));
            if !is_kept && !contradicted.contains(&address) {
                return Err(format!("{} should have {address}, and the store has {lease:?}", hand.attachment));
            }
        }
        for (space, known) in &self.indexes {
            for number in known.object.existing().iter() {
                let id = BlockId { space: space.clone(), number };
                if !self.blocks.contains_key(&id) {
                    return Err(format!("the index lists {id}, which is not there"));
                }
            }
        }
        for (id, known) in &self.blocks {
            let index = self.indexes.get(&id.space);
            let is_listed = index.is_some_and(|index| index.object.existing().contains(id.number));
            if !is_listed && !known.object.used().is_empty() {
                return Err(format!("{id} is used, and the index does not list it"));
            }
            let mark = index.map_or(Fullness::Open, |index| index.object.mark(id.number));
            if mark > known.object.fullness() {
                return Err(format!(
                    "the index calls {id} {mark:?} at the end, and it is {:?}",
                    known.object.fullness()
                ));
            }
        }
        Ok(())
    }
}

/// What the containers of a host have by its ledger.
fn proven_by(ledger: &MemoryLedger) -> Result<Vec<(Place, Attachment)>, String> {
    let mut proven = Vec::new();
    let looked = ledger.look(|tables| {
        tables.each_attachment(&[], |attachment, row| {
            proven.extend(row.held.into_iter().map(|held| ((held.block, held.offset), attachment.clone())));
            Ok(ControlFlow::Continue(()))
        })
    });
    looked.map(|()| proven).map_err(|error| error.to_string())
}

fn proven_places(ledger: &MemoryLedger) -> Result<BTreeSet<Place>, String> {
    Ok(proven_by(ledger)?.into_iter().map(|(place, _)| place).collect())
}

/// Whether an address had passed on to a later sandbox of the owner, on whatever node, whose call was through.
fn has_passed(ledgers: &[Rc<MemoryLedger>], later: OperationId) -> bool {
    ledgers.iter().all(|ledger| matches!(ledger.look(|tables| tables.intent(later)), Ok(None)))
}

/// Whether an attachment's row in its host's ledger has an address by this operation.
fn is_recorded(
    ledger: &MemoryLedger,
    attachment: &Attachment,
    place: &Place,
    operation: OperationId,
) -> Result<bool, String> {
    let row = ledger.look(|tables| tables.attachment(attachment)).map_err(|error| error.to_string())?;
    Ok(row.is_some_and(|row| {
        row.held.iter().any(|held| held.block == place.0 && held.offset == place.1 && held.operation == operation)
    }))
}

/// Whether the host knows that an address had passed on to a later sandbox of its owner.
fn is_given_up(ledgers: &[Rc<MemoryLedger>], place: &Place, hand: &Hand) -> bool {
    let ledger = ledgers.get(hand.node);
    ledger.is_some_and(|ledger| is_recorded(ledger, &hand.attachment, place, hand.operation) == Ok(false))
}

/// Whether settling the intent will look at the block's mark.
fn names_block(purpose: &Purpose, id: &BlockId) -> bool {
    match purpose {
        Purpose::Claim(claims) | Purpose::Undo(claims) => claims.iter().any(|claim| claim.block == *id),
        Purpose::Release(held) => held.iter().any(|held| held.block == *id),
        Purpose::Recheck(blocks) => blocks.contains(id),
        Purpose::Freeze { space, .. } => id.space == *space,
    }
}
