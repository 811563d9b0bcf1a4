//! What one step of scheduling costs: view, decide, check, apply, plan and settle, on a device that takes no
//! time, in a steady state. One element of the throughput is one step.
//!
//! Behind criterion's medians come the tails: percentiles of single steps, of the steps after a thousand
//! cancels, and of the steps in which a million waiting jobs are ranked anew.
//! `cargo bench --bench decide -- tails` prints them alone.

mod bed;

use bed::{Bed, Size};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use flyball::ids::Places;
use flyball::sched::{Decision, Event, Job, Policy, Rank, View, order};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const RUNNING: [u32; 3] = [64, 256, 1024];
const WAITING: [u32; 5] = [0, 1_000, 10_000, 100_000, 1_000_000];
/// Steps whose single times are taken.
const TIMED: usize = 20_000;
/// Steps in a row that the machine's other users may have left alone.
const CALM: usize = 1_000;

/// Whether this run only proves that the benchmark works.
fn testing() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

fn waiting(size: u32) -> u32 {
    if testing() { size.min(2_000) } else { size }
}

fn bed(policy: &str, running: u32, size: u32) -> Bed {
    let size = Size { running, waiting: waiting(size), depth: 1 };
    Bed::named(policy, size).warm(if testing() { 50 } else { 2_000 })
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide/fcfs");
    group.throughput(Throughput::Elements(1));
    for running in RUNNING {
        for size in WAITING {
            let id = BenchmarkId::new(format!("{running}_running"), size);
            // The bed is made only if the filter lets it run.
            let mut made = None;
            group.bench_function(id, |b| {
                let bed = made.get_or_insert_with(|| bed("fcfs", running, size));
                b.iter(|| bed.turn());
            });
        }
    }
    group.finish();
}

fn policies(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide/256_running_10k_waiting");
    group.throughput(Throughput::Elements(1));
    for policy in ["vllm", "sglang", "las", "uniboost", "flyball"] {
        let mut made = None;
        group.bench_function(policy, |b| {
            let bed = made.get_or_insert_with(|| bed(policy, 256, 10_000));
            b.iter(|| bed.turn());
        });
    }
    group.finish();
}

/// A policy whose ranks run out when its clock says so.
struct Epochs {
    inner: Box<dyn Policy>,
    epoch: Arc<AtomicU64>,
}

impl Policy for Epochs {
    fn name(&self) -> &str {
        "epochs"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        self.inner.place(job, places);
    }

    fn rank(&mut self, job: &Job) -> Rank {
        self.inner.rank(job)
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        self.inner.decide(view, decision);
    }

    fn on(&mut self, event: &Event<'_>) {
        self.inner.on(event);
    }
}

/// A policy whose own time is taken: its decisions and what it learns from events.
struct Timed {
    inner: Box<dyn Policy>,
    spent: Arc<AtomicU64>,
}

impl Timed {
    fn time<R>(&mut self, act: impl FnOnce(&mut dyn Policy) -> R) -> R {
        let start = Instant::now();
        let result = act(self.inner.as_mut());
        self.spent.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl Policy for Timed {
    fn name(&self) -> &str {
        "timed"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        self.time(|inner| inner.place(job, places));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        self.time(|inner| inner.rank(job))
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        self.time(|inner| inner.decide(view, decision));
    }

    fn on(&mut self, event: &Event<'_>) {
        self.time(|inner| inner.on(event));
    }
}

/// What a step costs under each policy, and how much of it is the policy's own.
fn shares(count: usize) {
    for name in ["fcfs", "vllm", "las", "uniboost", "flyball"] {
        let size = Size { running: 256, waiting: waiting(10_000), depth: 1 };
        tail(name, &mut Bed::named(name, size).warm(if testing() { 50 } else { 2_000 }), count);
        let spent = Arc::new(AtomicU64::new(0));
        let inner = order::parse(name, None).expect("the policy exists");
        let policy = Box::new(Timed { inner, spent: spent.clone() });
        let mut bed = Bed::new(policy, size).warm(if testing() { 50 } else { 2_000 });
        spent.store(0, Ordering::Relaxed);
        for _ in 0..count {
            bed.turn();
        }
        println!("    of which the policy's own, mean: {} ns", spent.load(Ordering::Relaxed) / count as u64);
    }
}

/// A quantile of some times, by nearest rank.
fn quantile(times: &[u64], q: f64) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[((q * times.len() as f64).ceil() as usize).clamp(1, times.len()) - 1]
}

/// Times `count` steps one by one, with the submits between them left out; prints their percentiles, and the least
/// that any [`CALM`] steps in a row had: what the machine's other users disturbed least.
fn tail(name: &str, bed: &mut Bed, count: usize) -> u64 {
    let mut times: Vec<u64> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        bed.step();
        times.push(start.elapsed().as_nanos() as u64);
        bed.refill();
    }
    let q = |q: f64| quantile(&times, q);
    let calm = |q: f64| {
        times.chunks_exact(CALM.min(count)).map(|calm| quantile(calm, q)).min().expect("there is one")
    };
    println!(
        "{name:44} p50 {:6} ns, p99 {:6} ns, p99.9 {:6} ns; calm {:6}, {:6}",
        q(0.5),
        q(0.99),
        q(0.999),
        calm(0.5),
        calm(0.99)
    );
    q(0.99)
}

fn tails() {
    let count = if testing() { 200 } else { TIMED };
    let few = tail("256 running, 10,000 waiting", &mut bed("fcfs", 256, 10_000), count);
    let mut crowd = bed("fcfs", 256, 1_000_000);
    let many = tail("256 running, 1,000,000 waiting", &mut crowd, count);
    println!("p99 with a hundred times as many waiting: {:.2} times", many as f64 / few as f64);
    bursts(&mut crowd, count / 100);
    drop(crowd);
    epoch(count);
    shares(count);
}

/// A thousand cancels at once, out of a queue of a million; then the step that reports them.
fn bursts(bed: &mut Bed, rounds: usize) {
    let (mut cancels, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let ids = bed.surge(1_000);
        let start = Instant::now();
        bed.cancel(&ids);
        cancels.push(start.elapsed().as_nanos() as u64);
        let start = Instant::now();
        let ended = bed.engine.step().expect("the step is sound").ended.len();
        steps.push(start.elapsed().as_nanos() as u64);
        bed.replace(ended - ids.len());
    }
    let ends = |times: &[u64]| format!("p50 {} ns, max {} ns", quantile(times, 0.5), quantile(times, 1.0));
    println!("1,000 cancels: {} together", ends(&cancels));
    println!("the step after them: {}", ends(&steps));
}

/// Steps while the waiting jobs are ranked anew, some in each.
fn epoch(count: usize) {
    let clock = Arc::new(AtomicU64::new(0));
    let inner = order::parse("fcfs", None).expect("the policy exists");
    let policy = Box::new(Epochs { inner, epoch: clock.clone() });
    let size = Size { running: 256, waiting: waiting(1_000_000), depth: 1 };
    let mut bed = Bed::new(policy, size).warm(if testing() { 50 } else { 2_000 });
    // The sweep takes waiting / rerank_per_step steps: as long as it lasts, and no longer, is timed.
    let sweep = (size.waiting / bed.engine.config().rerank_per_step) as usize;
    clock.fetch_add(1, Ordering::Relaxed);
    tail("256 running, 1,000,000 waiting, new epoch", &mut bed, sweep.min(count));
    bed.engine.check();
}

criterion_group!(benches, steps, policies);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    let listing = std::env::args().any(|arg| arg == "--list");
    let filtered = std::env::args().skip(1).any(|arg| !arg.starts_with('-') && arg != "tails");
    if !listing && !filtered {
        tails();
    }
}
