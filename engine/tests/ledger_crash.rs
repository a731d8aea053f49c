//! The ledger's file on a storage that crashes, tears, fails and rots on command.
//!
//! What must hold whatever happens: a commit that was answered is there, one that was not is there whole or not at all,
//! nobody has to scan the file, nothing panics, and nothing is written after a failure.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use whereabouts_engine::backend::{MemoryStorage, Survives};
use whereabouts_engine::{Access, Create, LedgerFile, LedgerFileError, OpenOptions, probe};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> OpenOptions {
    OpenOptions::new("/var/lib/cni/whereabouts/ledger.redb")
}

fn open(storage: &Arc<MemoryStorage>) -> Result<LedgerFile, LedgerFileError> {
    LedgerFile::open_storage(storage.clone(), &options())
}

fn row(number: u32) -> (Vec<u8>, Vec<u8>) {
    let key = number.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec();
    (key, vec![number.to_be_bytes()[3]; 40 + number as usize % 900])
}

fn put(ledger: &LedgerFile, number: u32) -> Result<(), LedgerFileError> {
    let (key, value) = row(number);
    probe::put(ledger, &[(&key, &value)])
}

/// A storage with a ledger of `count` rows, each from a process of its own, and all of it settled.
fn filled(count: u32) -> (Arc<MemoryStorage>, Rows) {
    let storage = Arc::new(MemoryStorage::new());
    for number in 0..count {
        put(&open(&storage).unwrap(), number).unwrap();
    }
    (storage, (0..count).map(row).collect())
}

/// Five processes: two commits, none, one that is abandoned, three with a removal, one big one.
struct Script {
    /// What was answered.
    answered: Rows,
    /// What would be there if the commit that was under way had been answered.
    under_way: Rows,
}

impl Script {
    fn new(rows: Rows) -> Self {
        Self { answered: rows.clone(), under_way: rows }
    }

    fn commit(
        &mut self,
        ledger: &LedgerFile,
        change: impl FnOnce(&mut Rows),
        work: impl FnOnce(&LedgerFile) -> Result<(), LedgerFileError>,
    ) -> Result<(), LedgerFileError> {
        self.under_way = self.answered.clone();
        change(&mut self.under_way);
        work(ledger)?;
        self.answered = self.under_way.clone();
        Ok(())
    }

    fn put(&mut self, ledger: &LedgerFile, numbers: std::ops::Range<u32>) -> Result<(), LedgerFileError> {
        let rows: Vec<_> = numbers.map(row).collect();
        let borrowed: Vec<(&[u8], &[u8])> =
            rows.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        self.commit(ledger, |model| model.extend(rows.iter().cloned()), |ledger| probe::put(ledger, &borrowed))
    }

    fn run(&mut self, storage: &Arc<MemoryStorage>) -> Result<(), LedgerFileError> {
        let ledger = open(storage)?;
        self.put(&ledger, 1000..1001)?;
        self.put(&ledger, 1001..1002)?;
        drop(ledger);

        drop(open(storage)?);

        let ledger = open(storage)?;
        let (key, value) = row(1002);
        probe::put_and_abandon(&ledger, &[(&key, &value)])?;
        drop(ledger);

        let ledger = open(storage)?;
        self.put(&ledger, 1003..1004)?;
        let removed = row(1000).0;
        self.commit(
            &ledger,
            |model| {
                model.remove(&removed);
            },
            |ledger| probe::remove(ledger, &[&removed]),
        )?;
        self.put(&ledger, 1004..1005)?;
        drop(ledger);

        let ledger = open(storage)?;
        self.put(&ledger, 1005..1105)
    }

    /// Opens what a crash has left behind, and compares.
    fn check(&self, storage: &Arc<MemoryStorage>, story: &str) -> Rows {
        let ledger = open(storage).unwrap_or_else(|error| panic!("{story}: {error}"));
        let opened = storage.counts();
        let rows = probe::rows(&ledger).unwrap_or_else(|error| panic!("{story}: {error}"));
        assert!(
            rows == self.answered || rows == self.under_way,
            "{story}: {} rows, {} answered, {} under way",
            rows.len(),
            self.answered.len(),
            self.under_way.len()
        );
        // What was left is settled; when it was longer than its header says, the header is corrected.
        assert!(!ledger.was_scanned() && opened.syncs <= 2, "{story}: opening took {opened:?}");
        rows
    }
}

fn power_cuts() -> impl Iterator<Item = Survives> {
    [Survives::Nothing, Survives::Everything].into_iter().chain((0..6).map(Survives::Seeded))
}

/// What the next one can find after `crashed` has crashed.
fn aftermaths(crashed: &MemoryStorage) -> Vec<(String, Arc<MemoryStorage>)> {
    let mut aftermaths = vec![("kill".to_owned(), Arc::new(crashed.after_kill()))];
    for survives in power_cuts() {
        aftermaths.push((format!("{survives:?}"), Arc::new(crashed.after_power_cut(survives))));
    }
    // Killed first, and then the power goes before anybody else has come.
    for seed in 0..3 {
        let cut = crashed.after_kill().after_power_cut(Survives::Seeded(100 + seed));
        aftermaths.push((format!("kill and power cut {seed}"), Arc::new(cut)));
    }
    aftermaths
}

/// Runs the script on a copy of `start` until it crashes where `arm` says, and checks all that can be found after that.
/// `false` when the script came to its end.
fn crash_once(start: &MemoryStorage, rows: &Rows, arm: impl Fn(&MemoryStorage), place: &str) -> bool {
    let storage = Arc::new(start.after_kill());
    arm(&storage);
    let mut script = Script::new(rows.clone());
    let outcome = script.run(&storage);
    if !storage.has_crashed() {
        outcome.unwrap();
        return false;
    }
    for (aftermath, survivor) in aftermaths(&storage) {
        let story = format!("{place}, {aftermath}");
        let found = script.check(&survivor, &story);
        // Life goes on, and what was found stays.
        let next = Arc::new(survivor.after_kill());
        let mut second = Script::new(found);
        second.run(&next).unwrap_or_else(|error| panic!("{story}, then: {error}"));
        let after = Arc::new(next.after_power_cut(Survives::Nothing));
        assert_eq!(second.check(&after, &format!("{story}, then")), second.answered, "{story}");
    }
    true
}

#[test]
fn a_crash_at_any_sync_loses_nothing_that_was_answered() {
    let (start, rows) = filled(150);
    let crashes =
        (1..).take_while(|n| crash_once(&start, &rows, |storage| storage.crash_at_sync(*n), &format!("sync {n}")));
    assert!(crashes.count() >= 12);
}

#[test]
fn a_crash_at_any_write_loses_nothing_that_was_answered() {
    let (start, rows) = filled(150);
    let crashes =
        (1..).take_while(|n| crash_once(&start, &rows, |storage| storage.crash_at_write(*n), &format!("write {n}")));
    assert!(crashes.count() > 60);
}

/// Lets a first process end as `arm` says, a second one commit on top of what it finds until the power is cut, and looks
/// at what is then left of the second one's state. Returns how many ends were looked at.
fn cut_in_the_second_process(start: &MemoryStorage, rows: &Rows, arm: impl Fn(&MemoryStorage), story: &str) -> u32 {
    let storage = Arc::new(start.after_kill());
    arm(&storage);
    let mut script = Script::new(rows.clone());
    if script.run(&storage).is_ok() {
        return 0;
    }
    let mut ends = 0;
    for second in 1.. {
        let next = Arc::new(storage.after_kill());
        next.crash_at_write(second);
        // What the second one finds depends on where the first one ended; it is asked rather than guessed.
        let Ok(ledger) = open(&next) else {
            assert!(next.has_crashed());
            continue;
        };
        let found = probe::rows(&ledger).unwrap();
        assert!(found == script.answered || found == script.under_way, "{story}");
        let mut successor = Script::new(found);
        let _ = successor.put(&ledger, 2000..2010);
        let _ = successor.put(&ledger, 2010..2011);
        drop(ledger);
        for survives in power_cuts() {
            let cut = Arc::new(next.after_power_cut(survives));
            successor.check(&cut, &format!("{story}, then cut at write {second}, {survives:?}"));
            ends += 1;
        }
        if !next.has_crashed() {
            break;
        }
    }
    ends
}

/// The case for which a predecessor's work is made durable before anything else: it was killed after its commit had
/// become the truth in memory, and before that was durable. The next one writes into pages which that commit has freed,
/// and to which the truth on the disk still points.
#[test]
fn a_kill_and_then_a_power_cut_lose_nothing_that_was_answered() {
    let (start, rows) = filled(60);
    let ends = |arm: fn(&MemoryStorage, u64), name: &str| -> u32 {
        (1..14)
            .map(|n| cut_in_the_second_process(&start, &rows, |storage| arm(storage, n), &format!("{name} {n}")))
            .sum()
    };
    assert!(ends(MemoryStorage::crash_at_sync, "killed at sync") > 1000);
    assert!(ends(|storage, n| storage.crash_at_write(n * 5), "killed at fifth of a write") > 1000);
}

/// The same with a sync that has failed, and a kernel that shows pages which it could not write.
#[test]
fn a_failed_sync_and_then_a_power_cut_lose_nothing_that_was_answered() {
    let (start, rows) = filled(60);
    let fail = |n| move |storage: &MemoryStorage| storage.fail_sync(n, ErrorKind::Other);
    let ends = (1..14).map(|n| cut_in_the_second_process(&start, &rows, fail(n), &format!("sync {n} failed")));
    assert!(ends.sum::<u32>() > 1000);
}

#[test]
fn syncs_and_writes_are_as_few_as_they_can_be() {
    let storage = Arc::new(MemoryStorage::new());
    let ledger = open(&storage).unwrap();
    assert!(ledger.is_new());
    // Created: the header; the magic number, which makes it a ledger; the mark that a writer is at work.
    assert_eq!(storage.reset_counts().syncs, 3);
    drop(ledger);
    for number in 0..300 {
        put(&open(&storage).unwrap(), number).unwrap();
    }

    storage.reset_counts();
    let ledger = open(&storage).unwrap();
    let opened = storage.reset_counts();
    assert_eq!((opened.syncs, opened.writes, opened.resizes), (0, 0, 0), "opened after one who finished");
    // A debug build of redb walks all pages to compare what it keeps in memory.
    assert!(cfg!(debug_assertions) || opened.reads <= 10 && opened.bytes_read < 64 << 10, "{opened:?}");

    let (key, value) = row(17);
    probe::put(&ledger, &[(&key, &value)]).unwrap();
    let committed = storage.reset_counts();
    // The pages; then the byte that makes them the truth.
    assert_eq!(committed.syncs, 2, "{committed:?}");
    assert!(committed.writes <= 16 && committed.bytes_written <= 64 << 10, "{committed:?}");

    drop(ledger);
    let closed = storage.reset_counts();
    assert_eq!((closed.syncs, closed.writes), (0, 0), "closed");

    let ledger = open(&storage).unwrap();
    probe::put_and_abandon(&ledger, &[(&key, &value)]).unwrap();
    probe::rows(&ledger).unwrap();
    drop(ledger);
    let untouched = storage.reset_counts();
    assert_eq!((untouched.syncs, untouched.writes), (0, 0), "read, and abandoned");

    // A process that is killed, or ends without dropping its handle, costs the next one a sync.
    let ledger = open(&storage).unwrap();
    put(&ledger, 18).unwrap();
    let next = Arc::new(storage.after_kill());
    open(&next).unwrap();
    assert_eq!(next.counts().syncs, 1, "opened after one who was killed");
}

#[test]
fn a_failed_sync_closes_the_handle_and_the_next_one_sees_what_is_on_the_disk() {
    for at in [1, 2] {
        let (storage, rows) = filled(80);
        let ledger = open(&storage).unwrap();
        storage.fail_sync(at, ErrorKind::Other);
        put(&ledger, 500).unwrap_err();
        let refused = put(&ledger, 501).unwrap_err();
        assert!(matches!(refused, LedgerFileError::Closed { .. }), "{refused}");
        assert!(matches!(probe::rows(&ledger).unwrap_err(), LedgerFileError::Closed { .. }));
        drop(ledger);

        // The kernel goes on showing pages that it could not write. Nobody may build on them.
        let ledger = open(&storage).unwrap();
        let found = probe::rows(&ledger).unwrap();
        let mut with_it = rows.clone();
        with_it.extend([row(500)]);
        assert!(found == rows || found == with_it, "sync {at}");
        put(&ledger, 502).unwrap();
        drop(ledger);
        let mut expected = found;
        expected.extend([row(502)]);
        let after = Arc::new(storage.after_power_cut(Survives::Nothing));
        assert_eq!(probe::rows(&open(&after).unwrap()).unwrap(), expected, "sync {at}");
    }
}

#[test]
fn on_a_full_disk_nothing_changes_and_the_error_says_so() {
    let (storage, mut rows) = filled(40);
    storage.limit_to(storage.image().len() as u64);
    let refused = loop {
        let number = 100 + u32::try_from(rows.len()).unwrap();
        match put(&open(&storage).unwrap(), number) {
            Ok(()) => rows.extend([row(number)]),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LedgerFileError::DiskFull { .. }), "{refused}");
    assert!(refused.to_string().contains("/var/lib/cni/whereabouts/ledger.redb"), "{refused}");
    assert_eq!(probe::rows(&open(&storage).unwrap()).unwrap(), rows);

    storage.heal();
    put(&open(&storage).unwrap(), 999).unwrap();
    rows.extend([row(999)]);
    assert_eq!(probe::rows(&open(&storage).unwrap()).unwrap(), rows);
}

#[test]
fn a_refused_write_anywhere_changes_nothing() {
    let (start, rows) = filled(60);
    for n in 1.. {
        let storage = Arc::new(start.after_kill());
        storage.refuse_writes_from(n, ErrorKind::StorageFull);
        let mut script = Script::new(rows.clone());
        let Err(refused) = script.run(&storage) else { break };
        assert!(matches!(refused, LedgerFileError::DiskFull { .. }), "write {n}: {refused}");
        storage.heal();
        storage.reset_counts();
        script.check(&storage, &format!("write {n} refused"));
        assert!(n < 1000);
    }
}

#[test]
fn a_reader_changes_nothing_even_after_a_kill() {
    let (start, rows) = filled(60);
    for n in [1, 4, 9, 12, 14, 20] {
        let storage = Arc::new(start.after_kill());
        storage.crash_at_write(n);
        let mut script = Script::new(rows.clone());
        let _ = script.run(&storage);
        let survivor = Arc::new(storage.after_kill());
        let before = survivor.image();
        let mut options = options();
        options.access = Access::Read;
        let mut reader = LedgerFile::open_storage(survivor.clone(), &options).unwrap();
        let found = probe::rows(&reader).unwrap();
        assert!(found == script.answered || found == script.under_way, "write {n}");
        let refused = put(&reader, 1).unwrap_err();
        assert!(matches!(refused, LedgerFileError::NoPermission { .. }), "{refused}");
        assert!(probe::pages_are_intact(&mut reader).unwrap(), "write {n}");
        drop(reader);
        let counts = survivor.counts();
        assert_eq!((counts.writes, counts.resizes, counts.syncs), (0, 0, 0));
        assert!(survivor.image() == before);
    }
}

/// redb looks at the checksums of its pages only when it is told to verify the file, so that a flipped bit of a record is
/// for the record's own checksum to find. At this level a flip must be an answer or an error, never a panic.
#[test]
fn flipped_bits_are_an_answer_or_an_error_and_never_a_panic() {
    let (start, mut rows) = filled(200);
    rows.extend([row(5000)]);
    let image = start.image();
    let (mut errors, mut unnoticed) = (0, 0);
    let header = (0..320).map(|offset| (offset, offset * 5));
    let pages = (0..1500usize).map(|n| (4096 + n.wrapping_mul(2_654_435_761) % (image.len() - 4096), n));
    for (offset, bit) in header.chain(pages) {
        let storage = Arc::new(MemoryStorage::with_image(image.clone()));
        storage.flip_bit(offset, u8::try_from(bit % 8).unwrap());
        let outcome = open(&storage).and_then(|ledger| {
            put(&ledger, 5000)?;
            probe::rows(&ledger)
        });
        match outcome {
            Err(error) => {
                errors += 1;
                assert!(
                    matches!(
                        error,
                        LedgerFileError::Damaged { .. }
                            | LedgerFileError::NotALedger { .. }
                            | LedgerFileError::NewerFormat { .. }
                            | LedgerFileError::Truncated { .. }
                    ),
                    "{offset}: {error}"
                );
                assert!(error.to_string().contains("ledger.redb"), "{offset}: {error}");
            }
            Ok(found) if found != rows => unnoticed += 1,
            Ok(_) => {}
        }
    }
    assert!(errors > 100, "{errors}");
    assert!(unnoticed > 100, "redb has begun to check what it reads ({unnoticed}): say so in docs/format.md");
}

#[test]
fn verifying_finds_every_flip_that_changes_an_answer() {
    let (start, rows) = filled(200);
    let image = start.image();
    let mut found_out = 0;
    for n in 0..300usize {
        let storage = Arc::new(MemoryStorage::with_image(image.clone()));
        storage.flip_bit(4096 + n.wrapping_mul(2_654_435_761) % (image.len() - 4096), 3);
        let mut options = options();
        options.access = Access::Read;
        let Ok(mut reader) = LedgerFile::open_storage(storage, &options) else { continue };
        let Ok(found) = probe::rows(&reader) else { continue };
        if found != rows {
            let intact = probe::pages_are_intact(&mut reader);
            assert!(!matches!(intact, Ok(true)), "flip {n} changed an answer and was not found");
            found_out += 1;
        }
    }
    assert!(found_out > 50, "{found_out}");
}

#[test]
fn a_truncated_file_is_called_truncated_and_left_alone() {
    let (start, _) = filled(200);
    let image = start.image();
    for len in (0..image.len()).step_by(1017).chain((4096..image.len()).step_by(4096)).filter(|len| *len > 0) {
        let storage = Arc::new(MemoryStorage::with_image(image.clone()));
        storage.truncate(len);
        let before = storage.image();
        let error = open(&storage).unwrap_err();
        assert!(matches!(error, LedgerFileError::Truncated { .. }), "{len}: {error}");
        assert!(error.to_string().contains("ledger.redb"));
        assert!(storage.image() == before);
    }
}

#[test]
fn other_files_are_told_apart() {
    let check = |image: Vec<u8>, expected: fn(&LedgerFileError) -> bool| {
        let storage = Arc::new(MemoryStorage::with_image(image));
        let error = open(&storage).unwrap_err();
        assert!(expected(&error), "{error}");
    };
    check(vec![0; 8192], |error| matches!(error, LedgerFileError::Damaged { .. }));
    check(b"{\"some\": \"json\"}".repeat(600), |error| matches!(error, LedgerFileError::NotALedger { .. }));

    let (start, _) = filled(3);
    let mut newer = start.image();
    newer[64] = 9;
    newer[192] = 9;
    check(newer, |error| matches!(error, LedgerFileError::NewerFormat { found: 9, known: 3, .. }));

    let mut never = options();
    never.create = Create::Never;
    let missing = LedgerFile::open_storage(Arc::new(MemoryStorage::new()), &never).unwrap_err();
    assert!(matches!(missing, LedgerFileError::Missing { .. }), "{missing}");
}

#[test]
fn a_panic_in_redb_is_an_error_and_the_handle_is_done() {
    let (storage, rows) = filled(10);
    let ledger = open(&storage).unwrap();
    let error = probe::panic_in_read(&ledger, "index out of bounds").unwrap_err();
    assert!(matches!(&error, LedgerFileError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("index out of bounds"), "{error}");
    assert!(matches!(put(&ledger, 1).unwrap_err(), LedgerFileError::Closed { .. }));
    drop(ledger);
    assert_eq!(probe::rows(&open(&storage).unwrap()).unwrap(), rows);
}
