//! Where the programs come from: the servers are built once, from their Go modules, and the container runtime is that of
//! the distribution.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many of the last lines of a failed build say why it failed.
const LINES_OF_AN_ERROR: usize = 5;

/// The paths of these programs, in this order: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`,
/// `kubelet`. What `KUBEBUILDER_ASSETS` does not hold and was not built yet is built, which takes minutes; its progress
/// is on stderr.
///
/// # Errors
///
/// Says in words for people why a program cannot be had here (no Go, no network).
pub fn find(names: &[&str]) -> Result<Vec<PathBuf>, String> {
    build("servers/build", names)
}

/// The folder that holds `containerd`, its shim, `ctr`, `runc`, and `pause.tar`, an image for them. It is made when it is
/// not there yet, which takes seconds.
///
/// # Errors
///
/// Says in words for people why these cannot be had here.
pub fn runtime() -> Result<PathBuf, String> {
    build("runtime/build", &[])?.pop().ok_or_else(|| "runtime/build names no folder".to_owned())
}

/// The paths that a script of this crate prints.
fn build(script: &str, names: &[&str]) -> Result<Vec<PathBuf>, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let mut build = Command::new(&script)
        .args(names)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", script.display()))?;
    let mut lines = Vec::new();
    for line in BufReader::new(build.stderr.take().expect("stderr is piped")).lines() {
        let line = line.map_err(|error| error.to_string())?;
        // Written past libtest, which would keep the words to itself while people wait.
        let _ = writeln!(std::io::stderr(), "{line}");
        lines.push(line);
    }
    let output = build.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(lines.split_off(lines.len().saturating_sub(LINES_OF_AN_ERROR)).join("; "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
}

/// The path of kubectl: that of `KUBEBUILDER_ASSETS`, else the one that this machine has.
///
/// # Errors
///
/// Says in words for people that it does not run.
pub fn kubectl() -> Result<PathBuf, String> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|folder| Path::new(&folder).join("kubectl"));
    let kubectl = assets.filter(|path| path.is_file()).unwrap_or_else(|| "kubectl".into());
    match Command::new(&kubectl).args(["version", "--client"]).output() {
        Ok(output) if output.status.success() => Ok(kubectl),
        Ok(output) => Err(format!("kubectl does not run: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
        Err(error) => Err(format!("kubectl is needed (https://kubernetes.io/docs/tasks/tools): {error}")),
    }
}
