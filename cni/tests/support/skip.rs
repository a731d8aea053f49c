//! What happens to a test that this machine cannot run: it is named as skipped, and under `CI=true` it fails.

use std::io::Write;

/// Says on stderr that `test` did not run and why.
///
/// # Panics
///
/// Under `CI=true`: a machine that is there to run all tests must have what they need.
#[track_caller]
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "under CI=true nothing is skipped: {test}: {why}");
    // Written past libtest, which would keep the words of a test that passes to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
