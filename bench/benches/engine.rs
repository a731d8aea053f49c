//! The engine in memory: the lowest free address with up to 16 million held, and records.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use whereabouts_engine::testing::{
    block_of_pods, decode_block, decode_index, encode_block, encode_index, index_of_full_blocks, mark_full,
    release as release_from,
};
use whereabouts_engine::{BlockNumber, Family, Offset, View, ViewSpec};

const KEY: &[u8] = b"key";

/// The first block that is not full, and the lowest offset in it that is not used: what an ADD computes.
fn lowest_free(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lowest free");
    for (range, n_excludes) in [("10.0.0.0/8", 0), ("fd00::/64", 0), ("fd00::/64", 1000)] {
        let mut spec = ViewSpec::new(range.parse().unwrap());
        for number in 0..n_excludes {
            // Behind all that is held, so that each view has the same work besides its excludes.
            let exclude = format!("fd00::{:x}:0:0/120", 0x1000 + number);
            spec.excludes.push(exclude.parse().unwrap());
        }
        let view = View::new(&spec).unwrap();
        let first = BlockNumber::of(view.first().unwrap());
        let block = block_of_pods(128);
        for held in [0_u64, 256, 65_536, 1_000_000, 16_000_000] {
            let index = index_of_full_blocks(view.family(), first, held / 256);
            let id = BenchmarkId::new(format!("{range}, {n_excludes} excludes"), held);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let number = index.first_open(black_box(&view), first).unwrap();
                    block.lowest_free(&view.offsets(number))
                });
            });
        }
    }
    group.finish();
}

/// A configured range becomes a view: once per call, with as many excludes as somebody may have typed.
fn view(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("view");
    for n_excludes in [0_u64, 10, 1000] {
        let mut spec = ViewSpec::new("fd00::/64".parse().unwrap());
        for number in 0..n_excludes {
            spec.excludes.push(format!("fd00::{number:x}:0:0/120").parse().unwrap());
        }
        let id = |what| BenchmarkId::new(what, n_excludes);
        group.bench_function(id("made"), |bencher| bencher.iter(|| View::new(black_box(&spec))));
        let view = View::new(&spec).unwrap();
        let last = view.last().unwrap();
        group.bench_function(id("counted"), |bencher| bencher.iter(|| black_box(&view).count()));
        group.bench_function(id("contains"), |bencher| bencher.iter(|| black_box(&view).contains(black_box(last))));
    }
    group.finish();
}

/// What a release changes: a block, and the mark of the index.
fn release(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("release");
    for (range, family) in [("10.0.0.0/8", Family::V4), ("fd00::/64", Family::V6)] {
        let first = BlockNumber::of(View::new(&ViewSpec::new(range.parse().unwrap())).unwrap().first().unwrap());
        let block = block_of_pods(255);
        for held in [0_u64, 65_536, 1_000_000, 16_000_000] {
            // Beside the block with the lease, so many addresses are held.
            let mut index = black_box(index_of_full_blocks(family, first, held / 256 + 1));
            group.bench_function(BenchmarkId::new(range, held), |bencher| {
                bencher.iter_batched_ref(
                    || block.clone(),
                    |block| {
                        let freed = release_from(&mut index, first, block, Offset::from(128));
                        // Part of the figure, and about as much as taking the mark away.
                        mark_full(&mut index, first);
                        freed
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("records");
    let block = block_of_pods(255);
    let record = encode_block(KEY, &block).unwrap();
    group.bench_function("encode a block of 255 pods", |bencher| bencher.iter(|| encode_block(KEY, &block).unwrap()));
    group.bench_function("decode a block of 255 pods", |bencher| bencher.iter(|| decode_block(KEY, &record).unwrap()));
    let view = View::new(&ViewSpec::new("10.0.0.0/8".parse().unwrap())).unwrap();
    let index = index_of_full_blocks(view.family(), BlockNumber::of(view.first().unwrap()), 65_536);
    let record = encode_index(KEY, &index).unwrap();
    group.bench_function("encode an index of 65,536 blocks", |bencher| {
        bencher.iter(|| encode_index(KEY, &index).unwrap());
    });
    group.bench_function("decode an index of 65,536 blocks", |bencher| {
        bencher.iter(|| decode_index(KEY, &record).unwrap());
    });
    group.finish();
}

criterion_group!(benches, view, lowest_free, release, records);
criterion_main!(benches);
