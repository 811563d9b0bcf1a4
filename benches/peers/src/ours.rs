//! flyball: its simulator for speed, its engine in a loop of ours for agreement.

use crate::Job;
use crate::agree::{Latencies, Scheduler};
use flyball::clock::{Clock, VirtualClock};
use flyball::config::{Config, Preempt};
use flyball::cost::{CostModel, Profile};
use flyball::engine::Engine;
use flyball::exec::sim::{Script, SimExecutor};
use flyball::request::{Prompt, Request};
use flyball::sched::order;
use flyball::sim::{Arrival, Outcome, Router, Setup, simulate};
use flyball::units::{Blocks, Nanos, Tokens};
use std::time::Instant;

const BLOCK: Tokens = Tokens(16);

/// The simulator's time for the whole trace, in seconds, and what came out of it.
pub fn replay(jobs: &[Job], policy: &str) -> (f64, Outcome) {
    let profile = profile();
    let setup = Setup {
        config: config(jobs, profile.limits.kv_tokens.0),
        policy: policy.into(),
        cost: CostModel::new(&profile),
        believed: None,
        gpus: 1,
        router: Router::RoundRobin,
        max_tokens: None,
        host_step: Nanos::ZERO,
        seed: 1,
    };
    let arrivals: Vec<Arrival> = jobs.iter().map(arrival).collect();
    let start = Instant::now();
    let outcome = simulate(&setup, &arrivals, &mut ()).expect("the setup is sound");
    (start.elapsed().as_secs_f64(), outcome)
}

/// Latencies of the policy when each step takes exactly `step_ms`, and each request's limit is its length.
pub fn schedule(jobs: &[Job], scheduler: Scheduler, step_ms: f64, kv_tokens: u32) -> Latencies {
    let cost = CostModel::new(&profile()).with_constant_step(nanos(step_ms));
    let clock = VirtualClock::new();
    let script = Script::new(jobs.iter().map(|job| Tokens(job.output)));
    let executor = SimExecutor::new(clock.clone(), cost.clone(), script, 1);
    let policy = match scheduler {
        Scheduler::Vllm => "vllm",
        Scheduler::Sglang => "sglang:latch=off",
    };
    let policy = order::parse(policy, None).expect("the policy exists");
    let config = config(jobs, kv_tokens);
    let mut engine = Engine::new(config, policy, Box::new(executor), Box::new(clock.clone()), cost)
        .expect("the limits fit together");
    let mut latencies = Latencies::new(jobs.len());
    let mut next = 0;
    loop {
        while next < jobs.len() && nanos(jobs[next].at_ms) <= clock.now() {
            engine.submit(request(next, &jobs[next])).expect("every request fits");
            next += 1;
        }
        if !engine.is_idle() {
            step(&mut engine, &mut latencies);
        } else if next < jobs.len() {
            clock.advance_to(nanos(jobs[next].at_ms));
        } else {
            return latencies;
        }
    }
}

fn step(engine: &mut Engine, latencies: &mut Latencies) {
    let report = engine.step().expect("the step is sound");
    let end = report.outcome.finished.as_secs_f64() * 1e3;
    report.tokens.iter().for_each(|token| latencies.token(token.user_data as usize, end));
    latencies.steps += 1;
}

fn request(index: usize, job: &Job) -> Request {
    let prompt = Prompt::Length(Tokens(job.prompt));
    let mut request = Request::new(nanos(job.at_ms), prompt, Tokens(job.output));
    request.user_data = index as u64;
    request
}

fn arrival(job: &Job) -> Arrival {
    Arrival {
        at: nanos(job.at_ms),
        prompt: Prompt::Length(Tokens(job.prompt)),
        output: Tokens(job.output),
        client: 0,
        priority: 0,
    }
}

fn config(jobs: &[Job], kv_tokens: u32) -> Config {
    Config {
        block_size: BLOCK,
        kv_blocks: Blocks(kv_tokens / BLOCK.0),
        max_num_seqs: 256,
        max_resident: 512,
        max_model_len: longest(jobs),
        max_num_batched_tokens: Tokens(8192),
        waiting_max: jobs.len() as u32,
        prefix_cache: false,
        preempt: Preempt::Recompute,
        ..Config::default()
    }
}

/// The model's length: that of the longest request.
fn longest(jobs: &[Job]) -> Tokens {
    Tokens(jobs.iter().map(|job| job.prompt + job.output).max().unwrap_or(1))
}

fn profile() -> Profile {
    Profile::load("h200-llama-3-8b").expect("a shipped profile is there")
}

fn nanos(ms: f64) -> Nanos {
    Nanos::from_secs_f64(ms * 1e-3)
}
