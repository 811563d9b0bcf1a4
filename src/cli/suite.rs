//! `flyball compare --suite`: published comparisons, run again.

use super::CliError;
use super::output::Outputs;
use crate::clock::{Clock, MonotonicClock};
use crate::suite::arms::{self, Headroom};
use crate::suite::cache::{self, Cache};
use crate::suite::cells::{self, Cell};
use crate::suite::document::{Document, Section};
use crate::suite::measures::Runs;
use crate::suite::public::Public;
use crate::suite::rows::rows;
use crate::suite::run::{Bench, Job, Results};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A comparison that is data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Suite {
    /// Every policy over many machines, workloads and loads, with the bars that flyball must clear.
    Public,
}

/// Flags of suites.
#[derive(Args, Debug)]
pub(super) struct SuiteArgs {
    /// Run a published comparison instead.
    #[arg(long, value_enum, help_heading = "Suites", conflicts_with_all = FLAGS_OF_ONE_WORKLOAD)]
    pub suite: Option<Suite>,
    /// A few cells, arms and seeds, with fewer requests: minutes instead of an hour.
    #[arg(long, requires = "suite", help_heading = "Suites")]
    quick: bool,
    /// The folder of public traces.
    #[arg(long, value_name = "DIR", default_value = "../shared/traces", help_heading = "Suites")]
    traces: PathBuf,
    /// Keep results here, and go on from those that are there.
    #[arg(long, value_name = "DIR", default_value = "target/flyball-suite", help_heading = "Suites")]
    cache: PathBuf,
    /// Take results that another build has made.
    #[arg(long, requires = "suite", help_heading = "Suites")]
    reuse: bool,
    /// Leave each policy its own headroom; otherwise rivals are shown with 2 % as well.
    #[arg(long, requires = "suite", help_heading = "Suites")]
    as_published: bool,
}

/// What a suite decides itself.
const FLAGS_OF_ONE_WORKLOAD: [&str; 10] = [
    "loads",
    "trace",
    "format",
    "rate_scale",
    "load",
    "arrivals",
    "profile",
    "gpus",
    "per_request",
    "max_num_seqs",
];

/// Requests of a quick run.
const QUICK_REQUESTS: usize = 1_500;
/// Seeds of a quick run.
const QUICK_SEEDS: u64 = 2;
/// Seeds of a full run.
const SEEDS: u64 = 3;

/// What was asked for beside the suite's own flags.
pub(super) struct Wishes<'a> {
    pub policies: &'a [String],
    pub seeds: Option<u64>,
    pub outputs: &'a Outputs,
}

pub(super) fn run(suite: Suite, args: &SuiteArgs, wishes: &Wishes<'_>) -> Result<(), CliError> {
    let Suite::Public = suite;
    let clock = MonotonicClock::new();
    let seeds = wishes.seeds.unwrap_or(if args.quick { QUICK_SEEDS } else { SEEDS });
    let cells = if args.quick { cells::quick() } else { [cells::lab(), cells::beyond()].concat() };
    let (cells, absent) = present(args, cells);
    let names: Vec<&str> = match wishes.policies {
        [] => if args.quick { arms::QUICK } else { arms::PUBLIC }.to_vec(),
        given => given.iter().map(String::as_str).collect(),
    };
    let suite = Public::new(cells, &names, headrooms(args), seeds)?;
    let jobs = suite.jobs();
    let bench = bench(args)?;
    let results = run_jobs(&bench, &jobs)?;
    let mut document = suite.document(Runs { results: &results, seeds });
    document.sections.extend(not_run(&absent));
    say!("{}", document.text());
    write(
        wishes.outputs,
        &document,
        &jobs,
        &results,
        &absent,
        json!({
            "wall_s": clock.now().as_secs_f64(),
            "threads": bench.threads,
            "build": cache::build()?,
            "fresh": results.fresh,
            "kept": results.kept,
            "of_other_builds": results.foreign,
        }),
    )
}

/// Cells whose files are there, as small as they are wished, and what the others lack.
fn present(args: &SuiteArgs, cells: Vec<Cell>) -> (Vec<Cell>, Vec<(Cell, String)>) {
    let (mut here, mut absent) = (Vec::new(), Vec::new());
    for mut cell in cells {
        if args.quick {
            cell.requests = QUICK_REQUESTS;
        }
        match cell.missing(&args.traces) {
            None => here.push(cell),
            Some(files) => {
                let file = args.traces.join(files[0]);
                absent.push((cell, format!("no file {}", file.display())));
            }
        }
    }
    (here, absent)
}

fn not_run(absent: &[(Cell, String)]) -> Option<Section> {
    let row = |(cell, why): &(Cell, String)| vec![cell.name(), why.clone()];
    let rows: Vec<Vec<String>> = absent.iter().map(row).collect();
    (!rows.is_empty()).then(|| Section::new("Not run").table(["cell", "why"], rows))
}

fn headrooms(args: &SuiteArgs) -> &'static [Headroom] {
    match (args.as_published, args.quick) {
        (true, _) => &[Headroom::AsPublished],
        (false, true) => &[Headroom::Equal],
        (false, false) => &[Headroom::Equal, Headroom::AsPublished],
    }
}

fn bench(args: &SuiteArgs) -> Result<Bench, CliError> {
    Ok(Bench {
        cache: Cache::open(&args.cache, cache::build()?, args.reuse)?,
        traces: args.traces.clone(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

fn run_jobs(bench: &Bench, jobs: &[Job]) -> Result<Results, CliError> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed} so far, {eta} left");
    let bar = ProgressBar::new(jobs.len() as u64).with_style(style.expect("the template is a constant"));
    let results = bench.run(jobs, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let Results { fresh, kept, foreign, .. } = &results;
    eprintln!("{fresh} runs, {kept} taken from the cache");
    if *foreign > 0 {
        eprintln!("--reuse: {foreign} of them were made by another build");
    }
    Ok(results)
}

fn write(
    outputs: &Outputs,
    document: &Document,
    jobs: &[Job],
    results: &Results,
    absent: &[(Cell, String)],
    host: Value,
) -> Result<(), CliError> {
    let absent: Vec<Value> =
        absent.iter().map(|(cell, why)| json!({"cell": cell.name(), "why": why})).collect();
    outputs.write_json(&json!({
        "schema": "flyball.suite/1",
        "title": document.title,
        "host": host,
        "not_run": absent,
        "rows": rows(jobs, results),
    }))
}
