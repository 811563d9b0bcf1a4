//! A decoder on the CPU behind the production engine: requests of token ids in, tokens out.
//!
//! `cargo run --release --example tiny_model` makes a small decoder up; `... -- FOLDER` reads one in the Hugging Face
//! format (`config.json` and safetensors: Llama, Mistral, Qwen3), whose tokenizer is the caller's affair.

use flyball::clock::MonotonicClock;
use flyball::config::Config;
use flyball::cost::{CostModel, Profile};
use flyball::engine::Engine;
use flyball::exec::cpu::CpuExecutor;
use flyball::model::{Model, tiny};
use flyball::number::Dtype;
use flyball::request::{Prompt, Request, SamplingParams};
use flyball::sched::order;
use flyball::units::{Blocks, Nanos, Tokens};
use std::error::Error;
use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let model = match std::env::args().nth(1) {
        Some(folder) => Model::load(Path::new(&folder))?,
        None => Model::random(tiny(), 1)?,
    };
    let speed = generate(Arc::new(model), &mut stdout())?;
    writeln!(stderr(), "{speed}")?;
    Ok(())
}

/// Prints the tokens of four requests, and says how fast they came.
pub(crate) fn generate(model: Arc<Model>, out: &mut impl Write) -> Result<String, Box<dyn Error>> {
    let config = Config {
        kv_blocks: Blocks(64),
        host_blocks: Blocks(64),
        max_num_seqs: 8,
        max_resident: 8,
        max_num_batched_tokens: Tokens(128),
        max_model_len: Tokens(256),
        prefix_cache: true,
        ..Config::default()
    };
    let clock = MonotonicClock::new();
    let vocab = model.config().vocab;
    let device = CpuExecutor::new(model, &config, Dtype::Bf16, Box::new(clock.clone()))?;
    // What the policy believes that steps cost. Its tokens come out the same whatever it believes.
    let cost = CostModel::new(&Profile::load("h200-llama-3-8b")?);
    let policy = order::parse("flyball", None)?;
    let mut engine = Engine::new(config, policy, Box::new(device), Box::new(clock), cost)?;

    let warm = SamplingParams { temperature: 0.8, top_p: 0.95, seed: 7, ..SamplingParams::default() };
    for (user_data, (length, sampling)) in
        [(5, SamplingParams::default()), (60, SamplingParams::default()), (60, warm), (9, warm)]
            .into_iter()
            .enumerate()
    {
        let prompt: Vec<u32> = (0..length).map(|at| (at * 31 + 17) % vocab).collect();
        let mut request = Request::new(Nanos::ZERO, Prompt::Tokens(prompt.into()), Tokens(16));
        (request.user_data, request.sampling) = (user_data as u64, sampling);
        engine.submit(request)?;
    }
    let mut tokens = vec![Vec::new(); 4];
    let (mut steps, mut span) = (0, 0.0);
    while !engine.is_idle() {
        let report = engine.step()?;
        report.tokens.iter().for_each(|token| tokens[token.user_data as usize].push(token.token));
        steps += 1;
        span += (report.outcome.finished.saturating_sub(report.outcome.started)).as_secs_f64();
    }
    for (request, tokens) in tokens.iter().enumerate() {
        writeln!(out, "request {request}: {tokens:?}")?;
    }
    let count: usize = tokens.iter().map(Vec::len).sum();
    Ok(format!("{count} tokens in {steps} steps, {:.0} tokens/s", count as f64 / span))
}
