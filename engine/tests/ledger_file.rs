//! The ledger's file on a real disk, among real processes: who may have it, who waits, what a kill leaves behind, and what
//! the user is told when the disk, the permissions or the file are not as they should be.
//!
//! A test that needs another process runs this test program again, for the one test `another_process`, which does what
//! the environment tells it; without that it has nothing to do.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and is skipped by name")]

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use whereabouts_engine::{
    Access, Create, FileSystem, LedgerFile, LedgerFileError, OpenOptions, Spool, SpoolError, Trust, probe,
};

const ROLE: &str = "LEDGER_FILE_TEST_ROLE";
const LEDGER: &str = "LEDGER_FILE_TEST_LEDGER";
const COUNTER: &[u8] = b"counter";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("state/whereabouts/ledger.redb");
    (folder, ledger)
}

fn patient(path: &Path) -> OpenOptions {
    let mut options = OpenOptions::new(path);
    options.wait = Duration::from_secs(60);
    options
}

fn impatient(path: &Path) -> OpenOptions {
    let mut options = OpenOptions::new(path);
    options.wait = Duration::ZERO;
    options
}

fn reading(path: &Path) -> OpenOptions {
    let mut options = impatient(path);
    options.access = Access::Read;
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Reads a number and writes the next one, in two transactions: whoever does not have the ledger alone loses a count.
fn count_once(path: &Path) {
    let ledger = LedgerFile::open(&patient(path)).unwrap();
    let before = probe::get(&ledger, COUNTER).unwrap().map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    probe::put(&ledger, &[(COUNTER, &(before + 1).to_le_bytes())]).unwrap();
}

fn counted(path: &Path) -> u64 {
    let ledger = LedgerFile::open(&patient(path)).unwrap();
    u64::from_le_bytes(probe::get(&ledger, COUNTER).unwrap().unwrap().try_into().unwrap())
}

// === other processes ===

fn command(program: &Path, role: &str, ledger: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["another_process", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(LEDGER, ledger).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn spawn(role: &str, ledger: &Path) -> Child {
    command(&std::env::current_exe().unwrap(), role, ledger).spawn().unwrap()
}

/// Says something to the process that has started this one.
fn say(what: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "said: {what}").unwrap();
    stdout.flush().unwrap();
}

/// What a child says, until it says no more.
fn listen(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.split_once("said: ").map(|(_, what)| what.to_owned()))
}

fn run(mut child: Child) -> Vec<String> {
    let said = listen(&mut child).collect();
    assert!(child.wait().unwrap().success());
    said
}

#[test]
fn another_process() {
    // The lint speaks of the program, which reads its variables in one place; this is that place for these tests.
    #[expect(clippy::disallowed_methods, reason = "how the tests of this file talk to the processes they start")]
    let (Ok(role), Ok(path)) = (std::env::var(ROLE), std::env::var(LEDGER)) else { return };
    let path = PathBuf::from(path);
    match role.as_str() {
        "count" => (0..10).for_each(|_| count_once(&path)),
        "hold" => {
            let _ledger = LedgerFile::open(&patient(&path)).unwrap();
            say("holding");
            std::thread::sleep(Duration::from_secs(600));
        }
        "write" => {
            // One process after the other as far as the ledger is concerned, until it is killed.
            for number in 0.. {
                let ledger = LedgerFile::open(&patient(&path)).unwrap();
                let key = format!("{}-{number}", std::process::id());
                probe::put(&ledger, &[(key.as_bytes(), &[7; 300])]).unwrap();
                say(&key);
            }
        }
        "open without a umask" => {
            rustix::process::umask(rustix::fs::Mode::empty());
            drop(LedgerFile::open(&impatient(&path)).unwrap());
        }
        "open with a strict umask" => {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
            drop(LedgerFile::open(&impatient(&path)).unwrap());
        }
        "open" => match LedgerFile::open(&impatient(&path)) {
            Ok(_) => say("opened"),
            Err(error) => say(&format!("{error:?} {error}")),
        },
        "read" => match LedgerFile::open(&reading(&path)).and_then(|ledger| probe::rows(&ledger)) {
            Ok(rows) => say(&format!("{} rows", rows.len())),
            Err(error) => say(&format!("{error:?} {error}")),
        },
        other => panic!("no role {other}"),
    }
}

/// What a process of a user who is not root says, so that permissions mean something. The program is copied into a folder
/// of its own, where that user can reach it.
fn as_a_user(role: &str, ledger: &Path) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let mut command = command(&program, role, ledger);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534).current_dir("/");
    }
    run(command.spawn().unwrap())
}

/// A small file system in memory, mounted for one test. `None` when this user may not mount; where everything has to be
/// tested that is a failure.
struct Mounted {
    path: PathBuf,
}

impl Mounted {
    fn tmpfs(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(path).output();
        if mount.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self { path: path.to_path_buf() });
        }
        #[expect(clippy::disallowed_methods, reason = "where CI is set to true, nothing may be skipped")]
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "this test mounts a tmpfs, which did not work: {mount:?}");
        eprintln!("SKIPPED: {}: mounting needs root", std::thread::current().name().unwrap_or_default());
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.path).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

// === who may have it ===

#[test]
fn threads_and_processes_have_it_one_after_the_other() {
    let (_folder, path) = folder();
    let processes: Vec<Child> = (0..16).map(|_| spawn("count", &path)).collect();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..10).for_each(|_| count_once(&path)));
        }
    });
    for process in processes {
        run(process);
    }
    assert_eq!(counted(&path), 320);
}

#[test]
fn more_threads_than_may_wait_in_the_kernel_still_get_their_turn() {
    let (_folder, path) = folder();
    count_once(&path);
    let first = LedgerFile::open(&patient(&path)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..90 {
            scope.spawn(|| count_once(&path));
        }
        drop(first);
    });
    assert_eq!(counted(&path), 91);
}

#[test]
fn a_holder_that_is_killed_lets_go() {
    let (_folder, path) = folder();
    let mut holder = spawn("hold", &path);
    assert_eq!(listen(&mut holder).next().unwrap(), "holding");

    let busy = LedgerFile::open(&impatient(&path)).unwrap_err();
    assert!(matches!(busy, LedgerFileError::Busy { .. }), "{busy}");
    assert!(busy.to_string().contains("ledger.redb.lock") && busy.is_temporary(), "{busy}");

    std::thread::scope(|scope| {
        // Both a waiter that is already there and one that comes later get in.
        let waiter = scope.spawn(|| LedgerFile::open(&patient(&path)).map(drop));
        holder.kill().unwrap();
        holder.wait().unwrap();
        waiter.join().unwrap().unwrap();
    });
    LedgerFile::open(&patient(&path)).unwrap();
}

#[test]
fn nobody_waits_longer_than_told_and_a_wait_in_vain_leaves_nothing_behind() {
    let (_folder, path) = folder();
    let holder = LedgerFile::open(&patient(&path)).unwrap();
    let mut options = impatient(&path);
    options.wait = Duration::from_millis(150);
    let start = Instant::now();
    let busy = LedgerFile::open(&options).unwrap_err();
    let waited = start.elapsed();
    assert!(matches!(busy, LedgerFileError::Busy { .. }), "{busy}");
    assert!(Duration::from_millis(150) <= waited && waited < Duration::from_secs(10), "{waited:?}");
    assert!(busy.to_string().contains("150 ms"), "{busy}");
    drop(holder);
    // The one who gave up may get the lock for a moment when its turn comes; it does not keep it.
    LedgerFile::open(&patient(&path)).unwrap();
    LedgerFile::open(&patient(&path)).unwrap();
}

#[test]
fn readers_share_and_keep_writers_out() {
    let (_folder, path) = folder();
    count_once(&path);
    let first = LedgerFile::open(&reading(&path)).unwrap();
    let second = LedgerFile::open(&reading(&path)).unwrap();
    assert_eq!(probe::rows(&first).unwrap(), probe::rows(&second).unwrap());
    assert!(matches!(LedgerFile::open(&impatient(&path)).unwrap_err(), LedgerFileError::Busy { .. }));
    drop((first, second));
    let writer = LedgerFile::open(&impatient(&path)).unwrap();
    assert!(matches!(LedgerFile::open(&reading(&path)).unwrap_err(), LedgerFileError::Busy { .. }));
    drop(writer);
}

#[test]
fn a_program_that_does_not_queue_is_noticed() {
    let (_folder, path) = folder();
    count_once(&path);
    let other = File::open(&path).unwrap();
    other.lock().unwrap();
    let busy = LedgerFile::open(&impatient(&path)).unwrap_err();
    assert!(matches!(&busy, LedgerFileError::Busy { path: locked, .. } if *locked == path), "{busy}");
}

#[test]
fn who_waited_in_a_queue_that_was_removed_goes_to_the_new_one() {
    let (_folder, path) = folder();
    let holder = LedgerFile::open(&patient(&path)).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| LedgerFile::open(&patient(&path)).unwrap());
        fs::remove_file(beside(&path, ".lock")).unwrap();
        drop(holder);
        let _second = waiter.join().unwrap();
        let busy = LedgerFile::open(&impatient(&path)).unwrap_err();
        assert!(matches!(&busy, LedgerFileError::Busy { path: it, .. } if *it == beside(&path, ".lock")), "{busy}");
    });
}

#[test]
fn a_wait_without_end_is_no_panic() {
    let (_folder, path) = folder();
    let mut options = patient(&path);
    options.wait = Duration::MAX;
    LedgerFile::open(&options).unwrap();
}

// === what a kill leaves behind ===

#[test]
fn killed_writers_lose_nothing_that_they_have_answered() {
    let (_folder, path) = folder();
    let mut answered = BTreeSet::new();
    for round in 1..12u64 {
        let mut writers: Vec<Child> = (0..3).map(|_| spawn("write", &path)).collect();
        let voices: Vec<_> = writers.iter_mut().map(listen).collect();
        // By now at least one of them works; where the kill then lands is up to the machine.
        let mut voices = voices.into_iter().map(Iterator::peekable).collect::<Vec<_>>();
        for voice in &mut voices {
            assert!(voice.peek().is_some());
        }
        std::thread::sleep(Duration::from_micros(700 * round));
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        for voice in voices {
            answered.extend(voice);
        }
        let ledger = LedgerFile::open(&impatient(&path)).unwrap();
        assert!(!ledger.was_scanned());
        let rows = probe::rows(&ledger).unwrap();
        for key in &answered {
            assert!(rows.contains_key(key.as_bytes()), "{key} was answered in round {round} or before");
        }
        // At most one of them can have been between its commit and its answer.
        assert!(rows.len() <= answered.len() + 3 * usize::try_from(round).unwrap());
    }
    assert!(answered.len() >= 33);
    assert!(probe::pages_are_intact(&mut LedgerFile::open(&reading(&path)).unwrap()).unwrap());
}

#[test]
fn a_creator_that_died_half_way_is_no_ledger() {
    let (_folder, path) = folder();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(beside(&path, ".new"), vec![0; 70_000]).unwrap();
    assert!(matches!(LedgerFile::open(&reading(&path)).unwrap_err(), LedgerFileError::Missing { .. }));
    assert!(LedgerFile::open(&impatient(&path)).unwrap().is_new());
    assert!(!beside(&path, ".new").exists());
    assert!(!LedgerFile::open(&impatient(&path)).unwrap().is_new());
}

// === permissions ===

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn everything_is_private_whatever_the_umask_is() {
    for role in ["open without a umask", "open with a strict umask"] {
        let (folder, path) = folder();
        run(spawn(role, &path));
        assert_eq!(mode(&folder.path().join("state")), 0o700, "{role}");
        assert_eq!(mode(path.parent().unwrap()), 0o700, "{role}");
        assert_eq!(mode(&path), 0o600, "{role}");
        assert_eq!(mode(&beside(&path, ".lock")), 0o600, "{role}");
    }
}

#[test]
fn a_ledger_that_others_could_read_becomes_private_and_a_folder_of_others_is_left_alone() {
    let (folder, path) = folder();
    count_once(&path);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(counted(&path), 1);
    assert_eq!(mode(&path), 0o600);
    let in_a_shared_folder = folder.path().join("ledger.redb");
    LedgerFile::open(&impatient(&in_a_shared_folder)).unwrap();
    assert_eq!(mode(folder.path()), 0o755);
}

#[test]
fn without_permission_the_error_names_what_is_missing() {
    let (folder, path) = folder();
    count_once(&path);
    for above in [folder.path(), &folder.path().join("state"), path.parent().unwrap()] {
        fs::set_permissions(above, Permissions::from_mode(0o555)).unwrap();
    }
    let new = folder.path().join("state/other/ledger.redb");
    let said = as_a_user("open", &new);
    assert!(said[0].starts_with("NoPermission") && said[0].contains("state/other"), "{said:?}");

    if rustix::process::geteuid().is_root() {
        let said = as_a_user("open", &path);
        assert!(said[0].starts_with("NoPermission") && said[0].contains("ledger.redb.lock"), "{said:?}");
        let said = as_a_user("read", &path);
        assert!(said[0].starts_with("NoPermission") && said[0].contains("ledger.redb"), "{said:?}");
        // A file that he may read is enough for one who reads.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(as_a_user("read", &path), ["1 rows"]);
    }
    for above in [folder.path(), &folder.path().join("state"), path.parent().unwrap()] {
        fs::set_permissions(above, Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_read_only_file_system_can_be_read_and_is_named_when_written_to() {
    let (folder, _) = folder();
    let Some(mounted) = Mounted::tmpfs(&folder.path().join("mounted"), "size=4m,mode=0755") else { return };
    let path = mounted.path.join("ledger.redb");
    count_once(&path);
    let bare = mounted.path.join("copied.redb");
    fs::copy(&path, &bare).unwrap();
    mounted.remount("ro");

    for refused in [&path, &mounted.path.join("new/ledger.redb")] {
        let error = LedgerFile::open(&impatient(refused)).unwrap_err();
        assert!(matches!(error, LedgerFileError::ReadOnly { .. }), "{error}");
        assert!(error.to_string().contains(mounted.path.to_str().unwrap()), "{error}");
    }
    // With a queue, and a copy that never had one.
    for readable in [&path, &bare] {
        assert_eq!(probe::rows(&LedgerFile::open(&reading(readable)).unwrap()).unwrap().len(), 1);
    }
}

// === disks ===

/// The name in the folder may be a link to a file on quite another file system, a network's for example.
#[test]
fn the_file_system_that_counts_is_that_of_the_file() {
    let (folder, path) = folder();
    let Some(mounted) = Mounted::tmpfs(&folder.path().join("mounted"), "size=4m,mode=0755") else { return };
    let real = mounted.path.join("ledger.redb");
    count_once(&real);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(&real, &path).unwrap();
    assert_eq!(LedgerFile::open(&patient(&path)).unwrap().file_system().name(), "tmpfs");
}

#[test]
fn on_a_full_disk_what_fits_the_file_works_and_the_rest_is_refused() {
    let (folder, _) = folder();
    let Some(mounted) = Mounted::tmpfs(&folder.path().join("mounted"), "size=1m,mode=0755") else { return };
    let path = mounted.path.join("ledger.redb");
    let ledger = LedgerFile::open(&impatient(&path)).unwrap();
    assert_eq!(ledger.file_system(), FileSystem::from_magic(0x0102_1994));
    assert_eq!(ledger.file_system().trust(), Trust::Volatile);
    Spool::reserve(&ledger).unwrap();
    for number in 0..100u32 {
        probe::put(&ledger, &[(&number.to_be_bytes(), &[1; 200])]).unwrap();
    }
    drop(ledger);
    let mut filler = File::create(mounted.path.join("filler")).unwrap();
    while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}

    // The file has free pages, and their room on the disk is its own.
    let ledger = LedgerFile::open(&impatient(&path)).unwrap();
    for number in 0..100u32 {
        probe::remove(&ledger, &[&number.to_be_bytes()]).unwrap();
        probe::put(&ledger, &[(&number.to_be_bytes(), &[2; 200])]).unwrap();
    }
    let full = probe::put(&ledger, &[(b"big", &vec![3; 400_000])]).unwrap_err();
    assert!(matches!(full, LedgerFileError::DiskFull { .. }), "{full}");
    assert!(full.to_string().contains("ledger.redb") && full.is_temporary(), "{full}");
    assert!(matches!(probe::rows(&ledger).unwrap_err(), LedgerFileError::Closed { .. }));
    drop(ledger);

    let ledger = LedgerFile::open(&impatient(&path)).unwrap();
    let rows = probe::rows(&ledger).unwrap();
    assert_eq!(rows.len(), 100);
    assert!(rows.values().all(|value| *value == [2; 200]));
    drop(ledger);

    let mut appended = 0;
    let mut spool = Spool::open(&path, Duration::ZERO).unwrap();
    let end = loop {
        match spool.append(&[4; 100]) {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(end, SpoolError::Full { .. }) && end.to_string().contains("ledger.redb.spool"), "{end}");
    assert!(appended >= 500, "{appended}");
    assert_eq!(spool.read_all().unwrap().records.len(), appended);

    let refused = LedgerFile::open(&impatient(&mounted.path.join("new/ledger.redb"))).unwrap_err();
    assert!(matches!(refused, LedgerFileError::DiskFull { .. }), "{refused}");
    filler.set_len(0).unwrap();
    drop(filler);
    fs::remove_file(mounted.path.join("filler")).unwrap();
    assert!(LedgerFile::open(&impatient(&mounted.path.join("new/ledger.redb"))).unwrap().is_new());
}

// === files that are not as they should be ===

#[test]
fn what_is_missing_is_not_created_by_one_who_does_not_want_it() {
    let (folder, path) = folder();
    let mut never = impatient(&path);
    never.create = Create::Never;
    for options in [never, reading(&path)] {
        let missing = LedgerFile::open(&options).unwrap_err();
        assert!(matches!(missing, LedgerFileError::Missing { .. }), "{missing}");
        assert!(missing.to_string().contains("ledger.redb"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// What was in it may still be in use, so only one who knows better makes another one.
#[test]
fn a_ledger_that_is_gone_is_not_one_that_never_was() {
    let (_folder, path) = folder();
    count_once(&path);
    fs::remove_file(&path).unwrap();
    let mut never = patient(&path);
    never.create = Create::Never;
    for options in [patient(&path), never, reading(&path)] {
        let error = LedgerFile::open(&options).unwrap_err();
        assert!(matches!(&error, LedgerFileError::Lost { path: it } if *it == path), "{error}");
    }
    assert!(!path.exists());
    let mut knows_better = patient(&path);
    knows_better.create = Create::EvenIfLost;
    assert!(LedgerFile::open(&knows_better).unwrap().is_new());
    // Without its queue, nobody can tell.
    fs::remove_file(&path).unwrap();
    fs::remove_file(beside(&path, ".lock")).unwrap();
    assert!(LedgerFile::open(&patient(&path)).unwrap().is_new());
}

#[test]
fn a_file_that_is_cut_off_emptied_or_something_else_is_never_replaced() {
    let (_folder, path) = folder();
    for _ in 0..20 {
        count_once(&path);
    }
    let whole = fs::read(&path).unwrap();
    let check = |content: &[u8], expected: fn(&LedgerFileError) -> bool| {
        fs::write(&path, content).unwrap();
        for options in [impatient(&path), reading(&path)] {
            let error = LedgerFile::open(&options).unwrap_err();
            assert!(expected(&error), "{error:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    };
    for len in [0, 1, 319, 320, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        check(&whole[..len], |error| matches!(error, LedgerFileError::Truncated { .. }));
    }
    check(&vec![0; whole.len()], |error| matches!(error, LedgerFileError::Damaged { .. }));
    check(&b"10.0.0.1 sandbox\n".repeat(100), |error| matches!(error, LedgerFileError::NotALedger { .. }));
    fs::write(&path, &whole).unwrap();
    assert_eq!(counted(&path), 20);

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = LedgerFile::open(&impatient(&path)).unwrap_err();
    assert!(matches!(error, LedgerFileError::NotALedger { .. }), "{error:?}");
}

#[test]
fn a_damaged_page_says_nothing_on_any_stream_but_the_error() {
    let (_folder, path) = folder();
    let ledger = LedgerFile::open(&impatient(&path)).unwrap();
    for number in 0..300u32 {
        probe::put(&ledger, &[(&number.to_be_bytes(), &[1; 100])]).unwrap();
    }
    drop(ledger);
    let len = fs::metadata(&path).unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    // Every page but the header's begins with nonsense.
    for page in 1..len / 4096 {
        file.write_all_at(&[0xff; 64], page * 4096).unwrap();
    }
    let output = command(&std::env::current_exe().unwrap(), "read", &path).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("said: Damaged") && said.contains("ledger.redb is damaged"), "{said}");
}

// === what it costs ===

#[test]
fn who_finishes_leaves_a_note_and_who_reads_changes_nothing() {
    let (_folder, path) = folder();
    count_once(&path);
    let note = fs::read_to_string(beside(&path, ".lock")).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(note.starts_with(&format!("settled inode {} size {} ", metadata.ino(), metadata.len())), "{note}");

    let before = (fs::read(&path).unwrap(), metadata.mtime_nsec(), metadata.ctime_nsec());
    probe::rows(&LedgerFile::open(&reading(&path)).unwrap()).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(before == (fs::read(&path).unwrap(), metadata.mtime_nsec(), metadata.ctime_nsec()));
    assert_eq!(fs::read_to_string(beside(&path, ".lock")).unwrap(), note);

    // While somebody writes, and after he was killed, there is none.
    let ledger = LedgerFile::open(&impatient(&path)).unwrap();
    probe::put(&ledger, &[(b"key", b"value")]).unwrap();
    assert!(fs::read_to_string(beside(&path, ".lock")).unwrap().starts_with("   "));
    ledger.finish();
    assert!(fs::read_to_string(beside(&path, ".lock")).unwrap().starts_with("settled"));
}
