//! The log: to standard error, or appended to a file. Never to standard output, which belongs to CNI.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::config::Warning;
use crate::time::rfc3339_with_micros;

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

/// The log of this process: a line for each event of this program, and none for those of its libraries, whose failures
/// come back as errors.
///
/// A registry of spans, which nobody here opens, would take a tenth of the time of an ADD to set up.
#[derive(Debug)]
struct Log {
    level: LevelFilter,
    /// `None` is standard error.
    file: Option<File>,
}

/// The line of an event while its fields are visited: the message, then the others as `key=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

/// Starts the log of this process. The second start of a process has no effect.
///
/// A file that cannot be opened is told on standard error, where the log then goes; an ADD does not fail for its log.
pub fn start(settings: &LogSettings) {
    let file = settings.file.as_deref().and_then(|path| match open(path) {
        Ok(file) => Some(file),
        Err(error) => {
            // Whatever the level: nobody finds a log that is not where it was configured to be.
            let path = path.display();
            let _ = writeln!(io::stderr(), "log_file = {path}: cannot be opened for appending: {error}; using stderr");
            None
        }
    });
    // The only error is that a log was started before; that one goes on.
    let _ = tracing::subscriber::set_global_default(Log { level: settings.level.filter(), file });
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

/// Appends a text in which nothing ends the line or moves the cursor.
fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

// === impl Log ===

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = ["whereabouts", "whereabouts_engine"].iter().any(|ours| {
            metadata.target().strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        });
        is_ours && metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Line { message, fields } = line;
        let line = format!("{} {:>5} {message}{fields}\n", rfc3339_with_micros(now), event.metadata().level());
        // In one write, so that the lines of several processes do not mix. One that cannot be written (a full disk, a
        // runtime that hung up) is lost.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    // Spans are not enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

// === impl Line ===

impl Line {
    fn push(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            push_escaped(&mut self.message, text);
        } else {
            // Writing to a text cannot fail.
            let _ = write!(self.fields, " {}=", field.name());
            push_escaped(&mut self.fields, text);
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.push(field, &value.to_string());
    }
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
    fn a_line_has_time_level_message_and_fields_and_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log { level: LevelFilter::INFO, file: Some(open(&path).unwrap()) };
        tracing::subscriber::with_default(log, || {
            tracing::info!(container = "c1\n2026-01-01 forged", n = 3, error = %"no \x1b[31mroom", "not {}", "freed");
            tracing::debug!("too fine");
            tracing::error!(target: "hyper::client", "a library's");
            tracing::error!(target: "whereabouts_of_another", "of another");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!(rest, " INFO not freed container=c1\\n2026-01-01 forged n=3 error=no \\u{1b}[31mroom\n");
        assert!(time.len() == "2026-11-25T16:14:28.440461Z".len() && time.ends_with('Z'), "{time}");
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
