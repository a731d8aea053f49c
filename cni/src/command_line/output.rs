//! Answers on standard output, for people or as JSON; messages on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::exit::Failure;

/// Where a command's answer goes.
pub(super) struct Output {
    json: bool,
}

// === impl Output ===

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
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
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::output)
    }

    /// Something that people want to know and programs do not.
    pub(super) fn note(&self, note: impl Display) {
        if !self.json {
            let _ = writeln!(io::stderr().lock(), "{note}");
        }
    }

    /// Something that may be wrong.
    pub(super) fn warn(&self, warning: impl Display) {
        let _ = writeln!(io::stderr().lock(), "warning: {warning}");
    }

    /// Why the command failed.
    pub(super) fn error(&self, message: &str) {
        let _ = if self.json {
            writeln!(io::stderr().lock(), "{}", json!({ "error": message }))
        } else {
            writeln!(io::stderr().lock(), "error: {message}")
        };
    }

    /// Progress of long work, on a terminal only.
    pub(super) fn progress(&self, what: &'static str, total: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), "{msg} {pos}/{len} [{bar:40}] {eta}"),
            None => (ProgressBar::new_spinner(), "{msg} {pos} {spinner}"),
        };
        // A template that cannot be read leaves the bar as it is.
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        bar.with_message(what)
    }
}
