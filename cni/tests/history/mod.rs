//! A history of calls on a cluster: who made which call from when to when, what was answered, and what was seen in the
//! cluster meanwhile; and what must be true of it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a driver of tests that cannot go on ends the test"
)]

pub mod checker;
pub mod cluster;
pub mod events;
pub mod faults;
pub mod workload;
