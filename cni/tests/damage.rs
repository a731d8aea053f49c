//! What the disk or another program may do to the ledger: flipped bits, a missing end, other things in its place. A call
//! then either works, or says which file is wrong and what to do; an address is never handed out twice, and the runtime
//! always gets an answer that it can read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};
use support::leases::held;
use support::{Answer, Plugin};

/// How many places of the file are damaged, one at a time; WHEREABOUTS_FLIPS says otherwise.
const N_FLIPS: usize = 400;

/// A ledger with a few containers in it, as bytes.
struct Whole {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    spool: Vec<u8>,
    holders: BTreeMap<String, Vec<String>>,
}

impl Whole {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = Plugin::new(folder.path().join("whole"));
        let config = config(&plugin);
        let mut holders = BTreeMap::new();
        for name in ["c1", "c2", "c3", "c4"] {
            holders.insert(name.to_owned(), plugin.add(name, "eth0", &config).addresses());
        }
        // Some history, and a hole.
        plugin.del("c2", "eth0", &config).ok();
        holders.remove("c2");
        let file = |name: &str| fs::read(plugin.data_dir().join(name)).unwrap();
        Self { bytes: file("ledger.redb"), spool: file("ledger.redb.spool"), holders, folder }
    }

    /// A plugin whose ledger has these bytes.
    fn with(&self, name: &str, bytes: &[u8]) -> Plugin {
        let data_dir = self.folder.path().join(name);
        fs::create_dir(&data_dir).unwrap();
        fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(data_dir.join("ledger.redb"), bytes).unwrap();
        fs::write(data_dir.join("ledger.redb.spool"), &self.spool).unwrap();
        Plugin::new(data_dir)
    }
}

fn config(plugin: &Plugin) -> Value {
    plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "fd00::/64" }], "deadline": 5 }))
}

/// The answer is a success, or an error that says what is wrong with the ledger, names its file and a cure. Anything
/// else that may go wrong in a test is no answer to damage.
#[track_caller]
fn answered(answer: &Answer, plugin: &Plugin, what: &str) -> bool {
    assert!(!answer.stdout.contains("panicked"), "{what}: {answer:#?}");
    if answer.exit == Some(0) {
        return true;
    }
    assert_eq!(answer.exit, Some(1), "{what}: {answer:#?}");
    let (code, message) = answer.error();
    // What a runtime shows: the message, and behind it the details.
    let message = format!("{message}; {}", answer.json.as_ref().unwrap()["details"].as_str().unwrap_or_default());
    assert_eq!(code, 5, "{what}: {answer:#?}");
    let file = plugin.data_dir().join("ledger.redb");
    assert!(message.contains(file.to_str().unwrap()), "{what}: the error names no file: {message}");
    let damages = ["is damaged", "was truncated", "is not a ledger", "has format", "the ledger cannot be"];
    assert!(damages.iter().any(|damage| message.contains(damage)), "{what}: the error tells no damage: {message}");
    let cures = ["move the file away", "move it", "`whereabouts verify`", "use the version"];
    assert!(cures.iter().any(|cure| message.contains(cure)), "{what}: the error has no cure: {message}");
    false
}

/// Calls that follow the damage, and what may not come of them.
fn live_with(whole: &Whole, plugin: &Plugin, what: &str) -> bool {
    let config = config(plugin);
    let mut holders = whole.holders.clone();
    let mut is_untouched = true;
    let mut add = |name: &str, holders: &mut BTreeMap<String, Vec<String>>| {
        let answer = plugin.add(name, "eth0", &config);
        if !answered(&answer, plugin, what) {
            is_untouched = false;
            return;
        }
        let given = answer.addresses();
        // A row whose key was hit is not found any more: then what the container had stays held by nobody's hand, and it
        // gets another address. Nobody else may get the old one.
        if let Some(had) = holders.insert(name.to_owned(), given.clone()).filter(|had| *had != given) {
            holders.insert(format!("{name} before"), had);
        }
        for (other, theirs) in holders.iter().filter(|(other, _)| *other != name) {
            let twice: Vec<_> = given.iter().filter(|address| theirs.contains(address)).collect();
            assert!(twice.is_empty(), "{what}: {name} was given {twice:?}, which {other} holds");
        }
    };
    add("new", &mut holders);
    add("c1", &mut holders);
    // Freed or queued: nothing keeps DEL from succeeding.
    plugin.del("c3", "eth0", &config).ok();
    holders.remove("c3");
    add("newer", &mut holders);
    add("c4", &mut holders);
    is_untouched
}

/// Flips a bit at many places. Every place of the first page is taken, since all else hangs on it.
#[test]
fn a_flipped_bit_hands_nothing_out_twice() {
    let whole = Whole::new();
    let places = places(&whole.bytes);
    let n_untouched: usize = thread::scope(|scope| {
        let shares: Vec<_> = places.chunks(places.len().div_ceil(4)).collect();
        let run = |share: &[(usize, u8)]| {
            share
                .iter()
                .filter(|(place, bit)| {
                    let what = format!("bit {bit} of byte {place}");
                    let mut bytes = whole.bytes.clone();
                    bytes[*place] ^= 1 << bit;
                    let plugin = whole.with(&format!("flip-{place}-{bit}"), &bytes);
                    let is_untouched = live_with(&whole, &plugin, &what);
                    fs::remove_dir_all(plugin.data_dir()).unwrap();
                    is_untouched
                })
                .count()
        };
        let threads: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || run(share))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a damaged ledger was served wrongly")).sum()
    });
    assert!(n_untouched > 0, "some bytes mean nothing");
    assert!(n_untouched < places.len(), "no flip was ever noticed");
}

#[expect(clippy::disallowed_methods, reason = "a knob of this test alone")]
fn n_flips() -> usize {
    std::env::var("WHEREABOUTS_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(N_FLIPS)
}

/// Places spread over the bytes that say something, the same in every run.
fn places(bytes: &[u8]) -> Vec<(usize, u8)> {
    let said: Vec<usize> = (0..bytes.len()).filter(|&place| bytes[place] != 0).collect();
    let head = said.iter().filter(|place| **place < 320).copied();
    let rest: Vec<usize> = said.iter().filter(|place| **place >= 320).copied().collect();
    let step = (rest.len() / n_flips()).max(1);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let with_bit = |place| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (place, (random % 8) as u8)
    };
    head.chain(rest.iter().copied().step_by(step)).map(with_bit).collect()
}

#[test]
fn a_truncated_ledger_is_told() {
    let whole = Whole::new();
    let len = whole.bytes.len();
    for keep in [0, 1, 9, 64, 320, 4095, 4096, 8192, len / 4, len / 2, len * 3 / 4, len - 4096, len - 1] {
        let plugin = whole.with(&format!("short-{keep}"), &whole.bytes[..keep]);
        let what = format!("{keep} of {len} bytes");
        assert!(!live_with(&whole, &plugin, &what), "{what}: nobody noticed");
        let answer = plugin.add("c9", "eth0", &config(&plugin));
        let message = answer.error().1;
        assert!(
            message.contains("truncated") || message.contains("not a ledger") || message.contains("damaged"),
            "{message}"
        );
        assert_eq!(plugin.status(&config(&plugin)).error().0, 50);
        let now = fs::metadata(plugin.data_dir().join("ledger.redb")).unwrap().len();
        assert_eq!(now, keep as u64, "what is left is not touched");
    }
}

#[test]
fn something_else_in_its_place_is_told() {
    let whole = Whole::new();
    type Make = fn(&Path);
    let places: [(&str, Make); 6] = [
        ("text", |path| fs::write(path, "hello\n".repeat(4000)).unwrap()),
        ("zeros", |path| fs::write(path, vec![0; 1 << 20]).unwrap()),
        ("folder", |path| fs::create_dir(path).unwrap()),
        ("device", |path| symlink("/dev/null", path).unwrap()),
        ("endless", |path| symlink("/dev/zero", path).unwrap()),
        ("loop", |path| symlink(path, path).unwrap()),
    ];
    for (name, make) in places {
        let plugin = whole.with(name, &[]);
        let path = plugin.data_dir().join("ledger.redb");
        fs::remove_file(&path).unwrap();
        make(&path);
        let before = fs::symlink_metadata(&path).unwrap().len();
        let config = config(&plugin);
        let answer = plugin.add("c9", "eth0", &config);
        let (code, message) = answer.error();
        assert_eq!(code, 5, "{name}: {answer:?}");
        assert!(message.contains(path.to_str().unwrap()), "{name}: {message}");
        plugin.del("c1", "eth0", &config).ok();
        assert_eq!(fs::symlink_metadata(&path).unwrap().len(), before, "{name}: it is not touched");
    }
}

/// A pipe in its place must not make the call wait for somebody who writes.
#[test]
fn a_pipe_in_its_place_does_not_block() {
    let whole = Whole::new();
    let plugin = whole.with("pipe", &[]);
    let path = plugin.data_dir().join("ledger.redb");
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let answer = plugin.add("c9", "eth0", &config(&plugin));
    assert!(answer.error().1.contains(path.to_str().unwrap()), "{answer:?}");
}

/// A ledger on another disk, linked to its usual place, is the same ledger.
#[test]
fn a_link_to_the_ledger_is_followed() {
    let whole = Whole::new();
    let real = whole.with("real", &whole.bytes);
    let linked = whole.with("linked", &[]);
    let path = linked.data_dir().join("ledger.redb");
    fs::remove_file(&path).unwrap();
    symlink(real.data_dir().join("ledger.redb"), &path).unwrap();
    assert_eq!(linked.add("c9", "eth0", &config(&linked)).addresses()[0], "10.0.0.2/24");
    assert_eq!(held(&real)["10.0.0.2"], "c9");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

/// Permissions that others were given are taken back; an owner who is not root does not keep root from working.
#[test]
fn permissions_are_taken_back_and_owners_do_not_matter() {
    let whole = Whole::new();
    let plugin = whole.with("open", &whole.bytes);
    let path = plugin.data_dir().join("ledger.redb");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(plugin.add("c9", "eth0", &config(&plugin)).addresses()[0], "10.0.0.2/24");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(plugin.add("c10", "eth0", &config(&plugin)).addresses()[0], "10.0.0.5/24");
    }
}

/// The lock or the spool is damaged or in the way: that is no reason not to serve, or it is told.
#[test]
fn a_damaged_spool_does_not_stop_the_plugin() {
    let whole = Whole::new();
    for (name, bytes) in [("empty", &b""[..]), ("noise", &[0xa5; 4096][..]), ("short", &whole.spool[..17])] {
        let plugin = whole.with(name, &whole.bytes);
        let spool = plugin.data_dir().join("ledger.redb.spool");
        fs::write(&spool, bytes).unwrap();
        assert_eq!(plugin.add("c9", "eth0", &config(&plugin)).addresses()[0], "10.0.0.2/24", "{name}");
        plugin.del("c9", "eth0", &config(&plugin)).ok();
        assert_eq!(held(&plugin).len(), 6);
    }
    let plugin = whole.with("no-lock", &whole.bytes);
    fs::create_dir(plugin.data_dir().join("ledger.redb.lock")).unwrap();
    let answer = plugin.add("c9", "eth0", &config(&plugin));
    let message = answer.error().1;
    assert!(message.contains("ledger.redb.lock"), "{message}");
}

/// Leftovers of a process that died while it made the first ledger.
#[test]
fn a_half_made_ledger_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    for leftover in ["ledger.redb.new", "ledger.redb.spool.new", "ledger.redb.lock"] {
        fs::write(folder.path().join(leftover), "half").unwrap();
    }
    assert_eq!(plugin.add("c1", "eth0", &plugin.range("10.0.0.0/24")).address(), "10.0.0.1/24");
    let mut files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["ledger.redb", "ledger.redb.lock", "ledger.redb.spool"]);
}
