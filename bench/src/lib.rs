//! What the figures of this project are measured with.
//!
//! The criterion benchmarks in `benches/` measure the engine; the program `side-by-side` measures whole plugins, as a
//! container runtime runs them: one process per ADD. This library is the latter's parts.
//!
//! How it keeps the comparison fair:
//!
//! - All contenders run in one session, interleaved: each round runs each of them once, and the next round starts
//!   with another one. What the machine does meanwhile, it does to all. Ratios are medians of the ratios within rounds.
//! - All are started the same way: the same environment, stdin from a file, stdout into a pipe, stderr thrown away.
//! - Addresses stay held. Every ADD is for a container that was not there before, and nothing is released.
//! - An answer counts only when the process succeeded and gave an address that it had not given before.
//! - Two floors run along: a program that does nothing, and one that makes one durable commit with our options.

pub mod cluster;
pub mod contender;
pub mod held;
pub mod measure;
pub mod program;
pub mod report;
pub mod scenario;
pub mod seat;
pub mod statistics;
