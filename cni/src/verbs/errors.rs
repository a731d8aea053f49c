//! From the engine's errors to CNI's.

use whereabouts_engine::{AllocateError, CheckError, LedgerError, ReadError, ReleaseError, Sharing, StorageError};

use crate::cni::CniError;
use crate::command_line::who_holds;
use crate::config::{Configuration, ConfigurationError};
use crate::stores::ArbiterError;

pub(super) fn ledger_error(error: LedgerError) -> CniError {
    match &error {
        LedgerError::Storage(StorageError::File { is_temporary: true, .. }) => {
            CniError::Busy { message: error.to_string() }
        }
        LedgerError::File(file) if file.is_temporary() => CniError::Busy { message: error.to_string() },
        _ => CniError::Storage { message: error.to_string(), details: String::new() },
    }
}

pub(super) fn arbiter_error(error: ArbiterError) -> CniError {
    match error {
        ArbiterError::Ledger(error) => ledger_error(error),
        ArbiterError::Store(error) => read_error(error),
        error => CniError::Storage { message: error.to_string(), details: String::new() },
    }
}

/// A store that is away comes back; what is wrong with an object stays.
fn read_error(error: ReadError) -> CniError {
    let message = error.to_string();
    match error {
        ReadError::Unavailable { .. } => CniError::Busy { message },
        _ => CniError::Storage { message, details: String::new() },
    }
}

/// An address that was not given, by whoever the configuration names.
pub(super) fn allocate_error(error: AllocateError, configuration: &Configuration) -> CniError {
    let message = error.to_string();
    match error {
        AllocateError::RangeFull { pool, held, .. } => {
            // Nobody holds what is excluded.
            let who = || who_holds(&configuration.host.data_dir, &configuration.datastore, &pool);
            let hint = (held > 0).then(|| format!("`{}` says who holds them", who()));
            CniError::Exhausted { message, details: hint.unwrap_or_default() }
        }
        AllocateError::AlreadyHeld { .. } | AllocateError::Lost { .. } | AllocateError::NotInPool { .. } => {
            CniError::Held { message }
        }
        AllocateError::Sharing { pool, asked, address } => {
            let is_shared = asked == Sharing::Shared;
            CniError::Configuration(ConfigurationError::value(
                "enable_overlapping_ranges",
                is_shared.to_string(),
                format!(
                    "pool {pool} is asked for as {asked}, but {address} and perhaps others of it are still held as {}",
                    asked.other()
                ),
                format!("release them first, or set it to {} in every network that has this range", !is_shared),
            ))
        }
        AllocateError::Busy { .. } | AllocateError::Superseded => CniError::Busy { message },
        AllocateError::Store(error) => read_error(error),
        AllocateError::Storage(error) => ledger_error(error.into()),
        _ => CniError::Storage { message, details: String::new() },
    }
}

pub(super) fn release_error(error: ReleaseError) -> CniError {
    CniError::Storage { message: error.to_string(), details: String::new() }
}

pub(super) fn check_error(error: CheckError) -> CniError {
    match error {
        CheckError::Store(error) => read_error(error),
        error => CniError::Check { message: error.to_string() },
    }
}

/// A batch of one has one answer.
pub(super) fn no_answer() -> CniError {
    CniError::Internal { message: "the engine gave no answer".to_owned() }
}
