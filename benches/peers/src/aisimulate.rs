//! `aisimulate-core` 0.13.0: its own replay for speed, its engine in a loop of ours for agreement.

use crate::Job;
use crate::agree::{Latencies, Scheduler};
use aisimulate_core::engine::generalized::{EngineIdentity, SchedulerCommand};
use aisimulate_core::engine::{
    Backend, Command, Engine, EngineConfig, EngineFactory, Request, TimingModelConfig,
};
use aisimulate_core::replay::{
    CURRENT_REPLAY_SPEC_VERSION, DirectRequest, ReplayEngineConfig, ReplayEngineFactory, ReplayRuntimeInput,
    ReplaySpec, ReplayTopology, Replayer,
};
use std::num::NonZeroU32;
use std::time::Instant;
use uuid::Uuid;

const BLOCK: usize = 16;
/// Steps without any progress that it may take before its loop is taken for dead.
const IDLE_MAX: u32 = 2000;

/// Its replayer's time for the whole trace, with its default timing, in seconds; and its output tokens.
pub fn replay(jobs: &[Job]) -> (f64, u64) {
    let request = |(i, job): (usize, &Job)| DirectRequest {
        tokens: tokens(i, job.prompt),
        max_output_tokens: job.output as usize,
        uuid: Some(uuid(i)),
        arrival_timestamp_ms: Some(job.at_ms),
        ..Default::default()
    };
    let engine = ReplayEngineConfig { rank: config(Backend::Vllm, 16_384 * BLOCK), ..Default::default() };
    let spec = ReplaySpec {
        version: CURRENT_REPLAY_SPEC_VERSION,
        topology: ReplayTopology::aggregated(1),
        engine: serde_json::to_value(engine).expect("its configuration is plain data"),
        adapters: Default::default(),
        max_sim_time_ms: None,
        max_in_flight: None,
        record_per_request: true,
        sla: Default::default(),
        requests: Vec::new(),
    };
    let queue = jobs.iter().enumerate().map(request).collect();
    let replayer = Replayer::new(spec, ReplayEngineFactory::new()).expect("its specification is sound");
    let replayer = replayer.with_runtime_input(ReplayRuntimeInput::Requests(queue));
    let start = Instant::now();
    let report = replayer.run().expect("it replays the trace");
    (start.elapsed().as_secs_f64(), report.request_counts.total_output_tokens as u64)
}

/// Latencies of its scheduler when each pass with any work takes exactly `step_ms`.
pub fn schedule(jobs: &[Job], scheduler: Scheduler, step_ms: f64, kv_tokens: u32) -> Latencies {
    let backend = match scheduler {
        Scheduler::Vllm => Backend::Vllm,
        Scheduler::Sglang => Backend::Sglang,
    };
    let mut config = config(backend, kv_tokens as usize);
    config.timing_model = TimingModelConfig::Fixed { prefill_ms: 0.0, decode_ms: 0.0 };
    let factory = EngineFactory::new(config).expect("its configuration is sound");
    let mut engine = factory.build(EngineIdentity::new(0), NonZeroU32::MIN).expect("it builds an engine");
    let mut latencies = Latencies::new(jobs.len());
    let (mut now, mut next, mut idle) = (0.0, 0, 0);
    loop {
        while next < jobs.len() && jobs[next].at_ms <= now {
            submit(&mut engine, next, &jobs[next], now);
            next += 1;
        }
        if engine.is_ready() {
            let (end, moved) = pass(&mut engine, now, step_ms, &mut latencies);
            (now, idle) = (end, if moved { 0 } else { idle + 1 });
        }
        if !engine.is_ready() || idle > IDLE_MAX {
            if next == jobs.len() {
                assert!(idle <= IDLE_MAX, "it has stopped with requests unserved");
                return latencies;
            }
            (now, idle) = (jobs[next].at_ms.max(now), 0);
        }
    }
}

fn submit(engine: &mut Engine, index: usize, job: &Job, now: f64) {
    let request = Request {
        request_id: uuid(index),
        tokens: tokens(index, job.prompt),
        max_output_tokens: job.output as usize,
        output_token_ids: None,
    };
    let command = SchedulerCommand::new(0, Command::Submit(request));
    engine.apply_command_effects(command, now).expect("it takes the request");
}

/// One pass: when it ends, and whether anything moved. A pass without work takes no time.
fn pass(engine: &mut Engine, now: f64, step_ms: f64, latencies: &mut Latencies) -> (f64, bool) {
    let pass = engine.execute_pass(now).expect("it schedules").expect("it was ready");
    let works = pass.by_rank.iter().any(|rank| !rank.effects.committed_requests.is_empty());
    let end = if works { now + step_ms } else { pass.end_ms };
    let done = engine.complete_pass(pass.pass_id, end).expect("it completes its pass");
    let mut moved = works;
    for rank in done.effects.into_by_rank() {
        for output in &rank.effects.outputs {
            if output.token_id.is_some() {
                latencies.token(output.request_id.as_u128() as usize - 1, end);
            }
            moved |= output.completed;
        }
    }
    latencies.steps += 1;
    (end, moved)
}

fn config(backend: Backend, kv_tokens: usize) -> EngineConfig {
    let mut config = EngineConfig::for_backend(backend);
    config.block_size = BLOCK;
    config.max_num_seqs = 256;
    config.max_num_batched_tokens = 8192;
    config.num_gpu_blocks = kv_tokens / BLOCK;
    config.enable_prefix_caching = false;
    config
}

/// The tokens that it makes up itself for a request of which only the length is known.
fn tokens(index: usize, length: u32) -> Vec<u32> {
    let first = (index as u32).wrapping_mul(1_000_003);
    (0..length).map(|i| first.wrapping_add(i)).collect()
}

fn uuid(index: usize) -> Uuid {
    Uuid::from_u128(index as u128 + 1)
}
