//! The CNI verbs, carried out: one file each. What a call asks for has been checked by then ([`crate::cni`]); what is
//! done about it is the engine's business.

mod add;
mod check;
mod del;
mod errors;
mod gc;
mod status;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::cni::{CniError, Environment, Incoming, Request, SpecVersion, version_reply};
use crate::log;
use crate::stores::ledger_path;

/// Carries out the call of a runtime: environment and standard input in, standard output and exit code out.
///
/// Whatever happens, the runtime gets an answer of CNI: a panic, too, ends as an error object.
#[must_use]
pub fn run(environment: &Environment) -> ExitCode {
    silence_panics();
    let (text, code) = or_defect(|| answer(environment));
    // A runtime that has gone away reads nothing, and DEL tells the next one.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    code
}

/// The answer, or that there is a defect.
fn or_defect(answer: impl FnOnce() -> (String, ExitCode)) -> (String, ExitCode) {
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let message = format!("a defect of this program: {}", said.unwrap_or("unknown"));
        (CniError::Internal { message }.to_object(SpecVersion::NEWEST).to_json(), ExitCode::FAILURE)
    })
}

/// Reads the call and carries it out.
fn answer(environment: &Environment) -> (String, ExitCode) {
    let incoming = Incoming::read(environment, &mut io::stdin().lock());
    log::start(&incoming.lossy.host.log);
    log::warn_all(&incoming.lossy.warnings);
    let version = incoming.version;
    let ledger = ledger_path(&incoming.lossy.host, &incoming.lossy.datastore);
    match carry_out(incoming).map_err(|error| error.in_ledger(&ledger)) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(%error, "failed");
            (error.to_object(version).to_json(), ExitCode::FAILURE)
        }
    }
}

/// What a call that names no verb gets, as from the plugins of the Go library: what this is, and no error.
#[must_use]
pub fn about() -> ExitCode {
    let versions: Vec<&str> = SpecVersion::ALL.iter().map(|version| version.as_str()).collect();
    let _ = writeln!(
        io::stderr().lock(),
        "whereabouts {}, a CNI IPAM plugin; CNI protocol versions supported: {}\n\
         On the command line: whereabouts --help",
        env!("CARGO_PKG_VERSION"),
        versions.join(", ")
    );
    ExitCode::SUCCESS
}

/// What is written to standard output; nothing for a verb without an answer.
fn carry_out(incoming: Incoming) -> Result<String, CniError> {
    let (host, datastore) = (&incoming.lossy.host, &incoming.lossy.datastore);
    let no_output = |()| String::new();
    match incoming.request? {
        Request::Add(request) => add::add(&request, incoming.version),
        Request::Delete(request) => del::del(&request, host, datastore).map(no_output),
        Request::Check(request) => check::check(&request).map(no_output),
        Request::Collect(request) => gc::gc(&request, host, datastore).map(no_output),
        Request::Status(request) => status::status(&request).map(no_output),
        Request::Version => Ok(version_reply()),
    }
}

/// A panic is answered as an error; its trace belongs to the log, never to a place that somebody parses.
fn silence_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a defect of this program")));
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a defect, on purpose")]
mod tests {
    use super::*;

    #[test]
    fn a_defect_is_an_answer_of_cni() {
        for (answer, what) in [
            (or_defect(|| panic!("index {} of {}", 3, 2)), "index 3 of 2"),
            (or_defect(|| panic!("no such thing")), "no such thing"),
            (or_defect(|| std::panic::panic_any(7)), "unknown"),
        ] {
            let (text, code) = answer;
            let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!((&answer["code"], &answer["cniVersion"]), (&999.into(), &"1.1.0".into()), "{text}");
            assert!(answer["msg"].as_str().is_some_and(|message| message.contains(what)), "{text}");
            assert_eq!(code, ExitCode::FAILURE);
        }
        assert_eq!(or_defect(|| ("{}".to_owned(), ExitCode::SUCCESS)), ("{}".to_owned(), ExitCode::SUCCESS));
    }
}
