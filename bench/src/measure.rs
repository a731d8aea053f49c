//! Starts a process as a container runtime does and takes the time.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Room for an answer; all plugins answer in less, so none waits for the pipe.
const ANSWER_BYTES: usize = 4096;

/// What a process did and how long it took, from before it was started until it was gone.
#[derive(Debug)]
pub struct Run {
    /// From before the start until the end.
    pub took: Duration,
    /// From before the start until the first byte of stdout, or its end when there was none.
    pub first_byte: Duration,
    /// stdout.
    pub stdout: Vec<u8>,
}

/// What a call says beside its verb and its container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// Further variables of the environment.
    pub environment: &'a [(String, OsString)],
    /// Whether the container is the sandbox of a pod, as Kubernetes runs them.
    pub is_pod: bool,
}

/// Runs `program` once for `verb` and a container that no other call names.
///
/// # Errors
///
/// When it does not start, or does not succeed; stdout is then part of the error.
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], stdin: &Path, verb: &str) -> Result<Run> {
    run_in(Circumstances::default(), program, arguments, stdin, verb)
}

/// The same where more is said than the protocol asks for.
///
/// # Errors
///
/// When it does not start, or does not succeed; stdout is then part of the error.
pub fn run_in<A: AsRef<OsStr>>(
    circumstances: Circumstances<'_>,
    program: &Path,
    arguments: &[A],
    stdin: &Path,
    verb: &str,
) -> Result<Run> {
    // Everything that is ours to do is done before the clock runs.
    let container = next_container();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(circumstances.environment.iter().map(|(name, value)| (name, value)));
    if circumstances.is_pod {
        command.env("CNI_ARGS", pod_arguments(&container));
    }
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", "/run/netns/whereabouts-bench")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", program.parent().context("a program lies in a folder")?)
        .stdin(File::open(stdin).with_context(|| format!("opening {}", stdin.display()))?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut stdout = Vec::with_capacity(ANSWER_BYTES);

    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    let first_byte = read_all(&mut child, &mut stdout, start)?;
    let status = child.wait()?;
    let took = start.elapsed();

    let said = String::from_utf8_lossy(&stdout);
    ensure!(status.success(), "{} {verb} ended with {status}: {said}", program.display());
    Ok(Run { took, first_byte, stdout })
}

/// Reads until the process closes its stdout; when the first byte came.
fn read_all(child: &mut Child, stdout: &mut Vec<u8>, start: Instant) -> Result<Duration> {
    let mut pipe = child.stdout.take().context("stdout is a pipe")?;
    let mut first = [0; 1];
    let count = pipe.read(&mut first)?;
    let first_byte = start.elapsed();
    if count > 0 {
        stdout.extend(first);
        pipe.read_to_end(stdout)?;
    }
    Ok(first_byte)
}

/// A container id as containerd makes them, 64 hexadecimal digits, that was not used before in this process.
fn next_container() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    container(number)
}

/// What containerd says in `CNI_ARGS` of the pod whose sandbox this is: a pod of its own.
fn pod_arguments(container: &str) -> String {
    // The ids differ at both ends, and are ASCII.
    let (front, back) = container.split_at_checked(12).unwrap_or((container, ""));
    let uid = back.split_at_checked(40).map_or(back, |(_, end)| end);
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod-{front};K8S_POD_INFRA_CONTAINER_ID={container};\
         K8S_POD_UID=5f0c24d1-7a3b-4c5e-8d1f-{uid}"
    )
}

/// The container id that belongs to a number. Distinct numbers get distinct ids that share no long beginning, as
/// those of containerd do not.
pub fn container(number: u64) -> String {
    // An odd multiplier permutes the 64-bit numbers: the ids differ and look random in their first half.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016x}{:032x}{number:016x}", u128::from(mixed) << 32)
}

/// The addresses that a plugin has given so far in one place.
#[derive(Debug, Default)]
pub struct Given {
    addresses: HashSet<String>,
}

// === impl Given ===

impl Given {
    /// Notes the answer of an ADD.
    ///
    /// # Errors
    ///
    /// When it holds no address, or one that was given before: what is wrong need not be fast.
    pub fn note(&mut self, stdout: &[u8]) -> Result<()> {
        let answer: Value = serde_json::from_slice(stdout).context("the answer is not JSON")?;
        let ips = answer.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut addresses = ips.iter().filter_map(|ip| ip.get("address")?.as_str()).peekable();
        if addresses.peek().is_none() {
            bail!("the answer has no address: {answer}");
        }
        for address in addresses {
            ensure!(self.addresses.insert(address.to_owned()), "{address} was given twice");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_distinct_and_as_long_as_containerds() {
        let ids: HashSet<String> = (0..10_000).map(container).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn every_sandbox_is_of_a_pod_of_its_own() {
        let arguments: HashSet<String> = (0..1000).map(|number| pod_arguments(&container(number))).collect();
        assert_eq!(arguments.len(), 1000);
        let of_seven = pod_arguments(&container(7));
        let uid = of_seven.split("K8S_POD_UID=").nth(1).unwrap();
        assert!(uid.len() == 36 && uid.ends_with("000000000007"), "{uid}");
        assert!(pod_arguments("short").contains("K8S_POD_NAME=pod-short;"));
    }

    #[test]
    fn an_address_given_twice_is_noticed() {
        let answer = br#"{"ips": [{"address": "10.0.0.1/8"}]}"#;
        let mut given = Given::default();
        given.note(answer).unwrap();
        assert_eq!(given.note(answer).unwrap_err().to_string(), "10.0.0.1/8 was given twice");
    }

    #[test]
    fn an_answer_without_an_address_is_noticed() {
        let mut given = Given::default();
        assert!(given.note(b"").is_err());
        assert!(given.note(br#"{"ips": []}"#).is_err());
        assert!(given.note(br#"{"code": 11, "msg": "full"}"#).is_err());
    }

    #[test]
    fn a_process_that_fails_is_an_error_with_its_words() {
        let shell = Path::new("/bin/sh");
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "echo $CNI_COMMAND is not for me; exit 7").unwrap();
        let error = run(shell, &[&script], Path::new("/dev/null"), "ADD").unwrap_err().to_string();
        assert!(error.contains("ADD is not for me") && error.contains("exit status: 7"), "{error}");
    }

    #[test]
    fn the_first_byte_comes_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "echo first; sleep 0.05; echo last").unwrap();
        let run = run(Path::new("/bin/sh"), &[&script], Path::new("/dev/null"), "VERSION").unwrap();
        assert_eq!(run.stdout, b"first\nlast\n");
        assert!(run.took - run.first_byte >= Duration::from_millis(40), "{run:?}");
    }
}
