//! How the program is linked: a call is one process, and a third of its time would go to the loader.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script everything by environment variables")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    // At a fixed address the loader has no 19,000 places to correct in pages that it must copy for that. Go's plugins
    // are linked like this, too.
    println!("cargo::rustc-link-arg-bins=-no-pie");
    if let Some(folder) = folder_with_static_unwinder() {
        println!("cargo::rustc-link-arg-bins=-L{}", folder.display());
    }
}

fn is(variable: &str, value: &str) -> bool {
    env::var(variable).is_ok_and(|is| is == value)
}

/// A folder in which the linker finds, in place of the shared `libgcc_s`, the static library of the same compiler with
/// the unwinder, which is all that is used of it: the shared one asks the processor what it can do whenever it is
/// loaded, and in a virtual machine each such question ends in the hypervisor. `None` where the compiler has no static
/// one, or another machine is compiled for.
fn folder_with_static_unwinder() -> Option<PathBuf> {
    if env::var("TARGET").ok()? != env::var("HOST").ok()? {
        return None;
    }
    let found = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output().ok()?;
    let found = String::from_utf8(found.stdout).ok()?;
    if !Path::new(found.trim()).is_absolute() {
        return None;
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR")?);
    fs::write(folder.join("libgcc_s.so"), "INPUT(-lgcc_eh)\n").ok()?;
    Some(folder)
}
