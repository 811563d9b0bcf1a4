//! Times steps of a decoder by the CUDA executor: microseconds of the device per step, one JSON object a line.
//!
//! ```text
//! executor [--out FILE] [--quick]
//! ```
//!
//! The decoder has the shapes of Llama-3-8B, four of its layers, a tied embedding and random weights. Rows are full of
//! tokens that it has prefilled itself. Bytes are those of the weights that a step reads and of the cache that its decodes
//! attend to; FLOP are counted for chunks alone: products, and the visible half of attention. `host` is the processor's
//! time in `submit`, which the pipeline hides behind the step before.
//!
//! Without a GPU it says so and fails. Under `--test` a tiny decoder runs a few steps, on emulated devices.

use flyball::batch::{BatchPlan, Input, Row};
use flyball::clock::MonotonicClock;
use flyball::config::Config;
use flyball::exec::cuda::{CudaExecutor, CudaOptions, built};
use flyball::exec::{Executor, StepOutcome};
use flyball::ids::Slot;
use flyball::kv::{BlockId, TableDelta};
use flyball::model::{Model, ModelConfig, Rope, RopeStyle, tiny};
use flyball::number::Dtype;
use flyball::units::{Blocks, Tokens};
use serde_json::json;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

const BLOCK: u32 = 16;

/// Four layers of Llama-3-8B.
fn llama() -> ModelConfig {
    ModelConfig {
        layers: 4,
        hidden: 4096,
        heads_q: 32,
        heads_kv: 8,
        head_dim: 128,
        intermediate: 14_336,
        vocab: 128_256,
        context: 65_536,
        norm_epsilon: 1e-5,
        rope: Rope { theta: 5e5, style: RopeStyle::NeoX, scaling: None },
        qk_norm: false,
        tied: true,
        dtype: Dtype::Bf16,
    }
}

/// What is timed: a decoder, and steps of it.
struct Scale {
    model: ModelConfig,
    /// Tokens of a step.
    step_tokens: u32,
    steps: Vec<Shape>,
    repeats: usize,
}

impl Scale {
    fn full(quick: bool) -> Self {
        let k = 1024;
        let decode = |rows, length| Shape { decodes: rows, length, chunk: 0, prefix: 0 };
        let prefill = |chunk, prefix| Shape { decodes: 0, length: 0, chunk, prefix };
        let mut steps = vec![decode(1, k), decode(32, 4 * k), decode(128, 2 * k), prefill(8 * k, 0)];
        steps.push(Shape { decodes: 32, length: 4 * k, chunk: 512, prefix: 16 * k });
        if !quick {
            steps.extend([decode(8, k), decode(8, 16 * k), decode(64, 4 * k)]);
            steps.extend([prefill(512, 0), prefill(2 * k, 0), prefill(2 * k, 16 * k)]);
        }
        Self { model: llama(), step_tokens: 8 * k, steps, repeats: if quick { 30 } else { 50 } }
    }

    fn tiny() -> Self {
        let shape = |decodes, chunk, prefix| Shape { decodes, length: 40, chunk, prefix };
        let steps = vec![shape(3, 0, 0), shape(0, 32, 0), shape(2, 16, 20)];
        Self { model: tiny(), step_tokens: 64, steps, repeats: 2 }
    }

    fn config(&self) -> Config {
        let rows = self.steps.iter().map(|step| step.decodes + 1).max().unwrap_or(1);
        let longest = self.steps.iter().map(Shape::longest).max().unwrap_or(1);
        let blocks = self.steps.iter().map(|step| (step.decodes + 1) * step.longest().div_ceil(BLOCK)).max();
        Config {
            block_size: Tokens(BLOCK),
            kv_blocks: Blocks(blocks.unwrap_or(1)),
            host_blocks: Blocks(0),
            max_num_seqs: rows,
            max_resident: rows,
            max_num_batched_tokens: Tokens(self.step_tokens),
            max_model_len: Tokens(longest),
            ..Config::default()
        }
    }
}

/// A step: decodes of one length, and a chunk after a prefix; either may be absent.
#[derive(Clone, Copy)]
struct Shape {
    decodes: u32,
    length: u32,
    chunk: u32,
    prefix: u32,
}

impl Shape {
    /// Tokens of its longest row.
    fn longest(&self) -> u32 {
        (self.chunk + self.prefix).max(self.length + 1)
    }

    fn name(&self) -> String {
        let decodes = format!("{}x{}", self.decodes, short(self.length));
        let chunk = match self.prefix {
            0 => short(self.chunk),
            prefix => format!("{} on {}", short(self.chunk), short(prefix)),
        };
        match (self.decodes, self.chunk) {
            (0, _) => chunk,
            (_, 0) => decodes,
            _ => format!("{decodes} + {chunk}"),
        }
    }

    fn bytes(&self, model: &ModelConfig, kv: Dtype) -> u64 {
        let cached = 2 * u64::from(model.layers * model.heads_kv * model.head_dim) * kv.bytes() as u64;
        2 * model.parameters() + u64::from(self.decodes * self.length) * cached
    }

    fn flops(&self, model: &ModelConfig) -> u64 {
        let (chunk, prefix) = (u64::from(self.chunk), u64::from(self.prefix));
        let head = u64::from(model.vocab) * u64::from(model.hidden);
        let products = 2 * (model.parameters() - head) * chunk;
        let attended = chunk * prefix + chunk * (chunk + 1) / 2;
        products + 4 * u64::from(model.layers * model.heads_q * model.head_dim) * attended
    }
}

/// `4k`, `512`.
fn short(count: u32) -> String {
    if count > 0 && count.is_multiple_of(1024) { format!("{}k", count / 1024) } else { count.to_string() }
}

/// An executor whose tables are set for one shape.
struct Stand<'a> {
    executor: &'a mut CudaExecutor,
    scale: &'a Scale,
    shape: Shape,
    outcome: StepOutcome,
}

impl<'a> Stand<'a> {
    /// Fills the rows of the shape.
    fn new(executor: &'a mut CudaExecutor, scale: &'a Scale, shape: Shape) -> Result<Self, Box<dyn Error>> {
        let mut stand = Self { executor, scale, shape, outcome: StepOutcome::default() };
        let blocks = shape.longest().div_ceil(BLOCK);
        let mut plan = BatchPlan::default();
        for slot in (0..=shape.decodes).map(Slot) {
            let block = |index| BlockId(slot.0 * blocks + index);
            plan.tables.extend((0..blocks).map(|index| TableDelta { slot, index, block: block(index) }));
        }
        stand.run(&plan)?;
        for slot in 0..shape.decodes {
            stand.prefill(slot, shape.length)?;
        }
        stand.prefill(shape.decodes, shape.prefix)?;
        Ok(stand)
    }

    /// Tokens of a row from its beginning, in steps as large as they may be.
    fn prefill(&mut self, slot: u32, tokens: u32) -> Result<(), Box<dyn Error>> {
        let mut position = 0;
        while position < tokens {
            let count = (tokens - position).min(self.scale.step_tokens);
            let mut plan = BatchPlan::default();
            self.push(&mut plan, slot, position, count, false);
            self.run(&plan)?;
            position += count;
        }
        Ok(())
    }

    fn push(&self, plan: &mut BatchPlan, slot: u32, position: u32, tokens: u32, samples: bool) {
        let start = plan.token_ids.len() as u32;
        let vocab = self.scale.model.vocab;
        plan.token_ids.extend((0..tokens).map(|at| (slot * 7919 + (position + at) * 104_729) % vocab));
        let mut row = Row::default().with_input(Input::Ids(start));
        (row.slot, row.tokens, row.position, row.samples) = (Slot(slot), tokens, position, samples);
        plan.rows.push(row);
    }

    fn run(&mut self, plan: &BatchPlan) -> Result<(), Box<dyn Error>> {
        let step = self.executor.submit(plan)?;
        self.executor.wait(step, &mut self.outcome)?;
        match self.outcome.failed.is_empty() {
            true => Ok(()),
            false => Err(format!("{}: rows failed", self.shape.name()).into()),
        }
    }

    /// Microseconds of the device and of the host's `submit`, and the spread of the former.
    fn time(&mut self) -> Result<[f64; 3], Box<dyn Error>> {
        let Shape { decodes, length, chunk, prefix } = self.shape;
        let mut plan = BatchPlan::default();
        (0..decodes).for_each(|slot| self.push(&mut plan, slot, length, 1, true));
        if chunk > 0 {
            self.push(&mut plan, decodes, prefix, chunk, true);
        }
        let (mut device, mut host) = (Vec::new(), Vec::new());
        // The first two warm up.
        for _ in 0..self.scale.repeats + 2 {
            let from = Instant::now();
            let step = self.executor.submit(&plan)?;
            host.push(from.elapsed().as_secs_f64() * 1e6);
            self.executor.wait(step, &mut self.outcome)?;
            device.push(self.outcome.finished.saturating_sub(self.outcome.started).0 as f64 / 1e3);
        }
        let sorted = |times: &[f64]| {
            let mut times = times[2..].to_vec();
            times.sort_by(f64::total_cmp);
            move |part: usize| times[times.len() * part / 10]
        };
        let (device, host) = (sorted(&device), sorted(&host));
        Ok([device(5), host(5), (device(9) - device(1)) / device(5)])
    }
}

fn run(scale: &Scale, ordinal: usize, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let model = Model::random(scale.model.clone(), 1)?;
    let fast = CudaOptions { ordinal, kv: Dtype::Bf16, batch_invariant: false, graphs: true };
    let ways = [
        ("flyball", fast),
        ("flyball launches", CudaOptions { graphs: false, ..fast }),
        ("flyball fp8 KV", CudaOptions { kv: Dtype::E4m3, ..fast }),
        ("flyball invariant", CudaOptions { batch_invariant: true, ..fast }),
    ];
    for (name, options) in ways {
        let clock = Box::new(MonotonicClock::new());
        let mut executor = CudaExecutor::new(&model, &scale.config(), options, clock)?;
        for &shape in &scale.steps {
            let [us, host, spread] = Stand::new(&mut executor, scale, shape)?.time()?;
            let (bytes, flops) = (shape.bytes(&scale.model, options.kv), shape.flops(&scale.model));
            let row = json!({
                "family": "step", "shape": shape.name(), "impl": name, "us": us, "spread": spread,
                "bytes": bytes, "flops": flops, "host_us": host,
            });
            writeln!(out, "{row}")?;
        }
    }
    Ok(())
}

/// A tiny decoder on emulated devices; says so where there are none.
fn check() -> Result<(), Box<dyn Error>> {
    use flyball_simt::driver;
    if built().next().is_none() || !driver::install() {
        println!("executor: nothing was run: there are no kernels in this build, or no emulated driver");
        return Ok(());
    }
    let mut rows = Vec::new();
    for ordinal in [driver::SM90, driver::SM80] {
        run(&Scale::tiny(), ordinal, &mut rows)?;
    }
    println!("executor: {} rows of emulated devices", rows.iter().filter(|byte| **byte == b'\n').count());
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| words.iter().any(|word| word == option);
    let file = words.iter().position(|word| word == "--out").and_then(|at| words.get(at + 1));
    let done = match file {
        _ if has("--test") => check(),
        None => run(&Scale::full(has("--quick")), 0, &mut std::io::stdout()),
        Some(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| format!("{path}: {error}").into())
            .and_then(|mut out| run(&Scale::full(has("--quick")), 0, &mut out)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("executor: {error}");
            ExitCode::FAILURE
        }
    }
}
