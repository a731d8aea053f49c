//! Drives the built `whereabouts` binary through the CNI protocol: environment and JSON in, exit code and JSON out.
//!
//! Every call is a process of its own with nothing of the tests' environment in it. What goes wrong while driving
//! ends the test at once; what the plugin answers, good or bad, is an [`Answer`] to look at.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of many test binaries, of which each uses the part that its stories need"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a driver of tests that cannot go on ends the test"
)]

pub mod leases;
pub mod machine;
pub mod peers;
pub mod skip;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// The newest protocol version, in which every verb exists.
pub const CNI_VERSION: &str = "1.1.0";

/// The plugin with a ledger of its own.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// What goes before the program.
    launcher: Vec<OsString>,
    program: PathBuf,
    data_dir: PathBuf,
}

/// One call that has not started yet: what the runtime would set, to be changed before [`Call::run`].
#[derive(Debug)]
pub struct Call {
    launcher: Vec<OsString>,
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
}

/// A plugin process that runs, and waits for its configuration until [`Running::feed`].
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Vec<u8>,
}

/// What a plugin process left behind.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit code; `None` when a signal ended the process.
    pub exit: Option<i32>,
    /// stdout as JSON; `None` when it is empty or is not exactly one JSON value.
    pub json: Option<Value>,
    /// stdout as it came.
    pub stdout: String,
    /// stderr: the log.
    pub stderr: String,
}

// === impl Plugin ===

impl Plugin {
    /// The binary under test, with its ledger in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let program = env!("CARGO_BIN_EXE_whereabouts").into();
        Self { launcher: Vec::new(), program, data_dir: data_dir.into() }
    }

    /// The same, called through a program that ends as it, with arguments before it.
    pub fn launched_by(self, launcher: Vec<OsString>) -> Self {
        Self { launcher, ..self }
    }

    /// The program as a person calls it where the plugin is, with an empty environment.
    pub fn command(&self) -> Command {
        command(&self.launcher, &self.program)
    }

    /// Where the ledger is.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A network configuration named `test` whose `ipam` section holds the given keys, and for the rest says that the
    /// ledger is local and where.
    pub fn config(&self, ipam: Value) -> Value {
        let mut section = json!({ "type": "whereabouts", "datastore": "local", "data_dir": self.data_dir });
        let (Value::Object(into), Value::Object(from)) = (&mut section, ipam) else {
            panic!("the ipam section is an object");
        };
        into.extend(from);
        json!({ "cniVersion": CNI_VERSION, "name": "test", "type": "bridge", "ipam": section })
    }

    /// [`Plugin::config`] with nothing but a range.
    pub fn range(&self, range: &str) -> Value {
        self.config(json!({ "range": range }))
    }

    /// ADD for a container's interface.
    pub fn add(&self, container: &str, ifname: &str, config: &Value) -> Answer {
        self.attachment("ADD", container, ifname).stdin(config).run()
    }

    /// DEL for a container's interface.
    pub fn del(&self, container: &str, ifname: &str, config: &Value) -> Answer {
        self.attachment("DEL", container, ifname).stdin(config).run()
    }

    /// CHECK for a container's interface, with what ADD had answered as the `prevResult`.
    pub fn check(&self, container: &str, ifname: &str, config: &Value, added: &Value) -> Answer {
        let mut config = config.clone();
        config["prevResult"] = added.clone();
        self.attachment("CHECK", container, ifname).stdin(&config).run()
    }

    /// GC that lists these (container, interface) as the valid ones.
    pub fn gc(&self, config: &Value, valid: &[(&str, &str)]) -> Answer {
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] =
            valid.iter().map(|(container, ifname)| json!({ "containerID": container, "ifname": ifname })).collect();
        self.verb("GC").stdin(&config).run()
    }

    /// STATUS.
    pub fn status(&self, config: &Value) -> Answer {
        self.verb("STATUS").stdin(config).run()
    }

    /// VERSION.
    pub fn version(&self) -> Answer {
        self.verb("VERSION").stdin(&json!({ "cniVersion": CNI_VERSION })).run()
    }

    /// A call of a verb that names no attachment: GC, STATUS, VERSION.
    pub fn verb(&self, verb: &str) -> Call {
        let (launcher, program) = (self.launcher.clone(), self.program.clone());
        Call { launcher, program, environment: Vec::new(), stdin: Vec::new() }
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", self.program.parent().expect("a program lies in a folder"))
    }

    /// A call of a verb for one attachment: ADD, DEL, CHECK. The container's namespace need not exist.
    pub fn attachment(&self, verb: &str, container: &str, ifname: &str) -> Call {
        self.verb(verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", ifname)
            .env("CNI_NETNS", format!("/run/netns/{container}"))
    }
}

// === impl Call ===

impl Call {
    /// Sets a variable, in place of what it was.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self = self.without(key);
        self.environment.push((key.into(), value.as_ref().into()));
        self
    }

    /// Leaves a variable out.
    pub fn without(mut self, key: &str) -> Self {
        self.environment.retain(|(known, _)| known != key);
        self
    }

    /// Adds CNI_ARGS that name a Kubernetes pod, as kubelet's runtimes do.
    pub fn pod(self, namespace: &str, name: &str, uid: &str) -> Self {
        self.env(
            "CNI_ARGS",
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}"),
        )
    }

    /// What the plugin reads on stdin.
    pub fn stdin(self, config: &Value) -> Self {
        self.stdin_bytes(config.to_string())
    }

    /// What the plugin reads on stdin, valid JSON or not.
    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Answer {
        self.start().wait()
    }

    /// Starts the process; it waits for its configuration.
    pub fn start(self) -> Running {
        let child = command(&self.launcher, &self.program)
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        Running { child, stdin: self.stdin }
    }
}

/// A program behind what launches it, with an empty environment.
fn command(launcher: &[OsString], program: &Path) -> Command {
    let mut command = match launcher.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.env_clear();
    command
}

/// Runs all calls at the same time: every process is up and waits before the first one gets its configuration.
/// The answers are in the order of the calls.
pub fn at_once(calls: impl IntoIterator<Item = Call>) -> Vec<Answer> {
    let mut all: Vec<Running> = calls.into_iter().map(Call::start).collect();
    all.iter_mut().for_each(Running::feed);
    all.into_iter().map(Running::wait).collect()
}

// === impl Running ===

impl Running {
    /// Hands the configuration over and closes stdin. [`Running::wait`] does it too.
    pub fn feed(&mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            // A process that ends without reading (VERSION, or a bad environment) closes the pipe before us.
            let _ = pipe.write_all(&self.stdin);
        }
    }

    /// Ends the process where it stands (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().expect("a child that was not waited for can be signalled");
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Answer {
        self.feed();
        let output = self.child.wait_with_output().expect("a child can be waited for");
        let stdout = String::from_utf8(output.stdout).expect("stdout is text");
        Answer {
            exit: output.status.code(),
            json: serde_json::from_str(&stdout).ok(),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// The result of a call that must succeed; `null` for the verbs that answer nothing.
    #[track_caller]
    pub fn ok(&self) -> &Value {
        assert_eq!(self.exit, Some(0), "the call was to succeed: {self:#?}");
        match &self.json {
            Some(json) => json,
            None if self.stdout.is_empty() => &Value::Null,
            None => panic!("stdout is not JSON: {self:#?}"),
        }
    }

    /// Code and message of a call that must fail with an error object on stdout.
    #[track_caller]
    pub fn error(&self) -> (u64, &str) {
        assert!(self.exit.is_some_and(|exit| exit != 0), "the call was to fail: {self:#?}");
        let json = self.json.as_ref().unwrap_or_else(|| panic!("no error object on stdout: {self:#?}"));
        match (json["code"].as_u64(), json["msg"].as_str()) {
            (Some(code), Some(message)) => (code, message),
            _ => panic!("an error object has code and msg: {self:#?}"),
        }
    }

    /// The addresses of a successful ADD, with their prefix lengths, in order. Both result shapes are understood.
    #[track_caller]
    pub fn addresses(&self) -> Vec<String> {
        let json = self.ok();
        let old = ["ip4", "ip6"].iter().filter_map(|family| json[family]["ip"].as_str());
        let new = json["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str());
        old.chain(new).map(str::to_owned).collect()
    }

    /// The only address of a successful ADD, with its prefix length.
    #[track_caller]
    pub fn address(&self) -> String {
        match self.addresses().as_slice() {
            [address] => address.clone(),
            other => panic!("one address was to be answered, not {other:?}"),
        }
    }
}
