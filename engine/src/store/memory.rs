//! A store in memory that keeps the promises of [`Store`] and nothing beyond them.
//!
//! By seed it loses requests and replies, refuses for no reason, lands writes late, cuts a client off, restores an old
//! image, loses objects and makes them again. Every call waits at least twice: while the request travels and while the
//! reply does, so whoever polls decides the order of everything, and a caller that is dropped leaves its request behind.
//!
//! **Restored images.** A restore that goes through the store's front door ([`Restore::NewVersions`]: a backup tool, or
//! etcd with `--bump-revision`) keeps promise 3, and calls may run across it. One that puts the old files back
//! ([`Restore::OldVersions`]) brings versions back, so no swap from before may be sent after it: it drops what is on
//! its way, and the caller must end all calls that were running, as the outage that such a restore takes does.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::{Listed, Object, Outcome, Promises, ReadError, Store, Stored, Swap, Version};
use crate::block::Block;
use crate::index::Index;
use crate::offset::BlockNumber;
use crate::space::{BlockId, Space};

/// Numbers that a seed decides: the generator called SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// How often things go wrong, in cases of a thousand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// A read gets no answer.
    pub unread: u64,
    /// A swap is lost before it reaches the store.
    pub lost_request: u64,
    /// A swap is carried out and its reply is lost.
    pub lost_reply: u64,
    /// A swap gets no answer, and may land later.
    pub late: u64,
    /// A swap is refused or rejected although its version is right.
    pub refused: u64,
}

/// How a restore treats versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restore {
    /// Everything is written anew: no version comes back.
    NewVersions,
    /// The versions are those of the image, and those given since are given again.
    OldVersions,
}

/// Names an object.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Key {
    /// A block.
    Block(BlockId),
    /// The index of a space.
    Index(Space),
}

/// A change of an object, in the order in which they happened.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which client's swap it was, and of which version; `None` for a fault.
    pub writer: Option<(usize, Version)>,
    /// What changed.
    pub key: Key,
    /// What it is now; `None` when it is gone.
    pub after: Option<Rc<Object>>,
    /// The object's identity, 0 when it is gone.
    pub identity: u64,
}

/// A swap that a client has decided on, each time that it asks for it.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Whose it is.
    pub writer: usize,
    /// What it is about.
    pub key: Key,
    /// The version on which it was decided.
    pub expected: Version,
}

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    several_at_once: bool,
    faults: Cell<Faults>,
    random: RefCell<Random>,
    state: RefCell<State>,
}

/// A store as one process reaches it.
#[derive(Debug)]
pub struct Client {
    store: Rc<MemoryStore>,
    id: usize,
    group: usize,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Kept>,
    /// The newest version that was given.
    revision: u64,
    identities: u64,
    images: Vec<(BTreeMap<Key, Kept>, u64)>,
    requests: BTreeMap<u64, Request>,
    n_requests: u64,
    cut_off: BTreeSet<usize>,
    unsound: BTreeSet<Key>,
    n_reads: u64,
    changes: Vec<Change>,
    decided: Vec<Decided>,
}

#[derive(Clone, Debug)]
struct Kept {
    version: u64,
    identity: u64,
    object: Rc<Object>,
}

/// Swaps on their way, which are carried out together.
#[derive(Debug)]
struct Request {
    writer: usize,
    swaps: Vec<Swap>,
    outcomes: Option<Vec<Outcome>>,
}

/// Waits until it is polled again.
pub async fn yield_once() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

// === impl Random ===

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; 0 where the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits().checked_rem(bound).unwrap_or(0)
    }

    /// A position in a list of this length.
    pub fn position(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Whether a thing happens that happens in so many cases of a thousand.
    pub fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store without faults.
    #[must_use]
    pub fn new(seed: u64, several_at_once: bool) -> Self {
        Self {
            several_at_once,
            faults: Cell::default(),
            random: RefCell::new(Random::new(seed)),
            state: RefCell::default(),
        }
    }

    /// How often things go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.faults.set(faults);
    }

    /// Cuts a group of clients off, or lets them in again.
    pub fn set_cut_off(&self, group: usize, is_cut_off: bool) {
        let cut_off = &mut self.state.borrow_mut().cut_off;
        if is_cut_off {
            cut_off.insert(group)
        } else {
            cut_off.remove(&group)
        };
    }

    /// Lets everybody in again.
    pub fn heal(&self) {
        self.state.borrow_mut().cut_off.clear();
    }

    /// What changed since this was asked last.
    #[must_use]
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.state.borrow_mut().changes)
    }

    /// What was decided since this was asked last.
    #[must_use]
    pub fn take_decided(&self) -> Vec<Decided> {
        std::mem::take(&mut self.state.borrow_mut().decided)
    }

    /// What is stored under a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Rc<Object>> {
        self.state.borrow().objects.get(key).map(|kept| Rc::clone(&kept.object))
    }

    /// The names of all objects.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.state.borrow().objects.keys().cloned().collect()
    }

    /// Puts an object in place as a fault does, with a new version; `None` takes it away.
    pub fn put(&self, key: &Key, object: Option<Object>, identity: Identity) {
        self.state.borrow_mut().put(None, key, object, identity);
    }

    /// How many objects and lists were read.
    #[must_use]
    pub fn n_reads(&self) -> u64 {
        self.state.borrow().n_reads
    }

    /// Makes an object one that cannot be read.
    pub fn spoil(&self, key: &Key) {
        self.state.borrow_mut().unsound.insert(key.clone());
    }

    /// How many swaps are on their way without anybody waiting for them, and with.
    #[must_use]
    pub fn n_on_their_way(&self) -> usize {
        self.state.borrow().requests.values().filter(|request| request.outcomes.is_none()).count()
    }

    /// Lands a swap that is on its way, or loses it; which, the seed decides.
    pub fn land_one(&self, is_lost: bool) {
        let state = &mut *self.state.borrow_mut();
        let open: Vec<u64> =
            state.requests.iter().filter(|(_, request)| request.outcomes.is_none()).map(|(id, _)| *id).collect();
        let at = self.random.borrow_mut().position(open.len());
        let Some(&id) = open.get(at) else { return };
        if is_lost { drop(state.requests.remove(&id)) } else { drop(state.carry_out(id)) }
    }

    /// Keeps an image of everything.
    pub fn take_image(&self) {
        let state = &mut *self.state.borrow_mut();
        state.images.push((state.objects.clone(), state.revision));
    }

    /// Puts an image back, if there is one.
    pub fn restore(&self, restore: Restore) -> bool {
        let state = &mut *self.state.borrow_mut();
        let at = self.random.borrow_mut().position(state.images.len());
        let Some((image, revision)) = state.images.get(at).cloned() else { return false };
        let mut keys: BTreeSet<Key> = state.objects.keys().cloned().collect();
        keys.extend(image.keys().cloned());
        for key in keys {
            let now = state.objects.get(&key).map(|kept| &kept.object);
            let then = image.get(&key);
            if now == then.map(|kept| &kept.object) && restore == Restore::NewVersions {
                continue;
            }
            match then {
                None => state.put(None, &key, None, Identity::Same),
                Some(kept) => {
                    state.put(None, &key, Some((*kept.object).clone()), Identity::Of(kept.identity));
                    if let (Restore::OldVersions, Some(put)) = (restore, state.objects.get_mut(&key)) {
                        put.version = kept.version;
                    }
                }
            }
        }
        if restore == Restore::OldVersions {
            state.revision = revision;
            state.requests.clear();
        }
        true
    }

    fn chance(&self, per_mille: u64) -> bool {
        self.random.borrow_mut().happens(per_mille)
    }
}

/// Which identity an object gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity {
    /// The one that it has, or a new one where there was nothing.
    Same,
    /// Another one.
    New,
    /// This one.
    Of(u64),
}

// === impl State ===

impl State {
    /// What is stored under a key.
    fn kept(&self, key: &Key) -> Result<Option<&Kept>, ReadError> {
        if self.unsound.contains(key) {
            return Err(ReadError::Unsound { object: format!("{key:?}"), reason: "it was edited".to_owned() });
        }
        Ok(self.objects.get(key))
    }

    fn put(&mut self, writer: Option<(usize, Version)>, key: &Key, object: Option<Object>, identity: Identity) {
        let object = object.map(Rc::new);
        self.revision += 1;
        let mut given = 0;
        match &object {
            None => {
                self.objects.remove(key);
                // Being absent is the one version that a fault brings back: whoever was about to make it comes too late.
                self.requests.retain(|_, request| {
                    request.outcomes.is_some()
                        || !request.swaps.iter().any(|swap| swap.expected.is_absent() && Key::of(&swap.object) == *key)
                });
            }
            Some(object) => {
                let same = self.objects.get(key).map(|kept| kept.identity);
                let identity = match (identity, same) {
                    (Identity::Of(identity), _) | (Identity::Same, Some(identity)) => identity,
                    (Identity::New, _) | (Identity::Same, None) => {
                        self.identities += 1;
                        self.identities
                    }
                };
                given = identity;
                let kept = Kept { version: self.revision, identity, object: Rc::clone(object) };
                self.objects.insert(key.clone(), kept);
            }
        }
        self.changes.push(Change { writer, key: key.clone(), after: object, identity: given });
    }

    fn version(&self, key: &Key) -> Version {
        self.objects.get(key).map_or_else(Version::absent, Kept::version)
    }

    /// Forgets a request that was not carried out yet; says whether it did.
    fn refuse(&mut self, request: u64) -> bool {
        let waits = self.requests.get(&request).is_some_and(|request| request.outcomes.is_none());
        waits && self.requests.remove(&request).is_some()
    }

    /// Carries a request out, unless that was done already.
    fn carry_out(&mut self, id: u64) -> Option<Vec<Outcome>> {
        let request = self.requests.get_mut(&id)?;
        if let Some(outcomes) = &request.outcomes {
            return Some(outcomes.clone());
        }
        let (writer, swaps) = (request.writer, std::mem::take(&mut request.swaps));
        let fits = swaps.iter().all(|swap| self.version(&Key::of(&swap.object)) == swap.expected);
        let mut outcomes = Vec::with_capacity(swaps.len());
        for swap in swaps {
            if !fits {
                outcomes.push(Outcome::Refused);
                continue;
            }
            let key = Key::of(&swap.object);
            self.put(Some((writer, swap.expected)), &key, Some(swap.object), Identity::Same);
            let identity = self.objects.get(&key).map(|kept| kept.identity.to_be_bytes().to_vec()).unwrap_or_default();
            outcomes.push(Outcome::Accepted { version: self.version(&key), identity });
        }
        if let Some(request) = self.requests.get_mut(&id) {
            request.outcomes = Some(outcomes.clone());
        }
        Some(outcomes)
    }
}

// === impl Kept ===

impl Kept {
    fn version(&self) -> Version {
        Version::from_bytes(&self.version.to_be_bytes())
    }
}

// === impl Key ===

impl Key {
    /// The name of an object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        match object {
            Object::Block(id, _) => Self::Block(id.clone()),
            Object::Index(space, _) => Self::Index(space.clone()),
        }
    }
}

// === impl Client ===

impl Client {
    /// A client of a group that is cut off together.
    #[must_use]
    pub fn new(store: &Rc<MemoryStore>, id: usize, group: usize) -> Self {
        Self { store: Rc::clone(store), id, group }
    }

    fn is_cut_off(&self) -> bool {
        self.store.state.borrow().cut_off.contains(&self.group)
    }

    /// A read: the request travels, the state of that moment is taken, the reply travels.
    async fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, ReadError> {
        yield_once().await;
        self.store.state.borrow_mut().n_reads += 1;
        let answer = look(&self.store.state.borrow());
        yield_once().await;
        if self.is_cut_off() || self.store.chance(self.store.faults.get().unread) {
            return Err(ReadError::Unavailable { reason: "the reply was lost".to_owned() });
        }
        Ok(answer)
    }

    fn send(&self, swaps: Vec<Swap>) -> u64 {
        let state = &mut *self.store.state.borrow_mut();
        state.n_requests += 1;
        state.requests.insert(state.n_requests, Request { writer: self.id, swaps, outcomes: None });
        state.n_requests
    }

    /// Swaps that are carried out together.
    async fn swap_together(&self, swaps: Vec<Swap>) -> Vec<Outcome> {
        let n = swaps.len();
        let unknown = |reason: &str| vec![Outcome::Unknown { reason: reason.to_owned() }; n];
        let request = self.send(swaps);
        yield_once().await;
        let faults = self.store.faults.get();
        if self.is_cut_off() || self.store.chance(faults.lost_request) {
            self.store.state.borrow_mut().requests.remove(&request);
            yield_once().await;
            return unknown("the request was lost");
        }
        if self.store.chance(faults.late) {
            yield_once().await;
            return unknown("no reply yet");
        }
        if self.store.chance(faults.refused) && self.store.state.borrow_mut().refuse(request) {
            yield_once().await;
            // One half each, of which no seed takes notice.
            let rejected = Outcome::Rejected { reason: "the store would not have it".to_owned() };
            return vec![if request.is_multiple_of(2) { rejected } else { Outcome::Refused }; n];
        }
        let outcomes = self.store.state.borrow_mut().carry_out(request);
        yield_once().await;
        self.store.state.borrow_mut().requests.remove(&request);
        match outcomes {
            Some(outcomes) if !self.is_cut_off() && !self.store.chance(faults.lost_reply) => outcomes,
            _ => unknown("the reply was lost"),
        }
    }
}

impl Store for Client {
    fn promises(&self) -> Promises {
        Promises { several_at_once: self.store.several_at_once, one_transaction_with_journal: false }
    }

    async fn read_index(&self, space: &Space) -> Result<Option<Stored<Index>>, ReadError> {
        let sound = |state: &State| {
            let Some(kept) = state.kept(&Key::Index(space.clone()))? else { return Ok(None) };
            let Object::Index(_, index) = &*kept.object else { return Ok(None) };
            Ok(Some(stored(kept, Index::clone(index))))
        };
        self.read(sound).await?
    }

    async fn read_block(&self, block: &BlockId) -> Result<Option<Stored<Block>>, ReadError> {
        let sound = |state: &State| {
            let Some(kept) = state.kept(&Key::Block(block.clone()))? else { return Ok(None) };
            let Object::Block(_, block) = &*kept.object else { return Ok(None) };
            Ok(Some(stored(kept, Block::clone(block))))
        };
        self.read(sound).await?
    }

    async fn swap(&self, swaps: Vec<Swap>) -> Vec<Outcome> {
        let decided =
            |swap: &Swap| Decided { writer: self.id, key: Key::of(&swap.object), expected: swap.expected.clone() };
        self.store.state.borrow_mut().decided.extend(swaps.iter().map(decided));
        if self.store.several_at_once {
            return self.swap_together(swaps).await;
        }
        let mut order: Vec<usize> = (0..swaps.len()).collect();
        for end in (1..order.len()).rev() {
            let other = self.store.random.borrow_mut().position(end + 1);
            order.swap(end, other);
        }
        let mut outcomes = vec![Outcome::Unknown { reason: "it was not sent".to_owned() }; swaps.len()];
        for at in order {
            let Some(swap) = swaps.get(at).cloned() else { continue };
            let outcome = self.swap_together(vec![swap]).await.pop();
            if let (Some(outcome), Some(place)) = (outcome, outcomes.get_mut(at)) {
                *place = outcome;
            }
        }
        outcomes
    }

    async fn list_blocks(&self, space: &Space) -> Result<Vec<Listed<BlockNumber, Block>>, ReadError> {
        self.read(|state| {
            let block = |(key, kept): (&Key, &Kept)| {
                let (Key::Block(id), Object::Block(_, block)) = (key, &*kept.object) else { return None };
                let sound = state.kept(key).map(|_| stored(kept, Block::clone(block)));
                (id.space == *space).then_some((id.number, sound))
            };
            state.objects.iter().filter_map(block).collect()
        })
        .await
    }

    async fn list_indexes(&self) -> Result<Vec<Listed<Space, Index>>, ReadError> {
        self.read(|state| {
            let index = |(key, kept): (&Key, &Kept)| {
                let (Key::Index(space), Object::Index(_, index)) = (key, &*kept.object) else { return None };
                Some((space.clone(), state.kept(key).map(|_| stored(kept, Index::clone(index)))))
            };
            state.objects.iter().filter_map(index).collect()
        })
        .await
    }

    async fn confirm(&self) -> Result<(), ReadError> {
        self.read(|_| ()).await
    }
}

fn stored<T>(kept: &Kept, object: T) -> Stored<T> {
    Stored { version: kept.version(), identity: kept.identity.to_be_bytes().to_vec(), object }
}
