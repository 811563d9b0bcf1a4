//! A decoder driven through the engine on a GPU. These tests run where `FLYBALL_TEST_DEVICE=cuda` says that there is
//! one; elsewhere each says that it did not run.

use flyball::clock::MonotonicClock;
use flyball::config::{Config, Preempt, SwapMode};
use flyball::cost::{CostModel, Profile};
use flyball::engine::{Counters, Engine};
use flyball::exec::Executor;
use flyball::exec::cpu::CpuExecutor;
use flyball::exec::cuda::{CudaError, CudaExecutor, CudaOptions, Device};
use flyball::model::{Model, ModelConfig, tiny};
use flyball::number::Dtype;
use flyball::prng::Prng;
use flyball::request::{FinishReason, Prompt, Request, SamplingParams};
use flyball::sched::order;
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

/// Plenty of everything: nobody is evicted.
fn ample() -> Config {
    Config {
        block_size: Tokens(16),
        kv_blocks: Blocks(256),
        host_blocks: Blocks(128),
        max_num_seqs: 8,
        max_resident: 12,
        max_num_batched_tokens: Tokens(64),
        max_model_len: Tokens(320),
        waiting_max: 64,
        ..Config::default()
    }
}

/// What came of the requests: tokens and reason of each.
type Outcome = Vec<(Vec<u32>, Option<FinishReason>)>;

/// Runs requests, the n-th submitted before step 2n, to their ends.
fn run_on(device: Box<dyn Executor>, config: &Config, requests: &[Request]) -> (Outcome, Counters) {
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let policy = order::parse("fcfs", None).unwrap();
    let clock = Box::new(MonotonicClock::new());
    let mut engine = Engine::new(config.clone(), policy, device, clock, cost).unwrap();
    let mut outcome: Outcome = vec![(Vec::new(), None); requests.len()];
    for step in 0..10_000 {
        if step % 2 == 0
            && let Some(request) = requests.get(step / 2)
        {
            engine.submit(Request { user_data: step as u64 / 2, ..request.clone() }).unwrap();
        }
        let report = engine.step().unwrap();
        for token in report.tokens {
            outcome[token.user_data as usize].0.push(token.token);
        }
        for ended in report.ended {
            outcome[ended.user_data as usize].1 = Some(ended.reason);
        }
        if engine.is_idle() && step / 2 >= requests.len() {
            return (outcome, engine.counters());
        }
    }
    panic!("10,000 steps do not end them");
}

fn run(config: &Config, options: CudaOptions, requests: &[Request]) -> (Outcome, Counters) {
    let clock = Box::new(MonotonicClock::new());
    let executor = CudaExecutor::new(&MODEL, config, options, clock).unwrap_or_else(|e| panic!("{e}"));
    run_on(Box::new(executor), config, requests)
}

/// Requests of which half share their first 40 tokens, under all rules of sampling.
fn requests(seed: u64, count: u32) -> Vec<Request> {
    let mut p = Prng::new(seed);
    let shared: Vec<u32> = (0..40).map(|_| p.below(256) as u32).collect();
    (0..count)
        .map(|at| {
            let own = (0..p.between(1, 60)).map(|_| p.below(256) as u32).collect::<Vec<_>>();
            let prompt = if p.chance(1, 2) { [shared.clone(), own].concat() } else { own };
            let max_tokens = Tokens(p.between(1, 50) as u32);
            let mut request = Request::new(Nanos::ZERO, Prompt::Tokens(prompt.into()), max_tokens);
            let warm = SamplingParams { temperature: 1.0, seed: p.bits(), ..SamplingParams::default() };
            request.sampling = match at % 5 {
                0 | 1 => SamplingParams::default(),
                2 => warm,
                3 => SamplingParams { top_k: 20, top_p: 0.9, min_p: 0.05, ..warm },
                _ => SamplingParams {
                    repetition_penalty: 1.3,
                    presence_penalty: 0.2,
                    ..SamplingParams::default()
                },
            };
            request
        })
        .collect()
}

/// Whether every request ended as it must, with tokens of the vocabulary.
fn whole(outcome: &Outcome, requests: &[Request]) {
    for ((tokens, reason), request) in outcome.iter().zip(requests) {
        assert_eq!((*reason, tokens.len()), (Some(FinishReason::Length), request.max_tokens.0 as usize));
        assert!(tokens.iter().all(|token| *token < MODEL.config().vocab));
    }
}

#[test]
fn every_request_ends_with_all_its_tokens_however_steps_are_run() {
    let Some(_device) = device("every_request_ends_with_all_its_tokens_however_steps_are_run") else {
        return;
    };
    let requests = requests(1, 12);
    for pipeline_depth in [1, 2] {
        for graphs in [false, true] {
            for kv in [Dtype::Bf16, Dtype::E4m3] {
                let config = Config { pipeline_depth, ..ample() };
                let (outcome, _) = run(&config, CudaOptions { graphs, kv, ..FAST }, &requests);
                whole(&outcome, &requests);
            }
        }
    }
}

#[test]
fn graphs_and_depth_change_no_token() {
    let Some(_device) = device("graphs_and_depth_change_no_token") else { return };
    // One after the other: each step has the same rows, and so the same padding, in every run.
    let requests = requests(2, 4);
    let run = |graphs, pipeline_depth| {
        let config = Config { pipeline_depth, max_num_seqs: 1, max_resident: 1, ..ample() };
        run(&config, CudaOptions { graphs, ..FAST }, &requests).0
    };
    let first = run(false, 1);
    for (graphs, depth) in [(true, 1), (false, 2), (true, 2)] {
        assert_eq!(run(graphs, depth), first, "graphs: {graphs}, depth {depth}");
    }
}

#[test]
fn in_the_invariant_mode_no_schedule_changes_a_token() {
    let Some(_device) = device("in_the_invariant_mode_no_schedule_changes_a_token") else { return };
    let requests = requests(3, 12);
    let alone: Outcome = requests
        .iter()
        .map(|request| run(&ample(), INVARIANT, std::slice::from_ref(request)).0.remove(0))
        .collect();
    whole(&alone, &requests);
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
            let (outcome, counters) = run(&Config { pipeline_depth, ..config.clone() }, INVARIANT, &requests);
            assert_eq!(outcome, alone, "{what}, depth {pipeline_depth}");
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
    let mut mixed = requests(4, 4);
    mixed.push(Request::new(Nanos::ZERO, Prompt::Length(Tokens(20)), Tokens(5)));
    for pipeline_depth in [1, 2] {
        let (outcome, _) = run(&Config { pipeline_depth, ..ample() }, FAST, &mixed);
        assert_eq!(outcome[4], (Vec::new(), Some(FinishReason::Failed)));
        whole(&outcome[..4].to_vec(), &mixed[..4]);
    }
}

/// Activations are bf16 here and f32 on the CPU, so that logits which are nearly equal may change places: of 64 first
/// tokens, at most eight may differ.
#[test]
fn first_tokens_are_nearly_all_those_of_the_cpu_executor() {
    let Some(_device) = device("first_tokens_are_nearly_all_those_of_the_cpu_executor") else { return };
    let requests: Vec<Request> = requests(5, 64)
        .into_iter()
        .map(|request| Request { max_tokens: Tokens(1), sampling: SamplingParams::default(), ..request })
        .collect();
    let clock = Box::new(MonotonicClock::new());
    let cpu = CpuExecutor::new(MODEL.clone(), &ample(), Dtype::Bf16, clock).unwrap();
    let (want, _) = run_on(Box::new(cpu), &ample(), &requests);
    for options in [FAST, INVARIANT] {
        let (got, _) = run(&ample(), options, &requests);
        let differ = got.iter().zip(&want).filter(|(got, want)| got.0 != want.0).count();
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
