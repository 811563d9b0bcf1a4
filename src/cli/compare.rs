//! `flyball compare`: policies × loads × seeds on all cores, with paired seeds.

use super::CliError;
use super::capacities::{CacheArgs, Capacities};
use super::output::{self, Outputs};
use super::suite::{self, SuiteArgs, Wishes};
use super::workload::{Workload, WorkloadArgs};
use crate::metrics::{Metrics, Summary};
use crate::report::RunReport;
use crate::report::{summary_table, table};
use crate::sim::{Refusals, Setup, simulate};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Compare policies on the same arrivals.
///
/// Each seed draws (or, for a recorded trace, rotates) one list of arrivals, which every policy gets.
/// Ratios are geometric means over seeds of the ratio to the first policy on the same arrivals, with the
/// smallest and the largest. The report draws seed 1 at the last load; the JSON has all runs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  flyball compare --policies fcfs,las,srpt --trace mix-2 --loads 0.9,0.99 --seeds 5 --profile a100-llama-3-8b
  flyball compare --suite public --quick
  flyball compare --policies fcfs,vllm,sglang --trace AzureLLMInferenceTrace_code.csv --loads 0.9 --seeds 3")]
pub(super) struct CompareArgs {
    /// The policies, the first of which the others are compared with: fcfs,vllm,sglang,las,sjf,srpt, or
    /// those of the suite.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// Loads relative to capacity. Without it, --load or --rate-scale, or 0.95 for a mix.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["load", "rate_scale"])]
    loads: Vec<f64>,
    /// Seeds 1 to N: 3, or as many as the suite has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: Option<u64>,
    #[command(flatten)]
    suite: SuiteArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    outputs: Outputs,
    #[command(flatten)]
    cache: CacheArgs,
}

/// The file of `--json`.
#[derive(Serialize)]
struct Comparison {
    schema: &'static str,
    runs: Vec<Summary>,
}

/// One run of the grid.
struct Done {
    cell: usize,
    policy: usize,
    summary: Summary,
    refusals: Option<Refusals>,
    /// Kept for the runs that the report draws, and for all where rows per request are wanted.
    metrics: Option<Metrics>,
}

impl Done {
    fn report(&self) -> Option<RunReport<'_>> {
        self.metrics.as_ref().map(|metrics| RunReport { summary: &self.summary, metrics })
    }
}

/// The policies and seeds of a comparison that is no suite.
const POLICIES: [&str; 6] = ["fcfs", "vllm", "sglang", "las", "sjf", "srpt"];
const SEEDS: u64 = 3;
/// The most seeds of a comparison, which holds the figures of all of them.
pub(super) const SEEDS_MAX: u64 = 10_000;

pub(super) fn run(mut args: CompareArgs) -> Result<(), CliError> {
    if let Some(suite) = args.suite.suite {
        let wishes = Wishes { policies: &args.policies, seeds: args.seeds, outputs: &args.outputs };
        return suite::run(suite, &args.suite, &args.cache, &wishes);
    }
    if args.policies.is_empty() {
        args.policies = POLICIES.map(str::to_owned).to_vec();
    }
    let seeds = args.seeds.unwrap_or(SEEDS);
    if let Some(bad) = args.loads.iter().find(|l| !(l.is_finite() && **l > 0.0)) {
        return Err(CliError::Usage(format!("--loads: {bad} is not above zero")));
    }
    let loads = match args.loads.is_empty() {
        true => vec![args.workload.load()],
        false => args.loads.iter().copied().map(Some).collect(),
    };
    let cells: Vec<(Option<f64>, u64)> =
        loads.iter().flat_map(|load| (1..=seeds).map(|seed| (*load, seed))).collect();
    let mut done = grid(&args, &cells)?;
    done.sort_by_key(|d| (d.cell, d.policy));
    output::warn_refused(done.iter().filter_map(|d| d.refusals.as_ref()));
    for (at, load) in loads.iter().enumerate() {
        let range = at * seeds as usize..(at + 1) * seeds as usize;
        let runs: Vec<&Done> = done.iter().filter(|d| range.contains(&d.cell)).collect();
        print_load(&args, *load, seeds, &runs);
    }
    args.outputs.write_rows(done.iter().filter_map(Done::report))?;
    let last = (loads.len() - 1) * seeds as usize;
    let drawn = done.iter().filter(|d| d.cell == last);
    let drawn: Vec<RunReport<'_>> = drawn.filter_map(Done::report).collect();
    args.outputs.write_report("flyball compare", &drawn)?;
    let runs = done.iter().map(|d| d.summary.clone()).collect();
    args.outputs.write_json(&Comparison { schema: "flyball.compare/1", runs })
}

/// Runs every policy on every cell, on all cores.
fn grid(args: &CompareArgs, cells: &[(Option<f64>, u64)]) -> Result<Vec<Done>, CliError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(cells.len());
    let next = AtomicUsize::new(0);
    let capacities = Capacities::new(args.cache.open()?);
    let done = Mutex::new(Ok(Vec::new()));
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {eta} left");
    let bar = ProgressBar::new((cells.len() * args.policies.len()) as u64)
        .with_style(style.expect("the template is a constant"));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = cells.iter().position(|c| std::ptr::eq(c, cell)).expect("it is one of them");
                    let runs = run_cell(args, at, *cell, &capacities, &bar);
                    let mut done = done.lock().expect("no thread panics while it adds its runs");
                    match (runs, &mut *done) {
                        (Ok(runs), Ok(all)) => all.extend(runs),
                        (Err(error), Ok(_)) => *done = Err(error),
                        (_, Err(_)) => return,
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    done.into_inner().expect("no thread panicked")
}

fn run_cell(
    args: &CompareArgs,
    cell: usize,
    (load, seed): (Option<f64>, u64),
    capacities: &Capacities,
    bar: &ProgressBar,
) -> Result<Vec<Done>, CliError> {
    let workload: Workload = args.workload.compare(load, seed, capacities)?;
    if cell == 0 {
        bar.suspend(|| workload.notes.iter().for_each(|note| eprintln!("{note}")));
    }
    let run = |(policy, name): (usize, &String)| {
        let setup = Setup { policy: name.clone(), ..workload.setup.clone() };
        let outcome = simulate(&setup, &workload.arrivals, &mut ())?;
        bar.inc(1);
        let summary = output::summarise(&workload, &setup, &outcome);
        let kept = seed == 1 || args.outputs.wants_rows();
        let metrics = kept.then_some(outcome.metrics);
        Ok(Done { cell, policy, summary, refusals: outcome.refusals, metrics })
    };
    args.policies.iter().enumerate().map(run).collect()
}

fn print_load(args: &CompareArgs, load: Option<f64>, seeds: u64, runs: &[&Done]) {
    let load = load.map_or_else(|| "the trace's own rate".to_owned(), |l| format!("load {l}"));
    say!("{load}, seed 1:");
    let first: Vec<&Summary> = runs.iter().filter(|d| d.summary.seed == 1).map(|d| &d.summary).collect();
    say!("{}", summary_table(&first));
    say!("ratio to {} over {seeds} seeds, geometric mean (smallest-largest):", args.policies[0]);
    say!("{}", ratios(args, runs));
}

/// A figure that ratios are taken of.
type Figure = (&'static str, fn(&Summary) -> f64);

const FIGURES: [Figure; 7] = [
    ("TTLT mean", |s| s.ttlt_s.mean),
    ("TTLT P95", |s| s.ttlt_s.p95),
    ("TTLT P99", |s| s.ttlt_s.p99),
    ("TTFT P95", |s| s.ttft_s.p95),
    ("TTFT P99", |s| s.ttft_s.p99),
    ("TPOT P99", |s| s.tpot_s.p99),
    ("tok/s", |s| s.throughput_tok_s),
];

fn ratios(args: &CompareArgs, runs: &[&Done]) -> String {
    let header: Vec<&str> = std::iter::once("policy").chain(FIGURES.iter().map(|f| f.0)).collect();
    let of = |policy: usize| runs.iter().filter(move |d| d.policy == policy).map(|d| &d.summary);
    let rows: Vec<Vec<String>> = (1..args.policies.len())
        .map(|policy| {
            let cell =
                |(_, figure): &Figure| spread(of(policy).zip(of(0)).map(|(a, b)| figure(a) / figure(b)));
            std::iter::once(args.policies[policy].clone()).chain(FIGURES.iter().map(cell)).collect()
        })
        .collect();
    table(&header, &rows)
}

/// Geometric mean, smallest and largest.
fn spread(ratios: impl Iterator<Item = f64>) -> String {
    let ratios: Vec<f64> = ratios.collect();
    let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, h), r| (l.min(*r), h.max(*r)));
    if mean.is_finite() { format!("{mean:.2} ({low:.2}-{high:.2})") } else { "-".into() }
}
