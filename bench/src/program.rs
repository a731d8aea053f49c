//! What the programs that measure have in common: who takes part, where states are, and where the figures go.

use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::contender::Contender;
use crate::seat::filesystem_of;

/// Arguments of every program that measures.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// This project's plugin [default: `whereabouts` beside this program].
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// Leave this project's plugin out.
    #[arg(long, conflicts_with = "ours")]
    without_ours: bool,
    /// Rounds before the first one that counts.
    #[arg(long, default_value_t = 5)]
    pub warm_up: usize,
    /// Where the states are kept while it runs: on the disk that is to be measured [default: beside this program].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Write all figures to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

// === impl Common ===

impl Common {
    /// This project's plugin, if it takes part.
    pub fn ours(&self, beside: &Path) -> Option<PathBuf> {
        let ours = || self.ours.clone().unwrap_or_else(|| beside.join("whereabouts"));
        (!self.without_ours).then(ours)
    }

    /// Where the states are.
    pub fn folder<'a>(&'a self, beside: &'a Path) -> &'a Path {
        self.folder.as_deref().unwrap_or(beside)
    }

    /// Writes the figures, if they are asked for.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write_json(&self, figures: impl FnOnce() -> Value) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        fs::write(path, format!("{:#}\n", figures())).with_context(|| format!("writing {}", path.display()))
    }
}

/// The folder that this program lies in.
///
/// # Errors
///
/// When the operating system does not say it.
pub fn beside_this_program() -> Result<PathBuf> {
    let itself = std::env::current_exe().context("where this program is")?;
    Ok(itself.parent().context("a program lies in a folder")?.to_owned())
}

/// Sees to it that every contender is there.
///
/// # Errors
///
/// Names the first one that is not.
pub fn all_there(contenders: &[Contender]) -> Result<()> {
    for Contender { name, program, .. } in contenders {
        ensure!(program.is_file(), "{name}: there is no program {}", program.display());
    }
    Ok(())
}

/// The file system of a folder in which something is to be measured, with a warning where that would be memory.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn filesystem_to_measure(folder: &Path) -> Result<String> {
    let filesystem = filesystem_of(folder)?;
    if filesystem == "tmpfs" {
        writeln!(stderr(), "warning: {} is in memory, where syncing costs nothing", folder.display())?;
    }
    Ok(filesystem)
}
