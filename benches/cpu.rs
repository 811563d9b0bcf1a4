//! The CPU executor: tokens per second of two small decoders, decoding and prefilling.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flyball::batch::{BatchPlan, Input, Row};
use flyball::clock::MonotonicClock;
use flyball::config::Config;
use flyball::exec::cpu::CpuExecutor;
use flyball::exec::{Executor, StepOutcome};
use flyball::ids::Slot;
use flyball::kv::{BlockId, TableDelta};
use flyball::model::{Model, ModelConfig, tiny};
use flyball::number::Dtype;
use flyball::units::{Blocks, Tokens};
use std::hint::black_box;
use std::sync::Arc;

const SLOTS: u32 = 16;
/// Tokens in each cache before the measured step.
const CONTEXT: u32 = 256;

/// 41 million weights, of which a token is multiplied with 32.
fn small() -> ModelConfig {
    ModelConfig {
        layers: 8,
        hidden: 512,
        heads_q: 8,
        heads_kv: 2,
        intermediate: 1536,
        vocab: 16_000,
        ..tiny()
    }
}

fn config() -> Config {
    Config {
        kv_blocks: Blocks(SLOTS * 32),
        host_blocks: Blocks(0),
        max_num_seqs: SLOTS,
        max_resident: SLOTS,
        max_num_batched_tokens: Tokens(CONTEXT),
        max_model_len: Tokens(512),
        ..Config::default()
    }
}

/// A plan of `rows` rows of `tokens` tokens each, from `position` on.
fn plan(rows: u32, tokens: u32, position: u32) -> BatchPlan {
    let mut plan =
        BatchPlan { token_ids: (0..tokens).map(|at| at * 7 % 256).collect(), ..BatchPlan::default() };
    for slot in (0..rows).map(Slot) {
        let mut row = Row::default().with_input(Input::Ids(0));
        (row.slot, row.tokens, row.position, row.samples) = (slot, tokens, position, true);
        plan.rows.push(row);
        let delta = |index| TableDelta { slot, index, block: BlockId(slot.0 * 32 + index) };
        plan.tables.extend((0..32).map(delta));
    }
    plan
}

fn step(executor: &mut CpuExecutor, plan: &BatchPlan, outcome: &mut StepOutcome) {
    let step = executor.submit(plan).expect("the plan is within the limits");
    executor.wait(step, outcome).expect("a processor is not lost");
}

fn tokens_per_second(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cpu");
    group.sample_size(10);
    for description in [tiny(), small()] {
        let name = format!("{}k weights", description.parameters() / 1000);
        let model = Arc::new(Model::random(description, 1).expect("the sizes fit together"));
        let clock = Box::new(MonotonicClock::new());
        let mut executor =
            CpuExecutor::new(model, &config(), Dtype::Bf16, clock).expect("the limits fit the model");
        let mut outcome = StepOutcome::default();
        // Every cache is filled, a sequence at a time.
        for slot in 0..SLOTS {
            let mut prefill = plan(slot + 1, CONTEXT, 0);
            prefill.rows.drain(..slot as usize);
            step(&mut executor, &prefill, &mut outcome);
        }
        for (what, rows, tokens) in [("decode", 1, 1), ("decode", SLOTS, 1), ("prefill", 1, CONTEXT)] {
            let position = if tokens == 1 { CONTEXT } else { 0 };
            let plan = plan(rows, tokens, position);
            group.throughput(Throughput::Elements(u64::from(rows * tokens)));
            group.bench_function(BenchmarkId::new(what, format!("{name}, {rows} x {tokens}")), |bencher| {
                bencher.iter(|| step(&mut executor, black_box(&plan), &mut outcome));
            });
            assert!(outcome.failed.is_empty() && outcome.tokens.len() == rows as usize);
        }
    }
    group.finish();
}

criterion_group!(benches, tokens_per_second);
criterion_main!(benches);
