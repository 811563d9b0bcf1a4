//! A decoder driven through the engine on the CPU: a request's tokens are the same however it is scheduled.

mod common;

use common::{Arrival, Outcome, arrivals};
use flyball::clock::Clock;
use flyball::config::{Config, Preempt, SwapMode};
use flyball::engine::Counters;
use flyball::exec::cpu::CpuExecutor;
use flyball::model::{Model, ModelConfig, tiny};
use flyball::number::Dtype;
use flyball::prng::Prng;
use flyball::request::{FinishReason, Prompt, Request, SamplingParams, StopTokens};
use flyball::units::{Blocks, Nanos, Tokens};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// A clock that moves on whenever it is read, so that policies see time pass, the same in every run.
#[derive(Clone, Default)]
struct Ticks(Arc<AtomicU64>);

impl Clock for Ticks {
    fn now(&self) -> Nanos {
        Nanos(self.0.fetch_add(200_000, Ordering::Relaxed))
    }
}

static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Arc::new(Model::random(ModelConfig { layers: 2, heads_q: 4, ..tiny() }, 5).unwrap()));

/// How a run is scheduled.
#[derive(Clone, Debug)]
struct Setup {
    policy: &'static str,
    kv: Dtype,
    config: Config,
}

fn ample() -> Setup {
    Setup { policy: "fcfs", kv: Dtype::Bf16, config: common::ample() }
}

fn run(setup: &Setup, arrivals: &[Arrival]) -> Outcome {
    let clock = Ticks::default();
    let Setup { policy, kv, config } = setup;
    let device = CpuExecutor::new(MODEL.clone(), config, *kv, Box::new(clock.clone())).unwrap();
    common::run(Box::new(device), Box::new(clock), policy, config, arrivals)
}

/// The tokens of each request when nothing else runs, on a machine with plenty of everything.
fn alone(arrivals: &[Arrival], kv: Dtype) -> Vec<(Vec<u32>, Option<FinishReason>)> {
    let setup = Setup { kv, ..ample() };
    let each = |arrival: &Arrival| {
        let arrival = Arrival { at: 0, cancel: None, ..arrival.clone() };
        run(&setup, &[arrival]).of(0)
    };
    arrivals.iter().map(each).collect()
}

/// Every request has the tokens that it has alone.
fn same(setup: &Setup, arrivals: &[Arrival], want: &[(Vec<u32>, Option<FinishReason>)]) -> Counters {
    let outcome = run(setup, arrivals);
    for (at, (tokens, reason)) in want.iter().enumerate() {
        assert_eq!(outcome.tokens[at], *tokens, "request {at} under {setup:?}");
        assert_eq!(outcome.reasons[at], *reason, "request {at} under {setup:?}");
    }
    outcome.counters
}

const POLICIES: [&str; 6] =
    ["fcfs", "vllm", "uniboost:k=8:refit=4", "flyball:quantum=4", "las:k=8", "sglang"];

/// Runs the same requests under every policy at both depths, and adds up what the runs did.
fn under_every_policy(change: impl Fn(&mut Config), arrivals: &[Arrival]) -> Counters {
    let want = alone(arrivals, Dtype::Bf16);
    let mut sum = Counters::default();
    for policy in POLICIES {
        for pipeline_depth in [1, 2] {
            let mut setup = Setup { policy, ..ample() };
            setup.config.pipeline_depth = pipeline_depth;
            change(&mut setup.config);
            let counters = same(&setup, arrivals, &want);
            sum.swaps += counters.swaps;
            sum.recomputes += counters.recomputes;
            sum.cached_tokens += counters.cached_tokens;
        }
    }
    sum
}

#[test]
fn co_batching_changes_no_token() {
    let sum = under_every_policy(|_| (), &arrivals(1, 10));
    assert_eq!((sum.swaps, sum.recomputes, sum.cached_tokens), (0, 0, 0));
}

#[test]
fn preemption_by_swap_changes_no_token() {
    for swap in [SwapMode::Serial, SwapMode::Overlap] {
        let tight = |c: &mut Config| {
            (c.kv_blocks, c.preempt, c.swap) = (Blocks(12), Preempt::Swap, swap);
        };
        let sum = under_every_policy(tight, &arrivals(2, 12));
        assert!(sum.swaps > 20, "{swap:?}: {sum:?}");
    }
}

#[test]
fn preemption_by_recompute_changes_no_token() {
    let tight = |c: &mut Config| (c.kv_blocks, c.preempt) = (Blocks(12), Preempt::Recompute);
    let sum = under_every_policy(tight, &arrivals(3, 12));
    assert!(sum.recomputes > 20 && sum.swaps == 0, "{sum:?}");
}

#[test]
fn prefix_hits_change_no_token() {
    let sum = under_every_policy(|c| c.prefix_cache = true, &arrivals(4, 12));
    assert!(sum.cached_tokens > 1_000, "{sum:?}");
}

#[test]
fn prefix_hits_and_preemption_together_change_no_token() {
    let tight = |c: &mut Config| {
        (c.kv_blocks, c.host_blocks, c.prefix_cache) = (Blocks(14), Blocks(20), true);
    };
    let sum = under_every_policy(tight, &arrivals(5, 14));
    assert!(sum.cached_tokens > 0 && sum.swaps > 20 && sum.recomputes > 0, "{sum:?}");
}

#[test]
fn every_type_of_cache_keeps_tokens_alike() {
    let arrivals = arrivals(6, 8);
    for kv in [Dtype::F16, Dtype::E4m3] {
        let mut setup = Setup { kv, ..ample() };
        setup.config.kv_blocks = Blocks(12);
        same(&setup, &arrivals, &alone(&arrivals, kv));
    }
}

#[test]
fn a_request_ends_at_its_stop_token_or_its_limit() {
    let plain = arrivals(7, 6);
    let want = alone(&plain, Dtype::Bf16);
    for (arrival, (tokens, reason)) in plain.iter().zip(&want) {
        assert_eq!(tokens.len(), arrival.request.max_tokens.0 as usize);
        assert_eq!(*reason, Some(FinishReason::Length));
        assert!(tokens.iter().all(|token| *token < 256));
    }
    // The same requests, each of which stops at a token that it is known to have.
    let mut stopped = plain.clone();
    for (arrival, (tokens, _)) in stopped.iter_mut().zip(&want) {
        arrival.request.stop = StopTokens::new(&[tokens[tokens.len() / 2]]).unwrap();
    }
    for depth in [1, 2] {
        let mut setup = ample();
        setup.config.pipeline_depth = depth;
        let outcome = run(&setup, &stopped);
        for (at, (tokens, _)) in want.iter().enumerate() {
            let first = tokens.iter().position(|t| *t == tokens[tokens.len() / 2]).unwrap();
            assert_eq!(outcome.tokens[at], tokens[..=first], "depth {depth}");
            assert_eq!(outcome.reasons[at], Some(FinishReason::Stop));
        }
    }
}

#[test]
fn a_request_of_unknown_content_fails_alone() {
    for depth in [1, 2] {
        let mut mixed = arrivals(8, 4);
        let want = alone(&mixed, Dtype::Bf16);
        let unknown = Request::new(Nanos::ZERO, Prompt::Length(Tokens(20)), Tokens(5));
        mixed.push(Arrival { request: unknown, at: 3, cancel: None });
        let mut setup = ample();
        setup.config.pipeline_depth = depth;
        let outcome = run(&setup, &mixed);
        assert_eq!(outcome.reasons[4], Some(FinishReason::Failed));
        assert!(outcome.tokens[4].is_empty());
        for (at, (tokens, _)) in want.iter().enumerate() {
            assert_eq!(outcome.tokens[at], *tokens);
        }
    }
}

#[test]
fn seeds_and_temperatures_change_tokens() {
    let base = arrivals(9, 1).remove(0);
    let with = |sampling| {
        let mut arrival = base.clone();
        arrival.request.sampling = sampling;
        arrival.request.max_tokens = Tokens(30);
        alone(&[arrival], Dtype::Bf16).remove(0).0
    };
    let greedy = with(SamplingParams::default());
    let warm = SamplingParams { temperature: 1.0, seed: 1, ..SamplingParams::default() };
    assert_ne!(with(warm), greedy);
    assert_ne!(with(warm), with(SamplingParams { seed: 2, ..warm }));
    assert_eq!(with(warm), with(warm));
    assert_eq!(with(SamplingParams { top_k: 1, ..warm }), greedy);
    let never_twice = with(SamplingParams { presence_penalty: 2.0, frequency_penalty: 2.0, ..warm });
    let distinct = |tokens: &[u32]| tokens.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct(&never_twice) > distinct(&with(SamplingParams { temperature: 0.5, ..warm })));
}

/// A machine under pressure, with features by chance.
fn random_setup(p: &mut Prng) -> Setup {
    let mut pick = |of: &[u64]| of[p.below(of.len() as u64) as usize];
    let seqs = pick(&[1, 3, 8]) as u32;
    let config = Config {
        block_size: Tokens(pick(&[4, 16, 32]) as u32),
        host_blocks: Blocks(pick(&[0, 10, 200]) as u32),
        max_num_seqs: seqs,
        max_resident: seqs + pick(&[0, 4]) as u32,
        max_num_batched_tokens: Tokens(pick(&[8, 24, 128]) as u32),
        max_model_len: Tokens(160),
        prefix_cache: pick(&[0, 1]) == 1,
        preempt: [Preempt::Swap, Preempt::Recompute, Preempt::Auto][pick(&[0, 1, 2]) as usize],
        swap: [SwapMode::Serial, SwapMode::Overlap][pick(&[0, 1]) as usize],
        pipeline_depth: pick(&[1, 2]) as u8,
        ..ample().config
    };
    // From room for the longest request alone to room for several.
    let tokens = pick(&[160, 200, 400]) as u32;
    let kv_blocks = Blocks(tokens.div_ceil(config.block_size.0));
    let kv = [Dtype::Bf16, Dtype::F16, Dtype::E4m3][pick(&[0, 0, 1, 2]) as usize];
    Setup { policy: POLICIES[pick(&[0, 1, 2, 3, 4, 5]) as usize], kv, config: Config { kv_blocks, ..config } }
}

/// Random requests on random machines under random policies, some of them cancelled. A failure names its seed:
/// `FLYBALL_SEED=n cargo test --test cpu random` repeats that run alone.
#[test]
fn random_schedules_change_no_token() {
    let seeds = match std::env::var("FLYBALL_SEED") {
        Ok(seed) => vec![seed.parse().expect("a seed is a number")],
        Err(_) => (100..160).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let mut p = Prng::new(seed);
        let setup = random_setup(&mut p);
        let count = p.between(1, 12) as u32;
        let mut requests = arrivals(seed, count);
        let want = alone(&requests, setup.kv);
        for arrival in &mut requests {
            arrival.cancel = p.chance(1, 6).then(|| arrival.at + 1 + p.below(40) as u32);
        }
        let outcome = run(&setup, &requests);
        for (at, (tokens, reason)) in want.iter().enumerate() {
            let got = &outcome.tokens[at];
            match outcome.reasons[at] {
                Some(FinishReason::Cancelled) if requests[at].cancel.is_some() => {
                    assert_eq!(*got, tokens[..got.len()], "seed {seed}, request {at}: {setup:?}");
                }
                other => {
                    assert_eq!(other, *reason, "seed {seed}, request {at}: {setup:?}");
                    assert_eq!(got, tokens, "seed {seed}, request {at}: {setup:?}");
                }
            }
        }
    }
}

#[path = "../examples/tiny_model.rs"]
#[allow(dead_code, missing_docs)] // its `main`
mod example;

#[test]
fn the_example_prints_the_tokens_of_every_request() {
    let print = || {
        let mut out = Vec::new();
        let speed = example::generate(Arc::new(Model::random(tiny(), 1).unwrap()), &mut out).unwrap();
        assert!(speed.starts_with("64 tokens in "), "{speed}");
        String::from_utf8(out).unwrap()
    };
    let first = print();
    assert_eq!(first.lines().count(), 4);
    for (at, line) in first.lines().enumerate() {
        let tokens = line.strip_prefix(&format!("request {at}: [")).unwrap().split(", ").count();
        assert_eq!(tokens, 16, "{line}");
    }
    assert_eq!(print(), first, "the same tokens in every run");
}
