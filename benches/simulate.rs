//! Simulated requests per second: the whole simulator on the conversation mix, below and above capacity.
//! One element of the throughput is one request.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flyball::config::{Config, Preempt};
use flyball::cost::{CostModel, Profile};
use flyball::prng::mix;
use flyball::request::Prompt;
use flyball::sim::{Arrival, Router, Setup, capacity, simulate};
use flyball::trace::{Arrivals, Mix, Trace, synth};
use flyball::units::{Blocks, Nanos, Tokens};
use std::hint::black_box;

const REQUESTS: usize = 4_000;

fn arrivals(trace: &Trace) -> Vec<Arrival> {
    let arrival = |row: &flyball::trace::TraceRow| Arrival {
        at: row.arrival,
        prompt: Prompt::Length(row.prompt),
        output: row.output,
        client: row.client,
        priority: row.priority,
    };
    trace.rows.iter().map(arrival).collect()
}

fn setup(policy: &str) -> Setup {
    let profile = Profile::load("h200-llama-3-8b").expect("a shipped profile is there");
    let block_size = Tokens(16);
    let config = Config {
        block_size,
        kv_blocks: Blocks(profile.limits.kv_tokens.0 / block_size.0),
        host_blocks: Blocks(profile.limits.host_kv_tokens.0 / block_size.0),
        waiting_max: REQUESTS as u32,
        preempt: Preempt::Auto,
        ..Config::default()
    };
    Setup {
        config,
        policy: policy.into(),
        cost: CostModel::new(&profile),
        believed: None,
        gpus: 1,
        router: Router::RoundRobin,
        max_tokens: None,
        host_step: Nanos::ZERO,
        seed: 1,
    }
}

fn chat(c: &mut Criterion) {
    let mut trace =
        synth(Mix::Chat, REQUESTS, Arrivals::Poisson { rate: 1.0 }, 1).expect("a mix can be drawn");
    let full = capacity(&setup("fcfs"), &arrivals(&trace)).expect("the setup is sound");
    let mut group = c.benchmark_group("simulate/chat");
    group.throughput(Throughput::Elements(REQUESTS as u64)).sample_size(10);
    for load in [0.6, 1.2] {
        trace.set_rate(load * full);
        let arrivals = arrivals(&trace);
        for policy in ["fcfs", "las", "vllm"] {
            let setup = setup(policy);
            let run = || simulate(&setup, &arrivals, &mut ()).expect("the setup is sound");
            let outcome = run();
            let records = &outcome.metrics.records;
            assert!(records.iter().all(|r| r.ttlt().is_some()), "every request is served");
            let digest = records.iter().fold(0, |digest, r| mix(digest ^ r.last.0));
            println!("{policy} at load {load}: {} steps, hash {digest:016x}", outcome.counters.steps);
            group.bench_function(BenchmarkId::new(policy, load), |b| b.iter(|| black_box(run())));
        }
    }
    group.finish();
}

criterion_group!(benches, chat);
criterion_main!(benches);
