//! Names that the user chooses.

use std::fmt;

use whereabouts_engine::Network;

use super::ConfigurationError;

/// The most bytes of a sticky name: what a Kubernetes object, which it may stand for, may be called.
const STICKY_LIMIT: usize = 253;

/// The network to which a range belongs (`network_name`); the empty name is the unnamed network.
///
/// ```
/// use whereabouts::config::NetworkName;
///
/// assert_eq!(NetworkName::new("blue")?.as_str(), "blue");
/// assert!(NetworkName::new("").is_ok_and(|name| name.is_unnamed()));
/// assert!(NetworkName::new("blue\0").is_err());
/// # Ok::<(), whereabouts::config::ConfigurationError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkName(String);

/// The name under which an owner keeps its address whatever becomes of its sandbox (`podname`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StickyName(String);

// === impl NetworkName ===

impl NetworkName {
    /// Checks a name.
    ///
    /// # Errors
    /// A name with a control character, or of more than [`Network::NAME_LIMIT`] bytes.
    pub fn new(name: impl Into<String>) -> Result<Self, ConfigurationError> {
        check("network_name", name.into(), Network::NAME_LIMIT).map(Self)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the unnamed network.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

// === impl StickyName ===

impl StickyName {
    /// Checks a name that stands under `key`.
    ///
    /// # Errors
    /// An empty name, one with a control character, or of more than 253 bytes.
    pub fn new(key: &str, name: impl Into<String>) -> Result<Self, ConfigurationError> {
        let name = check(key, name.into(), STICKY_LIMIT)?;
        if name.is_empty() {
            return Err(ConfigurationError::value(
                key,
                "\"\"",
                "is empty",
                "write a name that is unique, or remove it",
            ));
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StickyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn check(key: &str, name: String, limit: usize) -> Result<String, ConfigurationError> {
    let problem = if name.len() > limit {
        format!("has {} bytes", name.len())
    } else if name.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else {
        return Ok(name);
    };
    let cure = format!("write a name of at most {limit} bytes without control characters");
    Err(ConfigurationError::value(key, name, problem, cure))
}
