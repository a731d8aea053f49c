//! The command line as a person and a script use it: the built binary, what it prints and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "this is a test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::Plugin;
use support::machine::on_own_machine;
use support::skip::skip;

fn command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whereabouts"));
    command.env_clear().env("WHEREABOUTS_DATA_DIR", data_dir).args(arguments);
    command
}

fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    command(data_dir, arguments).output().unwrap()
}

/// Standard output of a command that must succeed.
#[track_caller]
fn ok(data_dir: &Path, arguments: &[&str]) -> String {
    let output = run(data_dir, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that must fail with this exit code says on standard error; it answers nothing.
#[track_caller]
fn fails(data_dir: &Path, arguments: &[&str], exit: i32) -> String {
    let output = run(data_dir, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?} answered {}", String::from_utf8_lossy(&output.stdout));
    said
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_name_keeps_its_address_and_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    assert_eq!(ok(ledger, &["allocate", "10.0.0.0/24", "--name", "web"]), "10.0.0.1/24\n");
    assert_eq!(ok(ledger, &["allocate", "10.0.0.0/24", "--name", "web"]), "10.0.0.1/24\n");
    assert_eq!(ok(ledger, &["allocate", "10.0.0.0/24", "fd00::/64", "--name", "db"]), "10.0.0.2/24\nfd00::1/64\n");
    assert!(ok(ledger, &["who", "10.0.0.2"]).contains("db"));
    assert_eq!(ok(ledger, &["release", "--name", "web"]), "10.0.0.1 was held by web\n");
    assert_eq!(ok(ledger, &["allocate", "10.0.0.0/24", "--name", "next"]), "10.0.0.1/24\n");
}

#[test]
fn a_call_without_a_name_says_how_to_give_the_address_back() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["allocate", "10.0.0.0/24"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let release = said.split('`').nth(1).unwrap().split_whitespace().skip(1).collect::<Vec<_>>();
    assert!(ok(folder.path(), &release).starts_with("10.0.0.1 was held by cli-"));
}

#[test]
fn sixteen_at_once_get_sixteen_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let start = |_| {
        let mut command = command(folder.path(), &["allocate", "10.0.0.0/24"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let running: Vec<_> = (0..16).map(start).collect();
    let given: BTreeSet<String> =
        running.into_iter().map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()).collect();
    assert_eq!(given, (1..=16).map(|number| format!("10.0.0.{number}/24\n")).collect());
}

#[test]
fn exit_codes_tell_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    assert!(fails(ledger, &["show"], 3).contains("ledger.redb"), "there is no ledger yet");
    ok(ledger, &["allocate", "10.0.0.0/30", "--count", "2"]);
    let full = fails(ledger, &["allocate", "10.0.0.0/30"], 4);
    let who = format!("`whereabouts --data-dir {} show leases 10.0.0.0/30 --network ''`", ledger.display());
    assert!(full.contains("2 of 2") && full.contains(&who), "{full}");
    let held = fails(ledger, &["allocate", "10.0.0.0/30", "--address", "10.0.0.1", "--name", "other"], 5);
    assert!(held.contains("10.0.0.1 is held by cli-"), "{held}");
    assert!(fails(ledger, &["release", "10.0.0.200"], 3).contains("nobody holds"));
    for (arguments, cure) in [
        (vec!["allocate", "10.0.0.0/33"], "write a network such as"),
        (vec!["allocate", "10.0.0.0/31"], "--l3"),
        (vec!["allocate", "10.0.0.0/24", "--exclude", "x"], "could not parse exclude range"),
        (vec!["allocate", "10.0.0.0/24", "--address", "10.1.0.1"], "name one that does"),
        (vec!["who", "10.0.0.1", "--at", "yesterday"], "2026-11-24T08:00:00Z"),
        (vec!["show", "nonsense"], "networks, ranges, leases or a range"),
        (vec!["release"], "--name"),
        (vec!["release", "--network", "blue"], "<ADDRESS|--name <NAME>|--container <ID>>"),
        (vec!["allocate", "10.0.0.0/24", "--count", "0"], "1.."),
        (vec!["allocate", "10.0.0.0/24", "--name", "a\nb"], "without control characters"),
        (vec!["allocate", "10.0.0.0/24", "--name", &"n".repeat(254)], "1 to 253 bytes"),
    ] {
        let said = fails(ledger, &arguments, 2);
        assert!(said.contains(cure) || cure == "--l3" && said.contains("enable_l3"), "{arguments:?}: {said}");
    }
}

#[test]
fn answers_in_json_are_json_and_errors_too() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    let given = json(&ok(ledger, &["allocate", "10.0.0.0/24", "--name", "web", "--json"]));
    assert_eq!(given["addresses"][0], "10.0.0.1/24");
    assert_eq!(json(&ok(ledger, &["who", "10.0.0.1", "--json"]))["owner"]["name"], "web");
    assert_eq!(json(&ok(ledger, &["show", "10.0.0.0/24", "--json"]))["held"], "1");
    assert_eq!(json(&ok(ledger, &["show", "ranges", "--json"]))["range"], "10.0.0.0/24");
    assert_eq!(json(&ok(ledger, &["show", "networks", "--json"]))["held"], 1);
    assert_eq!(json(&ok(ledger, &["show", "leases", "--json"]))["address"], "10.0.0.1");
    assert_eq!(json(&ok(ledger, &["verify", "--json"]))["disagreements"], json!([]));
    assert!(json(&fails(ledger, &["who", "10.0.0.9", "--json"], 3))["error"].is_string());
}

/// A time is in one tenure, and the answer is one line, whoever else held the address before or after.
#[test]
fn who_held_an_address_at_a_time_is_one_holder() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    // A whole second that is over lies between what was done before it and what is done after it.
    let next_second = || std::thread::sleep(std::time::Duration::from_millis(1100));
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let before = (now() - 60).to_string();
    ok(ledger, &["allocate", "10.0.0.0/24", "--name", "first"]);
    next_second();
    let in_first = now().to_string();
    ok(ledger, &["release", "10.0.0.1"]);
    next_second();
    let between = now().to_string();
    ok(ledger, &["allocate", "10.0.0.0/24", "--name", "second"]);
    next_second();
    let in_second = now().to_string();

    assert_eq!(ok(ledger, &["who", "10.0.0.1"]).lines().count(), 2);
    for (at, holder) in [(&in_first, "first"), (&in_second, "second")] {
        let told = ok(ledger, &["who", "10.0.0.1", "--at", at]);
        assert!(told.lines().count() == 1 && told.contains(holder), "{holder}: {told}");
        let told = json(&ok(ledger, &["who", "10.0.0.1", "--at", at, "--json"]));
        assert_eq!((told["owner"]["name"].as_str(), told["until"].is_string()), (Some(holder), holder == "first"));
    }
    // The same time, as people write it.
    let told = json(&ok(ledger, &["who", "10.0.0.1", "--json", "--at", &in_first]));
    assert!(ok(ledger, &["who", "10.0.0.1", "--at", told["until"].as_str().unwrap()]).contains("first"));
    for at in [&before, &between] {
        let said = fails(ledger, &["who", "10.0.0.1", "--at", at], 3);
        assert!(said.lines().count() == 1 && said.contains("10.0.0.1: nobody held it then"), "{said}");
    }
}

#[test]
fn a_picture_reads_in_80_columns() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    ok(ledger, &["allocate", "10.20.30.0/24", "--count", "70"]);
    ok(ledger, &["release", "10.20.30.5"]);
    let picture = ok(ledger, &["show", "10.20.30.0/24"]);
    let rows: Vec<&str> = picture.lines().collect();
    assert!(rows.contains(&"69 of 254 held, 185 free"), "{picture}");
    let held = "#".repeat(58);
    assert!(rows.contains(&format!("10.20.30.0      x####.{held}").as_str()), "{picture}");
    let rest = ".".repeat(57);
    assert!(rows.contains(&format!("10.20.30.64     #######{rest}").as_str()), "{picture}");
    assert!(rows[3..7].iter().all(|row| row.len() == 80), "{picture}");
    // All of IPv6 is no longer than a small range, and no wider either.
    ok(ledger, &["allocate", "::/0", "fd00:1111:2222:3333:4444:5555:6666:0/112", "--name", "six"]);
    for shown in ["10.20.30.0/24", "::/0", "fd00:1111:2222:3333:4444:5555:6666:0/112", "ranges"] {
        let picture = ok(ledger, &["show", shown]);
        assert!(picture.lines().all(|row| row.len() <= 80) && picture.lines().count() < 16, "{picture}");
    }
    let whole = ok(ledger, &["show", "::/0"]);
    assert!(whole.contains("each character is 2^120 addresses") && whole.contains("about 2^128 free"), "{whole}");
}

#[test]
fn who_held_an_address_is_known_after_its_release() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    ok(ledger, &["allocate", "10.0.0.0/24", "--name", "first"]);
    ok(ledger, &["release", "--name", "first"]);
    ok(ledger, &["allocate", "10.0.0.0/24", "--name", "second"]);
    let told = ok(ledger, &["who", "10.0.0.1"]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].ends_with("first") && lines[1].ends_with("second"), "{told}");
    assert!(ok(ledger, &["who", "10.0.0.1", "--at", "9999999999"]).contains("second"));
    assert!(fails(ledger, &["who", "10.0.0.1", "--at", "2001-01-01T00:00:00Z"], 3).contains("nobody held it then"));
}

#[test]
fn a_backup_comes_back_and_never_beside_another_holder() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let file = folder.path().join("backup.jsonl");
    let file = file.to_str().unwrap();
    ok(&old, &["allocate", "10.0.0.0/23", "fd00::/64", "--count", "300"]);
    ok(&old, &["allocate", "10.9.0.0/24", "--name", "own", "--private"]);
    ok(&old, &["export", file]);
    assert!(fails(&old, &["export", file], 1).contains("name a new file"), "an older backup is not overwritten");
    let said = ok(&new, &["import", file]);
    assert!(said.starts_with("601 added"), "{said}");
    assert_eq!(ok(&new, &["show", "leases"]), ok(&old, &["show", "leases"]));
    assert!(ok(&new, &["verify"]).starts_with("sound"));

    let other = folder.path().join("other");
    ok(&other, &["allocate", "10.0.0.0/23", "--name", "somebody-else"]);
    let refused = fails(&other, &["import", file], 5);
    assert!(refused.contains("10.0.0.1") && refused.contains("somebody-else"), "{refused}");
    assert_eq!(ok(&other, &["show", "leases"]).lines().count(), 1, "nothing was imported");
}

#[test]
fn a_reader_that_does_not_read_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["allocate", "10.0.0.0/16", "--count", "3000"]);
    for arguments in
        [vec!["show", "leases"], vec!["export"], vec!["allocate", "10.1.0.0/16", "--count", "3000", "--json"]]
    {
        let mut child = command(folder.path(), &arguments).stdout(Stdio::piped()).spawn().unwrap();
        // It has begun to write, and more than a pipe holds is to come.
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        let other = run(folder.path(), &["allocate", "10.2.0.0/16", "--name", "other"]);
        let is_writing = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_writing, "{arguments:?} fits into a pipe");
        assert_eq!(other.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&other.stderr));
    }
}

/// Changes the block that holds an address for this name, and nothing else, as a disk would.
fn damage_block_of(data_dir: &Path, name: &str) {
    let path = data_dir.join("ledger.redb");
    let mut bytes = fs::read(&path).unwrap();
    // In a block's column of owners: a name of the command line, of this length.
    let mut place = vec![3, u8::try_from(name.len()).unwrap()];
    place.extend(name.bytes());
    let found: Vec<usize> =
        bytes.windows(place.len()).enumerate().filter(|(_, window)| *window == place).map(|(at, _)| at).collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at + place.len() - 1] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
}

#[test]
fn what_can_be_read_of_a_damaged_ledger_is_told_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, file) = (folder.path().join("ledger"), folder.path().join("saved.jsonl"));
    let file = file.to_str().unwrap();
    for (range, name) in [("10.0.0.0/24", "before"), ("10.1.0.0/24", "victim"), ("10.2.0.0/24", "after")] {
        ok(&ledger, &["allocate", range, "--name", name]);
    }
    damage_block_of(&ledger, "victim");
    let told = |arguments: &[&str]| {
        let output = run(&ledger, arguments);
        let (said, answer) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
        assert_eq!(output.status.code(), Some(6), "{arguments:?}: {said}");
        assert!(said.contains("table blocks is damaged"), "{arguments:?}: {said}");
        answer
    };
    let leases = told(&["show", "leases"]);
    assert!(leases.contains("before") && leases.contains("after") && !leases.contains("victim"), "{leases}");
    assert!(told(&["show", "ranges"]).contains("10.2.0.0/24"));
    assert!(told(&["show", "networks"]).contains("2 ranges"));
    told(&["export", file]);
    assert_eq!(told(&["export"]).lines().count(), 4);
    assert_eq!(told(&["export", "-"]).lines().count(), 4);
    let verified = run(&ledger, &["verify"]);
    assert_eq!(verified.status.code(), Some(6));
    assert!(String::from_utf8(verified.stdout).unwrap().contains("table blocks is damaged"));

    let restored = folder.path().join("restored");
    let output = run(&restored, &["import", file]);
    assert_eq!((output.status.code(), output.stdout.starts_with(b"2 added")), (Some(0), true), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("1 rows or blocks could not be read"));
}

#[test]
fn a_backup_that_was_cut_off_is_refused_wherever_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    ok(&old, &["allocate", "10.0.0.0/24", "--count", "3"]);
    let whole = ok(&old, &["export"]);
    let file = folder.path().join("backup.jsonl");
    let import = |text: &str| {
        fs::write(&file, text).unwrap();
        let said = fails(&new, &["import", file.to_str().unwrap()], 1);
        assert!(said.contains("backup.jsonl") && said.contains("nothing was imported"), "{said}");
        assert!(!new.exists(), "a ledger was made");
        said
    };
    assert!(import("").contains("empty"));
    for length in 1..whole.len() - 1 {
        if whole.as_bytes()[length - 1] == b'\n' || length % 97 == 0 {
            import(&whole[..length]);
        }
    }
    let without_one: Vec<&str> = whole.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| line).collect();
    assert!(import(&without_one.join("\n")).contains("lines were lost"));
    assert!(import(&whole.replace("\"format\":1", "\"format\":2")).contains("or a newer one"));
    assert!(import(&format!("{whole}{whole}")).contains("one backup after the other"));

    // A backup of nothing is whole.
    let empty = [whole.lines().next().unwrap(), r#"{"whereabouts":"end","leases":0}"#].join("\n");
    fs::write(&file, empty).unwrap();
    assert!(ok(&new, &["import", file.to_str().unwrap()]).starts_with("0 added"));
}

#[test]
fn an_export_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, backups) = (folder.path().join("ledger"), folder.path().join("backups"));
    ok(&ledger, &["allocate", "10.0.0.0/24", "--count", "200"]);
    fs::create_dir(&backups).unwrap();
    // A file may have a few kilobytes, as on a disk that is almost full.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" export \"$1\"";
    let file = backups.join("backup.jsonl");
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_whereabouts"), file.to_str().unwrap()]);
    let output = shell.env_clear().env("WHEREABOUTS_DATA_DIR", &ledger).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write") && said.contains("backup.jsonl"), "{said}");
    assert_eq!(fs::read_dir(&backups).unwrap().count(), 0);

    ok(&ledger, &["export", file.to_str().unwrap()]);
    assert_eq!(fs::read_dir(&backups).unwrap().count(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn leases_that_the_plugin_would_not_write_are_not_imported() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    ok(&old, &["allocate", "10.0.0.0/24", "--name", "shared"]);
    ok(&old, &["allocate", "10.9.0.0/24", "--name", "own", "--private"]);
    let whole = ok(&old, &["export"]);
    let file = folder.path().join("backup.jsonl");
    // A lease of a container, made of the one in line 2; then line and key by key.
    let with = |line: usize, changes: &[(&str, Value)]| {
        let mut lines: Vec<Value> = whole.lines().map(json).collect();
        let container = [
            ("owner", json!({ "kind": "pod", "pod": { "namespace": "ns", "name": "web", "uid": null } })),
            ("container", "8f0c".into()),
            ("interface", "eth0".into()),
            ("cniNetwork", "pods".into()),
        ];
        for (key, value) in container {
            lines[1][key] = value;
        }
        for (key, value) in changes {
            match key.split_once('.') {
                Some((outer, inner)) => lines[line - 1][outer][inner] = value.clone(),
                None => lines[line - 1][key] = value.clone(),
            }
        }
        fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    };
    let name = file.to_str().unwrap();
    let pod = |name: &str| json!({ "kind": "pod", "pod": { "namespace": "ns", "name": name } });
    for (line, key, value, cure) in [
        (2, "address", "10.0.1.1".into(), "pool 10.0.0.0/24"),
        (2, "address", "fd00::1".into(), "pool 10.0.0.0/24"),
        (2, "address", "10.0.0".into(), "such as 10.0.0.1"),
        (2, "pool", "10.0.0.1/24".into(), "write 10.0.0.0/24"),
        (2, "pool", "10.0.0.0/33".into(), "such as 10.0.0.0/24"),
        (2, "network", "a\u{7}b".into(), "control character"),
        (2, "container", "a\nb".into(), "use letters, digits"),
        (2, "container", "c".repeat(60_000).into(), "longer than 253 bytes"),
        (2, "container", "c".repeat(3_000_000).into(), "more than 65536 bytes"),
        (2, "interface", "eth0/1".into(), "leave them out"),
        (2, "cniNetwork", "".into(), "at most 253 letters"),
        (2, "node", "n\u{0}".into(), "without control characters"),
        (2, "state", "lost".into(), "active"),
        (2, "operation", "+1".into(), "16 hexadecimal digits"),
        (2, "boot", "12".into(), "32 hexadecimal digits"),
        (2, "sinceMilliseconds", u64::MAX.into(), "since 1970"),
        (2, "owner", pod(&"p".repeat(254)), "at most 253 bytes"),
        (2, "owner", pod(""), "the name of the pod"),
        (2, "owner.kind", "god".into(), "sticky or name"),
        (3, "private", "10.9.0.0/25".into(), "private range 10.9.0.0/25"),
        (3, "container", "another".into(), "its name as the container"),
    ] {
        with(line, &[(key, value)]);
        let said = fails(&new, &["import", name], 1);
        let what = format!("line {line}: ");
        assert!(said.contains(&what) && said.contains(cure) && said.len() < 800, "{key}: {said}");
        assert!(said.contains(key.split('.').next().unwrap()) || cure.contains("65536"), "{key}: {said}");
        assert!(!new.exists(), "{key}: a ledger was made");
    }
    let twice = whole.lines().nth(1).unwrap();
    fs::write(&file, whole.replace(twice, &format!("{twice}\n{twice}"))).unwrap();
    assert!(fails(&new, &["import", name], 1).contains("line 2 has it, too"));

    with(2, &[]);
    assert!(ok(&new, &["import", name]).starts_with("2 added"));
    assert!(ok(&new, &["verify"]).starts_with("sound"));
    assert!(ok(&new, &["who", "10.0.0.1"]).contains("pod ns/web (container 8f0c/eth0 of network pods)"));
}

#[test]
fn a_backup_of_many_leases_is_put_back_whole_or_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new, other) = (folder.path().join("old"), folder.path().join("new"), folder.path().join("other"));
    let file = folder.path().join("backup.jsonl");
    let file = file.to_str().unwrap();
    ok(&old, &["allocate", "10.0.0.0/16", "--count", "10500"]);
    ok(&old, &["export", file]);
    // What the last batch would be refused for is known before the first.
    ok(&other, &["allocate", "10.0.0.0/16", "--name", "somebody-else", "--address", "10.0.41.4"]);
    assert!(fails(&other, &["import", file], 5).contains("somebody-else"));
    assert_eq!(ok(&other, &["show", "leases"]).lines().count(), 1);
    assert!(ok(&new, &["import", file]).starts_with("10500 added, 0 were here already"));
    assert!(ok(&new, &["verify"]).ends_with("10500 addresses held\n"));
    assert!(ok(&new, &["import", file]).starts_with("0 added, 10500 were here already"));
}

#[test]
fn many_that_do_not_fit_are_given_as_far_as_they_do() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["allocate", "10.0.0.0/29", "--count", "10"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().lines().count()), (Some(4), 6));
    assert!(said.contains("6 of 10 were given, which stay held: range 10.0.0.0/29 is full"), "{said}");
    let said = fails(folder.path(), &["allocate", "10.0.0.0/29", "--count", "2"], 4);
    assert!(said.contains("0 of 2 were given: range 10.0.0.0/29 is full"), "{said}");
}

#[test]
fn what_was_named_and_is_not_held_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    ok(ledger, &["allocate", "10.0.0.0/24", "--count", "3"]);
    ok(ledger, &["allocate", "10.0.0.0/24", "--name", "web"]);
    let output = run(ledger, &["release", "10.0.0.1", "10.0.0.77", "10.0.0.2", "--name", "nobody"]);
    let (answer, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(answer.lines().count() == 2 && answer.contains("10.0.0.1 ") && answer.contains("10.0.0.2 "), "{answer}");
    assert!(said.contains("nobody holds that: 10.0.0.77, name nobody"), "{said}");
    // One that is named twice is held once, and that is enough.
    assert_eq!(ok(ledger, &["release", "10.0.0.4", "10.0.0.4", "--name", "web"]).lines().count(), 1);
}

#[test]
fn what_a_container_holds_is_given_back_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, plugin) = (folder.path(), Plugin::new(folder.path()));
    let config = plugin.range("10.0.0.0/24");
    let mut other = config.clone();
    other["name"] = "other".into();
    for (container, interface, config) in
        [("c1", "eth0", &config), ("c1", "net1", &config), ("c2", "eth0", &config), ("c1", "eth0", &other)]
    {
        plugin.add(container, interface, config).ok();
    }
    assert!(fails(ledger, &["release", "--interface", "eth0"], 2).contains("--container"));
    let said = fails(ledger, &["release", "--container", "c1", "--interface", "net7"], 3);
    assert!(said.contains("nobody holds that: container c1/net7"), "{said}");

    let freed = ok(ledger, &["release", "--container", "c1", "--interface", "net1"]);
    assert_eq!(freed.lines().count(), 1, "{freed}");
    assert!(freed.starts_with("10.0.0.2 was held by") && freed.contains("c1/net1 of network test"), "{freed}");
    // Without an interface all of them, in every network of CNI.
    let freed = ok(ledger, &["release", "--container", "c1"]);
    let starts = |address: &str| freed.lines().any(|line| line.starts_with(address));
    assert!(freed.lines().count() == 2 && starts("10.0.0.1 ") && starts("10.0.0.4 "), "{freed}");
    let said = fails(ledger, &["release", "--container", "c1"], 3);
    assert!(said.contains("nobody holds that: container c1;"), "{said}");
    let left = ok(ledger, &["show", "leases"]);
    assert!(left.lines().count() == 1 && left.contains("c2/eth0"), "{left}");
}

#[test]
fn gateways_and_the_edges_of_a_range_are_given_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    let given = |arguments: &[&str]| {
        let output = run(ledger, &[&["allocate"], arguments].concat());
        let given = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
        (output.status.code(), given.join(" "))
    };
    let gateways = ["10.0.0.0/29", "--count", "9", "--gateway", "10.0.0.1", "--gateway", "10.0.0.3"];
    assert_eq!(given(&gateways), (Some(4), "10.0.0.2/29 10.0.0.4/29 10.0.0.5/29 10.0.0.6/29".into()));
    // One of another range, or of the other family, takes nothing away.
    let others = ["10.1.0.0/30", "fd00::/126", "--name", "n", "--gateway", "fd00::1", "--gateway", "10.0.0.1"];
    assert_eq!(given(&others), (Some(0), "10.1.0.1/30 fd00::2/126".into()));

    assert_eq!(given(&["10.2.0.0/30", "--count", "9"]), (Some(4), "10.2.0.1/30 10.2.0.2/30".into()));
    let all = "10.3.0.0/30 10.3.0.1/30 10.3.0.2/30 10.3.0.3/30";
    assert_eq!(given(&["10.3.0.0/30", "--count", "9", "--l3"]), (Some(4), all.into()));
    assert_eq!(given(&["10.4.0.0/31", "--count", "2", "--l3"]), (Some(0), "10.4.0.0/31 10.4.0.1/31".into()));
    assert_eq!(given(&["fd00::7/128", "--name", "n", "--l3"]), (Some(0), "fd00::7/128".into()));
}

#[test]
fn networks_of_other_names_do_not_collide() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    let take = |arguments: &[&str]| ok(ledger, &[&["allocate", "10.0.0.0/24"], arguments].concat());
    assert_eq!(take(&["--network", "blue", "--name", "a"]), "10.0.0.1/24\n");
    assert_eq!(take(&["--name", "b"]), "10.0.0.1/24\n");
    assert_eq!(take(&["--network", "blue", "--name", "c"]), "10.0.0.2/24\n");
    assert_eq!(take(&["--network", "blue", "--name", "a"]), "10.0.0.1/24\n");
    assert_eq!(ok(ledger, &["show", "networks"]).lines().count(), 2);
    assert_eq!(ok(ledger, &["show", "leases", "--network", "blue"]).lines().count(), 2);

    let said = fails(ledger, &["release", "10.0.0.1"], 2);
    assert!(said.contains("held 2 times") && said.contains("--network") && said.contains("blue"), "{said}");
    assert!(fails(ledger, &["release", "10.0.0.1", "--network", "red"], 3).contains("nobody holds that: 10.0.0.1"));
    assert_eq!(ok(ledger, &["release", "10.0.0.1", "--network", "blue"]), "10.0.0.1 was held by a\n");
    assert_eq!(ok(ledger, &["release", "10.0.0.1"]), "10.0.0.1 was held by b\n");
    assert!(fails(ledger, &["allocate", "10.0.0.0/24", "--network", "a\nb"], 2).contains("control"));
}

/// On a terminal long work says how far it is, and leaves nothing of that behind; elsewhere it says nothing.
#[test]
fn progress_is_for_terminals() {
    let folder = tempfile::tempdir().unwrap();
    let many = ["allocate", "10.0.0.0/16", "--count", "2000"];
    let program = env!("CARGO_BIN_EXE_whereabouts");
    let typed = format!("{program} --data-dir {} {}", folder.path().display(), many.join(" "));
    let on_terminal = Command::new("script").args(["-qec", &typed, "/dev/null"]).stdin(Stdio::null()).output();
    let on_terminal = match on_terminal {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return support::skip::skip("progress_is_for_terminals", &format!("script: {error}")),
    };
    assert!(on_terminal.contains("allocating 0/2000"), "{on_terminal:?}");
    let (_, at_the_end) = on_terminal.rsplit_once("10.0.7.208/16").unwrap();
    assert!(!at_the_end.rsplit('\r').next().unwrap().contains("allocating"), "{at_the_end:?}");
    let output = run(folder.path(), &many);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_is_released_can_be_confined_to_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, plugin) = (folder.path(), Plugin::new(folder.path()));
    for network in ["blue", "red"] {
        let name = ["--network", network, "--name", "web"];
        ok(ledger, &[["allocate", "10.0.0.0/24"].as_slice(), &name].concat());
        plugin.add("c1", network, &plugin.config(json!({ "range": "10.0.0.0/24", "network_name": network }))).ok();
    }
    let freed = ok(ledger, &["release", "--name", "web", "--network", "blue"]);
    assert_eq!(freed, "10.0.0.1 was held by web\n");
    assert!(fails(ledger, &["release", "--name", "web", "--network", "blue"], 3).contains("nobody holds that"));
    let freed = ok(ledger, &["release", "--container", "c1", "--network", "red"]);
    assert!(freed.lines().count() == 1 && freed.contains("c1/red"), "{freed}");
    let left = |network| ok(ledger, &["show", "leases", "--network", network]);
    let (blue, red) = (left("blue"), left("red"));
    assert!(blue.lines().count() == 1 && blue.contains("c1/blue"), "{blue}");
    assert!(red.lines().count() == 1 && red.contains("web"), "{red}");
}

#[test]
fn a_configuration_is_told_before_a_container_depends_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/host/10-pods.conflist");
    let told = ok(folder.path(), &["check-config", sample]);
    assert!(told.contains("10.20.0.16 to 10.20.255.254, 65264 addresses"), "{told}");

    let yaml = write(
        "nad.yaml",
        "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: blue}\nspec:\n  config: '{\"cniVersion\":\"1.0.0\",\"name\":\"blue\",\"type\":\"macvlan\",\"ipam\":{\"type\":\"whereabouts\",\"datastore\":\"local\",\"range\":\"10.20.0.0/16\",\"gatway\":\"10.20.0.1\"}}'\n",
    );
    let output = run(folder.path(), &["check-config", sample, &yaml]);
    let (told, warned) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), warned.as_str()), (Some(0), ""), "{told}");
    assert!(told.contains("did you mean gateway?"), "{told}");
    assert!(told.contains("warning: 10.20.0.0/16 of the unnamed network is shared by pods, blue\n"), "{told}");

    let bad = write(
        "bad.conf",
        r#"{"name":"n","type":"bridge","ipam":{"type":"whereabouts","datastore":"local","range":"10.0.0.0/24","exclude":["10.0.0.300"]}}"#,
    );
    let output = run(folder.path(), &["check-config", &bad]);
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8(output.stdout).unwrap().contains("10.0.0.300"));
}

/// What an ADD refuses is not called sound.
#[test]
fn a_configuration_is_checked_as_an_add_checks_it() {
    let folder = tempfile::tempdir().unwrap();
    let ranges = r#"[{"range": "10.0.0.0/24"}, {"range": "10.1.0.0/24"}]"#;
    let conf =
        |head: &str, ipam: &str| format!(r#"{{{head}"type": "bridge", "ipam": {{"type": "whereabouts", {ipam}}}}}"#);
    let local = format!(r#""datastore": "local", "ipRanges": {ranges}"#);
    let definition = |ipam: &str| {
        let config = conf(r#""cniVersion": "1.0.0", "#, ipam);
        format!("kind: NetworkAttachmentDefinition\nmetadata: {{name: blue}}\nspec:\n  config: '{config}'\n")
    };
    for (text, words) in [
        (conf(r#""cniVersion": "1.0.0", "#, &local), vec!["missing network name"]),
        (conf(r#""cniVersion": "1.0.0", "name": "a/b", "#, &local), vec!["name = a/b", "at most 253 letters"]),
        (conf(r#""cniVersion": "9.9.9", "name": "n", "#, &local), vec!["9.9.9", "1.1.0"]),
        (conf(r#""cniVersion": "0.2.0", "name": "n", "#, &local), vec!["more than 1 address per family", "0.3.0"]),
        (conf(r#""name": "n", "#, &local), vec!["more than 1 address per family", "0.3.0"]),
        (definition(r#""range": "10.0.0.0/24""#), vec!["datastore is not set", "NetworkAttachmentDefinition", "local"]),
    ] {
        let file = folder.path().join("file");
        std::fs::write(&file, &text).unwrap();
        let output = run(folder.path(), &["check-config", file.to_str().unwrap()]);
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(6), "{text}: {told}");
        assert!(told.contains("error: ") && words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
    }
    for text in [conf(r#""cniVersion": "1.0.0", "name": "n", "#, &local), definition(&local)] {
        let file = folder.path().join("file");
        std::fs::write(&file, &text).unwrap();
        assert!(ok(folder.path(), &["check-config", file.to_str().unwrap()]).contains("254 addresses"));
    }
    let kubernetes = r#""range": "10.0.0.0/24", "kubernetes": {"kubeconfig": "/etc/cni/here.kubeconfig"}"#;
    std::fs::write(folder.path().join("file"), conf(r#""cniVersion": "1.0.0", "name": "n", "#, kubernetes)).unwrap();
    let told = ok(folder.path(), &["check-config", folder.path().join("file").to_str().unwrap()]);
    assert!(told.contains("leases in Kubernetes") && told.contains("kubeconfig /etc/cni/here.kubeconfig"), "{told}");
}

/// The folder that is named is the plugin's, were it given to it in the environment.
#[test]
fn a_configuration_is_checked_for_the_folder_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("net.conf");
    let told = |ipam: &str, variable: bool, named: Option<&str>| {
        let ipam = format!(r#"{{"type": "whereabouts", "datastore": "local", "range": "10.0.0.0/24"{ipam}}}"#);
        let conf = format!(r#"{{"cniVersion": "1.1.0", "name": "n", "type": "bridge", "ipam": {ipam}}}"#);
        fs::write(&file, conf).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_whereabouts"));
        command.env_clear().current_dir(folder.path()).args(["check-config", "--json"]).arg(&file);
        if variable {
            command.env("WHEREABOUTS_DATA_DIR", "/of/variable");
        }
        if let Some(named) = named {
            command.args(["--data-dir", named]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        json(&String::from_utf8(output.stdout).unwrap())
    };
    let typed = r#", "data_dir": "/of/network""#;
    for (ipam, variable, named, expected) in [
        ("", false, None, "/var/lib/cni/whereabouts"),
        (typed, false, None, "/of/network"),
        (typed, true, None, "/of/variable"),
        (typed, true, Some("/of/argument"), "/of/argument"),
        ("", false, Some("/of/argument"), "/of/argument"),
        ("", false, Some("here"), folder.path().join("here").to_str().unwrap()),
    ] {
        let told = told(ipam, variable, named);
        assert_eq!(told["dataDir"], expected, "{ipam} {variable} {named:?}");
        // That the key of the network has no effect is told.
        let n_warnings = if ipam.is_empty() { 0 } else { 1 };
        assert_eq!(told["warnings"].as_array().unwrap().len(), n_warnings, "{told}");
    }
}

/// With --json a warning can be read by a program, too.
#[test]
fn a_warning_is_told_in_the_form_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, file) = (folder.path().join("ledger"), folder.path().join("empty.jsonl"));
    let made = folder.path().join("made");
    ok(&made, &["allocate", "10.0.0.0/24", "--name", "web"]);
    ok(&made, &["release", "10.0.0.1"]);
    ok(&made, &["export", file.to_str().unwrap()]);
    let said = |arguments: &[&str]| {
        let output = run(&ledger, &[&["import", file.to_str().unwrap()], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let sentence = format!("{} has no leases", file.display());
    assert_eq!(said(&[]), format!("warning: {sentence}\n"));
    assert_eq!(json(&said(&["--json"])), json!({ "warning": sentence }));
}

/// One file that cannot be used does not keep the others from being checked, and with --json all that is said is JSON.
#[test]
fn every_file_is_checked_whatever_becomes_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let conf = |name: &str, ipam: &str| {
        let ipam = format!(r#"{{"type": "whereabouts", "datastore": "local", {ipam}}}"#);
        write(name, &format!(r#"{{"cniVersion": "1.1.0", "name": "{name}", "type": "bridge", "ipam": {ipam}}}"#))
    };
    let missing = folder.path().join("missing").to_str().unwrap().to_owned();
    let (broken, empty) = (write("broken", "{"), write("empty", "kind: Pod\n"));
    let twice = conf("twice", r#""ipRanges": [{"range": "10.0.0.0/24"}, {"range": "10.0.0.128/25"}]"#);
    let wide = conf("wide", r#""range": "10.0.0.0/23""#);
    let private = conf("private", r#""range": "10.0.0.0/24", "enable_overlapping_ranges": false"#);
    let elsewhere = conf("elsewhere", r#""range": "10.0.0.0/23", "network_name": "other""#);

    let files = [&missing, &broken, &empty, &twice];
    for (files, exit) in [(&files[..], 1), (&files[1..], 6), (&files[3..], 0)] {
        let arguments: Vec<&str> = ["check-config"].into_iter().chain(files.iter().map(|file| file.as_str())).collect();
        let output = run(folder.path(), &arguments);
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{told}");
        assert!(files.iter().all(|file| told.contains(file.as_str())), "{told}");
        let sentence = "warning: ipRanges[0].range = 10.0.0.0/24 and ipRanges[1].range = 10.0.0.128/25 overlap from \
                        10.0.0.129 to 10.0.0.254";
        assert!(told.contains(sentence), "{told}");
    }

    let all = ["check-config", "--json", &missing, &broken, &empty, &twice, &wide, &private, &elsewhere];
    let output = run(folder.path(), &all);
    assert!(output.stderr.is_empty(), "{output:?}");
    let lines: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(json).collect();
    let n_errors = lines.iter().filter(|line| line["error"].is_string() && line["file"].is_string()).count();
    assert_eq!((n_errors, lines.iter().filter(|line| line["ranges"].is_array()).count()), (3, 4), "{lines:?}");
    let warnings: Vec<&str> = lines.iter().filter_map(|line| line["warning"].as_str()).collect();
    let says = |words: &[&str]| warnings.iter().any(|warning| words.iter().all(|word| warning.contains(word)));
    assert!(says(&["10.0.0.0/24 of the unnamed network is shared by twice, private"]), "{warnings:?}");
    assert!(says(&["twice: ipRanges[0]", "private: range", "one pool", "enable_overlapping_ranges"]), "{warnings:?}");
    assert!(says(&["wide: range", "private: range", "may be given twice"]), "{warnings:?}");
    assert!(says(&["twice: ipRanges[0]", "wide: range", "none is given twice"]), "{warnings:?}");
    assert!(!says(&["elsewhere"]), "another network: {warnings:?}");
}

#[test]
fn an_ordinary_users_ledger_is_among_the_users_state() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).ok();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // The binary may lie where an ordinary user cannot go.
    let program = folder.path().join("whereabouts");
    std::fs::copy(env!("CARGO_BIN_EXE_whereabouts"), &program).unwrap();
    let mut command = Command::new(&program);
    if rustix_is_root() {
        use std::os::unix::process::CommandExt;
        command.uid(65534).gid(65534);
    }
    let output = command.env_clear().env("HOME", &home).args(["allocate", "10.0.0.0/24"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(home.join(".local/state/whereabouts/ledger.redb").exists());
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0).unwrap_or(false)
}

/// A command whose environment names a flat file, and nothing else.
fn by_flat_file(flat_file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whereabouts"));
    command.env_clear().env("WHEREABOUTS_CONFIGURATION", flat_file).args(arguments);
    command
}

/// What a person asks about is what the plugin on this host works with, wherever that was said.
#[test]
fn the_ledger_is_where_the_plugin_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let (flat_file, plugin) = (folder.path().join("whereabouts.conf"), Plugin::new(folder.path().join("of-flat-file")));
    fs::write(&flat_file, json!({ "data_dir": plugin.data_dir() }).to_string()).unwrap();
    let mut config = plugin.range("10.0.0.0/24");
    config["ipam"].as_object_mut().unwrap().remove("data_dir");
    plugin.attachment("ADD", "web", "eth0").env("WHEREABOUTS_CONFIGURATION", &flat_file).stdin(&config).run().ok();

    let show = |variable: Option<&str>, named: Option<&str>| {
        let mut command = by_flat_file(&flat_file, &["show", "leases"]);
        command.current_dir(folder.path()).envs(variable.map(|folder| ("WHEREABOUTS_DATA_DIR", folder)));
        let output = command.args(named.map(|folder| format!("--data-dir={folder}"))).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(show(None, None).contains("10.0.0.1"), "{}", show(None, None));
    assert!(show(Some("of-variable"), None).contains("of-variable/ledger.redb"), "{}", show(Some("of-variable"), None));
    for variable in [None, Some("of-variable")] {
        let said = show(variable, Some("of-argument"));
        assert!(said.contains("of-argument/ledger.redb"), "{said}");
    }
}

/// Whoever goes by another ledger than the one that is meant would be told that nothing is held.
#[test]
fn a_flat_file_that_does_not_say_where_the_ledger_is_stops_whoever_needs_to_know() {
    let folder = tempfile::tempdir().unwrap();
    let (flat_file, ledger) = (folder.path().join("whereabouts.conf"), folder.path().join("ledger"));
    let plugin = Plugin::new(&ledger);
    let mut config = plugin.range("10.0.0.0/24");
    config["ipam"].as_object_mut().unwrap().remove("data_dir");
    for (text, words) in [
        (None, ["WHEREABOUTS_CONFIGURATION", "there is no such file"]),
        (Some("{ broken"), ["JSON Parsing Error", "line 1"]),
        (Some(r#"{"data_dir": 7}"#), ["data_dir", "a string in quotes"]),
        (Some(r#"{"data_dir": "relative"}"#), ["data_dir = relative", "absolute path"]),
    ] {
        drop(fs::remove_file(&flat_file));
        if let Some(text) = text {
            fs::write(&flat_file, text).unwrap();
        }
        let output = by_flat_file(&flat_file, &["show", "leases"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        let answer = plugin.verb("STATUS").env("WHEREABOUTS_CONFIGURATION", &flat_file).stdin(&config).run();
        assert!(said.contains(answer.error().1), "the plugin says {:?}, and not {said}", answer.error());
        // Nor does it stop whoever knows, or need not know.
        ok(&ledger, &["allocate", "10.0.0.0/24", "--name", "web"]);
        let mut named = by_flat_file(&flat_file, &["show", "leases"]);
        assert!(named.arg("--data-dir").arg(&ledger).status().unwrap().success(), "{text:?}");
        assert!(by_flat_file(&flat_file, &["man"]).output().unwrap().status.success(), "{text:?}");
    }
}

/// In the usual places it is the plugin's, which is root's.
#[test]
fn the_usual_flat_file_speaks_for_root_and_not_for_an_ordinary_user() {
    let test = "the_usual_flat_file_speaks_for_root_and_not_for_an_ordinary_user";
    let told = on_own_machine(test, |machine| {
        machine.run("mount", &["-t", "tmpfs", "none", "/etc"]);
        let usual = Path::new("/etc/cni/net.d/whereabouts.d");
        fs::create_dir_all(usual).unwrap();
        let (of_plugin, home) = (machine.folder("of-plugin"), machine.folder("home"));
        fs::write(usual.join("whereabouts.conf"), json!({ "data_dir": of_plugin }).to_string()).unwrap();
        let program = machine.folder("bin").join("whereabouts");
        fs::copy(env!("CARGO_BIN_EXE_whereabouts"), &program).unwrap();
        let allocate = || {
            let mut command = Command::new(&program);
            command.env_clear().env("HOME", &home).args(["allocate", "10.0.0.0/24"]);
            command
        };
        assert!(allocate().output().unwrap().status.success());
        assert!(of_plugin.join("ledger.redb").exists());

        use std::os::unix::fs::{PermissionsExt, chown};
        use std::os::unix::process::CommandExt;
        fs::set_permissions(usual.join("whereabouts.conf"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(home.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        // Inside a user namespace, where the other test has it, there is nobody else.
        if chown(&home, Some(65534), Some(65534)).is_ok() {
            let output = allocate().uid(65534).gid(65534).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(home.join(".local/state/whereabouts/ledger.redb").exists());
        }
    });
    told.unwrap_or_else(|why| skip(test, &why));
}

#[test]
fn a_closed_pipe_and_no_arguments_are_no_errors() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["allocate", "10.0.0.0/16", "--count", "3000"]);
    let mut child =
        command(folder.path(), &["show", "leases"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), true), "{output:?}");

    let about = run(folder.path(), &[]);
    assert_eq!(about.status.code(), Some(0));
    assert!(about.stdout.is_empty() && String::from_utf8_lossy(&about.stderr).contains("1.1.0"));
    assert!(ok(folder.path(), &["completions", "bash"]).contains("complete"));
}

#[test]
fn the_manual_has_every_command_and_its_options() {
    let folder = tempfile::tempdir().unwrap();
    let (page, help) = (ok(folder.path(), &["man"]), ok(folder.path(), &["--help"]));
    assert!(page.contains(".TH whereabouts 1") && page.matches(".SH OPTIONS").count() == 1, "{page}");
    let of_commands = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    // What a command does may take more than one line, which then begins further in.
    let starts = of_commands.lines().filter(|line| line.len() - line.trim_start().len() == 2);
    let commands: Vec<&str> = starts.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(commands.len() > 10 && commands.contains(&"check-config"), "{help}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let name = command.replace('-', "\\-");
        let section =
            page.split_once(&format!("\n.SS whereabouts {name}\n")).unwrap_or_else(|| panic!("{name}: {page}"));
        let section = section.1.split("\n.S").next().unwrap();
        assert!(section.starts_with(&format!("\\fBwhereabouts {name}\\fR")), "how it is called: {section}");
        for option in ok(folder.path(), &[command, "--help"]).split_whitespace().filter(|word| word.starts_with("--")) {
            let option = option.trim_matches(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
            if !["--help", "--json", "--data-dir", "--kubeconfig"].contains(&option) {
                let entry = format!(".TP\n\\fB{}\\fR", option.replace('-', "\\-"));
                assert!(section.contains(&entry), "what {option} of {command} means: {section}");
            }
        }
        assert!(!section.contains("\\-\\-json"), "what every command has stands at the top: {section}");
    }
    for (command, option) in [("who", "at"), ("allocate", "count"), ("allocate", "name"), ("release", "interface")] {
        let after = page.split_once(&format!(".SS whereabouts {command}\n")).unwrap().1;
        assert!(
            after.split("\n.S").next().unwrap().contains(&format!(".TP\n\\fB\\-\\-{option}\\fR")),
            "{option}: {page}"
        );
    }
}
