//! What the runtime gets to see of an error: an object on standard output with a code.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::result::to_json;
use super::{ArgumentsError, EnvironmentError, NamespaceError, PreviousResultError, SpecVersion, VersionError};
use crate::config::ConfigurationError;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// The version of the configuration does not allow it.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The environment is incomplete or malformed.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// CNI_ARGS is malformed.
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The container's network namespace cannot be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// `prevResult` is missing or malformed.
    #[error(transparent)]
    PreviousResult(#[from] PreviousResultError),
    /// GC's list of attachments is malformed. It is never taken for an empty one, which would free everything.
    #[error("{key} = {value}: write a list of {{\"containerID\": …, \"ifname\": …}}; nothing was freed")]
    Attachments {
        /// The part.
        key: String,
        /// What stands there.
        value: String,
    },
    /// Standard input cannot be read.
    #[error("cannot read the network configuration from standard input: {source}")]
    Input {
        /// What the operating system said.
        source: io::Error,
    },
    /// A range has no free address.
    #[error("{message}")]
    Exhausted {
        /// Which range, how many addresses are held, and by whom to ask.
        message: String,
        /// More for people.
        details: String,
    },
    /// A requested address is held by another.
    #[error("{message}")]
    Held {
        /// Which address, and who holds it.
        message: String,
    },
    /// CHECK found a lease missing or wrong.
    #[error("{message}")]
    Check {
        /// Which lease, and what is wrong with it.
        message: String,
    },
    /// The store cannot be read or written.
    #[error("{message}")]
    Storage {
        /// Which store, what is wrong, and what to do.
        message: String,
        /// More for people.
        details: String,
    },
    /// Something that passes: the store is busy, the deadline is over.
    #[error("{message}")]
    Busy {
        /// What was waited for, and for how long.
        message: String,
    },
    /// STATUS: an ADD would not be served.
    #[error("{message}")]
    NotReady {
        /// Why, and what to do.
        message: String,
    },
    /// A defect of this program.
    #[error("{message}")]
    Internal {
        /// What is known of it.
        message: String,
    },
}

/// The codes of CNI, and those of this plugin from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The version of the configuration is not supported, or does not allow the verb.
    IncompatibleVersion = 1,
    /// A key of the configuration has a value that this build does not support.
    UnsupportedField = 2,
    /// Environment variables are missing or malformed.
    InvalidEnvironment = 4,
    /// The store cannot be read or written.
    Io = 5,
    /// The input is not JSON, or has another shape than CNI says.
    Decoding = 6,
    /// The configuration cannot be used.
    InvalidConfiguration = 7,
    /// The container's network namespace cannot be used.
    InvalidNamespace = 8,
    /// The same call may succeed later.
    TryAgainLater = 11,
    /// STATUS: an ADD would not be served.
    NotAvailable = 50,
    /// A range has no free address.
    Exhausted = 100,
    /// A requested address is held by another.
    Held = 101,
    /// CHECK found a lease missing or wrong.
    Check = 102,
    /// A defect of this program.
    Internal = 999,
}

/// The error as the runtime gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorObject {
    /// `cniVersion` of the configuration, where it is a known one.
    pub cni_version: &'static str,
    /// The number of an [`ErrorCode`].
    pub code: u16,
    /// What is wrong, and what to do.
    pub msg: String,
    /// More for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

// === impl CniError ===

impl CniError {
    /// The table from errors to codes.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Version(_) => ErrorCode::IncompatibleVersion,
            Self::Environment(_) | Self::Arguments(_) => ErrorCode::InvalidEnvironment,
            Self::Configuration(error) => match error {
                ConfigurationError::NoFlatFile { .. } => ErrorCode::InvalidEnvironment,
                ConfigurationError::Read { .. } => ErrorCode::Io,
                ConfigurationError::Json { .. }
                | ConfigurationError::FlatFileJson { .. }
                | ConfigurationError::Yaml { .. } => ErrorCode::Decoding,
                ConfigurationError::DatastoreNotAvailable { .. } | ConfigurationError::ProviderNotAvailable { .. } => {
                    ErrorCode::UnsupportedField
                }
                ConfigurationError::TooLarge { .. }
                | ConfigurationError::MissingIpam
                | ConfigurationError::OtherPlugin { .. }
                | ConfigurationError::MissingName
                | ConfigurationError::Value { .. }
                | ConfigurationError::Range { .. }
                | ConfigurationError::Exclude { .. }
                | ConfigurationError::NothingToAssign
                | ConfigurationError::PodWithoutDatastore { .. } => ErrorCode::InvalidConfiguration,
            },
            Self::Namespace(_) => ErrorCode::InvalidNamespace,
            Self::PreviousResult(PreviousResultError::Missing) => ErrorCode::InvalidConfiguration,
            Self::PreviousResult(PreviousResultError::Malformed { .. }) | Self::Attachments { .. } => {
                ErrorCode::Decoding
            }
            Self::Input { .. } | Self::Storage { .. } => ErrorCode::Io,
            Self::Exhausted { .. } => ErrorCode::Exhausted,
            Self::Held { .. } => ErrorCode::Held,
            Self::Check { .. } => ErrorCode::Check,
            Self::Busy { .. } => ErrorCode::TryAgainLater,
            Self::NotReady { .. } => ErrorCode::NotAvailable,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// An error about what is in the ledger, with the file in which it is.
    #[must_use]
    pub fn in_ledger(self, ledger: &Path) -> Self {
        match self {
            Self::Storage { message, details } if details.is_empty() => {
                Self::Storage { message, details: format!("the ledger is {}", ledger.display()) }
            }
            other => other,
        }
    }

    /// What goes to standard output, for a configuration of this version.
    #[must_use]
    pub fn to_object(&self, version: SpecVersion) -> ErrorObject {
        let details = match self {
            Self::Exhausted { details, .. } | Self::Storage { details, .. } => details.clone(),
            _ => String::new(),
        };
        ErrorObject { cni_version: version.as_str(), code: self.code().number(), msg: self.to_string(), details }
    }
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The number as CNI writes it.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

// === impl ErrorObject ===

impl ErrorObject {
    /// The JSON of the error.
    #[must_use]
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_gets_version_code_message_and_details() {
        let error = CniError::Exhausted { message: "range 10.0.0.0/30 is full".to_owned(), details: "x".to_owned() };
        assert_eq!(
            error.to_object(SpecVersion::V0_4_0).to_json(),
            r#"{"cniVersion":"0.4.0","code":100,"msg":"range 10.0.0.0/30 is full","details":"x"}"#
        );
        let error = CniError::from(ConfigurationError::MissingIpam);
        let json = error.to_object(SpecVersion::NEWEST).to_json();
        assert!(json.starts_with(r#"{"cniVersion":"1.1.0","code":7,"msg":"IPAM config missing"#), "{json}");
        assert!(!json.contains("details"), "{json}");
    }
}
