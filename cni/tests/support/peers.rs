//! The CNI plugins of others that stories need beside ours, built from their Go modules.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder that holds `bridge`, `macvlan`, `host-local`, `loopback` and `cnitool`, built when it is not there yet.
///
/// # Errors
///
/// Says in words for people why they cannot be built here (no Go, no network).
pub fn folder() -> Result<PathBuf, String> {
    // The tests of one program begin together, and one build is enough for all.
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER.get_or_init(build).clone()
}

fn build() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/build");
    let output = Command::new(&script).output().map_err(|error| format!("{}: {error}", script.display()))?;
    if output.status.success() {
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    }
}
