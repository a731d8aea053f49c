//! A node is a machine of its own, and nothing of it outlives a test that is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a driver of tests that cannot go on ends the test"
)]

#[path = "../../cni/tests/support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use whereabouts_testbed::{ControlPlane, RealNode};

/// By which a test of this file is run as a program of its own.
const CHILD: &str = "TESTBED_TEST_CHILD";

/// Left behind in a node by the child, under a name that nobody else has.
const LEFT_BEHIND: &str = "4242.4242";

fn boot() -> Result<(RealNode, ControlPlane), String> {
    let control_plane = ControlPlane::start()?;
    Ok((RealNode::boot(&control_plane, "alone", Ipv4Addr::new(192, 0, 2, 7))?, control_plane))
}

/// What a program in the node says.
fn says(node: &RealNode, program: &str, arguments: &[&str]) -> String {
    let output = node.command(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_node_is_a_machine_of_its_own() {
    let (node, control_plane) = match boot() {
        Ok(booted) => booted,
        Err(why) => return skip::skip("a_node_is_a_machine_of_its_own", &why),
    };
    assert_eq!(says(&node, "cat", &["/proc/sys/kernel/hostname"]).trim(), "alone");
    for place in ["/var/lib", "/var/log"] {
        assert_eq!(says(&node, "ls", &["-A", place]), "", "{place}");
    }
    assert!(says(&node, "ip", &["-brief", "address"]).contains("192.0.2.7/32"));
    let comm = says(&node, "cat", &["/proc/1/comm"]);
    assert_eq!(comm.trim(), "sh", "it sees no process of the machine below");

    // Its way out is there, and only there.
    let kubeconfig = node.kubeconfig(&control_plane, ("default", "somebody"));
    let asked = node.command("kubectl").arg("--kubeconfig").arg(&kubeconfig).args(["auth", "whoami"]).output().unwrap();
    let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(answer.contains("system:serviceaccount:default:somebody"), "{answer}{asked:?}");
    assert!(node.proxy.count("POST", "selfsubjectreviews") > 0, "{:?}", node.proxy.requests());
}

/// A node with a process that nobody waits for.
#[test]
#[ignore = "the program that another test kills"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let (node, control_plane) = boot().unwrap();
    says(&node, "sh", &["-c", &format!("setsid sleep {LEFT_BEHIND} </dev/null >/dev/null 2>&1 &")]);
    println!("folder {}", control_plane.folder().display());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn nothing_of_a_node_outlives_a_test_that_is_killed() {
    if let Err(why) = boot() {
        return skip::skip("nothing_of_a_node_outlives_a_test_that_is_killed", &why);
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let folder = lines.into_iter().find_map(|line| Some(line.split_once("folder ")?.1.to_owned()));
    let folder = PathBuf::from(folder.expect("the child's folder"));
    let groups = std::fs::read_to_string(folder.join("cgroups")).unwrap();
    let groups: Vec<PathBuf> = groups.lines().map(PathBuf::from).collect();
    assert!(!groups.is_empty() && groups.iter().all(|group| group.is_dir()), "{groups:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !runs() {
        assert!(Instant::now() < deadline, "the node's process does not run");
        std::thread::sleep(Duration::from_millis(20));
    }

    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_left = || {
        let groups = groups.iter().map(PathBuf::as_path);
        groups.chain([folder.as_path()]).filter(|path: &&Path| path.exists()).map(Path::to_owned).collect::<Vec<_>>()
    };
    while runs() || !is_left().is_empty() {
        assert!(Instant::now() < deadline, "the process runs: {}; these are left: {:?}", runs(), is_left());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether what the child left behind in its node runs.
fn runs() -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line == format!("sleep\0{LEFT_BEHIND}\0").into_bytes())
}
