//! Many real processes on one ledger: at the same time, killed at random moments, until the range is full.

#![allow(clippy::unwrap_used, reason = "what cannot be looked at ends the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::{Answer, Plugin, at_once};
use whereabouts_engine::{Access, Create, Holdings, HostFacts, Ledger, OpenOptions};

/// Address and container of everything that the plugin's ledger says is held; the ledger itself must be sound.
fn held(plugin: &Plugin) -> BTreeMap<String, String> {
    let mut options = OpenOptions::new(plugin.data_dir().join("ledger.redb"));
    (options.create, options.access) = (Create::Never, Access::Read);
    let mut ledger = Ledger::open(&options, HostFacts::read()).unwrap();
    assert_eq!(ledger.verify().unwrap().disagreements, []);
    let mut held = BTreeMap::new();
    ledger
        .each_holding(&Holdings::default(), |holding| {
            held.insert(holding.address.to_string(), holding.lease.attachment.container.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
    held
}

fn container(number: usize) -> String {
    format!("c{number}")
}

#[test]
fn two_hundred_at_once_get_two_hundred_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    let config = plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/16" }, { "range": "fd00::/64" }] }));
    let answers = at_once((0..200).map(|number| plugin.attachment("ADD", &container(number), "eth0").stdin(&config)));
    let addresses: BTreeSet<String> = answers.iter().flat_map(Answer::addresses).collect();
    assert_eq!(addresses.len(), 400);
    // Nobody left a hole: the lowest 200 of each range are held.
    assert!((1..=200).all(|number| addresses.contains(&format!("10.0.0.{number}/16"))));
    assert!((1..=200).all(|number| addresses.contains(&format!("fd00::{number:x}/64"))));
    assert_eq!(held(&plugin).len(), 400);

    let gone = at_once((0..200).map(|number| plugin.attachment("DEL", &container(number), "eth0").stdin(&config)));
    for answer in &gone {
        answer.ok();
    }
    assert_eq!(held(&plugin).len(), 0);
}

#[test]
fn a_24_gives_254_addresses_and_says_that_it_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    let config = plugin.range("10.0.0.0/24");
    let mut given = BTreeSet::new();
    for batch in (0..254).collect::<Vec<_>>().chunks(64) {
        let calls = batch.iter().map(|&number| plugin.attachment("ADD", &container(number), "eth0").stdin(&config));
        given.extend(at_once(calls).iter().map(Answer::address));
    }
    assert_eq!(given, (1..=254).map(|number| format!("10.0.0.{number}/24")).collect());
    let full = plugin.add("one-too-many", "eth0", &config);
    let (_, said) = full.error();
    assert!(said.contains("254 of 254"), "{said}");
    assert_eq!(holders_told_by(&full).lines().count(), 254);
    assert_eq!(held(&plugin).len(), 254, "the refused call left nothing");

    plugin.del(&container(100), "eth0", &config).ok();
    assert!(given.contains(&plugin.add("one-more", "eth0", &config).address()));
}

#[test]
fn the_command_that_a_full_range_names_can_be_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path().join("it's a folder"));
    let config = plugin.config(json!({ "range": "10.0.0.0/30", "network_name": "blue & green" }));
    let other = plugin.range("10.0.0.0/30");
    plugin.add("other", "eth0", &other).ok();
    for name in ["c1", "c2"] {
        plugin.add(name, "eth0", &config).ok();
    }
    let told = holders_told_by(&plugin.add("c3", "eth0", &config));
    assert!(told.contains("c1") && told.contains("c2") && !told.contains("other"), "{told}");

    // Where all is excluded, nobody holds anything.
    let nothing = plugin.config(json!({ "range": "10.0.0.0/30", "exclude": ["10.0.0.0/30"] }));
    let answer = plugin.add("c4", "eth0", &nothing);
    assert_eq!(answer.error().0, 100);
    assert!(answer.json.unwrap().get("details").is_none());
}

/// What the command answers that the error of a full range names, run as a person would.
#[track_caller]
fn holders_told_by(full: &Answer) -> String {
    let details = full.json.as_ref().unwrap()["details"].as_str().unwrap();
    let command = details.split('`').nth(1).unwrap();
    assert!(command.contains("show leases 10.0.0.0/") && details.ends_with("says who holds them"), "{details}");
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_whereabouts")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let output = Command::new("sh").args(["-c", command]).env_clear().env("PATH", path).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Processes are killed in every part of their lives. What was answered is held, nothing is held twice, and the same
/// container gets its address when it asks again.
#[test]
fn a_process_that_is_killed_leaves_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    let config = plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/24" }, { "range": "fd00::/64" }] }));
    plugin.add("first", "eth0", &config).ok();
    let mut answered = BTreeMap::new();
    let mut killed = 0;
    for number in 0..120_usize {
        let name = container(number);
        let mut running = plugin.attachment("ADD", &name, "eth0").stdin(&config).start();
        running.feed();
        // Not waiting for anything: the moments of the kills are to be spread over the life of a process, some 5 ms.
        let moment = Duration::from_micros(number as u64 * 67 % 6_000);
        let until = std::time::Instant::now() + moment;
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        running.kill();
        let answer = running.wait();
        if answer.exit == Some(0) {
            answered.insert(name, answer.addresses());
        } else {
            killed += 1;
        }
        if number % 3 == 0 {
            plugin.del(&container(number / 2), "eth0", &config).ok();
            answered.remove(&container(number / 2));
        }
    }
    assert!(killed > 10, "only {killed} were killed in time");
    let held = held(&plugin);
    for (name, addresses) in &answered {
        for address in addresses {
            let (address, _) = address.split_once('/').unwrap();
            assert_eq!(held.get(address), Some(name), "{address} was answered");
        }
    }
    // All or nothing: a container has both of its addresses, or none.
    let mut of_container: BTreeMap<&String, usize> = BTreeMap::new();
    held.values().for_each(|name| *of_container.entry(name).or_default() += 1);
    assert!(of_container.values().all(|&n| n == 2), "{of_container:?}");
    for (name, addresses) in answered {
        assert_eq!(plugin.add(&name, "eth0", &config).addresses(), addresses, "the same question, the same answer");
    }
}
