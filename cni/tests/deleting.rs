//! DEL and GC: an attachment is all that DEL needs, whatever else is broken or gone; GC frees what this host recorded
//! under the network's name and the runtime no longer lists, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use support::leases::{addresses, held};
use support::machine::on_own_machine;
use support::skip::skip;
use support::{Call, Plugin, at_once};

fn plugin() -> (tempfile::TempDir, Plugin) {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path().join("ledger"));
    (folder, plugin)
}

fn del(plugin: &Plugin, container: &str) -> Call {
    plugin.attachment("DEL", container, "eth0")
}

fn named(config: &Value, name: &str) -> Value {
    let mut config = config.clone();
    config["name"] = name.into();
    config
}

/// DEL says nothing on success.
#[track_caller]
fn succeeds(call: Call) -> String {
    let answer = call.run();
    answer.ok();
    assert_eq!(answer.stdout, "", "DEL answers nothing");
    answer.stderr
}

// === The smallest call that works ===

/// What Multus passes on when its cache is lossy: the type and nothing else.
#[test]
fn the_smallest_configuration_frees() {
    for place in ["environment", "flat file"] {
        let (folder, plugin) = plugin();
        let config = plugin.range("10.0.0.0/24");
        let call = del(&plugin, "c1");
        let call = if place == "environment" {
            call.env("WHEREABOUTS_DATA_DIR", plugin.data_dir())
        } else {
            let flat = folder.path().join("flat.conf");
            fs::write(&flat, json!({ "data_dir": plugin.data_dir() }).to_string()).unwrap();
            call.env("WHEREABOUTS_CONFIGURATION", flat)
        };
        plugin.add("c1", "eth0", &config).ok();
        let smallest =
            json!({ "cniVersion": "1.1.0", "name": "test", "type": "bridge", "ipam": { "type": "whereabouts" } });
        succeeds(call.stdin(&smallest));
        assert_eq!(held(&plugin).len(), 0, "{place}");
    }
}

#[test]
fn whatever_is_broken_del_frees() {
    let (folder, plugin) = plugin();
    let flat = folder.path().join("flat.conf");
    fs::write(&flat, json!({ "data_dir": plugin.data_dir() }).to_string()).unwrap();
    let config = plugin.range("10.0.0.0/24");
    let without = |key: &str| {
        let mut config = config.clone();
        config.as_object_mut().unwrap().remove(key);
        config.to_string()
    };
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config.to_string()
    };
    let ipam = |key: &str, value: Value| {
        let mut config = config.clone();
        config["ipam"][key] = value;
        config.to_string()
    };
    for stdin in [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        config.to_string()[..40].to_owned(),
        without("name"),
        without("cniVersion"),
        without("ipam"),
        with("name", json!("")),
        with("name", json!(7)),
        with("cniVersion", json!("9.9.9")),
        with("cniVersion", json!([])),
        with("ipam", json!("whereabouts")),
        with("ipam", json!({ "type": "static" })),
        with("prevResult", json!("nonsense")),
        with("args", json!("nonsense")),
        ipam("range", json!("nonsense")),
        ipam("exclude", json!(["nonsense"])),
        ipam("datastore", json!("kubernetes")),
        ipam("kubernetes", json!({ "kubeconfig": "/no/such/file" })),
        ipam("configuration_path", json!("/etc")),
        ipam("configuration_path", json!("/dev/null")),
        ipam("deadline", json!(-1)),
        ipam("log_file", json!("/no/such/folder/log")),
        ipam("log_level", json!("loud")),
    ] {
        for (place, path) in [("WHEREABOUTS_DATA_DIR", plugin.data_dir()), ("WHEREABOUTS_CONFIGURATION", &flat)] {
            plugin.add("c1", "eth0", &config).ok();
            succeeds(del(&plugin, "c1").env(place, path).stdin_bytes(stdin.clone()));
            assert_eq!(held(&plugin).len(), 0, "{place}: {stdin}");
        }
    }
    // Environment: no CNI_PATH, no namespace, one that is gone, a pod that nobody can parse.
    for call in [
        del(&plugin, "c1").without("CNI_PATH"),
        del(&plugin, "c1").without("CNI_NETNS"),
        del(&plugin, "c1").env("CNI_NETNS", ""),
        del(&plugin, "c1").env("CNI_NETNS", "/run/netns/gone"),
        del(&plugin, "c1").env("CNI_NETNS", "/proc/self/ns/net"),
        del(&plugin, "c1").env("CNI_ARGS", "nonsense"),
        del(&plugin, "c1").env("CNI_ARGS", "K8S_POD_NAME=;;=;"),
        del(&plugin, "c1").pod("default", "gone", "u1"),
        del(&plugin, "c1").env("WHEREABOUTS_CONFIGURATION", "/etc"),
        del(&plugin, "c1").env("WHEREABOUTS_CONFIGURATION", "/no/such/file"),
    ] {
        plugin.add("c1", "eth0", &config).ok();
        succeeds(call.stdin(&config));
        assert_eq!(held(&plugin).len(), 0);
    }
}

/// The flat file that the network names is broken: where the ledger is stands in the host's own.
#[test]
fn a_broken_flat_file_does_not_lose_the_ledger() {
    let (folder, plugin) = plugin();
    let own = folder.path().join("own.conf");
    fs::write(&own, json!({ "data_dir": plugin.data_dir() }).to_string()).unwrap();
    let named_one = folder.path().join("named.conf");
    let mut config = plugin.config(json!({ "range": "10.0.0.0/24", "gc_grace": 0, "configuration_path": named_one }));
    config["ipam"].as_object_mut().unwrap().remove("data_dir");
    let on_host = |call: Call| call.env("WHEREABOUTS_CONFIGURATION", &own).stdin(&config);
    type Break = fn(&Path);
    let broken: [(&str, Break); 3] = [
        ("not JSON", |path| fs::write(path, "{ broken").unwrap()),
        ("a list", |path| fs::write(path, "[]").unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
    ];
    for (what, break_it) in broken {
        on_host(plugin.attachment("ADD", "c1", "eth0")).run().ok();
        on_host(plugin.attachment("ADD", "c2", "eth0")).run().ok();
        assert_eq!(held(&plugin).len(), 2, "the host's own flat file says where the ledger is");
        break_it(&named_one);
        let log = succeeds(on_host(del(&plugin, "c1")));
        assert!(log.contains("named.conf") && log.contains("own.conf"), "{what}: the log tells of it: {log}");
        assert_eq!(held(&plugin).into_values().collect::<Vec<_>>(), ["c2"], "{what}");
        let mut gc = config.clone();
        gc["cni.dev/valid-attachments"] = json!([]);
        on_host(plugin.verb("GC")).stdin(&gc).run().ok();
        assert_eq!(held(&plugin).len(), 0, "{what}");
        // An ADD is not served from half of what is configured.
        assert_ne!(on_host(plugin.attachment("ADD", "c3", "eth0")).run().exit, Some(0), "{what}");
        let is_folder = named_one.is_dir();
        if is_folder { fs::remove_dir(&named_one).unwrap() } else { fs::remove_file(&named_one).unwrap() }
    }
    // A path of the wrong type or shape names no file at all.
    for path in [json!(7), json!("relative.conf"), json!("/a/../b.conf")] {
        on_host(plugin.attachment("ADD", "c1", "eth0")).run().ok();
        let mut config = config.clone();
        config["ipam"]["configuration_path"] = path.clone();
        succeeds(on_host(del(&plugin, "c1")).stdin(&config));
        assert_eq!(held(&plugin).len(), 0, "{path}");
    }
}

/// The file that the variable names says where the ledger is. Without it an ADD would give the addresses of another one.
#[test]
fn a_flat_file_that_is_named_and_missing_leads_to_no_other_ledger() {
    let (folder, plugin) = plugin();
    let (flat, aside) = (folder.path().join("flat.conf"), folder.path().join("aside.conf"));
    fs::write(&flat, json!({ "data_dir": plugin.data_dir() }).to_string()).unwrap();
    let elsewhere = Plugin::new(folder.path().join("elsewhere"));
    let config = elsewhere.range("10.0.0.0/24");
    let mut bare = config.clone();
    bare["ipam"].as_object_mut().unwrap().remove("data_dir");
    let on_host = |call: Call| call.env("WHEREABOUTS_CONFIGURATION", &flat).stdin(&bare);
    let added = on_host(plugin.attachment("ADD", "c1", "eth0")).run();
    bare["prevResult"] = added.ok().clone();
    bare["cni.dev/valid-attachments"] = json!([]);
    bare["ipam"]["gc_grace"] = 0.into();

    fs::rename(&flat, &aside).unwrap();
    // Whatever would be done is done here, and not in the ledger of this machine.
    bare["ipam"]["data_dir"] = config["ipam"]["data_dir"].clone();
    let on_host = |call: Call| call.env("WHEREABOUTS_CONFIGURATION", &flat).stdin(&bare);
    for verb in ["ADD", "CHECK", "GC", "STATUS"] {
        let answer = on_host(plugin.attachment(verb, "c2", "eth0")).run();
        let (code, message) = answer.error();
        assert_eq!(code, 4, "{verb}: {message}");
        for word in ["WHEREABOUTS_CONFIGURATION = ", flat.to_str().unwrap(), "put the flat file there"] {
            assert!(message.contains(word), "{verb}: {word} is not in: {message}");
        }
    }
    let log = succeeds(on_host(del(&plugin, "c1")));
    assert!(log.contains("WHEREABOUTS_CONFIGURATION") && log.contains("data_dir"), "the log tells of it: {log}");
    assert!(!elsewhere.data_dir().exists());
    assert_eq!(addresses(&plugin), ["10.0.0.1"]);

    fs::rename(&aside, &flat).unwrap();
    bare["ipam"].as_object_mut().unwrap().remove("data_dir");
    let on_host = |call: Call| call.env("WHEREABOUTS_CONFIGURATION", &flat).stdin(&bare);
    succeeds(on_host(plugin.attachment("CHECK", "c1", "eth0")));
    on_host(plugin.verb("GC")).run().ok();
    assert_eq!(held(&plugin).len(), 0);
}

#[test]
fn unknown_containers_and_repeats_are_success() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    succeeds(del(&plugin, "never").stdin(&config));
    assert!(!plugin.data_dir().exists(), "a DEL makes no ledger");
    plugin.add("c1", "eth0", &config).ok();
    plugin.add("c2", "eth0", &config).ok();
    succeeds(del(&plugin, "never").stdin(&config));
    succeeds(plugin.attachment("DEL", "c1", "net1").stdin(&config));
    assert_eq!(held(&plugin).len(), 2);
    for _ in 0..3 {
        succeeds(del(&plugin, "c1").stdin(&config));
    }
    assert_eq!(addresses(&plugin), ["10.0.0.2"]);
    let many = at_once((0..8).map(|_| del(&plugin, "c2").stdin(&config)));
    for answer in many {
        answer.ok();
    }
    assert_eq!(held(&plugin).len(), 0);
}

/// A name that nobody knows takes the only attachment of the container and interface; where there are two, nobody can
/// tell which one is meant.
#[test]
fn an_unknown_name_takes_the_only_attachment() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    plugin.add("c1", "eth0", &named(&config, "blue")).ok();
    succeeds(del(&plugin, "c1").stdin(&named(&config, "renamed")));
    assert_eq!(held(&plugin).len(), 0);

    assert_eq!(plugin.add("c1", "eth0", &named(&config, "blue")).address(), "10.0.0.1/24");
    assert_eq!(plugin.add("c1", "eth0", &named(&config, "green")).address(), "10.0.0.2/24");
    for name in ["red", ""] {
        let log = succeeds(del(&plugin, "c1").stdin(&named(&config, name)));
        assert_eq!(held(&plugin).len(), 2, "two fit, so none is freed");
        assert!(log.contains("blue") && log.contains("green"), "the log names them: {log}");
    }
    succeeds(del(&plugin, "c1").stdin(&named(&config, "green")));
    assert_eq!(addresses(&plugin), ["10.0.0.1"]);
    succeeds(del(&plugin, "c1").stdin(&named(&config, "")));
    assert_eq!(held(&plugin).len(), 0);
}

// === Days on which the ledger cannot be written ===

/// Somebody holds the ledger's lock for longer than a call may wait.
#[test]
fn a_locked_ledger_queues_the_release() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "deadline": 1 }));
    plugin.add("c1", "eth0", &config).ok();
    plugin.add("c2", "eth0", &config).ok();
    let lock = File::open(plugin.data_dir().join("ledger.redb.lock")).unwrap();
    flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();

    let answer = plugin.add("c3", "eth0", &config);
    let (code, message) = answer.error();
    assert_eq!(code, 11, "{message}");
    assert!(message.contains("ledger.redb.lock") && message.contains("fuser"), "{message}");
    assert_eq!(plugin.status(&config).error().0, 50);

    let log = succeeds(del(&plugin, "c1").stdin(&config));
    assert!(log.contains("queued"), "{log}");
    drop(lock);
    // Whatever comes next frees it, and says so: here an ADD, which gets the very address.
    let added = plugin.add("c3", "eth0", &config);
    assert_eq!(added.address(), "10.0.0.1/24");
    let released = added.stderr.lines().find(|line| line.contains("released")).unwrap();
    assert!(released.contains("10.0.0.1") && released.contains("c1/eth0"), "{released}");
    assert_eq!(held(&plugin), [("10.0.0.1".into(), "c3".into()), ("10.0.0.2".into(), "c2".into())].into());
}

/// The configuration names another datastore by now, or the runtime's call has lost what it said.
#[test]
fn what_the_ledger_of_another_datastore_holds_is_freed_or_queued_too() {
    let (_folder, plugin) = plugin();
    let local = plugin.config(json!({ "range": "10.0.0.0/24", "deadline": 1 }));
    let cluster = plugin.config(json!({
        "range": "10.0.0.0/24", "deadline": 1, "gc_grace": 0, "datastore": "kubernetes",
        "kubernetes": { "kubeconfig": "/nonexistent/kubeconfig" },
    }));
    for container in ["c1", "c2", "c3"] {
        plugin.add(container, "eth0", &local).ok();
    }
    succeeds(del(&plugin, "c1").stdin(&cluster));
    assert_eq!(addresses(&plugin), ["10.0.0.2", "10.0.0.3"]);

    let lock = File::open(plugin.data_dir().join("ledger.redb.lock")).unwrap();
    flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    succeeds(del(&plugin, "c2").stdin(&cluster));
    drop(lock);
    assert_eq!(plugin.add("c4", "eth0", &local).address(), "10.0.0.1/24");
    assert_eq!(held(&plugin), [("10.0.0.1".into(), "c4".into()), ("10.0.0.3".into(), "c3".into())].into());

    // GC says that it cannot ask the cluster, and has collected what is in the other ledger all the same.
    plugin.gc(&cluster, &[("c4", "eth0")]).error();
    assert_eq!(addresses(&plugin), ["10.0.0.1"]);
}

/// The container of a queued release comes back before anybody could carry it out.
#[test]
fn a_queued_release_does_not_free_what_was_added_since() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "deadline": 1 }));
    plugin.add("c1", "eth0", &config).ok();
    let lock = File::open(plugin.data_dir().join("ledger.redb.lock")).unwrap();
    flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    succeeds(del(&plugin, "c1").stdin(&config));
    drop(lock);
    assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
    plugin.add("c2", "eth0", &config).ok();
    assert_eq!(addresses(&plugin), ["10.0.0.1", "10.0.0.2"]);
}

/// The release was carried out and the queue could not be emptied, as in a crash between the two. What is carried out
/// again frees what was held then, and nothing that was added since.
#[test]
fn a_release_that_is_carried_out_twice_frees_nothing_newer() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "deadline": 1 }));
    plugin.add("c1", "eth0", &config).ok();
    plugin.add("gone", "eth0", &config).ok();
    let lock = File::open(plugin.data_dir().join("ledger.redb.lock")).unwrap();
    flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    for name in ["c1", "gone"] {
        assert!(succeeds(del(&plugin, name).stdin(&config)).contains("queued"));
    }
    drop(lock);
    let spool = plugin.data_dir().join("ledger.redb.spool");
    let queued = fs::read(&spool).unwrap();
    assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
    assert_eq!(addresses(&plugin), ["10.0.0.1"], "both were carried out before");
    fs::write(&spool, queued).unwrap();
    assert_eq!(plugin.add("c2", "eth0", &config).address(), "10.0.0.2/24");
    assert_eq!(held(&plugin), [("10.0.0.1".into(), "c1".into()), ("10.0.0.2".into(), "c2".into())].into());
}

#[test]
fn a_damaged_ledger_is_told_and_del_is_queued() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    plugin.add("c1", "eth0", &config).ok();
    plugin.add("c2", "eth0", &config).ok();
    let path = plugin.data_dir().join("ledger.redb");
    let good = fs::read(&path).unwrap();
    fs::write(&path, vec![0xa5; good.len()]).unwrap();

    let answer = plugin.add("c3", "eth0", &config);
    let (code, message) = answer.error();
    assert_eq!(code, 5, "{message}");
    assert!(message.contains(path.to_str().unwrap()) && message.contains("move"), "{message}");
    let log = succeeds(del(&plugin, "c1").stdin(&config));
    assert!(log.contains("queued"), "{log}");

    // Restored from a copy: the release is carried out by the next call.
    fs::write(&path, good).unwrap();
    assert_eq!(plugin.add("c3", "eth0", &config).address(), "10.0.0.1/24");
    assert_eq!(held(&plugin)["10.0.0.1"], "c3");
}

#[test]
fn a_read_only_folder_is_told_with_its_cure() {
    let test = "a_read_only_folder_is_told_with_its_cure";
    let told = on_own_machine(test, |machine| {
        let folder = machine.folder("read-only");
        let place = folder.to_str().unwrap();
        machine.run("mount", &["-t", "tmpfs", "none", place]);
        let plugin = Plugin::new(folder.join("ledger"));
        let config = plugin.config(json!({ "range": "10.0.0.0/24", "deadline": 1 }));
        plugin.add("c1", "eth0", &config).ok();
        machine.run("mount", &["-o", "remount,ro", place]);

        let answer = plugin.add("c2", "eth0", &config);
        let message = answer.error().1;
        assert!(message.contains("read-only") && message.contains(place) && message.contains("remount"), "{message}");
        assert_eq!(plugin.status(&config).error().0, 50);
        // Nothing can be stored and nothing was freed: to say so is all that is left.
        let answer = plugin.del("c1", "eth0", &config);
        assert!(answer.error().1.contains("read-only"), "{answer:?}");

        machine.run("mount", &["-o", "remount,rw", place]);
        succeeds(del(&plugin, "c1").stdin(&config));
        assert_eq!(held(&plugin).len(), 0);
    });
    told.unwrap_or_else(|why| skip(test, &why));
}

#[test]
fn on_a_full_disk_del_succeeds_and_the_next_call_frees() {
    let test = "on_a_full_disk_del_succeeds_and_the_next_call_frees";
    let told = on_own_machine(test, |machine| {
        let folder = machine.folder("full");
        machine.run("mount", &["-t", "tmpfs", "-o", "size=8m", "none", folder.to_str().unwrap()]);
        let plugin = Plugin::new(folder.join("ledger"));
        let config = plugin.range("10.0.0.0/16");
        let containers: Vec<String> = (0..64).map(|number| format!("c{number}")).collect();
        for batch in containers.chunks(16) {
            let calls = batch.iter().map(|name| plugin.attachment("ADD", name, "eth0").stdin(&config));
            for answer in at_once(calls) {
                answer.ok();
            }
        }
        let ballast = folder.join("ballast");
        fill(&ballast);

        // ADDs either work in the room that the ledger has, or say that the disk is full; DELs work.
        let mut is_refused = false;
        let mut held_after = held(&plugin);
        assert_eq!(held_after.len(), 64);
        for number in 0..2000 {
            if is_refused {
                break;
            }
            let name = format!("late{number}");
            let answer = plugin.add(&name, "eth0", &config);
            if answer.exit == Some(0) {
                let address = answer.address();
                let address = address.split('/').next().unwrap().to_owned();
                assert_eq!(held_after.insert(address, name), None, "an address was handed out twice");
            } else {
                let (code, message) = answer.error();
                is_refused = true;
                assert_eq!(code, 11, "{message}");
                assert!(message.contains("no room on the disk") && message.contains("df "), "{message}");
            }
        }
        let mut n_queued = 0;
        for name in &containers {
            n_queued += usize::from(succeeds(del(&plugin, name).stdin(&config)).contains("queued"));
        }
        assert!(is_refused && n_queued > 0, "the disk was not full: {n_queued} releases were queued");
        fs::remove_file(&ballast).unwrap();
        plugin.add("after", "eth0", &config).ok();
        let left = held(&plugin);
        assert!(left.values().all(|name| !name.starts_with('c')), "all DELs were carried out: {left:?}");
        assert!(
            held_after.values().filter(|name| name.starts_with("late")).all(|name| left.values().any(|l| l == name))
        );
    });
    told.unwrap_or_else(|why| skip(test, &why));
}

/// Writes until not one more byte fits.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = File::create(path).unwrap();
    for size in [1 << 16, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// A folder of somebody else: the plugin runs as a user who may not write there.
#[test]
fn without_permission_the_error_names_the_folder() {
    let test = "without_permission_the_error_names_the_folder";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root can become another user");
    }
    let (folder, plugin) = plugin();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = plugin.range("10.0.0.0/24");
    plugin.add("c1", "eth0", &config).ok();
    // The binary is copied to where anybody may run it.
    let program = folder.path().join("whereabouts");
    fs::copy(env!("CARGO_BIN_EXE_whereabouts"), &program).unwrap();
    let run = |verb: &str| {
        let stdin = folder.path().join("stdin");
        fs::write(&stdin, config.to_string()).unwrap();
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", "/run/netns/c1")
            .env("CNI_PATH", "/bin")
            .stdin(File::open(stdin).unwrap())
            .output()
    };
    for verb in ["ADD", "DEL"] {
        let output = match run(verb) {
            Ok(output) => output,
            Err(error) => return skip(test, &format!("setpriv does not run: {error}")),
        };
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{verb}: {stdout}");
        let error: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{verb}: {stdout}"));
        let message = error["msg"].as_str().unwrap();
        assert!(
            message.contains("no permission") && message.contains(plugin.data_dir().to_str().unwrap()),
            "{message}"
        );
    }
    assert_eq!(held(&plugin).len(), 1);
}

// === GC ===

/// Two CNI networks share one range: each GC frees what was recorded under its own name.
#[test]
fn gc_frees_what_its_network_no_longer_lists() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "gc_grace": 0 }));
    let (blue, green) = (named(&config, "blue"), named(&config, "green"));
    for (container, network) in [("b1", &blue), ("b2", &blue), ("g1", &green), ("b3", &blue)] {
        plugin.add(container, "eth0", network).ok();
    }
    plugin.add("b1", "net1", &blue).ok();

    let answer = plugin.gc(&blue, &[("b1", "eth0"), ("b3", "eth0"), ("unknown", "eth0")]);
    answer.ok();
    assert_eq!(answer.stdout, "", "GC answers nothing");
    assert_eq!(addresses(&plugin), ["10.0.0.1", "10.0.0.3", "10.0.0.4"]);
    plugin.gc(&named(&config, "red"), &[]).ok();
    assert_eq!(held(&plugin).len(), 3);
    plugin.gc(&blue, &[]).ok();
    assert_eq!(held(&plugin), [("10.0.0.3".into(), "g1".into())].into(), "an empty list frees all of this name");
    plugin.gc(&blue, &[]).ok();
    plugin.gc(&green, &[]).ok();
    assert_eq!(held(&plugin).len(), 0);
}

/// What the configuration has become does not matter to GC: an edited range, another network_name.
#[test]
fn gc_needs_no_range() {
    let (_folder, plugin) = plugin();
    plugin.add("c1", "eth0", &plugin.range("10.0.0.0/24")).ok();
    plugin.add("c2", "eth0", &plugin.config(json!({ "range": "fd00::/64", "network_name": "blue" }))).ok();
    plugin.gc(&plugin.config(json!({ "gc_grace": 0 })), &[]).ok();
    assert_eq!(held(&plugin).len(), 0);
}

#[test]
fn gc_spares_what_is_young() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    plugin.add("c1", "eth0", &config).ok();
    plugin.gc(&config, &[]).ok();
    assert_eq!(held(&plugin).len(), 1, "60 seconds by default");
    let mut at_once = config.clone();
    at_once["ipam"]["gc_grace"] = 0.into();
    plugin.gc(&at_once, &[]).ok();
    assert_eq!(held(&plugin).len(), 0);
}

#[test]
fn gc_without_a_list_does_nothing_and_a_malformed_one_frees_nothing() {
    let (folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "gc_grace": 0 }));
    plugin.add("c1", "eth0", &config).ok();
    plugin.verb("GC").stdin(&config).run().ok();
    for list in [
        json!({}),
        json!("c1"),
        json!(7),
        json!(["c1"]),
        json!([[]]),
        json!([{}]),
        json!([{ "containerID": "c9" }]),
        json!([{ "containerID": "c9", "ifname": 5 }]),
        json!([{ "containerID": "", "ifname": "" }]),
        json!([{ "containerID": "c9", "ifname": "eth0" }, null]),
    ] {
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let mut config = config.clone();
            config[key] = list.clone();
            let answer = plugin.verb("GC").stdin(&config).run();
            let (code, message) = answer.error();
            assert_eq!(code, 6, "{list}: {message}");
            assert!(message.contains(key) && message.contains("nothing was freed"), "{message}");
        }
    }
    assert_eq!(held(&plugin).len(), 1);
    let mut null = config.clone();
    null["cni.dev/valid-attachments"] = Value::Null;
    plugin.verb("GC").stdin(&null).run().ok();
    assert_eq!(held(&plugin).len(), 1, "null is how Go writes that there is no list");

    // libcni of the first days wrote the other key.
    let mut older = config.clone();
    older["cni.dev/attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    plugin.verb("GC").stdin(&older).run().ok();
    assert_eq!(held(&plugin).len(), 1);
    older["cni.dev/attachments"] = json!([]);
    plugin.verb("GC").stdin(&older).run().ok();
    assert_eq!(held(&plugin).len(), 0);

    // Where there is no ledger there is nothing to free.
    let nowhere = Plugin::new(folder.path().join("nowhere"));
    nowhere.gc(&nowhere.config(json!({ "range": "10.0.0.0/24" })), &[]).ok();
    assert!(!nowhere.data_dir().exists());
}

/// A new sandbox of the pod has taken the address over: the old attachment is not listed, and frees nothing.
#[test]
fn gc_of_an_old_sandbox_leaves_the_new_one() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/24", "gc_grace": 0 }));
    for container in ["old", "new"] {
        plugin.attachment("ADD", container, "eth0").pod("default", "web", "u1").stdin(&config).run().ok();
    }
    plugin.gc(&config, &[("new", "eth0")]).ok();
    assert_eq!(held(&plugin), [("10.0.0.1".into(), "new".into())].into());
}
