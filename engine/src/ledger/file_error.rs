//! Why a ledger file cannot be used, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::filesystem::FileSystem;

/// Why the ledger cannot be opened, read or written. Every text names the file and a cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerFileError {
    /// There is no ledger, and none was to be created.
    #[error("there is no ledger {}: nothing was allocated with it yet, or the path is wrong", .path.display())]
    Missing {
        /// The ledger.
        path: PathBuf,
    },

    /// There was a ledger, and it is gone. None is made in its place by itself: containers may still have the addresses
    /// that were in it.
    #[error(
        "the ledger {} is gone, and the containers of this host may still have addresses from it: put the file back, or \
         restore an export with `whereabouts import`; without either, see that no container of this host has an address \
         from it, then remove {}.lock to start anew",
        .path.display(), .path.display()
    )]
    Lost {
        /// The ledger.
        path: PathBuf,
    },

    /// Another process, or another handle of this one, did not let go of the ledger in time.
    #[error(
        "another process has been using {} for longer than {} ms: see who it is with `fuser -v {}` and end it if it hangs",
        .path.display(), .waited.as_millis(), .path.display()
    )]
    Busy {
        /// The file that is locked: the ledger's queue, or the ledger itself when a program that does not queue has it.
        path: PathBuf,
        /// How long this handle has waited.
        waited: Duration,
    },

    /// The folder is on a file system that several hosts may share.
    #[error(
        "{} is on {file_system}, a network file system, whose locks and caches cannot keep two hosts from handing out one \
         address: put the ledger on a disk of this host",
        .path.display()
    )]
    NetworkFileSystem {
        /// The ledger.
        path: PathBuf,
        /// What it would stand on.
        file_system: FileSystem,
    },

    /// The permissions of the file or of its folder do not allow it.
    #[error(
        "no permission to {action} {}: run as its owner, or name another folder, one that this user may write to",
        .path.display()
    )]
    NoPermission {
        /// The file or folder in question.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `create`, `lock`.
        action: &'static str,
    },

    /// The file system is mounted read-only.
    #[error("{} is on a read-only file system: remount it writable, or name another folder", .path.display())]
    ReadOnly {
        /// The file or folder in question.
        path: PathBuf,
    },

    /// There is no room on the disk, or none in the user's quota. Nothing was changed.
    #[error("no room on the disk for {}: nothing was changed; free some room (`df {}`) and try again", .path.display(), .path.display())]
    DiskFull {
        /// The ledger.
        path: PathBuf,
    },

    /// The file is something else.
    #[error("{} is not a ledger ({detail}): move it out of the way, or name another file", .path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },

    /// A newer version of this program has written the file.
    #[error(
        "{} has format {found} and this version knows formats up to {known}: use the version that wrote it, or a newer one",
        .path.display()
    )]
    NewerFormat {
        /// The ledger.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The newest format that this version knows.
        known: u64,
    },

    /// The end of the file is missing.
    #[error(
        "{} was truncated to {len} bytes ({detail}): move it away and restore it from a backup with `whereabouts import`; \
         without one, allocate nothing before all containers of this host are gone",
        .path.display()
    )]
    Truncated {
        /// The ledger.
        path: PathBuf,
        /// How long the file is, in bytes.
        len: u64,
        /// How that was noticed.
        detail: String,
    },

    /// The content of the file contradicts itself: the disk, or another program, has changed it.
    #[error(
        "{} is damaged ({detail}): check the disk, save what can be read with `whereabouts export`, move the file away and \
         restore it with `whereabouts import`",
        .path.display()
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// How that was noticed.
        detail: String,
    },

    /// This handle has failed before and does nothing any more. The next one looks at what is really on the disk.
    #[error("{} was closed after a failure ({failure}): open it again", .path.display())]
    Closed {
        /// The ledger.
        path: PathBuf,
        /// What had failed.
        failure: String,
    },

    /// The ledger would be below something that is no folder.
    #[error("{} is not a folder, nor can one be made there: name another folder for the ledger (data_dir)", .path.display())]
    NotAFolder {
        /// What was to be a folder.
        path: PathBuf,
    },

    /// The operating system refused, for another reason.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

// === impl LedgerFileError ===

impl LedgerFileError {
    /// What an error of the operating system means for the user.
    pub(crate) fn from_io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NoPermission { path, action },
            io::ErrorKind::NotADirectory => Self::NotAFolder { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, action, source },
        }
    }

    /// Whether the same call can succeed once somebody else has made room or let go, without any change to the ledger.
    ///
    /// ```
    /// use std::{path::PathBuf, time::Duration};
    /// use whereabouts_engine::LedgerFileError;
    ///
    /// let path = PathBuf::from("/var/lib/cni/whereabouts/ledger.redb");
    /// assert!(LedgerFileError::Busy { path: path.clone(), waited: Duration::ZERO }.is_temporary());
    /// assert!(!LedgerFileError::ReadOnly { path }.is_temporary());
    /// ```
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::DiskFull { .. } | Self::Closed { .. })
    }
}
