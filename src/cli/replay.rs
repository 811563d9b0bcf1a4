//! `flyball replay`: one trace under one policy.

use super::CliError;
use super::workload::{Workload, WorkloadArgs};
use crate::metrics::{About, Summary};
use crate::sim::{Outcome, Setup, simulate};
use clap::Args;
use std::path::PathBuf;

/// Replay a trace through the production engine, in virtual time.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  flyball replay
  flyball replay --trace mix-2 --requests 10000 --load 0.99 --profile a100-llama-3-8b
  flyball replay --trace AzureLLMInferenceTrace_conv.csv --rate-scale 2 --policy las
  flyball replay --trace conversation_trace.jsonl --gpus 4 --router prefix-affinity --json out.json")]
pub(super) struct ReplayArgs {
    /// The policy: fcfs, vllm, sglang, sjf, srpt, las; with parameters as in las:k=128.
    #[arg(long, default_value = "fcfs")]
    policy: String,
    /// Seed of everything drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Write the summary as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: ReplayArgs) -> Result<(), CliError> {
    let workload = args.workload.replay(args.seed)?;
    let setup = Setup { policy: args.policy.clone(), ..workload.setup.clone() };
    let outcome = simulate(&setup, &workload.arrivals, &mut ())?;
    let summary = summarise(&workload, &setup, &outcome);
    println!("{}", serde_json::to_string_pretty(&summary).expect("a summary is plain data"));
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&summary).expect("a summary is plain data");
        std::fs::write(path, json).map_err(CliError::io(path))?;
    }
    Ok(())
}

/// The summary of a run.
pub(super) fn summarise(workload: &Workload, setup: &Setup, outcome: &Outcome) -> Summary {
    let about = About {
        policy: setup.policy.clone(),
        executor: "sim".into(),
        profile: workload.profile.clone(),
        trace: workload.trace.clone(),
        load: workload.load,
        seed: setup.seed,
        gpus: setup.gpus,
        config: setup.config.clone(),
        host: outcome.host,
    };
    outcome.metrics.summary(about, outcome.counters)
}
