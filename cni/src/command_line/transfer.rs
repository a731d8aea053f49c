//! `export` and `import`: a backup as lines of JSON.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::json;
use whereabouts_engine::{Create, Holdings, ImportError, Imported};

use super::backup::{self, Backup};
use super::exit::{Exit, Failure};
use super::leases::tell_damage;
use super::output::Output;
use super::settings::Settings;
use super::typed::{Export, Import};

/// How many leases are put back in one commit.
const BATCH: usize = 10_000;

pub(super) fn export(typed: &Export, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let file = typed.file.as_deref().filter(|path| path.as_os_str() != "-");
    if let Some(path) = file.filter(|path| path.symlink_metadata().is_ok()) {
        return Err(cannot("create", path, &io::ErrorKind::AlreadyExists.into()));
    }
    let ledger = settings.read(output)?;
    let progress = output.progress("exporting", None);
    let mut lines = backup::first_line(&ledger.facts().node);
    let mut n_leases = 0;
    let damage = ledger.each_readable_holding(&Holdings::default(), |holding| {
        lines.push_str(&backup::to_line(&holding));
        n_leases += 1;
    });
    lines.push_str(&backup::last_line(n_leases, damage.len() + settings.n_unreadable()));
    drop(ledger);
    progress.finish_and_clear();
    let exit = tell_damage(&damage, output);
    match file {
        Some(path) => {
            write_new(path, lines.as_bytes())?;
            output.note(format_args!("{n_leases} leases are in {}", path.display()));
        }
        None => output.text(&lines)?,
    }
    Ok(exit)
}

/// Writes a file that nobody else reads, whole or not at all. An older backup is not overwritten.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().ok_or_else(|| cannot("create", path, &io::ErrorKind::IsADirectory.into()))?;
    let aside = path.with_file_name(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    let written = write_synced(&aside, bytes)
        .map_err(|error| cannot("write", &aside, &error))
        .and_then(|()| publish(&aside, path).map_err(|error| cannot("create", path, &error)));
    if written.is_err() {
        // What could not be written is no backup, and one that cannot be removed either has another name.
        let _ = fs::remove_file(&aside);
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a file its name, unless something else has it by now.
fn publish(aside: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE) {
        // The file system cannot do both in one step. The name was free a moment ago.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(aside, path)?,
        renamed => renamed?,
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> Failure {
    let cure = match error.kind() {
        io::ErrorKind::AlreadyExists => "; name a new file",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some room, or name a file elsewhere",
        _ => "",
    };
    Failure::new(Exit::Failure, format_args!("cannot {action} {}: {error}{cure}", path.display()))
}

pub(super) fn import(typed: &Import, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    // All of it is read and checked before the ledger is opened: a pipe may take its time.
    let backup = read(&typed.file)?;
    let name = typed.file.display();
    if backup.holdings.is_empty() {
        output.warn(format_args!("{name} has no leases"));
    }
    if backup.n_damaged > 0 {
        output.warn(format_args!(
            "{} rows or blocks could not be read when {name} was exported: who held addresses in them is not known, \
             and they will be given out again; end the containers and names that are missing here first",
            backup.n_damaged
        ));
    }
    // An import is what brings back a ledger that was lost.
    let open = || settings.open(Create::EvenIfLost);
    let mut imported = Imported::default();
    if backup.holdings.len() > BATCH {
        open()?.would_import(&backup.holdings).map_err(refused)?;
    }
    let n_all = backup.holdings.len();
    let progress = output.progress("importing", u64::try_from(n_all).ok());
    for batch in backup.holdings.chunks(BATCH) {
        // Opened for each batch, so that others have their turn with the ledger.
        let part = open().and_then(|ledger| ledger.import(batch).map_err(refused));
        let part = part.map_err(|failure| so_far(failure, &imported, n_all))?;
        imported.n_added += part.n_added;
        imported.n_present += part.n_present;
        imported.n_over += part.n_over;
        progress.inc(u64::try_from(batch.len()).unwrap_or(u64::MAX));
    }
    progress.finish_and_clear();
    output.answer(
        || json!({ "added": imported.n_added, "present": imported.n_present, "over": imported.n_over }),
        || {
            let (added, present, over) = (imported.n_added, imported.n_present, imported.n_over);
            format!("{added} added, {present} were here already, {over} ended with their boot\n")
        },
    )?;
    Ok(Exit::Success)
}

fn refused(error: ImportError) -> Failure {
    match error {
        ImportError::Ledger(error) => error.into(),
        ImportError::Conflicts(_) | ImportError::Sharing { .. } => Failure::new(Exit::Held, error),
        error => Failure::new(Exit::Failure, error),
    }
}

/// A failure after some batches were put back.
fn so_far(failure: Failure, imported: &Imported, n_all: usize) -> Failure {
    let n = imported.n_added + imported.n_present + imported.n_over;
    let how_far = match n {
        0 => "nothing was imported".to_owned(),
        n => format!("{n} of {n_all} leases were imported before; import the same file again to go on"),
    };
    let message = format!("{}; {how_far}", failure.message);
    Failure { message, ..failure }
}

fn read(path: &PathBuf) -> Result<Backup, Failure> {
    let name = path.display();
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format_args!("{name}{error}; nothing was imported"))
    };
    let mut input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(|error| failed(&format_args!(": cannot be read: {error}")))?))
    };
    backup::read(&mut input).map_err(|error| failed(&error))
}
