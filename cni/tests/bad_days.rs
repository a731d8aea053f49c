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
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use support::Plugin;
use support::machine::on_own_machine;
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
        assert!(n_queued(&plugin) <= n_before && !log.contains("the next call frees it"), "{log}");

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
