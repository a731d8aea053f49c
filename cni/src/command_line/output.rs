//! Answers on standard output, for people or as JSON; messages on standard error.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::exit::Failure;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Where a command's answer goes.
///
/// An answer is kept until [`Output::flush`]. A reader that does not read, such as a pager, stops whoever writes to it,
/// and a command that is stopped while it has the ledger stops every ADD of the host: so nothing is written, to standard
/// error neither, before the ledger is let go.
pub(super) struct Output {
    json: bool,
    kept: RefCell<Vec<u8>>,
    /// Why an earlier part of the answer could not be written.
    failed: RefCell<Option<Failure>>,
}

// === impl Output ===

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, kept: RefCell::default(), failed: RefCell::default() }
    }

    /// An answer, in the form that was asked for.
    pub(super) fn answer(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.line(&json()) } else { self.text(&text()) }
    }

    /// A line of an answer.
    pub(super) fn line(&self, line: &dyn Display) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// A text as it is.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(failure) = &*self.failed.borrow() {
            return Err(failure.clone());
        }
        self.kept.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what was answered until now. Only for those who have let go of the ledger.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        let kept = self.kept.take();
        let mut failed = self.failed.borrow_mut();
        if failed.is_none() && !kept.is_empty() {
            let mut stdout = io::stdout().lock();
            *failed = stdout.write_all(&kept).and_then(|()| stdout.flush()).map_err(Failure::output).err();
        }
        failed.clone().map_or(Ok(()), Err)
    }

    /// Something that people want to know and programs do not.
    pub(super) fn note(&self, note: impl Display) {
        if !self.json {
            self.say(note);
        }
    }

    /// Something that may be wrong.
    pub(super) fn warn(&self, warning: impl Display) {
        if self.json {
            self.say(json!({ "warning": warning.to_string() }));
        } else {
            self.say(format_args!("warning: {warning}"));
        }
    }

    /// What went wrong.
    pub(super) fn error(&self, message: &str) {
        if self.json {
            self.say(json!({ "error": message }));
        } else {
            self.say(format_args!("error: {message}"));
        }
    }

    /// Says it on standard error, behind what was answered before. Nobody can be told when that fails.
    fn say(&self, message: impl Display) {
        let _ = self.flush();
        let _ = writeln!(io::stderr().lock(), "{message}");
    }

    /// Progress of long work, on a terminal only. It is moved on, and ended, by those who have let go of the ledger:
    /// a terminal can be stopped, too.
    pub(super) fn progress(&self, what: &'static str, total: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), "{msg} {pos}/{len} [{bar:40}] {eta}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg} for {elapsed}"),
        };
        // A template that cannot be read leaves the bar as it is.
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        bar.enable_steady_tick(TICK);
        bar.with_message(what)
    }
}
