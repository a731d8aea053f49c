//! The `whereabouts` program: a CNI IPAM plugin where a runtime calls it, a command line where a person does.

use std::process::ExitCode;

use whereabouts::cni::Environment;
use whereabouts::verbs;

fn main() -> ExitCode {
    let environment = Environment::of_process();
    verbs::run(&environment)
}
