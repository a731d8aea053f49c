//! The log: to standard error, or appended to a file. Never to standard output, which belongs to CNI.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::Warning;

/// Where the log goes, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The file to which lines are appended; `None` is standard error.
    pub file: Option<PathBuf>,
    /// What is written.
    pub level: LogLevel,
}

/// How much is written, in the words of the Go plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing: what ends a call is in its answer.
    Panic,
    /// What failed, and what the user should know.
    Error,
    /// Also what was assigned and released. The default.
    #[default]
    Verbose,
    /// Also how.
    Debug,
}

// === impl LogLevel ===

impl LogLevel {
    /// The level of this name, whatever its case.
    ///
    /// ```
    /// use whereabouts::log::LogLevel;
    ///
    /// assert_eq!(LogLevel::parse("VERbose"), Some(LogLevel::Verbose));
    /// assert_eq!(LogLevel::parse("XXXX"), None);
    /// ```
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let known =
            [("panic", Self::Panic), ("error", Self::Error), ("verbose", Self::Verbose), ("debug", Self::Debug)];
        known.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|(_, level)| level)
    }

    /// Warnings are written from `error` on: a level between the two has no name in the configuration.
    fn filter(self) -> LevelFilter {
        match self {
            Self::Panic => LevelFilter::OFF,
            Self::Error => LevelFilter::WARN,
            Self::Verbose => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

/// Starts the log of this process. The second start of a process has no effect.
///
/// A file that cannot be opened is told on standard error, where the log then goes; an ADD does not fail for its log.
pub fn start(settings: &LogSettings) {
    // A line that cannot be written (a full disk, a runtime that hung up) is lost. The subscriber's own complaint about
    // it would go to standard error, and panic where that is what cannot be written to.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(settings.level.filter())
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false);
    let opened = settings.file.as_deref().map(|path| open(path).map_err(|error| (path, error)));
    let started = match opened {
        Some(Ok(file)) => {
            tracing::subscriber::set_global_default(subscriber.with_writer(Mutex::new(file)).finish().with(own()))
        }
        Some(Err((path, error))) => {
            let started =
                tracing::subscriber::set_global_default(subscriber.with_writer(io::stderr).finish().with(own()));
            // Whatever the level: nobody finds a log that is not where it was configured to be.
            let path = path.display();
            let _ = writeln!(io::stderr(), "log_file = {path}: cannot be opened for appending: {error}; using stderr");
            started
        }
        None => tracing::subscriber::set_global_default(subscriber.with_writer(io::stderr).finish().with(own())),
    };
    // The only error is that a log was started before; that one goes on.
    drop(started);
}

/// What this program says, at the level that is configured; what its libraries have to say comes back as errors.
fn own() -> Targets {
    let ours = ["whereabouts", "whereabouts_engine"].map(|target| (target, LevelFilter::TRACE));
    Targets::new().with_default(LevelFilter::OFF).with_targets(ours)
}

/// Writes what is odd about a configuration.
pub fn warn_all(warnings: &[Warning]) {
    for Warning { key, value, text } in warnings {
        if value.is_empty() {
            tracing::warn!(%key, "{text}");
        } else {
            tracing::warn!(%key, %value, "{text}");
        }
    }
}

/// Opens for appending, so that several processes may write, and without waiting for the reader of a named pipe.
fn open(path: &Path) -> io::Result<File> {
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(without_waiting).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn l2_levels_are_read_without_case() {
        for (name, expected) in [
            ("debug", Some(LogLevel::Debug)),
            ("Error", Some(LogLevel::Error)),
            ("VERbose", Some(LogLevel::Verbose)),
            ("PANIC", Some(LogLevel::Panic)),
            ("XXXX", None),
            ("", None),
        ] {
            assert_eq!(LogLevel::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn l1_a_file_is_appended_to_and_created_for_all_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foobar.logging");
        for line in ["one\n", "two\n"] {
            open(&path).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o600, 0o600);
        assert_eq!(mode & !0o644, 0, "{mode:o}");
        assert!(open(&folder.path().join("no/such/folder")).is_err());
    }

    #[test]
    fn a_level_lets_through_what_its_name_says() {
        assert_eq!(LogLevel::Panic.filter(), LevelFilter::OFF);
        assert!(LogLevel::Error.filter() >= LevelFilter::ERROR);
        assert!(LogLevel::Verbose.filter() >= LevelFilter::INFO);
        assert!(LogLevel::Debug.filter() >= LevelFilter::DEBUG);
        assert_eq!(LogSettings::default().level, LogLevel::Verbose);
    }
}
