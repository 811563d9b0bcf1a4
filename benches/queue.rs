//! Nanoseconds per operation of the ordered sets and of the groups.
//!
//! Each benchmark first checks what it times against a sorted list and prints a hash of it. One element
//! of the throughput is one operation: an insert, a remove, or a `set` with the `head` after it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flyball::ids::{GroupId, Place};
use flyball::prng::mix;
use flyball::queue::{Entry, Groups, Nodes, OrderedSet};
use flyball::request::RequestId;
use flyball::units::Blocks;
use std::hint::black_box;

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// A set of the entries `0..size` of a sequence, with room for one more.
struct Bed {
    nodes: Nodes,
    set: OrderedSet,
    entry: fn(u64) -> Entry,
    oldest: u64,
    next: u64,
}

impl Bed {
    fn new(size: u64, entry: fn(u64) -> Entry) -> Self {
        let nodes = Nodes::new(size as usize + 1, 1);
        let mut bed = Self { nodes, set: OrderedSet::default(), entry, oldest: 0, next: 0 };
        for _ in 0..size {
            bed.insert();
        }
        // Ages the tree: the shape after one turnover is the one that lasts.
        for _ in 0..size {
            bed.insert();
            bed.remove_oldest();
        }
        bed.check(size);
        bed
    }

    fn insert(&mut self) {
        self.nodes.insert(&mut self.set, (self.entry)(self.next));
        self.next += 1;
    }

    fn remove_oldest(&mut self) {
        assert!(self.nodes.remove(&mut self.set, (self.entry)(self.oldest)));
        self.oldest += 1;
    }

    fn check(&self, size: u64) {
        let mut sorted: Vec<Entry> = (self.oldest..self.next).map(self.entry).collect();
        sorted.sort_unstable();
        assert_eq!(sorted.len() as u64, size);
        let mut at = self.set.first_position();
        let mut digest = 0;
        for entry in sorted {
            assert_eq!(self.nodes.get(at), Some(entry));
            digest = mix(digest ^ entry.rank as u64 ^ entry.id.0);
            at = self.nodes.advance(at);
        }
        assert_eq!(self.nodes.get(at), None);
        println!("{size} entries, hash {digest:016x}");
    }
}

fn random(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/random");
    group.throughput(Throughput::Elements(2));
    for size in SIZES {
        let mut bed = Bed::new(size, |i| Entry { rank: mix(i) as i64, id: RequestId(i) });
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                bed.insert();
                bed.remove_oldest();
            })
        });
    }
}

fn fifo(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/fifo");
    group.throughput(Throughput::Elements(2));
    for size in SIZES {
        let mut bed = Bed::new(size, |i| Entry { rank: i as i64, id: RequestId(i) });
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                bed.insert();
                let first = bed.nodes.first(&bed.set).expect("the set is never empty");
                assert!(bed.nodes.remove(&mut bed.set, first));
            })
        });
    }
}

fn groups(c: &mut Criterion) {
    const EACH: u64 = 16;
    let bed = |count: u16| {
        let mut groups = Groups::new(count, usize::from(count) * EACH as usize);
        for id in 0..u64::from(count) * EACH {
            let group = GroupId((id % u64::from(count)) as u16);
            groups.insert(Place { group, rank: mix(id) as i64 >> 32 }, RequestId(id));
        }
        let mut keys = Vec::new();
        while let Some(head) = groups.head() {
            keys.push(head.key);
            groups.advance(head.group);
        }
        groups.rewind();
        assert!(keys.len() as u64 == u64::from(count) * EACH && keys.is_sorted());
        println!(
            "{count} groups, hash {:016x}",
            keys.iter().fold(0, |digest, &key| mix(digest ^ key as u64))
        );
        groups
    };

    let mut set = c.benchmark_group("queue/set_and_head");
    set.throughput(Throughput::Elements(1));
    for count in [64, 4096] {
        let mut groups = bed(count);
        let mut draw = 0;
        set.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                draw += 1;
                let random = mix(draw);
                let group = GroupId((random % u64::from(count)) as u16);
                groups.set(group, random as i64 >> 32, true, Blocks(0));
                black_box(groups.head())
            })
        });
    }
    set.finish();

    const READ: u64 = 32;
    let mut pass = c.benchmark_group("queue/pass_of_32");
    pass.throughput(Throughput::Elements(READ));
    for count in [64, 4096] {
        let mut groups = bed(count);
        pass.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                for _ in 0..READ {
                    let head = black_box(groups.head()).expect("no group is exhausted");
                    groups.advance(head.group);
                }
                groups.rewind();
            })
        });
    }
}

criterion_group!(benches, random, fifo, groups);
criterion_main!(benches);
