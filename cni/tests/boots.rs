//! What a reboot ends and what it does not: leases of containers are over with their boot, those of sticky names and of
//! the command line are not, and a call from inside a container concludes nothing.
//!
//! The boot id of the kernel is covered by a file in a mount namespace of the test's own, which the test rewrites.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::Plugin;
use support::leases::{addresses, held};
use support::machine::{Machine, on_own_machine};
use support::skip::skip;
use whereabouts_engine::{
    Allocate, Attachment, HostFacts, IpNet, Ledger, Network, OpenOptions, Owner, Pool, Sharing, View, ViewSpec, Want,
};

/// A host that can be booted again.
struct Boots {
    boot_id: PathBuf,
    plugin: Plugin,
}

impl Boots {
    fn on(machine: &Machine) -> Self {
        let boot_id = machine.folder("boot").join("id");
        let boots = Self { boot_id, plugin: Plugin::new(machine.folder("ledger")) };
        boots.boot(1);
        machine.run("mount", &["--bind", boots.boot_id.to_str().unwrap(), "/proc/sys/kernel/random/boot_id"]);
        boots
    }

    /// The host is off and on again.
    fn boot(&self, number: u32) {
        // Written in place: the mount is of the file, not of its name.
        fs::write(&self.boot_id, format!("{number:08x}-0000-4000-8000-000000000000\n")).unwrap();
    }
}

#[track_caller]
fn tell(test: &str, story: impl FnOnce(&Machine, &Boots)) {
    let told = on_own_machine(test, |machine| {
        let boots = Boots::on(machine);
        story(machine, &boots);
    });
    told.unwrap_or_else(|why| skip(test, &why));
}

#[test]
fn leases_of_an_earlier_boot_are_over_for_the_next_call() {
    tell("leases_of_an_earlier_boot_are_over_for_the_next_call", |_, boots| {
        let plugin = &boots.plugin;
        let config = plugin.config(json!({ "ipRanges": [{ "range": "10.0.0.0/30" }, { "range": "fd00::/64" }] }));
        let added = plugin.add("c1", "eth0", &config).ok().clone();
        plugin.add("c2", "eth0", &config).ok();
        assert_eq!(plugin.add("c3", "eth0", &config).error().0, 100, "full");
        assert_eq!(plugin.status(&config).error().0, 50);

        boots.boot(2);
        plugin.status(&config).ok();
        let (code, message) = {
            let a = plugin.check("c1", "eth0", &config, &added);
            (a.error().0, a.error().1.to_owned())
        };
        assert_eq!(code, 102);
        assert!(message.contains("10.0.0.1"), "{message}");
        assert_eq!(plugin.add("c3", "eth0", &config).addresses(), ["10.0.0.1/30", "fd00::1/64"]);
        assert_eq!(held(plugin).len(), 2, "nothing but what this boot gave");
        // The runtime cleans up what it remembers of before: that frees nothing of now.
        plugin.del("c1", "eth0", &config).ok();
        plugin.del("c2", "eth0", &config).ok();
        assert_eq!(addresses(plugin), ["10.0.0.1", "fd00::1"]);
        assert_eq!(plugin.add("c4", "eth0", &config).addresses(), ["10.0.0.2/30", "fd00::2/64"]);
        assert_eq!(plugin.add("c5", "eth0", &config).error().0, 100);
    });
}

/// The same pod after the boot: it has no claim to what it had, and gets the lowest free address as everybody does.
#[test]
fn a_pod_starts_anew_after_a_boot() {
    tell("a_pod_starts_anew_after_a_boot", |_, boots| {
        let plugin = &boots.plugin;
        let config = plugin.range("10.0.0.0/24");
        plugin.add("first", "eth0", &config).ok();
        let pod = |container: &str| {
            plugin.attachment("ADD", container, "eth0").pod("default", "web", "u1").stdin(&config).run().address()
        };
        assert_eq!(pod("before"), "10.0.0.2/24");
        boots.boot(2);
        assert_eq!(pod("after"), "10.0.0.1/24");
        plugin.gc(&plugin.config(json!({ "gc_grace": 0 })), &[("after", "eth0")]).ok();
        assert_eq!(held(plugin), [("10.0.0.1".into(), "after".into())].into());
    });
}

/// Many blocks are over at once, and only that boot's.
#[test]
fn every_block_is_over_and_each_boot_ends_its_own() {
    tell("every_block_is_over_and_each_boot_ends_its_own", |_, boots| {
        let plugin = &boots.plugin;
        // Full blocks and marks of the index: each /24 of the range has two usable addresses left.
        let ranges = |last: u8| {
            let all: Vec<Value> = (0..=last).map(|n| json!({ "range": format!("10.0.{n}.0/30") })).collect();
            plugin.config(json!({ "ipRanges": all }))
        };
        for boot in 1..=4 {
            boots.boot(boot);
            assert_eq!(plugin.add("c1", "eth0", &ranges(19)).addresses().len(), 20);
            let second = plugin.add("c2", "eth0", &ranges(19)).addresses();
            assert!(second.iter().all(|address| address.ends_with(".2/30")), "{second:?}");
            assert_eq!(held(plugin).len(), 40);
        }
    });
}

#[test]
fn sticky_names_and_the_command_line_keep_their_addresses() {
    tell("sticky_names_and_the_command_line_keep_their_addresses", |_, boots| {
        let plugin = &boots.plugin;
        let config = plugin.range("10.0.0.0/24");
        let mut sticky = config.clone();
        sticky["args"] = json!({ "cni": { "podname": "db-0" } });
        plugin.add("c1", "eth0", &config).ok();
        assert_eq!(plugin.add("c2", "eth0", &sticky).address(), "10.0.0.2/24");
        assert_eq!(by_hand(plugin, "web"), "10.0.0.3");

        boots.boot(2);
        assert_eq!(plugin.add("c3", "eth0", &config).address(), "10.0.0.1/24");
        assert_eq!(plugin.add("c4", "eth0", &config).address(), "10.0.0.4/24", "2 and 3 are still held");
        assert_eq!(plugin.add("c5", "eth0", &sticky).address(), "10.0.0.2/24");
        assert_eq!(by_hand(plugin, "web"), "10.0.0.3");
        assert_eq!(addresses(plugin), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    });
}

/// As the command line does it.
fn by_hand(plugin: &Plugin, name: &str) -> String {
    let ledger = Ledger::open(&OpenOptions::new(plugin.data_dir().join("ledger.redb")), HostFacts::read()).unwrap();
    let range: IpNet = "10.0.0.0/24".parse().unwrap();
    let want = Want {
        pool: Pool::new(Network::unnamed(), range),
        sharing: Sharing::Shared,
        view: View::new(&ViewSpec::new(range)).unwrap().into(),
        exactly: None,
    };
    let request = Allocate { attachment: Attachment::named(name), owner: Owner::Named(name.into()), wants: vec![want] };
    ledger.allocate(&[request]).unwrap()[0].as_ref().unwrap()[0].address.to_string()
}

/// The plugin called inside a container that has the ledger mounted and sees a boot id of its own.
#[test]
fn a_call_from_another_pid_namespace_ends_no_boot() {
    tell("a_call_from_another_pid_namespace_ends_no_boot", |_, boots| {
        // A host that is a container itself has no pid namespace that would be the same after its next start.
        if fs::metadata("/proc/self/ns/pid").unwrap().ino() != 0xefff_fffc {
            return;
        }
        let plugin = &boots.plugin;
        let config = plugin.range("10.0.0.0/24");
        plugin.add("c1", "eth0", &config).ok();
        plugin.add("c2", "eth0", &config).ok();
        let inside = |verb: &str, container: &str| {
            let mut child = Command::new("unshare")
                .args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_whereabouts")])
                .env("CNI_COMMAND", verb)
                .env("CNI_CONTAINERID", container)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_NETNS", "/run/netns/inside")
                .env("CNI_PATH", "/bin")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
        };
        assert_eq!(inside("ADD", "c3")["ips"][0]["address"], "10.0.0.3/24");
        assert_eq!(addresses(plugin), ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "nothing was freed");
        assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
        inside("DEL", "c2");
        assert_eq!(addresses(plugin), ["10.0.0.1", "10.0.0.3"], "a DEL knows what it frees");

        // Whether what was made inside ends with a boot, only those inside could tell: it stays until it is released.
        boots.boot(2);
        assert_eq!(inside("ADD", "c4")["ips"][0]["address"], "10.0.0.2/24", "after a boot, too, nothing is concluded");
        assert_eq!(plugin.add("c5", "eth0", &config).address(), "10.0.0.1/24");
        assert_eq!(addresses(plugin), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        plugin.gc(&plugin.config(json!({ "gc_grace": 0 })), &[("c5", "eth0")]).ok();
        assert_eq!(addresses(plugin), ["10.0.0.1"], "the runtime's list is a proof");
    });
}

/// A host without a boot id concludes nothing from that.
#[test]
fn a_boot_id_that_cannot_be_read_frees_nothing() {
    tell("a_boot_id_that_cannot_be_read_frees_nothing", |_, boots| {
        let plugin = &boots.plugin;
        let config = plugin.range("10.0.0.0/24");
        plugin.add("c1", "eth0", &config).ok();
        plugin.add("gone", "eth0", &config).ok();
        plugin.del("gone", "eth0", &config).ok();
        for unreadable in ["", "not an id at all\n"] {
            fs::write(&boots.boot_id, unreadable).unwrap();
            assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
            assert_eq!(plugin.add("c2", "eth0", &config).address(), "10.0.0.2/24");
            assert_eq!(plugin.add("c3", "eth0", &config).address(), "10.0.0.3/24");
        }
        boots.boot(1);
        assert_eq!(plugin.add("c4", "eth0", &config).address(), "10.0.0.4/24");
        assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
        // What was leased while nobody could tell the boot stays until somebody releases it.
        boots.boot(2);
        assert_eq!(plugin.add("c5", "eth0", &config).address(), "10.0.0.1/24");
        assert_eq!(addresses(plugin), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    });
}
