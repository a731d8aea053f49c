//! Whatever stands in the environment and on standard input, the runtime gets an answer that it can read: nothing or one
//! JSON object on standard output, exit code 0 or 1, and no trace of a panic.
//!
//! The inputs are made from good ones by a seeded generator, so that a failing case repeats.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a story that cannot go on fails"
)]

mod support;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::leases::held;
use support::{Answer, Call, Plugin, at_once};

/// How many inputs each test tries.
const N: usize = 400;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.below(256) as u8).collect()
    }
}

#[track_caller]
fn is_an_answer(answer: &Answer, what: &str) {
    assert!(matches!(answer.exit, Some(0 | 1)), "{what}: {answer:#?}");
    assert!(!answer.stdout.contains("panicked"), "{what}: {answer:#?}");
    assert!(!answer.stderr.contains("defect of this program"), "{what}: {answer:#?}");
    assert!(!answer.stderr.contains("panicked"), "{what}: {answer:#?}");
    match (&answer.json, answer.exit) {
        (None, Some(0)) => assert_eq!(answer.stdout, "", "{what}"),
        (Some(json), Some(0)) => assert!(json["cniVersion"].is_string(), "{what}: {answer:#?}"),
        _ => {
            let (code, message) = answer.error();
            assert!(code != 999 && !message.is_empty(), "{what}: {answer:#?}");
            assert!(message.len() < 8192, "{what}: an error is for people: {} bytes", message.len());
        }
    }
}

/// Runs calls a few at a time; the text is what a failing one is named by.
fn run(calls: Vec<(String, Call)>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut calls = calls.into_iter();
    loop {
        let (names, batch): (Vec<_>, Vec<_>) = calls.by_ref().take(8).unzip();
        if batch.is_empty() {
            return answers;
        }
        for (name, answer) in names.iter().zip(at_once(batch)) {
            is_an_answer(&answer, name);
            answers.push(answer);
        }
    }
}

fn good(plugin: &Plugin) -> Value {
    let mut config = plugin.config(json!({
        "range": "10.0.0.0/24",
        "range_start": "10.0.0.5",
        "range_end": "10.0.0.200",
        "exclude": ["10.0.0.16/28", "10.0.0.9"],
        "ipRanges": [{ "range": "fd00::/64", "exclude": ["fd00::/120"] }, { "range": "10.1.0.1-10.1.0.9/24" }],
        "gateway": "10.0.0.1",
        "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.1" }],
        "dns": { "nameservers": ["10.0.0.53"], "search": ["example.org"] },
        "addresses": [{ "address": "192.0.2.7/24", "gateway": "192.0.2.1" }],
        "network_name": "blue",
        "enable_overlapping_ranges": true,
        "log_level": "debug",
        "gc_grace": 0,
        "deadline": 5,
        "node_slice_size": "/26",
        "leader_lease_duration": 1500,
    }));
    config["args"] = json!({ "cni": { "ips": ["10.0.0.77"], "podname": "db-0" } });
    config["runtimeConfig"] = json!({ "ips": ["fd00::1:77/64"] });
    config["prevResult"] =
        json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.0.0.77/24", "gateway": "10.0.0.1" }] });
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    config
}

const VERBS: [&str; 5] = ["ADD", "DEL", "CHECK", "GC", "STATUS"];

fn call(plugin: &Plugin, verb: &str) -> Call {
    plugin.attachment(verb, "c1", "eth0").env("WHEREABOUTS_DATA_DIR", plugin.data_dir())
}

#[test]
fn any_bytes_on_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    let text = good(&plugin).to_string().into_bytes();
    let mut random = Random(0x5eed_0001);
    let mut calls = Vec::new();
    for number in 0..N {
        let mut bytes = text.clone();
        match number % 4 {
            0 => bytes = random.bytes(600),
            1 => bytes.truncate(random.below(text.len())),
            2 => {
                for _ in 0..=random.below(6) {
                    let place = random.below(bytes.len());
                    bytes[place] = random.below(256) as u8;
                }
            }
            _ => {
                let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                let place = random.below(bytes.len());
                bytes.splice(place..place, part);
            }
        }
        let verb = random.of(&VERBS);
        let what = format!("{number}: {verb} {}", String::from_utf8_lossy(&bytes));
        calls.push((what, call(&plugin, verb).stdin_bytes(bytes)));
    }
    run(calls);
    held(&plugin);
}

/// Values that a careless generator or a spiteful user writes.
fn strange(random: &mut Random) -> Value {
    let texts = [
        "",
        " ",
        "-",
        "/",
        "0",
        "::",
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0.0/-1",
        "255.255.255.255/32",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        "::ffff:10.0.0.1",
        "10.0.0.9-10.0.0.1/24",
        "10.0.0.1-fd00::9/64",
        "10.0.0.0/24-10.0.0.9/24",
        "1.2.3.4.5/8",
        "0x0a.0.0.1/8",
        "٣.0.0.1/8",
        "\u{0}",
        "\u{202e}",
        "%n%s",
        "../../etc",
        "/dev/full",
        "/dev/null",
        "é",
        "null",
        "18446744073709551616",
        "1e400",
    ];
    match random.below(12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(random.below(2) as i64 - 1),
        3 => json!(i64::MIN),
        4 => json!(u64::MAX),
        5 => json!(1.5e300),
        6 => json!([]),
        7 => json!({}),
        8 => json!([[[[{ "a": [null] }]]]]),
        9 => json!("x".repeat(70_000)),
        10 => json!(vec!["10.0.0.0/31"; 3_000]),
        _ => json!(*random.of(&texts)),
    }
}

/// A place somewhere in the value.
fn somewhere<'v>(value: &'v mut Value, random: &mut Random) -> &'v mut Value {
    let n = match value {
        Value::Object(object) => object.len(),
        Value::Array(array) => array.len(),
        _ => 0,
    };
    if n == 0 || random.below(4) == 0 {
        return value;
    }
    let at = random.below(n);
    match value {
        Value::Object(object) => somewhere(object.values_mut().nth(at).expect("one of n"), random),
        Value::Array(array) => somewhere(&mut array[at], random),
        _ => unreachable!("only these have parts"),
    }
}

#[test]
fn any_value_at_any_key() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path().join("ledger"));
    let flat = folder.path().join("flat.conf");
    let mut random = Random(0x5eed_0002);
    let mut calls = Vec::new();
    for number in 0..N {
        let mut config = good(&plugin);
        for _ in 0..=random.below(3) {
            let value = strange(&mut random);
            *somewhere(&mut config, &mut random) = value;
        }
        // No write may leave the test's own folder.
        if let Some(ipam) = config.pointer_mut("/ipam").and_then(Value::as_object_mut) {
            ipam.remove("data_dir");
            ipam.remove("log_file");
        }
        let verb = random.of(&VERBS);
        let text: String = config.to_string().chars().take(3000).collect();
        calls.push((format!("{number}: {verb} {text}"), call(&plugin, verb).stdin(&config)));
    }
    let answers = run(calls);
    assert!(answers.iter().any(|answer| answer.exit == Some(0)) && answers.iter().any(|answer| answer.exit == Some(1)));
    held(&plugin);

    // The same, in the flat file.
    for number in 0..N / 8 {
        let mut file = good(&plugin)["ipam"].clone();
        let value = strange(&mut random);
        *somewhere(&mut file, &mut random) = value;
        std::fs::write(&flat, file.to_string()).unwrap();
        let verb = random.of(&VERBS);
        let config = plugin.range("10.0.0.0/24");
        let answer = call(&plugin, verb).env("WHEREABOUTS_CONFIGURATION", &flat).stdin(&config).run();
        is_an_answer(&answer, &format!("flat file {number}: {verb}"));
    }
}

#[test]
fn any_environment() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path().join("ledger"));
    let config = good(&plugin);
    let mut random = Random(0x5eed_0003);
    let keys =
        ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS", "CNI_PATH", "CNI_COMMAND", "CNI_NETNS_OVERRIDE"];
    let parts = [
        "IP=",
        "GATEWAY=",
        "IgnoreUnknown=",
        "K8S_POD_NAME=",
        "K8S_POD_NAMESPACE=",
        "K8S_POD_UID=",
        ";",
        "=",
        ",",
        "/",
        "1",
        "true",
        "10.0.0.7",
        "10.0.0.8/24",
        "fd00::7/64",
        "é",
        " ",
        "..",
        "-",
        "default",
        "K8S_POD_NAME",
    ];
    let mut calls = Vec::new();
    for number in 0..N {
        let verb = *random.of(&VERBS);
        let mut call = call(&plugin, verb).stdin(&config);
        let mut what = format!("{number}: {verb}");
        for _ in 0..=random.below(2) {
            let key = *random.of(&keys);
            let mut bytes: Vec<u8> = match (random.below(3), key) {
                (0, _) => random.bytes(40),
                (1, "CNI_ARGS") | (_, "CNI_ARGS") => {
                    (0..random.below(12)).flat_map(|_| random.of(&parts).bytes()).collect()
                }
                (1, _) => random.of(&parts).repeat(random.below(60)).into_bytes(),
                _ => random.of(&parts).bytes().collect(),
            };
            bytes.retain(|byte| *byte != 0);
            what = format!("{what} {key}={}", String::from_utf8_lossy(&bytes));
            call = call.env(key, OsString::from_vec(bytes));
        }
        calls.push((what, call));
    }
    run(calls);
    held(&plugin);
}

/// Nested deeper than any stack.
#[test]
fn deep_and_long_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    for text in [
        deep("[", "]", 100_000),
        deep("{\"a\":", "}", 100_000),
        "[".repeat(1_000_000),
        "{\"ipam\":".repeat(100_000),
        format!("{{\"name\":\"{}\"}}", "n".repeat(1_000_000)),
        "9".repeat(1_000_000),
        format!("{{{}}}", (0..40_000).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",")),
    ] {
        for verb in VERBS {
            let answer = call(&plugin, verb).stdin_bytes(text.clone()).run();
            is_an_answer(&answer, &format!("{verb} {}…", &text[..20]));
        }
    }
    let mut config = plugin.range("10.0.0.0/8");
    config["ipam"]["exclude"] = (0..30_000).map(|n| json!(format!("10.{}.{}.0/30", n / 256 % 256, n % 256))).collect();
    is_an_answer(&plugin.add("c1", "eth0", &config), "thirty thousand excludes");
}

/// A runtime that hangs up, or whose log and answer go to a full disk: the process ends without a signal, and what it
/// wrote is there.
#[test]
fn a_runtime_that_does_not_listen() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    let config = plugin.range("10.0.0.0/24");
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (stdout, stderr) in [(Stdio::piped(), Stdio::piped()), (full(), full()), (Stdio::null(), full())] {
        let mut spawned = Some((stdout, stderr));
        for verb in ["ADD", "DEL"] {
            let (stdout, stderr) = spawned.take().unwrap_or_else(|| (Stdio::piped(), full()));
            let mut child = Command::new(env!("CARGO_BIN_EXE_whereabouts"))
                .env_clear()
                .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")])
                .envs([("CNI_NETNS", "/run/netns/c1"), ("CNI_PATH", "/bin")])
                .stdin(Stdio::piped())
                .stdout(stdout)
                .stderr(stderr)
                .spawn()
                .unwrap();
            drop((child.stdout.take(), child.stderr.take()));
            child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
            let status = child.wait().unwrap();
            assert!(status.code().is_some(), "{verb} ended by a signal: {status}");
            let expected = usize::from(verb == "ADD");
            assert_eq!(held(&plugin).len(), expected, "what {verb} did is durable, heard or not");
        }
    }
}

/// The log file is on a full disk: the calls work all the same.
#[test]
fn a_log_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::new(folder.path());
    let config =
        plugin.config(json!({ "range": "10.0.0.0/24", "log_file": "/dev/full", "log_level": "debug", "odd": 1 }));
    assert_eq!(plugin.add("c1", "eth0", &config).address(), "10.0.0.1/24");
    plugin.del("c1", "eth0", &config).ok();
    assert_eq!(held(&plugin).len(), 0);
    let answer = plugin.add("c1", "eth0", &plugin.config(json!({ "range": "x", "log_file": "/dev/full" })));
    is_an_answer(&answer, "an error with a log that cannot be written");
}
