//! Exit codes, and the failures that end with them.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use whereabouts_engine::{AllocateError, LedgerError, LedgerFileError, ReadError};

use crate::config::ConfigurationError;
use crate::stores::ArbiterError;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was told.
    Success = 0,
    /// The ledger, a file or the configuration cannot be used; nothing was changed, or the message says how far it came.
    Failure = 1,
    /// The command line is not understood.
    Usage = 2,
    /// Nobody holds something of what was named; the rest was done.
    NotHeld = 3,
    /// A range has no free address.
    Full = 4,
    /// An address is held by another.
    Held = 5,
    /// `verify` found something that disagrees, `check-config` something that is wrong, or `show` or `export` rows that
    /// cannot be read.
    Unsound = 6,
    /// Others use the ledger, or the disk is full; the same command may succeed later.
    Busy = 7,
    /// Nobody reads the answer any more. Ends as a success.
    ClosedPipe = 141,
}

/// Why a command ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// Why, and what to do.
    pub message: String,
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    pub(super) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An answer that could not be written.
    pub(super) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::ClosedPipe, error),
            _ => Self::new(Exit::Failure, format_args!("cannot write the answer: {error}")),
        }
    }
}

impl From<ConfigurationError> for Failure {
    fn from(error: ConfigurationError) -> Self {
        Self::new(Exit::Failure, error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let exit = match &error {
            LedgerError::File(file) if file.is_temporary() => Exit::Busy,
            LedgerError::File(LedgerFileError::Missing { .. }) => Exit::NotHeld,
            _ => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

impl From<ArbiterError> for Failure {
    fn from(error: ArbiterError) -> Self {
        match error {
            ArbiterError::Ledger(error) => error.into(),
            error @ ArbiterError::OtherCluster { .. } => Self::new(Exit::Usage, error),
            ArbiterError::Store(error @ ReadError::Unavailable { .. }) => Self::new(Exit::Busy, error),
            ArbiterError::Store(error @ (ReadError::Unsound { .. } | ReadError::Foreign { .. })) => {
                Self::new(Exit::Unsound, error)
            }
            error => Self::new(Exit::Failure, error),
        }
    }
}

impl From<AllocateError> for Failure {
    fn from(error: AllocateError) -> Self {
        let exit = match &error {
            AllocateError::RangeFull { .. } => Exit::Full,
            AllocateError::AlreadyHeld { .. } | AllocateError::Lost { .. } => Exit::Held,
            AllocateError::NotInPool { .. } => Exit::Usage,
            _ => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    /// Whoever gets 7 may run the same command again, and nobody else should. The wait for a ledger that is in use is too
    /// long to be waited for here.
    #[test]
    fn what_may_succeed_later_is_told_from_what_will_not() {
        let path = || PathBuf::from("/ledger.redb");
        for (error, exit, number) in [
            (LedgerFileError::Busy { path: path(), waited: Duration::from_secs(30) }, Exit::Busy, 7),
            (LedgerFileError::DiskFull { path: path() }, Exit::Busy, 7),
            (LedgerFileError::Missing { path: path() }, Exit::NotHeld, 3),
            (LedgerFileError::Lost { path: path() }, Exit::Failure, 1),
            (LedgerFileError::ReadOnly { path: path() }, Exit::Failure, 1),
        ] {
            let message = error.to_string();
            let failure = Failure::from(ArbiterError::Ledger(LedgerError::File(error)));
            assert_eq!(failure, Failure { exit, message });
            assert_eq!(failure.exit as u8, number);
        }
    }
}
