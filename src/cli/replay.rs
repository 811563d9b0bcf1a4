//! `flyball replay`: one trace under one policy.

use super::CliError;
use super::capacities::{CacheArgs, Capacities};
use super::output::{self, Outputs};
use super::records::RecordArgs;
use super::workload::WorkloadArgs;
use crate::engine::{Engine, StepReport};
use crate::report::RunReport;
use crate::sched::order;
use crate::sim::{Observer, Setup};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

/// Replay a trace through the production engine, in virtual time.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  flyball replay
  flyball replay --trace mix-2 --requests 10000 --load 0.99 --profile a100-llama-3-8b
  flyball replay --trace AzureLLMInferenceTrace_conv.csv --rate-scale 2 --policy las
  flyball replay --trace conversation_trace.jsonl --gpus 4 --router prefix-affinity --json out.json
  flyball replay --requests 200 --record run.jsonl.gz
  flyball replay --records run.jsonl.gz --inspect --steps 1..20

Without arguments: 2,000 requests of mix-1 at load 0.95 on an H200.")]
pub(super) struct ReplayArgs {
    #[arg(
        long,
        help = format!("The policy, with parameters as in las:k=128: {}", order::NAMES.join(", ")),
        default_value = "flyball"
    )]
    policy: String,
    /// Seed of everything drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    outputs: Outputs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    records: RecordArgs,
}

pub(super) fn run(args: ReplayArgs) -> Result<(), CliError> {
    if args.records.replays() {
        return args.records.replay();
    }
    let workload = args.workload.replay(args.seed, &Capacities::new(args.cache.open()?))?;
    workload.notes.iter().for_each(|note| eprintln!("{note}"));
    let setup = Setup { policy: args.policy.clone(), ..workload.setup.clone() };
    let mut progress = Progress::new(workload.arrivals.len());
    let outcome = args.records.simulate(&args.workload, &setup, &workload.arrivals, &mut progress)?;
    progress.bar.finish_and_clear();
    output::warn_refused(&outcome.refusals);
    let summary = output::summarise(&workload, &setup, &outcome);
    let runs = [RunReport { summary: &summary, metrics: &outcome.metrics }];
    say!("{}", output::headline(&summary));
    say!("{}", crate::report::summary_table(&[&summary]));
    args.outputs.write_rows(runs)?;
    args.outputs.write_report("flyball replay", &runs)?;
    args.outputs.write_json(&summary)
}

/// Counts requests as they end.
struct Progress {
    bar: ProgressBar,
    steps: u64,
    ended: u64,
}

/// The bar is touched once in this many steps.
const SHOWN_EVERY: u64 = 4096;

impl Progress {
    fn new(requests: usize) -> Self {
        let style = "{bar:30} {pos}/{len} requests, {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("the template is a constant");
        Self { bar: ProgressBar::new(requests as u64).with_style(style), steps: 0, ended: 0 }
    }
}

impl Observer for Progress {
    fn step(&mut self, _engine: usize, report: &StepReport<'_>, _state: &Engine) {
        self.ended += report.ended.len() as u64;
        self.steps += 1;
        if self.steps.is_multiple_of(SHOWN_EVERY) {
            self.bar.set_position(self.ended);
        }
    }
}
