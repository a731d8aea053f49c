//! A whole call of any content: environment, CNI_ARGS, standard input. It is read as a request or refused with an error
//! object, and never a panic.
//!
//! Lines are variables of the environment; behind an empty line comes standard input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whereabouts::cni::{Arguments, Environment, Incoming};

fuzz_target!(|input: &str| {
    let _ = Arguments::parse(input);
    let (variables, stdin) = input.split_once("\n\n").unwrap_or((input, ""));
    let pairs = variables.lines().filter_map(|line| line.split_once('='));
    // The flat file of this machine is none of the fuzzer's business.
    let pairs = pairs.filter(|(name, _)| *name != "WHEREABOUTS_CONFIGURATION");
    let empty = concat!(env!("CARGO_MANIFEST_DIR"), "/empty.conf");
    let environment = Environment::from_pairs(pairs.chain([("WHEREABOUTS_CONFIGURATION", empty)]));
    let incoming = Incoming::read(&environment, &mut stdin.as_bytes());
    if let Err(error) = incoming.request {
        let object = error.to_object(incoming.version);
        assert!(object.code > 0 && !object.msg.is_empty());
        assert!(object.to_json().starts_with('{'));
    }
});
