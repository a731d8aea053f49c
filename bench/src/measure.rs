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
    let number = next_number();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(circumstances.environment.iter().map(|(name, value)| (name, value)));
    if circumstances.is_pod {
        command.env("CNI_ARGS", pod_arguments(number));
    }
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container(number))
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

/// The number of a container that was not used before in this process.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What containerd says in `CNI_ARGS` of the pod whose sandbox has this number: a pod of its own.
fn pod_arguments(number: u64) -> String {
    let container = container(number);
    let [name, front, back] = [4, 5, 6].map(|word| mixed(number, word));
    let (third, last) = (back >> 52, back & 0xffff_ffff_ffff);
    let (first, second) = (front >> 32, front >> 16 & 0xffff);
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=web-{name:016x};\
         K8S_POD_INFRA_CONTAINER_ID={container};\
         K8S_POD_UID={first:08x}-{second:04x}-4{:03x}-8{third:03x}-{last:012x}",
        front & 0xfff
    )
}

/// The container id that belongs to a number, 64 hexadecimal digits as containerd makes them. Distinct numbers get
/// distinct ids, and no id can be told from random: a plugin that compresses what it writes finds nothing here that it
/// would not find on a node.
pub fn container(number: u64) -> String {
    (0..4).map(|word| format!("{:016x}", mixed(number, word))).collect()
}

/// The word at this place, from 0 to 7, of what belongs to a number (SplitMix64, which permutes the 64-bit numbers).
fn mixed(number: u64, place: u64) -> u64 {
    let mut word = (number.wrapping_mul(8).wrapping_add(place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
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
        let value = |number, key: &str| {
            let arguments = pod_arguments(number);
            let pair = arguments.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).unwrap();
            pair.to_owned()
        };
        for key in ["K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID"] {
            assert_eq!((0..1000).map(|number| value(number, key)).collect::<HashSet<_>>().len(), 1000, "{key}");
        }
        let uid = value(7, "K8S_POD_UID");
        assert_eq!(uid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{uid}");
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
