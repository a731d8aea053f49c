//! The command line: what people do with a ledger. Answers go to standard output, everything else to standard error.

mod allocate;
mod backup;
mod check_config;
mod exit;
mod leases;
mod manual;
mod migrate;
mod output;
mod picture;
mod release;
mod repair;
mod repair_local;
mod settings;
mod show;
mod transfer;
mod typed;
mod verify;
mod who;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use self::exit::{Exit, Failure};
pub(crate) use self::leases::who_holds;

use self::output::Output;
use self::settings::Settings;
use self::typed::{Command, Typed};
use crate::cni::Environment;

/// Runs a command and says how it went.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let typed = match Typed::try_parse_from(arguments) {
        Ok(typed) => typed,
        Err(error) => {
            // Help and version are answers, whose pipe may be closed; the rest is a mistake of the user.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    let output = Output::new(typed.json);
    let carried_out = carry_out(typed, environment, &output);
    match carried_out.and_then(|exit| output.flush().map(|()| exit)) {
        Ok(exit) => exit.into(),
        // Whoever closed the pipe has read enough.
        Err(Failure { exit: Exit::ClosedPipe, .. }) => Exit::Success.into(),
        Err(Failure { exit, message }) => {
            output.error(&message);
            exit.into()
        }
    }
}

fn carry_out(typed: Typed, environment: &Environment, output: &Output) -> Result<Exit, Failure> {
    let settings = Settings::new(typed.data_dir.clone(), typed.kubeconfig, environment);
    let exit = match typed.command {
        Command::Allocate(typed) => allocate::allocate(typed, &settings, output),
        Command::Release(typed) => release::release(&typed, &settings, output),
        Command::Show(typed) => show::show(&typed, &settings, output),
        Command::Who(typed) => who::who(&typed, &settings, output),
        Command::Verify => verify::verify(&settings, output),
        Command::Migrate(typed) => migrate::migrate(&typed, &settings, output),
        Command::Repair(typed) => repair::repair(&typed, &settings, output),
        Command::Export(typed) => transfer::export(&typed, &settings, output),
        Command::Import(typed) => transfer::import(&typed, &settings, output),
        Command::CheckConfig(checked) => check_config::check_config(&checked, typed.data_dir, environment, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Typed::command(), "whereabouts", &mut script);
            output.bytes(&script)?;
            Ok(Exit::Success)
        }
        Command::Man => {
            output.bytes(&manual::page(Typed::command()).map_err(Failure::output)?)?;
            Ok(Exit::Success)
        }
    }?;
    Ok(if exit == Exit::Success && settings.n_unreadable() > 0 { Exit::Unsound } else { exit })
}
