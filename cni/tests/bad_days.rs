//! Days on which something is wrong with the ledger's disk or its files: who only looks is served, what is not known is
//! not queued, and a ledger that is gone is missed rather than made anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use support::Plugin;
use support::leases::held;
use support::machine::{on_own_machine, overlay_is_possible};
use support::skip::skip;
use whereabouts_engine::Spool;

fn plugin() -> (tempfile::TempDir, Plugin) {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path().join("ledger"));
    (folder, plugin)
}

fn ledger(plugin: &Plugin) -> PathBuf {
    plugin.data_dir().join("ledger.redb")
}

fn n_queued(plugin: &Plugin) -> usize {
    Spool::peek(&ledger(plugin)).unwrap().records.len()
}

/// A command of a person on the plugin's ledger.
fn command(plugin: &Plugin, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_whereabouts"))
        .env_clear()
        .arg("--data-dir")
        .arg(plugin.data_dir())
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn on_a_full_disk_who_only_looks_is_served_and_the_unknown_is_not_queued() {
    let test = "on_a_full_disk_who_only_looks_is_served_and_the_unknown_is_not_queued";
    let told = on_own_machine(test, |machine| {
        let folder = machine.folder("full");
        machine.run("mount", &["-t", "tmpfs", "-o", "size=8m", "none", folder.to_str().unwrap()]);
        let plugin = Plugin::new(folder.join("ledger"));
        let config = plugin.range("10.0.0.0/16");
        let added = plugin.add("stays", "eth0", &config).ok().clone();
        let containers: Vec<String> = (0..64).map(|number| format!("c{number}")).collect();
        for container in &containers {
            plugin.add(container, "eth0", &config).ok();
        }
        let mut ballast = File::create(folder.join("ballast")).unwrap();
        for size in [1 << 16, 4096, 1] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
        let is_refused = |number: &u32| plugin.add(&format!("late{number}"), "eth0", &config).exit != Some(0);
        assert!((0..3000).any(|number| is_refused(&number)), "the disk is never full");
        let is_queued = |container: &String| {
            plugin.del(container, "eth0", &config).ok();
            n_queued(&plugin) > 0
        };
        assert!(containers.iter().any(is_queued), "no release had to be queued");

        let n_before = n_queued(&plugin);
        plugin.check("stays", "eth0", &config, &added).ok();
        plugin.status(&config).ok();
        assert_eq!(n_queued(&plugin), n_before, "who only looks carries nothing out");
        // What cannot be carried out keeps nobody from the ledger who has nothing to write either.
        plugin.gc(&config, &[]).ok();
        let mut log = String::new();
        for container in ["never", "neither"] {
            let answer = plugin.del(container, "eth0", &config);
            answer.ok();
            log.push_str(&answer.stderr);
        }
        assert!(n_queued(&plugin) <= n_before && !log.contains("a later ADD, DEL or GC frees it"), "{log}");

        // A person learns that the same may work later.
        let refused = command(&plugin, &["allocate", "10.9.0.0/16", "--count", "9000"]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), said.contains("no room on the disk for")), (Some(7), true), "{said}");
        let shown = command(&plugin, &["show", "leases", "10.9.0.0/16"]).stdout;
        let n_lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(n_lines(&shown), n_lines(&refused.stdout), "what was answered is held, and nothing else");

        drop(ballast);
        fs::remove_file(folder.join("ballast")).unwrap();
        log.push_str(&plugin.del("never", "eth0", &config).stderr);
        assert_eq!(n_queued(&plugin), 0);
        assert!(
            log.contains("as an earlier call had queued") && log.contains("10.0.0."),
            "what was freed late is in the log: {log}"
        );
    });
    told.unwrap_or_else(|why| skip(test, &why));
}

/// On an overlay, as in a container image, all works until the container is gone.
#[test]
fn a_ledger_on_an_overlay_is_warned_of() {
    let test = "a_ledger_on_an_overlay_is_warned_of";
    let told = overlay_is_possible().and_then(|()| {
        on_own_machine(test, |machine| {
            let folder = machine.overlay("layers");
            let (layered, local) =
                (Plugin::new(folder.join("ledger")), Plugin::new(machine.folder("disk").join("ledger")));
            for (plugin, is_warned) in [(&layered, true), (&local, false)] {
                let config = plugin.range("10.0.0.0/24");
                // The second ADD opens what the first one has made.
                for container in ["c1", "c2"] {
                    let answer = plugin.add(container, "eth0", &config);
                    answer.ok();
                    let warning = answer.stderr.lines().find(|line| line.contains("may vanish"));
                    assert_eq!(warning.is_some(), is_warned, "{}", answer.stderr);
                    let words = ["WARN", "overlay", "ledger.redb", "set data_dir to a folder on a disk of this host"];
                    assert!(words.iter().all(|word| warning.is_none_or(|line| line.contains(word))), "{warning:?}");
                }
                let answer = plugin.del("c1", "eth0", &config);
                answer.ok();
                assert_eq!(answer.stderr.contains("may vanish"), is_warned, "{}", answer.stderr);
                assert_eq!(held(plugin).len(), 1);
            }
        })
    });
    told.unwrap_or_else(|why| skip(test, &why));
}

/// A configuration whose cluster is said to be at `server`.
fn of_cluster(plugin: &Plugin, folder: &Path, server: &str) -> Value {
    let kubeconfig = folder.join("kubeconfig");
    let of_kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "away",
        "clusters": [{ "name": "away", "cluster": { "server": server } }],
        "users": [{ "name": "away", "user": { "token": "none" } }],
        "contexts": [{ "name": "away", "context": { "cluster": "away", "user": "away" } }],
    });
    fs::write(&kubeconfig, of_kubeconfig.to_string()).unwrap();
    plugin.config(json!({
        "datastore": "kubernetes", "kubernetes": { "kubeconfig": kubeconfig }, "range": "10.0.0.0/24", "deadline": 1,
    }))
}

fn n_queued_for_cluster(plugin: &Plugin) -> usize {
    Spool::peek(&plugin.data_dir().join("kubernetes.redb")).unwrap().records.len()
}

/// A new ledger of a cluster knows of nothing yet: that it does not know a container proves nothing while the cluster
/// does not answer.
#[test]
fn a_del_that_a_new_ledger_of_a_cluster_does_not_know_is_queued() {
    let (folder, plugin) = plugin();
    // Nobody answers at the port of a listener that is gone.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = of_cluster(&plugin, folder.path(), &format!("http://127.0.0.1:{port}"));
    plugin.del("c1", "eth0", &config).ok();
    assert_eq!(n_queued_for_cluster(&plugin), 1);
}

/// The C library asks for far longer than a call may take, and cannot be stopped.
#[test]
fn a_call_ends_in_time_though_no_name_server_answers() {
    let test = "a_call_ends_in_time_though_no_name_server_answers";
    let patience = Duration::from_secs(20);
    let told = on_own_machine(test, |machine| {
        // Packets for the name server leave, and nobody at the other end is concerned.
        machine.run("ip", &["link", "add", "here", "type", "veth", "peer", "name", "there"]);
        machine.run("ip", &["address", "add", "10.77.77.1/24", "dev", "here"]);
        machine.run("ip", &["link", "set", "here", "up"]);
        machine.run("ip", &["link", "set", "there", "up"]);
        machine.run("ip", &["neighbor", "add", "10.77.77.77", "lladdr", "02:00:00:00:00:01", "dev", "here"]);
        let folder = machine.folder("names");
        let resolver = folder.join("resolv.conf");
        fs::write(&resolver, format!("nameserver 10.77.77.77\noptions timeout:{}\n", patience.as_secs())).unwrap();
        machine.run("mount", &["--bind", resolver.to_str().unwrap(), "/etc/resolv.conf"]);
        let plugin = Plugin::new(folder.join("ledger"));
        let config = of_cluster(&plugin, &folder, "https://api.example.test:6443");
        let asked = Instant::now();
        plugin.del("c1", "eth0", &config).ok();
        assert!(asked.elapsed() < patience / 2, "{:?}", asked.elapsed());
        assert_eq!(n_queued_for_cluster(&plugin), 1);
    });
    told.unwrap_or_else(|why| skip(test, &why));
}

#[test]
fn status_counts_a_queued_release_as_room() {
    let (_folder, plugin) = plugin();
    let config = plugin.config(json!({ "range": "10.0.0.0/30", "deadline": 1 }));
    plugin.add("c1", "eth0", &config).ok();
    plugin.add("c2", "eth0", &config).ok();
    assert_eq!(plugin.status(&config).error().0, 50);
    let lock = File::open(plugin.data_dir().join("ledger.redb.lock")).unwrap();
    flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    plugin.del("c1", "eth0", &config).ok();
    drop(lock);
    plugin.status(&config).ok();
    assert_eq!(n_queued(&plugin), 1, "it only looks");
    assert_eq!(plugin.add("c3", "eth0", &config).address(), "10.0.0.1/30");
}

/// Calls that wait for somebody else are carried out by the first of them whose turn it is.
#[test]
fn adds_that_wait_get_an_address_each() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    plugin.add("c0", "eth0", &config).ok();
    let lock = File::open(plugin.data_dir().join("ledger.redb.lock")).unwrap();
    flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    let waiting = plugin.data_dir().join("ledger.redb.waiting");
    let mut calls: Vec<_> =
        (1..=16).map(|number| plugin.attachment("ADD", &format!("c{number}"), "eth0").stdin(&config).start()).collect();
    calls.iter_mut().for_each(support::Running::feed);
    let n_waiting = || {
        let files = fs::read_dir(&waiting).into_iter().flatten();
        files.filter(|file| file.as_ref().is_ok_and(|file| file.metadata().is_ok_and(|file| file.len() > 0))).count()
    };
    while n_waiting() < 16 {
        // There is no event for a file of another process.
        std::thread::yield_now();
    }
    drop(lock);
    let mut addresses: Vec<_> = calls.into_iter().map(|call| call.wait().address()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), n_waiting()), (16, 0));
    assert_eq!(held(&plugin).len(), 17);
}

#[test]
fn check_and_status_write_nothing() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let added = plugin.add("c1", "eth0", &config).ok().clone();
    let before = fs::metadata(ledger(&plugin)).unwrap().modified().unwrap();
    plugin.check("c1", "eth0", &config, &added).ok();
    plugin.status(&config).ok();
    assert_eq!(plugin.check("c2", "eth0", &config, &added).error().0, 102);
    assert_eq!(fs::metadata(ledger(&plugin)).unwrap().modified().unwrap(), before);

    let (_folder, empty) = self::plugin();
    let answer = empty.check("c1", "eth0", &empty.range("10.0.0.0/24"), &added);
    assert_eq!(answer.error().0, 102, "without a ledger nothing is held");
    assert!(!empty.data_dir().exists(), "a CHECK makes no ledger");
}

#[test]
fn a_ledger_that_is_gone_is_missed() {
    let (folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    let added = plugin.add("c1", "eth0", &config).ok().clone();
    plugin.add("c2", "eth0", &config).ok();
    let export = folder.path().join("export");
    assert!(command(&plugin, &["export", export.to_str().unwrap()]).status.success());
    let aside = folder.path().join("aside");
    let path = ledger(&plugin);
    fs::rename(&path, &aside).unwrap();

    let answer = plugin.add("c3", "eth0", &config);
    let (code, message) = answer.error();
    assert_eq!(code, 5, "{message}");
    for word in [path.to_str().unwrap(), "gone", "import", "ledger.redb.lock"] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    assert!(plugin.status(&config).error().1.contains("gone"));
    assert!(plugin.check("c1", "eth0", &config, &added).error().1.contains("gone"));
    assert!(!command(&plugin, &["allocate", "10.0.0.0/24"]).status.success());
    // A DEL knows what it is to free once the ledger is back.
    plugin.del("c1", "eth0", &config).ok();
    assert!(!path.exists(), "none was made in its place");

    fs::rename(&aside, &path).unwrap();
    assert_eq!(plugin.add("c3", "eth0", &config).address(), "10.0.0.1/24");

    // A link whose disk is not there is a ledger that is gone, too, and the link stays.
    fs::rename(&path, &aside).unwrap();
    symlink(folder.path().join("not-mounted/ledger.redb"), &path).unwrap();
    assert!(plugin.add("c4", "eth0", &config).error().1.contains("gone"));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    fs::remove_file(&path).unwrap();

    // An export brings it back.
    let imported = command(&plugin, &["import", export.to_str().unwrap()]);
    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(held(&plugin), [("10.0.0.1".into(), "c1".into()), ("10.0.0.2".into(), "c2".into())].into());

    // Or somebody who knows that nothing runs any more says so.
    fs::remove_file(&path).unwrap();
    assert!(plugin.add("c4", "eth0", &config).error().1.contains("gone"));
    fs::remove_file(path.with_file_name("ledger.redb.lock")).unwrap();
    assert_eq!(plugin.add("c4", "eth0", &config).address(), "10.0.0.1/24");
}

/// A pod must not hang for a ledger that nobody has; whoever brings it back frees what it held.
#[test]
fn a_del_without_ledger_and_without_spool_is_queued() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    plugin.add("c1", "eth0", &config).ok();
    let aside = plugin.data_dir().join("aside");
    fs::rename(ledger(&plugin), &aside).unwrap();
    fs::remove_file(plugin.data_dir().join("ledger.redb.spool")).unwrap();
    plugin.del("c1", "eth0", &config).ok();
    fs::rename(&aside, ledger(&plugin)).unwrap();
    assert_eq!(plugin.add("c2", "eth0", &config).address(), "10.0.0.1/24");
}

#[test]
fn a_damaged_ledger_is_repaired_by_a_command() {
    let (_folder, plugin) = plugin();
    let config = plugin.range("10.0.0.0/24");
    plugin.add("c1", "eth0", &config).ok();
    assert_eq!(
        String::from_utf8(command(&plugin, &["repair", "--local"]).stdout).unwrap(),
        "there was nothing to repair\n"
    );
    damage_blocks(&ledger(&plugin));
    assert!(plugin.add("c2", "eth0", &config).error().1.contains("whereabouts repair"));
    let repaired = command(&plugin, &["repair", "--local"]);
    assert!(repaired.status.success(), "{repaired:?}");
    assert!(String::from_utf8(repaired.stdout).unwrap().contains("10.0.0.0"), "it names the block");
    assert_eq!(plugin.add("c2", "eth0", &config).address(), "10.0.0.2/24");
    assert_eq!(held(&plugin).len(), 2);
}

/// Flips a bit in the bytes of the container id, wherever the file has it in a block.
fn damage_blocks(ledger: &Path) {
    let mut bytes = fs::read(ledger).unwrap();
    // The texts of a block with one lease: the interface and the CNI network's name.
    let texts = b"\x04eth0\x04test";
    let places: Vec<usize> = (0..bytes.len() - texts.len()).filter(|&at| bytes[at..].starts_with(texts)).collect();
    assert!(!places.is_empty(), "no block found");
    for at in places {
        bytes[at + 1] ^= 1;
    }
    fs::write(ledger, bytes).unwrap();
}
