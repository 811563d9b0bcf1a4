//! A decoder driven through the engine by the CUDA executor: on a GPU, where `FLYBALL_TEST_DEVICE=cuda` says that there is
//! one, and on emulated devices elsewhere. A test that cannot run says so.

mod common;

use common::{Arrival, Outcome, ample, arrivals};
use flyball::batch::{BatchPlan, Input, Row};
use flyball::clock::MonotonicClock;
use flyball::config::{Config, Preempt, SwapMode};
use flyball::exec::cpu::CpuExecutor;
use flyball::exec::cuda::gemm::Blas;
use flyball::exec::cuda::{
    Arena, Buffer, CudaError, CudaExecutor, CudaOptions, Device, Kernels, Stream, built, params,
};
use flyball::exec::{Executor as _, StepOutcome};
use flyball::ids::Slot;
use flyball::kv::{BlockId, CopyBlocks, HostBlockId, SwapBlock, TableDelta};
use flyball::model::{Model, ModelConfig, Rope, RopeStyle, tiny};
use flyball::number::Dtype;
use flyball::request::{FinishReason, Prompt, Request, SamplingParams};
use flyball::units::{Blocks, Nanos, Tokens};
use flyball_simt::driver::{self, Failure};
use std::io::Write as _;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Arc::new(Model::random(ModelConfig { layers: 2, ..tiny() }, 5).unwrap()));

/// A head for each query, all of 128; pairs that are neighbours; one matrix for what comes in and goes out, so that a
/// token is likely to come again.
static TIED: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let rope = Rope { style: RopeStyle::Interleaved, ..tiny().rope };
    let heads = ModelConfig { head_dim: 128, heads_q: 3, heads_kv: 3, qk_norm: false, ..tiny() };
    Arc::new(Model::random(ModelConfig { tied: true, rope, ..heads }, 6).unwrap())
});

/// One test has the devices at a time.
static DEVICES: Mutex<()> = Mutex::new(());

/// Runs a test on the GPU, where `FLYBALL_TEST_DEVICE=cuda` says that there is one, and elsewhere on each emulated
/// device; says so if it cannot run.
fn on_devices(test: impl Fn(usize)) {
    on(&[driver::SM90, driver::SM80], test);
}

/// The same on these emulated devices.
fn on(emulated: &[usize], test: impl Fn(usize)) {
    let _alone = DEVICES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let why_not = match () {
        () if on_gpu() => return test(0),
        () if built().next().is_none() => "this build has no kernels, since it found no nvcc",
        () if !driver::install() => "there is neither a GPU nor the emulated driver",
        () => return emulated.iter().copied().for_each(test),
    };
    not_run(why_not);
}

/// Says so; not by a macro, whose output the test runner would keep to itself.
fn not_run(why: &str) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    writeln!(std::io::stdout(), "{name} was not run: {why}").expect("stdout takes it");
}

fn on_gpu() -> bool {
    std::env::var("FLYBALL_TEST_DEVICE").as_deref() == Ok("cuda")
}

/// Requests: many for a GPU; for the emulator, which takes a few hundredths of a second for a step, few and short ones,
/// close together.
fn crowd(seed: u64, many: u32, few: u32) -> Vec<Arrival> {
    if on_gpu() {
        return arrivals(seed, many);
    }
    let mut arrivals = arrivals(seed, few);
    for Arrival { request, at, .. } in &mut arrivals {
        request.max_tokens = Tokens(request.max_tokens.0.div_ceil(3));
        *at /= 4;
    }
    arrivals
}

/// How to run on a device.
fn fast(ordinal: usize) -> CudaOptions {
    CudaOptions { ordinal, kv: Dtype::Bf16, batch_invariant: false, graphs: true }
}

fn invariant(ordinal: usize) -> CudaOptions {
    CudaOptions { batch_invariant: true, ..fast(ordinal) }
}

fn run(config: &Config, options: CudaOptions, arrivals: &[Arrival]) -> Outcome {
    run_model(&MODEL, config, options, arrivals)
}

fn run_model(model: &Model, config: &Config, options: CudaOptions, arrivals: &[Arrival]) -> Outcome {
    let clock = || Box::new(MonotonicClock::new());
    let executor = CudaExecutor::new(model, config, options, clock()).unwrap_or_else(|e| panic!("{e}"));
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
    on_devices(|ordinal| {
        let arrivals = crowd(1, 12, 4);
        for pipeline_depth in [1, 2] {
            for graphs in [false, true] {
                for kv in [Dtype::Bf16, Dtype::E4m3] {
                    let config = Config { pipeline_depth, ..ample() };
                    whole(&run(&config, CudaOptions { graphs, kv, ..fast(ordinal) }, &arrivals), &arrivals);
                }
            }
        }
    });
}

#[test]
fn graphs_and_depth_change_no_token() {
    let mut arrivals = crowd(2, 12, 5);
    for Arrival { request, .. } in &mut arrivals {
        (request.sampling.repetition_penalty, request.sampling.frequency_penalty) = (1.5, 0.5);
    }
    // One after the other, in the same slot; and up to five.
    let cases =
        [(1, [(true, 1), (false, 2), (true, 2)].as_slice(), 1), (5, &[(true, 1)], 1), (5, &[(true, 2)], 2)];
    on_devices(|ordinal| {
        for (rows, ways, depth) in cases {
            let run = |(graphs, pipeline_depth)| {
                let mut config = Config { max_num_seqs: rows, max_resident: rows, ..ample() };
                // A prompt takes several steps, the first while the last token of another is on its way.
                (config.pipeline_depth, config.max_num_batched_tokens) = (pipeline_depth, Tokens(16));
                run(&config, CudaOptions { graphs, ..fast(ordinal) }, &arrivals).tokens
            };
            let first = run((false, depth));
            for way in ways {
                assert_eq!(run(*way), first, "device {ordinal}, {rows} rows, graphs and depth: {way:?}");
            }
        }
    });
}

#[test]
fn in_the_invariant_mode_no_schedule_changes_a_token() {
    on_devices(|ordinal| {
        let mut arrivals = crowd(3, 12, 4);
        // Somebody comes back with a prompt that is in the cache.
        let longest = arrivals.iter().max_by_key(|arrival| arrival.request.prompt.len()).unwrap();
        arrivals.push(Arrival { at: 20, ..longest.clone() });
        let alone = |arrival: &Arrival| {
            let arrival = Arrival { at: 0, ..arrival.clone() };
            let outcome = run(&ample(), invariant(ordinal), std::slice::from_ref(&arrival));
            whole(&outcome, &[arrival]);
            outcome.of(0).0
        };
        let alone: Vec<Vec<u32>> = arrivals.iter().map(alone).collect();
        let prompts: u64 = arrivals.iter().map(|arrival| u64::from(arrival.request.prompt.len().0)).sum();
        let wide = Config { max_num_batched_tokens: Tokens(256), ..ample() };
        let tight = Config { kv_blocks: Blocks(if on_gpu() { 20 } else { 8 }), ..ample() };
        let cases = [
            ("beside others", ample()),
            ("at once", wide),
            ("swapped", Config { preempt: Preempt::Swap, ..tight.clone() }),
            ("swapped beside", Config { preempt: Preempt::Swap, swap: SwapMode::Overlap, ..tight.clone() }),
            ("computed again", Config { preempt: Preempt::Recompute, ..tight.clone() }),
            ("on cached prefixes", Config { prefix_cache: true, ..ample() }),
        ];
        for (what, config) in cases {
            for pipeline_depth in [1, 2] {
                let config = Config { pipeline_depth, ..config.clone() };
                let mut arrivals = arrivals.clone();
                if what == "at once" {
                    arrivals.iter_mut().for_each(|arrival| arrival.at = 0);
                }
                let outcome = run(&config, invariant(ordinal), &arrivals);
                assert_eq!(outcome.tokens, alone, "device {ordinal}, {what}, depth {pipeline_depth}");
                whole(&outcome, &arrivals);
                let counters = outcome.counters;
                let happened = match what {
                    "beside others" => 1,
                    // Products of twice as many rows.
                    "at once" => prompts.saturating_sub(128),
                    "computed again" => counters.recomputes,
                    "on cached prefixes" => counters.cached_tokens,
                    _ => counters.swaps,
                };
                assert!(happened > 0, "{what}: {counters:?}");
            }
        }
    });
}

/// It depends on the token that the step in flight draws.
#[test]
fn under_a_prohibitive_penalty_no_token_comes_twice() {
    let mut arrivals = crowd(2, 8, 3);
    for Arrival { request, .. } in &mut arrivals {
        request.sampling = SamplingParams { repetition_penalty: 100.0, ..SamplingParams::default() };
    }
    on_devices(|ordinal| {
        for pipeline_depth in [1, 2] {
            let config = Config { pipeline_depth, ..ample() };
            let outcome = run_model(&TIED, &config, fast(ordinal), &arrivals);
            for mut tokens in outcome.tokens {
                let drawn = tokens.len();
                tokens.sort_unstable();
                tokens.dedup();
                assert_eq!(tokens.len(), drawn, "device {ordinal}, depth {pipeline_depth}");
            }
        }
    });
}

#[test]
fn a_request_of_unknown_content_fails_alone() {
    on_devices(|ordinal| {
        let mut mixed = arrivals(4, 4);
        let unknown = Request::new(Nanos::ZERO, Prompt::Length(Tokens(20)), Tokens(5));
        mixed.push(Arrival { request: unknown, at: 3, cancel: None });
        for pipeline_depth in [1, 2] {
            let outcome = run(&Config { pipeline_depth, ..ample() }, fast(ordinal), &mixed);
            assert_eq!(outcome.of(4), (Vec::new(), Some(FinishReason::Failed)));
            whole(&outcome, &mixed[..4]);
        }
    });
}

/// Requests for the first tokens of greedy texts, and those that the CPU executor gives.
struct Texts {
    model: Arc<Model>,
    arrivals: Vec<Arrival>,
    want: Vec<Vec<u32>>,
}

impl Texts {
    fn new(model: &Arc<Model>, seed: u64, many: u32, few: u32) -> Self {
        let mut arrivals = crowd(seed, many, few);
        for Arrival { request, .. } in &mut arrivals {
            (request.max_tokens, request.sampling) = (Tokens(6), SamplingParams::default());
        }
        let clock = || Box::new(MonotonicClock::new());
        let cpu = CpuExecutor::new(model.clone(), &ample(), Dtype::Bf16, clock()).unwrap();
        let want = common::run(Box::new(cpu), clock(), "fcfs", &ample(), &arrivals).tokens;
        Self { model: model.clone(), arrivals, want }
    }

    /// How many a device gives otherwise, and how often it swapped.
    fn differ(&self, config: &Config, options: CudaOptions) -> (usize, u64) {
        let outcome = run_model(&self.model, config, options, &self.arrivals);
        let differ = outcome.tokens.iter().zip(&self.want).filter(|(got, want)| got != want);
        (differ.count(), outcome.counters.swaps)
    }

    /// Activations are bf16 on a device and f32 on the CPU, so that logits which are nearly equal may change places,
    /// and what follows is another text.
    fn allowed(&self) -> usize {
        self.want.len() / 4
    }
}

#[test]
fn nearly_all_texts_begin_as_those_of_the_cpu_executor() {
    let texts = Texts::new(&MODEL, 5, 64, 16);
    // A head for each query, all of 128; pairs that are neighbours; one matrix for what comes in and goes out.
    let rope = Rope { style: RopeStyle::Interleaved, ..tiny().rope };
    let other =
        ModelConfig { head_dim: 128, heads_q: 3, heads_kv: 3, qk_norm: false, tied: true, rope, ..tiny() };
    let others = Texts::new(&Arc::new(Model::random(other, 6).unwrap()), 8, 32, 8);
    let deep = Config { pipeline_depth: 2, ..ample() };
    let tight = Config { kv_blocks: Blocks(16), preempt: Preempt::Swap, ..deep.clone() };
    on_devices(|ordinal| {
        let cases = [
            (&texts, fast(ordinal), &ample()),
            (&texts, fast(ordinal), &tight),
            (&texts, invariant(ordinal), &deep),
            (&others, fast(ordinal), &deep),
        ];
        for (texts, options, config) in cases {
            let (differ, swaps) = texts.differ(config, options);
            assert!(differ <= texts.allowed(), "{differ} texts differ: {options:?}, {config:?}");
            assert!(config.kv_blocks > tight.kv_blocks || swaps > 0, "nobody was swapped");
        }
    });
}

/// The check above can fail: the emulated devices run what no event holds back.
#[test]
fn without_events_texts_are_others() {
    if on_gpu() {
        return not_run("only the emulated driver forgets to wait when it is told to");
    }
    let texts = Texts::new(&MODEL, 5, 0, 8);
    on_devices(|ordinal| {
        let config = Config { kv_blocks: Blocks(16), preempt: Preempt::Swap, pipeline_depth: 2, ..ample() };
        let (differ, _) = driver::ignoring("cuStreamWaitEvent", || texts.differ(&config, fast(ordinal)));
        assert!(differ > texts.allowed(), "only {differ} texts differ");
    });
}

/// Rows of one slot whose blocks are `blocks`, from `position` on; the last token is drawn.
fn rows(slot: u32, blocks: &[u32], position: u32, ids: &[u32]) -> BatchPlan {
    let mut row = Row::default().with_input(Input::Ids(0));
    (row.slot, row.tokens, row.position, row.samples) = (Slot(slot), ids.len() as u32, position, true);
    let delta = |(index, block): (usize, &u32)| TableDelta {
        slot: Slot(slot),
        index: index as u32,
        block: BlockId(*block),
    };
    BatchPlan {
        rows: vec![row],
        token_ids: ids.to_vec(),
        tables: blocks.iter().enumerate().map(delta).collect(),
        ..BatchPlan::default()
    }
}

/// Runs a step alone.
fn tokens_of(executor: &mut CudaExecutor, plan: &BatchPlan) -> Vec<u32> {
    let mut outcome = StepOutcome::default();
    let flying = executor.submit(plan).unwrap();
    executor.wait(flying, &mut outcome).unwrap();
    outcome.tokens
}

/// A prompt goes to the host after the very kernels that write it, comes back elsewhere before those that read it, and
/// is copied once more on the device: each copy draws the same token.
#[test]
fn copies_before_and_after_the_kernels_take_their_turn() {
    on_devices(|ordinal| {
        let clock = Box::new(MonotonicClock::new());
        let mut executor = CudaExecutor::new(&MODEL, &ample(), fast(ordinal), clock).unwrap();
        let prompt: Vec<u32> = (0..32).map(|at| at * 37 % 256).collect();
        let pairs = |device: [u32; 2]| -> Vec<SwapBlock> {
            let pair = |(host, device)| SwapBlock { device: BlockId(device), host: HostBlockId(host) };
            (0..).zip(device).map(pair).collect()
        };
        let mut written = rows(0, &[3, 4, 20], 0, &prompt);
        written.after.swap_out = pairs([3, 4]);
        let mut read = rows(1, &[10, 11, 21], 32, &[9]);
        read.before.swap_in = pairs([10, 11]);
        let mut copied = rows(2, &[14, 15, 22], 32, &[9]);
        let copies = [(3, 14), (4, 15)];
        copied.before.device =
            copies.map(|(from, to)| CopyBlocks { from: BlockId(from), to: BlockId(to) }).to_vec();
        let mut drawn = Vec::new();
        // Two steps in flight: nobody waits between the copies.
        let mut flying = vec![executor.submit(&written).unwrap()];
        for (step, plan) in (1..).zip([&mut read, &mut copied, &mut rows(0, &[3, 4, 20], 32, &[9])]) {
            plan.step = step;
            flying.push(executor.submit(plan).unwrap());
            let mut outcome = StepOutcome::default();
            executor.wait(flying.remove(0), &mut outcome).unwrap();
            drawn.push(outcome.tokens[0]);
        }
        let mut outcome = StepOutcome::default();
        executor.wait(flying.remove(0), &mut outcome).unwrap();
        drawn.push(outcome.tokens[0]);
        assert!(drawn[1..].iter().all(|token| *token == drawn[3]), "device {ordinal}: {drawn:?}");
    });
}

/// Three rows are four in a graph. The first block holds a prompt so short that another first token is another text.
#[test]
fn the_padding_of_a_graph_writes_no_keys() {
    on_devices(|ordinal| {
        let drawn = [false, true].map(|graphs| {
            let clock = Box::new(MonotonicClock::new());
            let options = CudaOptions { graphs, ..fast(ordinal) };
            let mut executor = CudaExecutor::new(&MODEL, &ample(), options, clock).unwrap();
            let mut step = |plan: &BatchPlan| tokens_of(&mut executor, plan);
            (0..3).for_each(|slot| drop(step(&rows(slot, &[slot], 0, &[200, 50 + slot]))));
            let decodes = |position: u32| {
                let mut plan = rows(0, &[0], position, &[position]);
                plan.rows = vec![plan.rows[0]; 3];
                (0..).zip(&mut plan.rows).for_each(|(slot, row)| row.slot = Slot(slot));
                plan
            };
            (2..15).map(|position| step(&decodes(position))).collect::<Vec<_>>()
        });
        assert_eq!(drawn[0], drawn[1], "device {ordinal}");
    });
}

/// Rows of one content draw one token, whoever merges their chunks: a kernel of its own for few, the last chunk for many.
#[test]
fn decodes_draw_the_same_beside_few_and_beside_many() {
    let config = Config { max_num_seqs: 12, max_num_batched_tokens: Tokens(256), ..ample() };
    let prompt: Vec<u32> = (0..256).map(|at| at * 37 % 256).collect();
    on_devices(|ordinal| {
        let clock = Box::new(MonotonicClock::new());
        let mut executor = CudaExecutor::new(&MODEL, &config, fast(ordinal), clock).unwrap();
        let mut step = |plan: &BatchPlan| tokens_of(&mut executor, plan);
        let prefix: Vec<u32> = (0..16).collect();
        step(&rows(0, &prefix, 0, &prompt));
        let mut decodes = |count: u32| {
            let mut plan = BatchPlan::default();
            for slot in 0..count {
                // A block of its own for the token behind the prefix.
                let one = rows(slot, &[prefix.as_slice(), &[16 + slot]].concat(), 256, &[9]);
                plan.rows.extend(one.rows);
                plan.tables.extend(one.tables);
                plan.token_ids = one.token_ids;
            }
            step(&plan)
        };
        let alone = decodes(1)[0];
        for count in [8, 9, 12] {
            assert_eq!(decodes(count), vec![alone; count as usize], "device {ordinal}, {count} rows");
        }
    });
}

/// All slots share a prefix from one step on: 1280 entries of the block tables, of 32 blocks. The last one reads it.
#[test]
fn more_changes_of_the_tables_than_blocks_reach_the_device() {
    let config = Config { kv_blocks: Blocks(32), max_resident: 64, ..ample() };
    let prompt: Vec<u32> = (0..32).map(|at| at * 37 % 256).collect();
    let blocks: Vec<u32> = (3..23).collect();
    on_devices(|ordinal| {
        let clock = Box::new(MonotonicClock::new());
        let mut executor = CudaExecutor::new(&MODEL, &config, fast(ordinal), clock).unwrap();
        let mut step = |plan: &BatchPlan| tokens_of(&mut executor, plan)[0];
        step(&rows(0, &blocks, 0, &prompt));
        let drawn = step(&rows(0, &[], 32, &[9]));
        let mut last = rows(63, &[], 32, &[9]);
        last.tables = (0..64).flat_map(|slot| rows(slot, &blocks, 0, &[]).tables).collect();
        assert_eq!(step(&last), drawn, "device {ordinal}");
    });
}

/// Each of eight rows lists most of the vocabulary: more tokens than there are in the cache.
#[test]
fn penalties_over_a_shared_prefix_fit() {
    let prompt: Vec<u32> = (0..250).map(|at| at * 37 % 251).collect();
    let request = |at| {
        let mut request = Request::new(Nanos::ZERO, Prompt::Tokens(prompt.clone().into()), Tokens(2));
        request.sampling.repetition_penalty = 1.2;
        Arrival { request, at, cancel: None }
    };
    let arrivals: Vec<Arrival> = [0].into_iter().chain([20; 8]).map(request).collect();
    let config = Config { kv_blocks: Blocks(40), prefix_cache: true, ..ample() };
    on_devices(|ordinal| whole(&run(&config, fast(ordinal), &arrivals), &arrivals));
}

#[test]
fn a_device_that_fails_is_lost_and_says_in_what() {
    if on_gpu() {
        return not_run("only the emulated driver fails when it is told to");
    }
    let (launch, ecc) = ("CUDA_ERROR_LAUNCH_FAILED (719)", "CUDA_ERROR_ECC_UNCORRECTABLE (214)");
    let failures = [
        ("cuLaunchKernelEx", 7, Failure::LaunchFailed, "launching ", launch),
        ("cuEventSynchronize", 3, Failure::EccUncorrectable, "waiting for ", ecc),
        ("cuMemcpyHtoDAsync", 2, Failure::EccUncorrectable, "uploading ", ecc),
    ];
    let arrivals = crowd(7, 0, 3);
    on_devices(|ordinal| {
        for (call, after, failure, doing, code) in failures {
            let clock = || Box::new(MonotonicClock::new());
            let executor = CudaExecutor::new(&MODEL, &ample(), fast(ordinal), clock()).unwrap();
            let mut engine = common::engine(Box::new(executor), clock(), "fcfs", &ample());
            for Arrival { request, .. } in &arrivals {
                engine.submit(request.clone()).unwrap();
            }
            driver::fail(call, after, failure);
            let error = (0..100).find_map(|_| engine.step().err()).expect("a step fails").to_string();
            let named =
                error.starts_with(&format!("the device is lost: CUDA device {ordinal} (an emulated sm_"));
            let lost = named && error.ends_with("only a new process cures this");
            assert!(lost && error.contains(doing) && error.contains(code), "{call}: {error}");
            let after = engine.step().unwrap_err().to_string();
            assert!(after.contains(code), "{call}: {after}");
        }
    });
}

/// What a release met is told by the next call, here the one that opens cuBLASLt.
#[test]
fn a_device_lost_before_cublaslt_is_opened_says_in_what() {
    if on_gpu() {
        return not_run("only the emulated driver fails when it is told to");
    }
    on_devices(|ordinal| {
        let device = Device::open(ordinal).unwrap();
        let arena = Arena::new(&device, "a test", 64).unwrap();
        driver::fail("cuMemFree", 0, Failure::LaunchFailed);
        drop(arena);
        let lost = Blas::open(&device).unwrap_err().to_string();
        assert!(lost.starts_with("opening cuBLASLt failed: CUDA_ERROR_LAUNCH_FAILED (719)"), "{lost}");
    });
}

#[test]
fn a_pool_that_does_not_fit_is_refused_with_both_figures() {
    on_devices(|ordinal| {
        // 16 KiB each: sixteen TiB, which no device has.
        let config = Config { kv_blocks: Blocks(1 << 30), ..ample() };
        let clock = Box::new(MonotonicClock::new());
        let refused = CudaExecutor::new(&MODEL, &config, fast(ordinal), clock).err().unwrap();
        let CudaError::OutOfMemory { what, asked, free } = refused else { panic!("{refused}") };
        assert!(what.contains("KV blocks") && asked >> 40 >= 16 && free < asked, "{what}: {asked}, {free}");
    });
}

/// As an RTX 4090 or an A10: what their shared memory suffices for runs, and what it does not is named.
#[test]
fn a_device_with_little_shared_memory_runs_what_fits() {
    if on_gpu() {
        return not_run("only the emulated driver has such a device");
    }
    let arrivals = crowd(9, 0, 2);
    on(&[driver::SM86], |ordinal| {
        whole(&run(&ample(), fast(ordinal), &arrivals), &arrivals);
        let clock = Box::new(MonotonicClock::new());
        let refused = CudaExecutor::new(&TIED, &ample(), fast(ordinal), clock).err().unwrap();
        let CudaError::NoShared { name, asked, most, .. } = refused else { panic!("{refused}") };
        assert!(name == "decode_bf16_d128" && most == 99 << 10 && asked > most, "{name}: {asked}, {most}");
    });
}

/// Decode reads the plan before it waits for the grid ahead, which must therefore not be the plan.
#[test]
fn a_kernel_that_begins_early_must_not_read_what_the_one_ahead_writes() {
    if on_gpu() {
        return not_run("only the emulated driver sees it");
    }
    on(&[driver::SM90], |ordinal| {
        let run = |early: bool| {
            let device = Device::open(ordinal).unwrap();
            let (kernels, stream) = (Kernels::load(&device).unwrap(), device.stream().unwrap());
            let zeros: Buffer<u8> =
                Arena::new(&device, "a test", 1 << 16).unwrap().take("zeros", 1 << 15).unwrap();
            stream.fill(&zeros, 0).unwrap();
            let at = |place: u64| zeros.address() + (place << 12);
            let pool = params::Pool {
                pages: at(0),
                page_stride: 2048,
                page_shift: 4,
                heads_kv: 1,
                ..Default::default()
            };
            let decode = params::Decode {
                pool,
                q: at(1),
                output: at(2),
                lengths: at(1),
                tables: at(1),
                chunk_from: at(3),
                chunks: at(4),
                lists: at(5),
                overflow: at(6),
                q_stride: 64,
                table_stride: 1,
                rows: 1,
                heads_q: 1,
                scale: 1.0,
                chunk: 64,
                chunks_max: 2,
                lists_max: 1,
                ..Default::default()
            };
            let kernel = |name| kernels.get(name).unwrap();
            stream.launch(&kernel("decode_plan"), 1, &decode).unwrap();
            let launch = if early { Stream::launch_early } else { Stream::launch };
            launch(&stream, &kernel("decode_bf16_d64"), 1, &decode).unwrap();
            stream.synchronize()
        };
        run(false).unwrap();
        let faulted = run(true).unwrap_err().to_string();
        assert!(faulted.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{faulted}");
    });
}

/// Memory that was free when it was asked for.
#[test]
fn memory_that_another_took_meanwhile_is_refused_with_both_figures() {
    if on_gpu() {
        return not_run("only the emulated driver refuses memory when it is told to");
    }
    on_devices(|ordinal| {
        driver::fail("cuMemAlloc", 0, Failure::OutOfMemory);
        let clock = Box::new(MonotonicClock::new());
        let refused = CudaExecutor::new(&MODEL, &ample(), fast(ordinal), clock).err().unwrap();
        let CudaError::OutOfMemory { what, asked, free } = refused else { panic!("{refused}") };
        assert!(what.contains("KV blocks") && asked > 0 && free > asked, "{what}: {asked}, {free}");
    });
}

#[test]
fn a_device_that_is_not_there_is_named() {
    on_devices(|_| {
        let count = Device::count().unwrap();
        let missing = Device::open(count).unwrap_err();
        assert_eq!(missing, CudaError::NoDevice { ordinal: count, count });
    });
}
