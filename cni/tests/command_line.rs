//! The command line as a person and a script use it: the built binary, what it prints and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "this is a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

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
    assert!(full.contains("2 of 2") && full.contains("whereabouts show 10.0.0.0/30"), "{full}");
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
    assert_eq!(json(&ok(ledger, &["verify", "--json"]))["disagreements"], serde_json::json!([]));
    assert!(json(&fails(ledger, &["who", "10.0.0.9", "--json"], 3))["error"].is_string());
}

#[test]
fn a_picture_reads_in_80_columns() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path();
    ok(ledger, &["allocate", "10.20.30.0/24", "--count", "70"]);
    ok(ledger, &["release", "10.20.30.5"]);
    let picture = ok(ledger, &["show", "10.20.30.0/24"]);
    let rows: Vec<&str> = picture.lines().collect();
    assert!(rows.iter().all(|row| row.len() <= 100), "{picture}");
    assert!(rows.contains(&"69 of 254 held, 185 free"), "{picture}");
    let held = "#".repeat(58);
    assert!(rows.contains(&format!("10.20.30.0      x####.{held}").as_str()), "{picture}");
    let rest = ".".repeat(57);
    assert!(rows.contains(&format!("10.20.30.64     #######{rest}").as_str()), "{picture}");
    assert!(rows[3..7].iter().all(|row| row.len() == 80), "{picture}");
    // All of IPv6 is no longer than a small range.
    assert!(ok(ledger, &["show", "::/0"]).lines().count() < 14);
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

    let broken = folder.path().join("broken");
    std::fs::write(&broken, "{\"whereabouts\":\"export\",\"format\":1}\n{\"address\":1}\n").unwrap();
    assert!(fails(&other, &["import", broken.to_str().unwrap()], 1).contains("line 2"));
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
    assert_eq!(output.status.code(), Some(0), "{told}{warned}");
    assert!(told.contains("did you mean gateway?"), "{told}");
    assert!(warned.contains("10.20.0.0/16") && warned.contains("pods") && warned.contains("blue"), "{warned}");

    let bad = write(
        "bad.conf",
        r#"{"name":"n","type":"bridge","ipam":{"type":"whereabouts","datastore":"local","range":"10.0.0.0/24","exclude":["10.0.0.300"]}}"#,
    );
    let output = run(folder.path(), &["check-config", &bad]);
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8(output.stdout).unwrap().contains("10.0.0.300"));
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
    assert!(ok(folder.path(), &["man"]).contains(".TH"));
}
