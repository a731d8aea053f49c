//! Commits of a ledger on a real disk, beside bare redb that writes the same rows with the same options.
//!
//! Addresses stay held: every request is a new container's.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use whereabouts_bench::held::{Requests, open};
use whereabouts_engine::{Attachment, LedgerFile, OpenOptions, Release, probe};

/// What a ledger holds before anything is measured.
const HELD: u64 = 10_000;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// The rows of a table, read by redb from a copy of the ledger.
fn rows(copy: &Database, table: &'static str) -> Rows {
    let definition: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new(table);
    let read = copy.begin_read().unwrap();
    let table = read.open_table(definition).unwrap();
    let mut rows = Rows::new();
    for row in table.iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.push((key.value().to_vec(), value.value().to_vec()));
    }
    rows
}

/// The rows that a batch writes: an attachment each, and the blocks that they lie in.
fn rows_of_batch(folder: &Path, batch: u64) -> Rows {
    let path = folder.join("copy.redb");
    std::fs::copy(folder.join("ledger.redb"), &path).unwrap();
    let copy = Database::open(&path).unwrap();
    let n_batch = usize::try_from(batch).unwrap();
    let mut written: Rows = rows(&copy, "attachments").into_iter().take(n_batch).collect();
    // Full blocks: what a batch of a thousand leaves behind, and more than a single request writes on average.
    written.extend(rows(&copy, "blocks").into_iter().take(n_batch.div_ceil(255)));
    written
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    let requests = Requests::new("bench", "10.0.0.0/8".parse().unwrap()).unwrap();
    for batch in [1_u64, 16, 256, 1000] {
        group.throughput(Throughput::Elements(batch));
        let folder = tempfile::tempdir().unwrap();
        whereabouts_bench::held::hold(&open(folder.path()).unwrap(), &requests, 1 << 40, HELD).unwrap();
        let written = rows_of_batch(folder.path(), batch);

        let ledger = open(folder.path()).unwrap();
        let mut next = 0;
        group.bench_function(BenchmarkId::new("allocate", batch), |bencher| {
            bencher.iter_custom(|n| {
                let mut spent = Duration::ZERO;
                for _ in 0..n {
                    let asked: Vec<_> = (0..batch).map(|number| requests.of(next + number)).collect();
                    next += batch;
                    let started = Instant::now();
                    let answers = ledger.allocate(&asked).unwrap();
                    spent += started.elapsed();
                    assert!(answers.iter().all(Result::is_ok));
                }
                spent
            });
        });
        let mut last = 0;
        group.bench_function(BenchmarkId::new("release", batch), |bencher| {
            bencher.iter_custom(|n| {
                let mut spent = Duration::ZERO;
                for _ in 0..n {
                    // What is released was held before; each is released once.
                    let asked: Vec<_> = (0..batch).map(|number| requests.of((1 << 41) + last + number)).collect();
                    last += batch;
                    ledger.allocate(&asked).unwrap();
                    let release = |attachment: &Attachment| Release::Attachment {
                        container: attachment.container.clone(),
                        interface: attachment.interface.clone(),
                        network: Some(attachment.network.clone()),
                    };
                    let asked: Vec<_> = asked.iter().map(|request| release(&request.attachment)).collect();
                    let started = Instant::now();
                    ledger.release(&asked).unwrap();
                    spent += started.elapsed();
                }
                spent
            });
        });
        drop(ledger);

        let bare = LedgerFile::open(&OpenOptions::new(folder.path().join("bare.redb"))).unwrap();
        let mut round = 0_u64;
        group.bench_function(BenchmarkId::new("bare redb", batch), |bencher| {
            bencher.iter_custom(|n| {
                let mut spent = Duration::ZERO;
                for _ in 0..n {
                    // The keys of an attachment are new each time, as those of new containers are.
                    round += 1;
                    let keyed: Rows = written
                        .iter()
                        .map(|(key, value)| ([key.as_slice(), &round.to_be_bytes()].concat(), value.clone()))
                        .collect();
                    let borrowed: Vec<(&[u8], &[u8])> =
                        keyed.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
                    let started = Instant::now();
                    probe::put(&bare, &borrowed).unwrap();
                    spent += started.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
