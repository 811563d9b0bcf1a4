//! What the acts of the KV memory cost, with a pool of the size of a real one and the prefix cache on. One
//! element of the throughput is one block.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flyball::config::Config;
use flyball::ids::Slot;
use flyball::kv::{BlockHash, Kv};
use flyball::units::{Blocks, Tokens};
use std::hint::black_box;

const ROW: Slot = Slot(0);

fn kv() -> Kv {
    Kv::new(&Config { prefix_cache: true, max_model_len: Tokens(8192), ..Config::default() })
}

/// The hashes of the first blocks of some content.
fn hashes(count: u32) -> Vec<BlockHash> {
    let block = |i: u32| -> Vec<u32> { (0..16).map(|t| i * 16 + t).collect() };
    let mut chain = BlockHash::ROOT;
    (0..count).map(|i| (chain = chain.chain(&block(i), &[]), chain).1).collect()
}

fn acts(c: &mut Criterion) {
    let mut group = c.benchmark_group("kv");

    group.throughput(Throughput::Elements(90));
    let (mut memory, mut deltas) = (kv(), Vec::with_capacity(4096));
    group.bench_function("grow_release_90", |b| {
        b.iter(|| {
            memory.grow(ROW, Blocks(90)).expect("the pool has more");
            memory.release(ROW, None);
            deltas.clear();
            memory.take_deltas(&mut deltas);
        })
    });
    memory.check();

    group.throughput(Throughput::Elements(128));
    let (mut memory, prefix) = (kv(), hashes(128));
    memory.grow(ROW, Blocks(128)).expect("the pool has more");
    (0..128).for_each(|i| memory.seal(ROW, i, prefix[i as usize]));
    memory.release(ROW, None);
    group.bench_function("attach_release_128", |b| {
        b.iter(|| {
            assert_eq!(memory.attach(ROW, prefix.iter().copied()), Blocks(128));
            memory.release(ROW, None);
            deltas.clear();
            memory.take_deltas(&mut deltas);
        })
    });
    memory.check();

    group.throughput(Throughput::Elements(1));
    let block: Vec<u32> = (0..16).map(|i| i * 7919).collect();
    let mut chain = BlockHash::ROOT;
    group.bench_function("hash_16_tokens", |b| {
        b.iter(|| chain = black_box(chain.chain(black_box(&block), &[])))
    });

    group.throughput(Throughput::Elements(100));
    let (mut memory, mut copies) = (kv(), Vec::with_capacity(256));
    memory.grow(ROW, Blocks(100)).expect("the pool has more");
    group.bench_function("swap_out_in_100", |b| {
        b.iter(|| {
            copies.clear();
            let span = memory.swap_out(ROW, None, &mut copies).expect("the host has more");
            memory.swap_in(ROW, &span, &mut copies).expect("the pool has more");
            memory.free_host(span, None);
            assert_eq!(copies.len(), 200);
            deltas.clear();
            memory.take_deltas(&mut deltas);
        })
    });
    memory.check();
    group.finish();
}

criterion_group!(benches, acts);
criterion_main!(benches);
