//! A decoder driven through the engine on a GPU. These tests run where `FLYBALL_TEST_DEVICE=cuda` says that there is
//! one; elsewhere each says that it did not run.

mod common;

use common::{Arrival, Outcome, ample, arrivals};
use flyball::clock::MonotonicClock;
use flyball::config::{Config, Preempt, SwapMode};
use flyball::exec::cpu::CpuExecutor;
use flyball::exec::cuda::{CudaError, CudaExecutor, CudaOptions, Device};
use flyball::model::{Model, ModelConfig, tiny};
use flyball::number::Dtype;
use flyball::request::{FinishReason, Prompt, Request, SamplingParams};
use flyball::units::{Blocks, Nanos, Tokens};
use std::io::Write as _;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Arc::new(Model::random(ModelConfig { layers: 2, ..tiny() }, 5).unwrap()));

/// One test has the device at a time.
static DEVICE: Mutex<()> = Mutex::new(());

/// The device, if the tests are to run on one; says so if not.
fn device(test: &str) -> Option<MutexGuard<'static, ()>> {
    match std::env::var("FLYBALL_TEST_DEVICE").as_deref() {
        Ok("cuda") => Some(DEVICE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())),
        _ => {
            // Not by a macro, whose output the test runner would keep to itself.
            let note = "was not run: it needs a GPU, and FLYBALL_TEST_DEVICE=cuda";
            writeln!(std::io::stdout(), "{test} {note}").expect("stdout takes it");
            None
        }
    }
}

const FAST: CudaOptions = CudaOptions { ordinal: 0, kv: Dtype::Bf16, batch_invariant: false, graphs: true };
const INVARIANT: CudaOptions = CudaOptions { batch_invariant: true, ..FAST };

fn run(config: &Config, options: CudaOptions, arrivals: &[Arrival]) -> Outcome {
    let clock = || Box::new(MonotonicClock::new());
    let executor = CudaExecutor::new(&MODEL, config, options, clock()).unwrap_or_else(|e| panic!("{e}"));
    common::run(Box::new(executor), clock(), "fcfs", config, arrivals)
}

/// Whether every request ended as it must, with tokens of the vocabulary.
fn whole(outcome: &Outcome, arrivals: &[Arrival]) {
    for (at, arrival) in arrivals.iter().enumerate() {
        let (tokens, reason) = outcome.of(at);
        assert_eq!(
            (reason, tokens.len()),
            (Some(FinishReason::Length), arrival.request.max_tokens.0 as usize)
        );
        assert!(tokens.iter().all(|token| *token < MODEL.config().vocab));
    }
}

#[test]
fn every_request_ends_with_all_its_tokens_however_steps_are_run() {
    let Some(_device) = device("every_request_ends_with_all_its_tokens_however_steps_are_run") else {
        return;
    };
    let arrivals = arrivals(1, 12);
    for pipeline_depth in [1, 2] {
        for graphs in [false, true] {
            for kv in [Dtype::Bf16, Dtype::E4m3] {
                let config = Config { pipeline_depth, ..ample() };
                whole(&run(&config, CudaOptions { graphs, kv, ..FAST }, &arrivals), &arrivals);
            }
        }
    }
}

#[test]
fn graphs_and_depth_change_no_token() {
    let Some(_device) = device("graphs_and_depth_change_no_token") else { return };
    // One after the other: each step has the same rows, and so the same padding, in every run.
    let arrivals = arrivals(2, 4);
    let run = |graphs, pipeline_depth| {
        let config = Config { pipeline_depth, max_num_seqs: 1, max_resident: 1, ..ample() };
        run(&config, CudaOptions { graphs, ..FAST }, &arrivals).tokens
    };
    let first = run(false, 1);
    for (graphs, depth) in [(true, 1), (false, 2), (true, 2)] {
        assert_eq!(run(graphs, depth), first, "graphs: {graphs}, depth {depth}");
    }
}

#[test]
fn in_the_invariant_mode_no_schedule_changes_a_token() {
    let Some(_device) = device("in_the_invariant_mode_no_schedule_changes_a_token") else { return };
    let arrivals = arrivals(3, 12);
    let alone = |arrival: &Arrival| {
        let arrival = Arrival { at: 0, ..arrival.clone() };
        let outcome = run(&ample(), INVARIANT, std::slice::from_ref(&arrival));
        whole(&outcome, &[arrival]);
        outcome.of(0).0
    };
    let alone: Vec<Vec<u32>> = arrivals.iter().map(alone).collect();
    let tight = Config { kv_blocks: Blocks(20), ..ample() };
    let cases = [
        ("beside others", ample()),
        ("swapped", Config { preempt: Preempt::Swap, ..tight.clone() }),
        ("swapped beside", Config { preempt: Preempt::Swap, swap: SwapMode::Overlap, ..tight.clone() }),
        ("computed again", Config { preempt: Preempt::Recompute, ..tight.clone() }),
        ("on cached prefixes", Config { prefix_cache: true, ..ample() }),
    ];
    for (what, config) in cases {
        for pipeline_depth in [1, 2] {
            let outcome = run(&Config { pipeline_depth, ..config.clone() }, INVARIANT, &arrivals);
            assert_eq!(outcome.tokens, alone, "{what}, depth {pipeline_depth}");
            whole(&outcome, &arrivals);
            let counters = outcome.counters;
            let happened = match what {
                "beside others" => 1,
                "computed again" => counters.recomputes,
                "on cached prefixes" => counters.cached_tokens,
                _ => counters.swaps,
            };
            assert!(happened > 0, "{what}: {counters:?}");
        }
    }
}

#[test]
fn a_request_of_unknown_content_fails_alone() {
    let Some(_device) = device("a_request_of_unknown_content_fails_alone") else { return };
    let mut mixed = arrivals(4, 4);
    let unknown = Request::new(Nanos::ZERO, Prompt::Length(Tokens(20)), Tokens(5));
    mixed.push(Arrival { request: unknown, at: 3, cancel: None });
    for pipeline_depth in [1, 2] {
        let outcome = run(&Config { pipeline_depth, ..ample() }, FAST, &mixed);
        assert_eq!(outcome.of(4), (Vec::new(), Some(FinishReason::Failed)));
        whole(&outcome, &mixed[..4]);
    }
}

/// Activations are bf16 here and f32 on the CPU, so that logits which are nearly equal may change places: of 64 first
/// tokens, at most eight may differ.
#[test]
fn first_tokens_are_nearly_all_those_of_the_cpu_executor() {
    let Some(_device) = device("first_tokens_are_nearly_all_those_of_the_cpu_executor") else { return };
    let mut arrivals = arrivals(5, 64);
    for Arrival { request, .. } in &mut arrivals {
        (request.max_tokens, request.sampling) = (Tokens(1), SamplingParams::default());
    }
    let clock = || Box::new(MonotonicClock::new());
    let cpu = CpuExecutor::new(MODEL.clone(), &ample(), Dtype::Bf16, clock()).unwrap();
    let want = common::run(Box::new(cpu), clock(), "fcfs", &ample(), &arrivals).tokens;
    for options in [FAST, INVARIANT] {
        let got = run(&ample(), options, &arrivals).tokens;
        let differ = got.iter().zip(&want).filter(|(got, want)| got != want).count();
        assert!(differ <= 8, "{differ} of 64 first tokens differ under {options:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    match Device::count() {
        Err(CudaError::NoDriver) => {
            let clock = Box::new(MonotonicClock::new());
            let error = CudaExecutor::new(&MODEL, &ample(), FAST, clock).err().unwrap().to_string();
            assert!(error.contains("libcuda.so.1"), "{error}");
        }
        Err(error) => assert!(error.to_string().contains("starting the driver"), "{error}"),
        Ok(count) => {
            let missing = Device::open(count).unwrap_err();
            assert_eq!(missing, CudaError::NoDevice { ordinal: count, count });
        }
    }
}
