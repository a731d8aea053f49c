//! The ledger of one host against a model: random calls, reboots, and a crash at every write and every sync.
//!
//! The model is a map from addresses to holders. What must hold: the lowest free address of the view is given, the same
//! question gets the same answer, an overlapping range never gives an address twice, and after a crash everything that
//! was answered is there and what was not is there whole or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use whereabouts_engine::backend::{MemoryStorage, Survives};
use whereabouts_engine::{
    Address, Allocate, AllocateError, Attachment, BootId, Check, Collect, Edges, Holdings, HostFacts, IpNet, Ledger,
    LedgerFile, Network, OpenOptions, Owner, Pod, Pool, Range, Release, Sharing, View, ViewSpec, Want, parse_exclude,
    spool_release,
};

/// A range of the model.
struct Configured {
    network: &'static str,
    cidr: &'static str,
    exclude: Option<&'static str>,
    sharing: Sharing,
}

const fn shared(network: &'static str, cidr: &'static str, exclude: Option<&'static str>) -> Configured {
    Configured { network, cidr, exclude, sharing: Sharing::Shared }
}

const fn private(network: &'static str, cidr: &'static str) -> Configured {
    Configured { network, cidr, exclude: None, sharing: Sharing::Private }
}

/// The second and third overlap the first, the fourth is in a network of its own, the fifth is IPv6, the sixth is the
/// first with an exclude, the last two overlap and are private, so that they do not collide.
const RANGES: [Configured; 8] = [
    shared("", "10.0.0.0/28", None),
    shared("", "10.0.0.0/29", None),
    shared("", "10.0.0.0/23", None),
    shared("blue", "10.0.0.0/28", None),
    shared("", "fd00::/125", None),
    shared("", "10.0.0.0/28", Some("10.0.0.0/30")),
    private("red", "10.0.0.0/28"),
    private("red", "10.0.0.0/29"),
];

/// Pods from this number on have sticky names, whose addresses outlive boots.
const FIRST_STICKY: u8 = 9;

/// The host's name is another one after each boot, which must not matter.
fn facts(boot: u8) -> HostFacts {
    HostFacts {
        node: format!("host-{boot}").into(),
        machine: "machine".into(),
        boot: BootId::from_bytes([boot; 16]),
        // The kernel's number for the pid namespace of a host that is no container.
        pid_namespace: 0xefff_fffc,
        may_end_boots: true,
    }
}

fn open(storage: &Arc<MemoryStorage>, boot: u8) -> Result<Ledger, whereabouts_engine::LedgerFileError> {
    let file = LedgerFile::open_storage(storage.clone(), &OpenOptions::new("/ledger.redb"))?;
    Ok(Ledger::on(file, facts(boot)))
}

fn want(range: usize) -> Want {
    let Configured { network, cidr, exclude, sharing } = RANGES[range];
    let cidr: IpNet = cidr.parse().unwrap();
    let excludes = exclude.iter().map(|exclude| parse_exclude(exclude).unwrap()).collect();
    Want {
        pool: Pool::new(Network::new(network).unwrap(), cidr),
        sharing,
        view: Arc::new(View::new(&ViewSpec { excludes, ..ViewSpec::new(cidr) }).unwrap()),
        exactly: None,
    }
}

/// What may not collide: the space of a range.
fn space(range: usize) -> SpaceOf {
    let Configured { network, cidr, sharing, .. } = RANGES[range];
    (network, (sharing == Sharing::Private).then_some(cidr))
}

fn pod(number: u8) -> Owner {
    let name = format!("web-{number}");
    if number >= FIRST_STICKY {
        return Owner::Sticky { name: name.as_str().into(), pod: None };
    }
    Owner::Pod(Pod { namespace: "default".into(), name: name.as_str().into(), uid: None })
}

/// A container of a pod: its id says which.
fn attachment(pod: u8, generation: u8) -> Attachment {
    Attachment::new(&format!("{pod:02x}{generation:02x}00000000000000"), "eth0", "net")
}

fn release(attachment: &Attachment) -> Release {
    Release::Attachment {
        container: attachment.container.clone(),
        interface: attachment.interface.clone(),
        network: Some(attachment.network.clone()),
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// In one batch.
    Add(Vec<Add>),
    Delete(u8, u8),
    /// The runtime lists these.
    Collect(BTreeSet<(u8, u8)>),
    Reboot,
}

/// A pod with the generation of its container, and the ranges of which it wants an address; of the first one perhaps
/// the n-th of the CIDR, and no other.
#[derive(Clone, Debug)]
struct Add {
    pod: u8,
    generation: u8,
    ranges: Vec<usize>,
    exactly: Option<u8>,
}

fn add(pod: u8, generation: u8, ranges: &[usize]) -> Add {
    Add { pod, generation, ranges: ranges.to_vec(), exactly: None }
}

/// An ADD gets nothing, because a range is full or the address is held.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Refused;

/// A network, and the CIDR of a private pool.
type SpaceOf = (&'static str, Option<&'static str>);

/// Who holds an address: pod, generation, pool.
type Held = BTreeMap<(SpaceOf, Address), (u8, u8, usize)>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    held: Held,
}

impl Model {
    /// What an ADD must answer.
    fn add(&mut self, asked: &Add) -> Result<Vec<Address>, Refused> {
        let Add { pod, generation, ranges, .. } = asked;
        let mut given: Vec<Option<Address>> = vec![None; ranges.len()];
        let is_given = |given: &[Option<Address>], of: usize, address: Address| {
            given.iter().zip(ranges).any(|(got, &range)| *got == Some(address) && space(range) == space(of))
        };
        let exactly = |at: usize| asked.exactly().filter(|_| at == 0);
        // What is asked for, what could be given again from the pool, what the container had from it as it was then, what
        // is in the view.
        for reason in 0..4 {
            for (at, &range) in ranges.iter().enumerate() {
                if given[at].is_some() {
                    continue;
                }
                let view = want(range).view;
                let fits = |((of, address), (owner, container, pool)): &(&(SpaceOf, Address), &(u8, u8, usize))| {
                    let in_pool = RANGES[*pool].cidr == RANGES[range].cidr;
                    let by_reason = match (exactly(at), reason) {
                        (Some(exactly), 0) => exactly == *address,
                        (None, 1) => in_pool && view.contains(*address),
                        (None, 2) => in_pool && container == generation,
                        (None, 3) => view.contains(*address),
                        _ => false,
                    };
                    *of == space(range) && owner == pod && by_reason && !is_given(&given, range, *address)
                };
                // Its own first, then those of the pod's other containers, each by number.
                let found = self
                    .held
                    .iter()
                    .filter(fits)
                    .min_by_key(|((_, address), (_, container, _))| (container != generation, *address));
                let found = found.map(|((_, address), _)| *address);
                given[at] = found;
            }
        }
        if let (Some(exactly), Some(&range), Some(None)) = (asked.exactly(), ranges.first(), given.first()) {
            if self.held.contains_key(&(space(range), exactly)) || is_given(&given, range, exactly) {
                return Err(Refused);
            }
            given[0] = Some(exactly);
        }
        for (at, &range) in ranges.iter().enumerate() {
            if given[at].is_none() {
                let taken = |address: &Address| {
                    self.held.contains_key(&(space(range), *address)) || is_given(&given, range, *address)
                };
                let lowest = want(range).view.iter().find(|address| !taken(address));
                given[at] = Some(lowest.ok_or(Refused)?);
            }
        }
        let given: Vec<Address> = given.into_iter().map(Option::unwrap).collect();
        for (&address, &range) in given.iter().zip(ranges) {
            self.held.insert((space(range), address), (*pod, *generation, range));
        }
        Ok(given)
    }

    fn reboot(&mut self) {
        self.held.retain(|_, (pod, ..)| *pod >= FIRST_STICKY);
    }

    fn delete(&mut self, pod: u8, generation: u8) {
        self.held.retain(|_, (owner, container, _)| (*owner, *container) != (pod, generation));
    }

    fn collect(&mut self, listed: &BTreeSet<(u8, u8)>) {
        self.held.retain(|_, (owner, container, _)| listed.contains(&(*owner, *container)));
    }

    fn containers(&self) -> BTreeSet<(u8, u8)> {
        self.held.values().map(|(pod, generation, _)| (*pod, *generation)).collect()
    }
}

impl Add {
    /// The address that is asked for.
    fn exactly(&self) -> Option<Address> {
        let cidr: IpNet = RANGES[*self.ranges.first()?].cidr.parse().unwrap();
        Address::new(Range::from(cidr).first().family(), Range::from(cidr).first().number() + u128::from(self.exactly?))
    }

    fn request(&self) -> Allocate {
        let mut wants: Vec<Want> = self.ranges.iter().map(|&range| want(range)).collect();
        wants[0].exactly = self.exactly();
        Allocate { attachment: attachment(self.pod, self.generation), owner: pod(self.pod), wants }
    }
}

fn request(pod: u8, generation: u8, ranges: &[usize]) -> Allocate {
    add(pod, generation, ranges).request()
}

/// Space, address and container of everything that is held.
fn holdings(ledger: &Ledger) -> BTreeSet<(String, Address, String)> {
    let mut found = BTreeSet::new();
    ledger
        .each_holding(&Holdings::default(), |holding| {
            let space = (holding.space.network().as_str(), holding.space.private_cidr().map(|cidr| cidr.to_string()));
            found.insert((format!("{space:?}"), holding.address, holding.lease.attachment.container.to_string()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    found
}

fn expected(model: &Model) -> BTreeSet<(String, Address, String)> {
    let holding = |((space, address), (pod, generation, _)): (&(SpaceOf, Address), &(u8, u8, usize))| {
        (format!("{space:?}"), *address, attachment(*pod, *generation).container.to_string())
    };
    model.held.iter().map(holding).collect()
}

/// Takes a step on both, and holds the answers against each other.
fn step(ledger: &Ledger, model: &mut Model, step: &Step) -> Result<(), whereabouts_engine::LedgerError> {
    match step {
        Step::Add(batch) => {
            let requests: Vec<Allocate> = batch.iter().map(Add::request).collect();
            let answers = ledger.allocate(&requests)?;
            // Requests of one pod in a batch are answered after the others, in their order.
            let mut order: Vec<usize> = Vec::new();
            let mut waiting: Vec<usize> = (0..batch.len()).collect();
            while !waiting.is_empty() {
                let mut seen = BTreeSet::new();
                let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|&at| seen.insert(batch[at].pod));
                order.extend(now);
                waiting = later;
            }
            for at in order {
                let asked = &batch[at];
                let mut next = model.clone();
                let given = next.add(asked);
                match (&answers[at], given) {
                    (Ok(answer), Ok(given)) => {
                        let addresses: Vec<Address> = answer.iter().map(|allocated| allocated.address).collect();
                        assert_eq!(addresses, given, "{asked:?}");
                        *model = next;
                    }
                    // One that is refused is tried again after the others of its batch, and may then meet another reason.
                    (Err(AllocateError::RangeFull { .. } | AllocateError::AlreadyHeld { .. }), Err(_)) => {}
                    (answer, given) => panic!("{asked:?} got {answer:?}, and the model gives {given:?}"),
                }
            }
        }
        Step::Delete(pod, generation) => {
            ledger.release(&[release(&attachment(*pod, *generation))])?.remove(0).unwrap();
            model.delete(*pod, *generation);
        }
        Step::Collect(listed) => {
            let id = |(pod, generation): &(u8, u8)| (attachment(*pod, *generation).container, "eth0".into());
            let list = Collect { network: "net".into(), valid: listed.iter().map(id).collect(), grace: 0 };
            for answer in ledger.collect(&list)? {
                answer.unwrap();
            }
            model.collect(listed);
        }
        Step::Reboot => unreachable!("the caller opens the ledger anew"),
    }
    Ok(())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ranges = proptest::sample::subsequence((0..RANGES.len()).collect::<Vec<_>>(), 1..=3).prop_shuffle();
    let exactly = proptest::option::weighted(0.2, 0_u8..8);
    let add = (0_u8..12, 0_u8..3, ranges, exactly).prop_map(|(pod, generation, ranges, exactly)| Add {
        pod,
        generation,
        ranges,
        exactly,
    });
    prop::collection::vec(
        prop_oneof![
            8 => prop::collection::vec(add, 1..5).prop_map(Step::Add),
            4 => (0_u8..12, 0_u8..3).prop_map(|(pod, generation)| Step::Delete(pod, generation)),
            1 => prop::collection::btree_set((0_u8..12, 0_u8..3), 0..8).prop_map(Step::Collect),
            1 => Just(Step::Reboot),
        ],
        1..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every answer is the model's, every holding is the model's, and no table ever disagrees with another.
    #[test]
    fn a_ledger_answers_as_the_model(steps in steps()) {
        let storage = Arc::new(MemoryStorage::new());
        let mut boot = 1;
        let mut model = Model::default();
        let mut ledger = open(&storage, boot).unwrap();
        for taken in &steps {
            if let Step::Reboot = taken {
                drop(ledger);
                boot += 1;
                model.reboot();
                ledger = open(&storage, boot).unwrap();
                // The next call concludes that the boot is over; nobody is asked to take anything for that.
                ledger.release(&[]).unwrap();
            } else {
                step(&ledger, &mut model, taken).unwrap();
            }
            prop_assert_eq!(holdings(&ledger), expected(&model));
            let verified = ledger.verify().unwrap();
            prop_assert!(verified.disagreements.is_empty(), "{:?} after {:?}", verified.disagreements, taken);
        }
        for (pod, generation) in model.containers() {
            let addresses: Vec<Address> = model
                .held
                .iter()
                .filter(|(_, (owner, container, _))| (*owner, *container) == (pod, generation))
                .map(|((_, address), _)| *address)
                .collect();
            let check = Check { attachment: attachment(pod, generation), addresses };
            prop_assert!(ledger.check(&[check]).unwrap()[0].is_ok());
        }
    }
}

/// A script that touches every kind of change: batches, a new container of a pod, releases, GC, a full range.
fn script() -> Vec<Step> {
    vec![
        Step::Add(vec![add(0, 0, &[0]), add(1, 0, &[0, 4]), add(2, 0, &[2])]),
        Step::Add(vec![add(0, 1, &[0])]),
        Step::Delete(0, 0),
        Step::Add((3..8).map(|pod| add(pod, 0, &[1])).collect()),
        Step::Delete(1, 0),
        Step::Add(vec![add(9, 0, &[3, 4])]),
        Step::Collect([(2, 0), (9, 0)].into()),
        Step::Add(vec![add(10, 0, &[0, 7])]),
    ]
}

/// A storage with a new ledger: on a disk it is made under another name, so it is there whole or not at all.
fn made() -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new());
    drop(open(&storage, 1).unwrap());
    storage
}

/// Runs the script, each step in a process of its own, until it is done or something fails; says what the model is, and
/// what it would be with the step that was under way.
fn run_script(storage: &Arc<MemoryStorage>) -> (Model, Model, bool) {
    let mut model = Model::default();
    for taken in script() {
        let mut next = model.clone();
        let outcome = match open(storage, 1) {
            Ok(ledger) => step(&ledger, &mut next, &taken).is_ok(),
            Err(_) => {
                return (model.clone(), model, false);
            }
        };
        if !outcome {
            return (model.clone(), after(&model, &taken), false);
        }
        model = next;
    }
    (model.clone(), model, true)
}

/// The model with a step that was not answered.
fn after(model: &Model, step: &Step) -> Model {
    let mut model = model.clone();
    match step {
        Step::Add(batch) => {
            for asked in batch {
                let mut next = model.clone();
                if next.add(asked).is_ok() {
                    model = next;
                }
            }
        }
        Step::Delete(pod, generation) => model.delete(*pod, *generation),
        Step::Collect(listed) => model.collect(listed),
        Step::Reboot => {}
    }
    model
}

/// What a crash left is what was answered, with or without the call that was under way.
fn assert_survived(storage: &Arc<MemoryStorage>, answered: &Model, under_way: &Model, story: &str) {
    let mut ledger = open(storage, 1).unwrap_or_else(|error| panic!("{story}: {error}"));
    let found = holdings(&ledger);
    assert!(found == expected(answered) || found == expected(under_way), "{story}: {found:?}");
    assert_eq!(ledger.verify().unwrap().disagreements, [], "{story}");
}

#[test]
fn a_power_cut_at_every_sync_loses_nothing_that_was_answered() {
    let mut crashes = 0;
    for survives in [Survives::Nothing, Survives::Everything, Survives::Seeded(7), Survives::Seeded(99)] {
        for sync in 1.. {
            let storage = made();
            storage.crash_at_sync(sync);
            let (answered, under_way, done) = run_script(&storage);
            if done {
                break;
            }
            crashes += 1;
            let left = Arc::new(storage.after_power_cut(survives));
            assert_survived(&left, &answered, &under_way, &format!("{survives:?} at sync {sync}"));
        }
    }
    assert!(crashes > 40, "only {crashes} crashes were tried");
}

#[test]
fn a_kill_at_every_write_loses_nothing_that_was_answered() {
    for write in 1.. {
        let storage = made();
        storage.crash_at_write(write);
        let (answered, under_way, done) = run_script(&storage);
        if done {
            assert!(write > 50, "the script made only {write} writes");
            break;
        }
        assert_survived(&Arc::new(storage.after_kill()), &answered, &under_way, &format!("killed at write {write}"));
    }
}

/// Whichever write is the first that finds no room: the call says so, nothing of it is there, the next one says so too,
/// and once there is room it gets what the model gives.
#[test]
fn a_full_disk_refuses_changes_nothing_and_is_over_when_there_is_room() {
    let mut n_refused = 0;
    for write in 1.. {
        let storage = made();
        storage.refuse_writes_from(write, ErrorKind::StorageFull);
        let (answered, under_way, done) = run_script(&storage);
        if done {
            break;
        }
        n_refused += 1;
        let late = Step::Add(vec![add(11, 2, &[2, 6])]);
        let refused = match open(&storage, 1) {
            Ok(ledger) => step(&ledger, &mut answered.clone(), &late).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(refused.contains("no room on the disk"), "full from write {write} on: {refused}");

        storage.heal();
        assert_survived(&storage, &answered, &under_way, &format!("full from write {write} on"));
        let ledger = open(&storage, 1).unwrap();
        let mut model = if holdings(&ledger) == expected(&answered) { answered } else { under_way };
        step(&ledger, &mut model, &late).unwrap();
        assert_eq!(holdings(&ledger), expected(&model));
    }
    assert!(n_refused > 50, "only {n_refused} writes were refused");
}

/// A commit of a batch costs as many syncs as one of a single request: one for the data, one for the flip.
#[test]
fn a_batch_costs_the_syncs_of_one_request() {
    let storage = Arc::new(MemoryStorage::new());
    let ledger = open(&storage, 1).unwrap();
    ledger.allocate(&[request(0, 0, &[2])]).unwrap();
    for (n, first) in [(1, 1), (16, 10), (64, 50)] {
        // The file may grow once, which is a sync of its own; the second batch of the same size does not grow it.
        let batch: Vec<Allocate> = (0..n).map(|pod| request(first + pod, 0, &[2])).collect();
        storage.reset_counts();
        for answer in ledger.allocate(&batch).unwrap() {
            answer.unwrap();
        }
        let syncs = storage.counts().syncs;
        assert!((2..=3).contains(&syncs), "a batch of {n} took {syncs} syncs");
    }
}

/// Three rows change for one address of a block that is there: the block, the attachment, the owner.
#[test]
fn one_address_writes_a_handful_of_pages() {
    let storage = Arc::new(MemoryStorage::new());
    let ledger = open(&storage, 1).unwrap();
    let many: Vec<Allocate> = (0..100).map(|pod| request(pod, 0, &[2])).collect();
    ledger.allocate(&many).unwrap();
    storage.reset_counts();
    ledger.allocate(&[request(200, 0, &[2])]).unwrap();
    let counts = storage.counts();
    assert!(counts.syncs <= 3, "{counts:?}");
    assert!(counts.writes <= 24, "{counts:?}");
}

#[test]
fn leases_of_an_earlier_boot_are_over_for_a_runtime_and_for_nobody_else() {
    let storage = Arc::new(MemoryStorage::new());
    open(&storage, 1).unwrap().allocate(&[request(0, 0, &[0])]).unwrap()[0].as_ref().unwrap();
    let file = || LedgerFile::open_storage(storage.clone(), &OpenOptions::new("/ledger.redb")).unwrap();

    // A command, and a call from a pid namespace that the ledger does not know, take nothing from anybody.
    let command = Ledger::on(file(), HostFacts { may_end_boots: false, ..facts(2) });
    assert_eq!(
        command.allocate(&[request(1, 0, &[0])]).unwrap()[0].as_ref().unwrap()[0].address.to_string(),
        "10.0.0.2"
    );
    drop(command);
    let elsewhere = Ledger::on(file(), HostFacts { pid_namespace: 9, ..facts(2) });
    assert_eq!(
        elsewhere.allocate(&[request(2, 0, &[0])]).unwrap()[0].as_ref().unwrap()[0].address.to_string(),
        "10.0.0.3"
    );
    drop(elsewhere);

    // The runtime's call frees what died with the boot, and only that.
    let runtime = open(&storage, 2).unwrap();
    assert_eq!(
        runtime.allocate(&[request(3, 0, &[0])]).unwrap()[0].as_ref().unwrap()[0].address.to_string(),
        "10.0.0.1"
    );
    let left: Vec<String> = holdings(&runtime).into_iter().map(|(_, address, _)| address.to_string()).collect();
    assert_eq!(left, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

#[test]
fn a_pool_is_never_private_and_shared_at_once() {
    let storage = Arc::new(MemoryStorage::new());
    let ledger = open(&storage, 1).unwrap();
    ledger.allocate(&[request(0, 0, &[0])]).unwrap()[0].as_ref().unwrap();
    let mut private = request(1, 0, &[0]);
    private.wants[0].sharing = Sharing::Private;
    let refused = ledger.allocate(&[private.clone()]).unwrap().remove(0).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("10.0.0.0/28") && said.contains("10.0.0.1") && said.contains("shared"), "{said}");

    ledger.release(&[release(&attachment(0, 0))]).unwrap()[0].as_ref().unwrap();
    assert_eq!(ledger.allocate(&[private]).unwrap()[0].as_ref().unwrap()[0].address.to_string(), "10.0.0.1");
    assert!(ledger.allocate(&[request(2, 0, &[0])]).unwrap()[0].is_err());
    assert_eq!(ledger.verify_again().disagreements, []);
}

trait VerifyAgain {
    fn verify_again(self) -> whereabouts_engine::Verified;
}

impl VerifyAgain for Ledger {
    fn verify_again(mut self) -> whereabouts_engine::Verified {
        self.verify().unwrap()
    }
}

#[test]
fn an_exact_address_is_refused_with_its_holder_and_kept_by_its_owner() {
    let storage = Arc::new(MemoryStorage::new());
    let ledger = open(&storage, 1).unwrap();
    let exactly = |pod, generation, address: &str| {
        let mut request = request(pod, generation, &[0]);
        request.wants[0].exactly = Some(address.parse().unwrap());
        ledger.allocate(&[request]).unwrap().remove(0)
    };
    assert_eq!(exactly(0, 0, "10.0.0.7").unwrap()[0].address.to_string(), "10.0.0.7");
    assert!(exactly(0, 1, "10.0.0.7").unwrap()[0].reused);
    let refused = exactly(1, 0, "10.0.0.7").unwrap_err().to_string();
    assert!(refused.contains("10.0.0.7") && refused.contains("default/web-0"), "{refused}");
    assert!(matches!(exactly(1, 0, "10.9.9.9"), Err(AllocateError::NotInPool { .. })));
}

/// A DEL on a day when nothing can be written frees the address on the next good one, and only what was meant.
#[test]
fn a_spooled_release_frees_what_was_held_then_and_nothing_newer() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions::new(folder.path().join("ledger.redb"));
    let facts = HostFacts { may_end_boots: true, ..HostFacts::read() };
    let reopen = || Ledger::open(&options, facts.clone()).unwrap();
    let first = |answers: Vec<Result<Vec<whereabouts_engine::Allocated>, AllocateError>>| {
        answers.into_iter().next().unwrap().unwrap()[0].address.to_string()
    };
    assert_eq!(first(reopen().allocate(&[request(0, 0, &[0])]).unwrap()), "10.0.0.1");
    let gone = attachment(0, 0);
    spool_release(&options.path, &facts, &gone.container, &gone.interface, Some("net")).unwrap();
    // It is carried out before the call that opens the ledger next gets an answer.
    assert_eq!(first(reopen().allocate(&[request(1, 0, &[0])]).unwrap()), "10.0.0.1");
    assert_eq!(holdings(&reopen()).len(), 1);
}

#[test]
fn one_address_does_not_serve_two_wants_of_a_request() {
    let storage = Arc::new(MemoryStorage::new());
    let ledger = open(&storage, 1).unwrap();
    let mut twice = request(0, 0, &[0, 1]);
    for want in &mut twice.wants {
        want.exactly = Some("10.0.0.5".parse().unwrap());
    }
    assert!(matches!(ledger.allocate(&[twice]).unwrap()[0], Err(AllocateError::AlreadyHeld { .. })));
    assert!(holdings(&ledger).is_empty(), "nothing is left of the first");
}

#[test]
fn one_batch_cannot_use_a_pool_both_ways() {
    let storage = Arc::new(MemoryStorage::new());
    let ledger = open(&storage, 1).unwrap();
    let mut private = request(1, 0, &[0]);
    private.wants[0].sharing = Sharing::Private;
    let answers = ledger.allocate(&[request(0, 0, &[0]), private]).unwrap();
    let refused = answers[1].as_ref().unwrap_err();
    assert!(answers[0].is_ok() && matches!(refused, AllocateError::BothWays { .. }), "{answers:?}");
    let said = refused.to_string();
    assert!(said.contains("10.0.0.0/28") && said.contains("enable_overlapping_ranges"), "{said}");
}

/// What each call of a process of its own costs, in syncs and writes.
fn costs() -> [(&'static str, (u64, u64)); 10] {
    let storage = made();
    let many: Vec<Allocate> = (0..100).map(|pod| request(pod, 0, &[2])).collect();
    open(&storage, 1).unwrap().allocate(&many).unwrap();
    // A file that has just grown is made shorter once.
    for pod in 120..124 {
        open(&storage, 1).unwrap().allocate(&[request(pod, 0, &[2])]).unwrap();
    }
    let cost = |boot: u8, call: &dyn Fn(&Ledger)| {
        storage.reset_counts();
        let ledger = open(&storage, boot).unwrap();
        call(&ledger);
        drop(ledger);
        let counts = storage.reset_counts();
        (counts.syncs, counts.writes)
    };
    let add = |pod: u8, ranges: &[usize]| {
        let ranges = ranges.to_vec();
        move |ledger: &Ledger| drop(ledger.allocate(&[request(pod, 0, &ranges)]).unwrap().remove(0).unwrap())
    };
    let refused = |ledger: &Ledger| {
        let mut held = request(200, 0, &[0]);
        held.wants[0].exactly = Some("10.0.0.7".parse().unwrap());
        assert!(matches!(ledger.allocate(&[held]).unwrap()[0], Err(AllocateError::AlreadyHeld { .. })));
        // A block is made for the first want before the second one finds its range full, which nobody has marked yet.
        let full = ledger.allocate(&[request(200, 0, &[6, 0])]).unwrap();
        assert!(matches!(full[0], Err(AllocateError::RangeFull { .. })));
    };
    let list = |valid: &[(u8, u8)]| Collect {
        network: "net".into(),
        valid: valid.iter().map(|&(pod, of)| (attachment(pod, of).container, "eth0".into())).collect(),
        grace: 0,
    };
    let listed: Vec<(u8, u8)> = (0..50).map(|pod| (pod, 0)).collect();

    [
        ("a new address", cost(1, &add(100, &[2]))),
        ("the same address again", cost(1, &add(100, &[2]))),
        ("two refused ADDs", cost(1, &refused)),
        (
            "a refused ADD after a boot",
            cost(2, &|ledger| {
                let mut elsewhere = request(99, 0, &[0]);
                elsewhere.wants[0].exactly = Some("10.9.9.9".parse().unwrap());
                assert!(ledger.allocate(&[elsewhere]).unwrap()[0].is_err());
            }),
        ),
        (
            "looking",
            cost(1, &|ledger| {
                ledger.has_room(&[want(0)]).unwrap();
                ledger.check(&[]).unwrap();
                assert_eq!(ledger.held_by(&attachment(7, 0)).unwrap().len(), 1);
            }),
        ),
        (
            "releasing what is not known",
            cost(1, &|ledger| drop(ledger.release(&[release(&attachment(200, 0))]).unwrap())),
        ),
        ("releasing one", cost(1, &|ledger| drop(ledger.release(&[release(&attachment(7, 0))]).unwrap()))),
        (
            "GC that finds nothing",
            cost(1, &|ledger| {
                let all: Vec<(u8, u8)> = (0..=124).map(|pod| (pod, 0)).collect();
                assert_eq!(ledger.collect(&list(&all)).unwrap().len(), 0);
            }),
        ),
        ("GC of fifty", cost(1, &|ledger| assert_eq!(ledger.collect(&list(&listed)).unwrap().len(), 55))),
        ("the first ADD after a boot", cost(2, &add(0, &[2]))),
    ]
}

/// A commit is two syncs, and a third where the file must grow.
#[test]
fn each_call_costs_what_it_must_and_a_refused_one_nothing() {
    // The operation ids are random, and with them how many pages of the history are touched: the fewest writes of some
    // runs are what a call needs.
    let runs: Vec<_> = (0..5).map(|_| costs()).collect();
    let most = [
        ("a new address", (2, 14)),
        ("the same address again", (2, 14)),
        ("two refused ADDs", (0, 0)),
        ("a refused ADD after a boot", (0, 0)),
        ("looking", (0, 0)),
        ("releasing what is not known", (0, 0)),
        ("releasing one", (2, 15)),
        ("GC that finds nothing", (0, 0)),
        ("GC of fifty", (2, 18)),
        ("the first ADD after a boot", (2, 18)),
    ];
    for (at, (name, (syncs, writes))) in most.into_iter().enumerate() {
        let of_call: Vec<_> = runs.iter().map(|costs| costs[at]).collect();
        assert!(of_call.iter().all(|(call, cost)| *call == name && cost.0 == syncs), "{of_call:?}");
        let fewest = of_call.iter().map(|(_, cost)| cost.1).min();
        assert!(fewest <= Some(writes), "{of_call:?}");
    }
}

/// Nobody goes through the blocks of a host whose boot is over: what died with it is over one block at a time, when that
/// block is written for another reason. So the first call of a boot costs as much after many containers as after few.
#[test]
fn the_first_call_after_a_boot_costs_the_same_after_fifty_full_blocks_as_after_one() {
    let spec = ViewSpec { edges: Edges::Usable, ..ViewSpec::new("10.0.0.0/16".parse().unwrap()) };
    let view = Arc::new(View::new(&spec).unwrap());
    let wants = || {
        let pool = Pool::new(Network::unnamed(), view.cidr());
        vec![Want { pool, sharing: Sharing::Shared, view: Arc::clone(&view), exactly: None }]
    };
    // One after the other, so that the rows of a block are beside each other whatever is behind them.
    let add = |number: usize| {
        let attachment = Attachment::new(&format!("{number:08x}"), "eth0", "net");
        Allocate { attachment, owner: Owner::Container, wants: wants() }
    };
    let after = |n_blocks: usize| {
        let storage = made();
        let containers: Vec<Allocate> = (0..n_blocks * 256).map(add).collect();
        for batch in containers.chunks(1024) {
            assert!(open(&storage, 1).unwrap().allocate(batch).unwrap().iter().all(Result::is_ok));
        }
        // A file that has just grown is made shorter once.
        for container in containers.iter().take(4) {
            open(&storage, 1).unwrap().allocate(std::slice::from_ref(container)).unwrap()[0].as_ref().unwrap();
        }
        let cost = |call: &dyn Fn(&Ledger)| {
            storage.reset_counts();
            let ledger = open(&storage, 2).unwrap();
            call(&ledger);
            drop(ledger);
            let counts = storage.reset_counts();
            (counts.syncs, counts.writes)
        };
        let first = cost(&|ledger| {
            let given = ledger.allocate(&[add(1 << 30)]).unwrap().remove(0).unwrap();
            assert_eq!(given[0].address.to_string(), "10.0.0.0");
        });
        let second = cost(&|ledger| drop(ledger.allocate(&[add((1 << 30) + 1)]).unwrap().remove(0).unwrap()));
        let release = cost(&|ledger| drop(ledger.release(&[release(&add(1 << 30).attachment)]).unwrap()));
        [first, second, release]
    };
    // The rows of fifty blocks lie a page deeper than those of one, and the history is in the order of random numbers: these
    // are the most. What was over in one block takes ten of these pages and more.
    let most = [("the first call", 40), ("the second", 18), ("a release", 21)];
    for n_blocks in [1, 50] {
        for ((syncs, writes), (call, most)) in after(n_blocks).into_iter().zip(most) {
            assert_eq!(syncs, 2, "{call} after {n_blocks} blocks");
            assert!(writes <= most, "{call} after {n_blocks} blocks: {writes} writes");
        }
    }
}

/// A host that gets another name while its containers run is the same host.
#[test]
fn a_host_that_was_renamed_gives_the_same_answers() {
    let storage = made();
    let called = |name: &str| {
        let file = LedgerFile::open_storage(storage.clone(), &OpenOptions::new("/ledger.redb")).unwrap();
        Ledger::on(file, HostFacts { node: name.into(), ..facts(1) })
    };
    let add = |name: &str, generation: u8| {
        called(name).allocate(&[request(0, generation, &[0])]).unwrap().remove(0).unwrap()[0].clone()
    };
    let first = add("localhost", 0);
    for generation in [0, 1] {
        let again = add("web.example.org", generation);
        assert_eq!((again.address, again.reused), (first.address, true), "generation {generation}");
    }
    assert_eq!(holdings(&called("again")).len(), 1);
}

/// A ledger that a command made, perhaps inside a container, is the runtime's from its first call on.
#[test]
fn a_ledger_that_a_command_made_learns_its_host_from_the_runtime() {
    let storage = Arc::new(MemoryStorage::new());
    let with = |facts: HostFacts| {
        let file = LedgerFile::open_storage(storage.clone(), &OpenOptions::new("/ledger.redb")).unwrap();
        Ledger::on(file, facts)
    };
    let inside = HostFacts { may_end_boots: false, pid_namespace: 9, ..facts(1) };
    with(inside).allocate(&[request(0, 0, &[0])]).unwrap()[0].as_ref().unwrap();
    with(facts(1)).allocate(&[request(1, 0, &[0])]).unwrap()[0].as_ref().unwrap();
    with(facts(2)).release(&[]).unwrap();
    let left: Vec<String> = holdings(&with(facts(2))).into_iter().map(|(_, address, _)| address.to_string()).collect();
    assert_eq!(left, ["10.0.0.1"], "what the runtime leased died with its boot, what the command leased did not");
}
