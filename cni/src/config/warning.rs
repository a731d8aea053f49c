//! What is odd about a configuration and yet no error.

use std::fmt;

/// Something that the user should know and that stops nothing. A warning is data, so that the log and `check-config`
/// show the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key, as a path: `ipRanges[1].exclude[0]`.
    pub key: String,
    /// What was written there; empty where it would say nothing or is a secret.
    pub value: String,
    /// What it means for the user, and what to do about it.
    pub text: String,
}

/// The most characters of a user's value that a message repeats.
const VALUE_LIMIT: usize = 120;

/// The most characters of a sentence that may repeat such a value.
const TEXT_LIMIT: usize = 500;

// === impl Warning ===

impl Warning {
    /// A warning about `value`, which stands under `key`.
    pub fn new(key: impl Into<String>, value: impl AsRef<str>, text: impl Into<String>) -> Self {
        Self { key: key.into(), value: shorten(value.as_ref()), text: shorten_text(&text.into()) }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, text } = self;
        if value.is_empty() { write!(f, "{key}: {text}") } else { write!(f, "{key} = {value}: {text}") }
    }
}

/// The value as messages repeat it: on one line, and not longer than a line.
pub(crate) fn shorten(value: &str) -> String {
    clean(value, VALUE_LIMIT)
}

/// A sentence about a value, which may contain all of it.
pub(crate) fn shorten_text(text: &str) -> String {
    clean(text, TEXT_LIMIT)
}

fn clean(text: &str, limit: usize) -> String {
    let replace = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    let mut short: String = text.chars().take(limit).map(replace).collect();
    if text.chars().nth(limit).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_one_line_of_bounded_length() {
        let warning = Warning::new("range", "a\nb".repeat(1000), "is odd");
        assert!(!warning.to_string().contains('\n'));
        assert!(warning.to_string().chars().count() < 200);
        assert_eq!(Warning::new("range", "", "is odd").to_string(), "range: is odd");
        assert_eq!(Warning::new("range", "x", "is odd").to_string(), "range = x: is odd");
    }
}
