//! The floors before a real control plane: what they do is what everything else is held against.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use whereabouts_bench::cluster::scenario::{self, Effort};
use whereabouts_bench::cluster::seat::Seat;
use whereabouts_bench::cluster::{Cluster, Ranges};
use whereabouts_bench::contender::Contender;

#[test]
fn the_floor_makes_two_requests_and_is_slower_than_its_parts() {
    let cluster = match Cluster::start(&[]) {
        Ok(cluster) => cluster,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "under CI=true nothing is skipped: {why}");
            // Written past libtest, which would keep the words to itself.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED the_floor_makes_two_requests_and_is_slower_than_its_parts: {why}");
            return;
        }
    };
    let beside = Path::new(env!("CARGO_BIN_EXE_floor-requests")).parent().expect("a program lies in a folder");
    let contenders =
        [Contender::floor_empty(beside), Contender::floor_commit(beside), Contender::floor_requests(beside)];
    let folder = tempfile::tempdir().expect("a folder");
    let (mut seats, mut ranges) = (Vec::new(), Ranges::default());
    for contender in &contenders {
        let mut seat = Seat::take(contender, &cluster, 1, folder.path()).expect("a seat");
        seat.ask_of(&ranges.take(24).expect("room")).expect("a folder that can be written");
        seat.begin().expect("floors that work");
        seats.push(seat);
    }
    let limit = Duration::from_secs(60);
    let effort = Effort { rounds: 5, warm_up: 1, bursts: 1, adds_per_caller: 1, fill_callers: 1, limit };
    let outcome = scenario::one_add(&cluster, &mut seats, &mut ranges, &effort).expect("floors that work");

    let fastest = |place: usize| {
        let series = &outcome.times.series[place].milliseconds;
        assert_eq!(series.len(), 5);
        series.iter().copied().fold(f64::INFINITY, f64::min)
    };
    assert!(fastest(0) < fastest(1) && fastest(1) < fastest(2), "{outcome:#?}");
    let paid = &outcome.traffic[2];
    // The API server writes a lease of its own every 10 s.
    let requests = paid.requests_per_add().expect("ADDs");
    assert!((2.0..2.2).contains(&requests), "{outcome:#?}");
    assert_eq!((paid.failed, paid.attempts_per_swap()), (0, Some(1.0)));
    assert!(paid.logged_per_add() > paid.put_per_add() && paid.put_per_add() > Some(0.0), "{outcome:#?}");
}
