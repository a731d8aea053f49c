//! The plugin where it is really used: as the IPAM of bridge and macvlan, driven by cnitool, between network
//! namespaces that reach each other with the addresses it gave.
//!
//! Each story has a machine of its own (`support/machine.rs`); cnitool, bridge and macvlan are built from their Go
//! modules (`peers/`). Where a machine cannot do that, the test is named as skipped; under `CI=true` it fails.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a story that cannot go on fails")]

mod support;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::machine::{Container, Machine, on_own_machine};
use support::skip::skip;
use support::{Plugin, peers};

#[test]
fn containers_on_a_bridge_reach_each_other() {
    tell("containers_on_a_bridge_reach_each_other", |machine, runtime| {
        let network = runtime.network(machine.bridge("wb0"));
        neighbours(machine, &network);
    });
}

#[test]
fn containers_on_a_macvlan_reach_each_other() {
    tell("containers_on_a_macvlan_reach_each_other", |machine, runtime| {
        machine.run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "switch"]);
        machine.run("ip", &["link", "set", "uplink", "up"]);
        machine.run("ip", &["link", "set", "switch", "up"]);
        let network = runtime.network(json!({ "type": "macvlan", "master": "uplink", "mode": "bridge" }));
        neighbours(machine, &network);
    });
}

/// Two containers get the first addresses of both families and reach each other; what one leaves, the next one gets.
fn neighbours(machine: &Machine, network: &Network<'_>) {
    let (left, right) = (machine.container("left"), machine.container("right"));
    assert_eq!(network.add(&left), ["10.77.0.1/24", "fd77::1/112"]);
    assert_eq!(network.add(&right), ["10.77.0.2/24", "fd77::2/112"]);
    assert_eq!(left.addresses("eth0"), ["10.77.0.1/24", "fd77::1/112"], "what was answered is what the link has");

    left.reaches(ip("10.77.0.1"), &right, ip("10.77.0.2"));
    right.reaches(ip("10.77.0.2"), &left, ip("10.77.0.1"));
    left.reaches(ip("fd77::1"), &right, ip("fd77::2"));
    right.reaches(ip("fd77::2"), &left, ip("fd77::1"));

    network.check(&left).expect("the left container is as it was added");
    network.check(&right).expect("the right container is as it was added");

    network.del(&left);
    network.del(&left);
    assert!(!left.has_interface("eth0"), "DEL took the link away");
    let next = machine.container("next");
    assert_eq!(network.add(&next), ["10.77.0.1/24", "fd77::1/112"], "the lowest free ones are those left behind");
    next.reaches(ip("10.77.0.1"), &right, ip("10.77.0.2"));
    network.check(&right).expect("the right container never changed");
}

#[test]
fn check_fails_when_the_lease_is_gone() {
    tell("check_fails_when_the_lease_is_gone", |machine, runtime| {
        let network = runtime.network(machine.bridge("wb0"));
        let container = machine.container("robbed");
        network.add(&container);
        network.check(&container).expect("nothing happened yet");
        // The link and its addresses stay: only the plugin can know that they are not the container's any more.
        let (id, ifname) = network.attachment(&container);
        network.plugin.del(&id, &ifname, &network.config).ok();
        let said = network.check(&container).expect_err("the lease is gone");
        assert!(said.contains("10.77.0.1"), "which address is not held is said: {said}");
    });
}

#[test]
fn gc_frees_what_was_torn_down_behind_our_back() {
    tell("gc_frees_what_was_torn_down_behind_our_back", |machine, runtime| {
        let network = runtime.network(machine.bridge("wb0"));
        let (lost, kept) = (machine.container("lost"), machine.container("kept"));
        network.add(&lost);
        network.add(&kept);
        let (id, ifname) = network.attachment(&kept);
        lost.tear_down();

        // The runtime lost its own record as well, so nobody will ever call DEL; bridge does not forward GC.
        network.plugin.gc(&network.config, &[(&id, &ifname)]).ok();

        network.check(&kept).expect("what the runtime listed stays");
        assert_eq!(network.add(&machine.container("next")), ["10.77.0.1/24", "fd77::1/112"], "the lost one's");
        assert_eq!(network.add(&machine.container("last")), ["10.77.0.3/24", "fd77::3/112"], "the kept one's stays");
    });
}

#[test]
fn the_runtimes_own_gc_frees_what_was_torn_down() {
    tell("the_runtimes_own_gc_frees_what_was_torn_down", |machine, runtime| {
        let network = runtime.network(machine.bridge("wb0"));
        let lost = machine.container("lost");
        network.add(&lost);
        // cnitool's GC calls DEL for all that it remembers, here for a namespace that is not there any more.
        let netns = lost.netns.clone();
        lost.tear_down();
        runtime.cnitool("gc", &netns).expect("GC of a lost namespace succeeds");
        assert_eq!(network.add(&machine.container("next")), ["10.77.0.1/24", "fd77::1/112"]);
    });
}

#[test]
fn status_reaches_the_plugin_through_its_parent() {
    tell("status_reaches_the_plugin_through_its_parent", |machine, runtime| {
        let network = runtime.network_of(machine.bridge("wb0"), json!({ "ipRanges": [{ "range": "10.77.0.0/30" }] }));
        let anywhere = Path::new("/run/netns/none");
        runtime.cnitool("status", anywhere).expect("two addresses are free");
        network.add(&machine.container("first"));
        network.add(&machine.container("second"));
        let said = runtime.cnitool("status", anywhere).expect_err("all addresses are held");
        assert!(said.contains("10.77.0.0/30"), "the exhausted range is named: {said}");
    });
}

/// A container runtime on one machine: cnitool with a folder of plugins and one of configurations.
struct Runtime {
    cnitool: PathBuf,
    plugins: PathBuf,
    configurations: PathBuf,
    ledger: PathBuf,
}

/// The network `pods` of a runtime.
struct Network<'a> {
    runtime: &'a Runtime,
    /// What the IPAM reads when the runtime's plugin calls it.
    config: Value,
    plugin: Plugin,
}

/// Tells a story on a machine of its own with a runtime on it, or says why that cannot be done here.
#[track_caller]
fn tell(test: &str, story: impl FnOnce(&Machine, &Runtime)) {
    let told = peers::folder()
        .and_then(|peers| on_own_machine(test, |machine| story(machine, &Runtime::set_up(machine, &peers))));
    if let Err(why) = told {
        skip(test, &why);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

// === impl Runtime ===

impl Runtime {
    fn set_up(machine: &Machine, peers: &Path) -> Self {
        let plugins = machine.folder("cni-bin");
        for parent in ["bridge", "macvlan"] {
            std::os::unix::fs::symlink(peers.join(parent), plugins.join(parent)).expect("a link in a new folder");
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_whereabouts"), plugins.join("whereabouts"))
            .expect("a link in a new folder");
        Self {
            cnitool: peers.join("cnitool"),
            plugins,
            configurations: machine.folder("net.d"),
            ledger: machine.folder("ledger"),
        }
    }

    /// Writes the configuration of a network with a range of each family.
    fn network(&self, parent: Value) -> Network<'_> {
        self.network_of(parent, json!({ "ipRanges": [{ "range": "10.77.0.0/24" }, { "range": "fd77::/112" }] }))
    }

    /// Writes the configuration of a network with these keys in the `ipam` section.
    fn network_of(&self, mut parent: Value, mut ipam: Value) -> Network<'_> {
        // Nothing in these stories is old enough for the default grace of GC.
        ipam["gc_grace"] = json!(0);
        let plugin = Plugin::new(&self.ledger);
        let mut config = plugin.config(ipam);
        config["name"] = json!("pods");
        parent["ipam"] = config["ipam"].clone();
        let list = json!({ "cniVersion": config["cniVersion"], "name": "pods", "plugins": [parent] });
        std::fs::write(self.configurations.join("pods.conflist"), list.to_string()).expect("a new file");
        Network { runtime: self, config, plugin }
    }

    /// stdout of cnitool, or what it said on stderr when it failed.
    fn cnitool(&self, verb: &str, netns: &Path) -> Result<String, String> {
        let output = Command::new(&self.cnitool)
            .args([verb, "pods"])
            .arg(netns)
            .env("CNI_PATH", &self.plugins)
            .env("NETCONFPATH", &self.configurations)
            .output()
            .expect("cnitool starts");
        let text = |bytes| String::from_utf8(bytes).expect("cnitool speaks UTF-8");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

// === impl Network ===

impl Network<'_> {
    /// Adds a container; the addresses that it got.
    #[track_caller]
    fn add(&self, container: &Container) -> Vec<String> {
        let result = self.runtime.cnitool("add", &container.netns).unwrap_or_else(|said| panic!("ADD failed: {said}"));
        let result: Value = serde_json::from_str(&result).expect("a result is JSON");
        let ips = result["ips"].as_array().expect("a result has addresses");
        ips.iter().map(|ip| ip["address"].as_str().expect("an address is text").to_owned()).collect()
    }

    fn check(&self, container: &Container) -> Result<String, String> {
        self.runtime.cnitool("check", &container.netns)
    }

    #[track_caller]
    fn del(&self, container: &Container) {
        self.runtime.cnitool("del", &container.netns).unwrap_or_else(|said| panic!("DEL failed: {said}"));
    }

    /// Container id and interface under which cnitool added a container, from its own records.
    fn attachment(&self, container: &Container) -> (String, String) {
        let records = std::fs::read_dir("/var/lib/cni/results").expect("cnitool keeps records");
        let mut records = records.map(|entry| {
            let record = std::fs::read(entry.expect("a readable folder").path()).expect("a readable record");
            serde_json::from_slice::<Value>(&record).expect("a record is JSON")
        });
        let record = records.find(|record| container.netns.to_str() == record["netns"].as_str());
        let record = record.expect("the container was added");
        let text = |key: &str| record[key].as_str().expect("text").to_owned();
        (text("containerId"), text("ifName"))
    }
}
