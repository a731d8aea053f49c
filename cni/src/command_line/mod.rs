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
    let Typed { data_dir, kubeconfig, command, .. } = typed;
    // Only for who needs a ledger: nobody else must depend on where it is.
    let settings = || Settings::new(data_dir.clone(), kubeconfig, environment);
    match command {
        Command::Allocate(typed) => with(&settings()?, |settings| allocate::allocate(typed, settings, output)),
        Command::Release(typed) => with(&settings()?, |settings| release::release(&typed, settings, output)),
        Command::Show(typed) => with(&settings()?, |settings| show::show(&typed, settings, output)),
        Command::Who(typed) => with(&settings()?, |settings| who::who(&typed, settings, output)),
        Command::Verify => with(&settings()?, |settings| verify::verify(settings, output)),
        Command::Migrate(typed) => with(&settings()?, |settings| migrate::migrate(&typed, settings, output)),
        Command::Repair(typed) => with(&settings()?, |settings| repair::repair(&typed, settings, output)),
        Command::Export(typed) => with(&settings()?, |settings| transfer::export(&typed, settings, output)),
        Command::Import(typed) => with(&settings()?, |settings| transfer::import(&typed, settings, output)),
        Command::CheckConfig(checked) => check_config::check_config(&checked, data_dir, environment, output),
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
    }
}

/// Carries out a command on a ledger.
fn with(settings: &Settings, work: impl FnOnce(&Settings) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    let exit = work(settings)?;
    Ok(if exit == Exit::Success && settings.n_unreadable() > 0 { Exit::Unsound } else { exit })
}
