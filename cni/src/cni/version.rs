//! Versions of the CNI specification, and what each of them knows.

use std::fmt;

use whereabouts_engine::Family;

use super::Command;

/// A version of the CNI specification.
///
/// ```
/// use whereabouts::cni::{Command, SpecVersion};
///
/// let version = SpecVersion::parse("1.0.0")?;
/// assert!(version.knows(Command::Check).is_ok());
/// assert!(version.knows(Command::Gc).is_err());
/// // Configurations without a version are older than versions.
/// assert_eq!(SpecVersion::parse("")?, SpecVersion::V0_1_0);
/// # Ok::<(), whereabouts::cni::VersionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "a version is its own explanation")]
pub enum SpecVersion {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

/// What a version does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// No version that this program knows.
    #[error(
        "incompatible CNI versions; cniVersion = {found}, plugin supports {}: write one of these",
        SpecVersion::list()
    )]
    Unknown {
        /// `cniVersion` of the configuration.
        found: String,
    },
    /// A verb that came with a later version.
    #[error(
        "config version does not allow {command}: cniVersion = {version}, {command} needs {needed}: raise cniVersion"
    )]
    Verb {
        /// The verb.
        command: Command,
        /// `cniVersion` of the configuration.
        version: SpecVersion,
        /// The first version that has the verb.
        needed: SpecVersion,
    },
    /// More addresses than the result of this version can hold.
    #[error(
        "CNI version {version} does not support more than 1 address per family, and the configuration gives {count} \
         {family} addresses: set cniVersion = 0.3.0 or later, or remove ranges and addresses"
    )]
    Addresses {
        /// `cniVersion` of the configuration.
        version: SpecVersion,
        /// The family of which there are too many.
        family: Family,
        /// How many there are.
        count: usize,
    },
}

// === impl SpecVersion ===

impl SpecVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest version.
    pub const NEWEST: Self = Self::V1_1_0;

    /// Reads `cniVersion`; an empty one means 0.1.0.
    ///
    /// # Errors
    /// [`VersionError::Unknown`].
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        let known = Self::ALL.into_iter().find(|version| version.as_str() == text);
        known.ok_or_else(|| VersionError::Unknown { found: text.chars().take(64).collect() })
    }

    /// The version as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether a configuration of this version may come with this verb. CHECK came with 0.4.0, GC and STATUS with 1.1.0.
    ///
    /// # Errors
    /// [`VersionError::Verb`].
    pub fn knows(self, command: Command) -> Result<(), VersionError> {
        let needed = match command {
            Command::Add | Command::Del | Command::Version => Self::V0_1_0,
            Command::Check => Self::V0_4_0,
            Command::Gc | Command::Status => Self::V1_1_0,
        };
        if self < needed { Err(VersionError::Verb { command, version: self, needed }) } else { Ok(()) }
    }

    /// Whether the result of this version holds one address of each family and no more.
    #[must_use]
    pub fn has_one_address_per_family(self) -> bool {
        self <= Self::V0_2_0
    }

    /// Whether the result can hold addresses of these families, one entry for each address. To be asked before any of
    /// them is assigned.
    ///
    /// # Errors
    /// [`VersionError::Addresses`].
    pub fn can_return(self, families: impl IntoIterator<Item = Family>) -> Result<(), VersionError> {
        if !self.has_one_address_per_family() {
            return Ok(());
        }
        let (v4, v6): (Vec<_>, Vec<_>) = families.into_iter().partition(|family| *family == Family::V4);
        for (family, count) in [(Family::V4, v4.len()), (Family::V6, v6.len())] {
            if count > 1 {
                return Err(VersionError::Addresses { version: self, family, count });
            }
        }
        Ok(())
    }

    fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_written_the_same() {
        for version in SpecVersion::ALL {
            assert_eq!(SpecVersion::parse(version.as_str()), Ok(version));
        }
        for text in ["0.5.0", "1.2.0", "v1.0.0", "1.0", " 1.0.0"] {
            let error = SpecVersion::parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("0.1.0, 0.2.0") && error.contains("1.1.0"), "{error}");
        }
    }

    #[test]
    fn verbs_come_with_their_versions() {
        use Command::{Add, Check, Del, Gc, Status};
        for (command, first) in [
            (Add, SpecVersion::V0_1_0),
            (Del, SpecVersion::V0_1_0),
            (Check, SpecVersion::V0_4_0),
            (Gc, SpecVersion::V1_1_0),
            (Status, SpecVersion::V1_1_0),
        ] {
            for version in SpecVersion::ALL {
                assert_eq!(version.knows(command).is_ok(), version >= first, "{command} {version}");
            }
        }
        let error = SpecVersion::V0_3_1.knows(Check).unwrap_err().to_string();
        assert!(
            error.contains("does not allow CHECK") && error.contains("0.3.1") && error.contains("0.4.0"),
            "{error}"
        );
    }

    #[test]
    fn two_addresses_of_a_family_need_0_3_0() {
        use Family::{V4, V6};
        for version in SpecVersion::ALL {
            assert!(version.can_return([V4, V6]).is_ok());
            assert_eq!(version.can_return([V4, V4]).is_ok(), version >= SpecVersion::V0_3_0, "{version}");
            assert_eq!(version.can_return([V6, V4, V6]).is_ok(), version >= SpecVersion::V0_3_0, "{version}");
        }
        let error = SpecVersion::V0_2_0.can_return([V6, V6]).unwrap_err().to_string();
        assert!(error.contains("2 IPv6 addresses") && error.contains("0.3.0 or later"), "{error}");
    }
}
