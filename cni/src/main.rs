//! The `whereabouts` program: a CNI IPAM plugin where a runtime calls it, a command line where a person does.

use std::process::ExitCode;

use whereabouts::cni::Environment;
use whereabouts::{command_line, verbs};

fn main() -> ExitCode {
    let environment = Environment::of_process();
    let mut arguments = std::env::args_os().peekable();
    let program = arguments.next();
    if environment.has_command() {
        verbs::run(&environment)
    } else if arguments.peek().is_none() {
        verbs::about()
    } else {
        command_line::run(program.into_iter().chain(arguments), &environment)
    }
}
