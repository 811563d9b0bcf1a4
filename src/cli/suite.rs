//! `flyball compare --suite`: published comparisons, run again.

use super::CliError;
use super::capacities::CacheArgs;
use super::compare::SEEDS_MAX;
use super::output::Outputs;
use super::workload::WorkloadArgs;
use crate::clock::{Clock, MonotonicClock};
use crate::suite::Suite;
use crate::suite::arms::{self, Headroom};
use crate::suite::cache;
use crate::suite::cells::{self, Cell};
use crate::suite::document::Section;
use crate::suite::fragility::{self, Fragility};
use crate::suite::measures::Seeds;
use crate::suite::page::html;
use crate::suite::paper::{self, Paper};
use crate::suite::public::Public;
use crate::suite::rows::rows;
use crate::suite::run::{Bench, Job, Results};
use clap::{Args, Id, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A comparison that is data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Name {
    /// The tables and figures of "Beyond Prediction" (arXiv 2606.18431), ours beside theirs.
    Paper,
    /// Every policy over many machines, workloads and loads, with the bars that flyball must clear.
    Public,
    /// What is left of each policy when lengths, arrivals, memory, swap or chunk are not as they were.
    Fragility,
}

/// Flags of suites.
#[derive(Args, Debug)]
pub(super) struct SuiteArgs {
    /// Run a published comparison instead.
    #[arg(long, value_enum, help_heading = "Suites", conflicts_with_all = flags_of_one_workload())]
    pub suite: Option<Name>,
    /// Only cells whose names contain one of these: mix-2, onoff, " 1.1".
    #[arg(long, value_name = "TEXT", value_delimiter = ',', requires = "suite", help_heading = "Suites")]
    cells: Vec<String>,
    /// Seeds from this one on.
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(..=u64::MAX - SEEDS_MAX),
        requires = "suite",
        help_heading = "Suites"
    )]
    first_seed: u64,
    /// A few cells, arms and seeds, with fewer requests: minutes instead of an hour.
    #[arg(long, requires = "suite", help_heading = "Suites")]
    quick: bool,
    /// The folder of public traces.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "../shared/traces",
        requires = "suite",
        help_heading = "Suites"
    )]
    traces: PathBuf,
    /// Leave each policy its own headroom; otherwise rivals are shown with 2 % as well.
    #[arg(long, requires = "suite", help_heading = "Suites")]
    as_published: bool,
}

/// What a suite decides itself: all of a workload, and more.
fn flags_of_one_workload() -> Vec<Id> {
    let workload = WorkloadArgs::augment_args(clap::Command::new("workload"));
    let flags = workload.get_arguments().map(|flag| flag.get_id().clone());
    flags.chain(["loads", "per_request"].map(Id::from)).collect()
}

/// Where results are kept, if no folder is named.
const CACHE: &str = "target/flyball-suite";
/// Requests of a quick run.
const QUICK_REQUESTS: usize = 2_500;
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

pub(super) fn run(
    name: Name,
    args: &SuiteArgs,
    cache: &CacheArgs,
    wishes: &Wishes<'_>,
) -> Result<(), CliError> {
    let clock = MonotonicClock::new();
    let (suite, absent) = suite(name, args, wishes)?;
    let jobs = suite.jobs();
    let bench = bench(args, cache)?;
    let results = run_jobs(&bench, &jobs)?;
    let mut document = suite.document(&results);
    document.sections.extend(not_run(&absent));
    say!("{}", document.text());
    wishes.outputs.write_page(&html(&document))?;
    let absent: Vec<Value> =
        absent.iter().map(|(cell, why)| json!({"cell": cell.name(), "why": why})).collect();
    wishes.outputs.write_json(&json!({
        "schema": "flyball.suite/1",
        "title": document.title,
        "not_run": absent,
        "rows": rows(&jobs, &results),
        "host": {
            "wall_s": clock.now().as_secs_f64(),
            "threads": bench.threads,
            "build": cache::build()?,
            "fresh": results.fresh,
            "kept": results.kept,
            "of_other_builds": results.foreign,
            "capacities_measured": results.measured,
        },
    }))
}

/// A cell that is not run, and why.
type Absent = (Cell, String);

fn suite(
    name: Name,
    args: &SuiteArgs,
    wishes: &Wishes<'_>,
) -> Result<(Box<dyn Suite>, Vec<Absent>), CliError> {
    let requests = if args.quick { QUICK_REQUESTS } else { cells::REQUESTS };
    let seeds = |full| wishes.seeds.unwrap_or(if args.quick { QUICK_SEEDS } else { full });
    if !matches!(name, Name::Public) && (!args.cells.is_empty() || args.first_seed != 1) {
        return Err(CliError::Usage("--cells and --first-seed are for --suite public".into()));
    }
    match name {
        Name::Paper if !wishes.policies.is_empty() => {
            Err(CliError::Usage("--policies: the paper's tables have arms of their own".into()))
        }
        Name::Paper => {
            let seeds = seeds(paper::SEEDS);
            let scale = paper::Scale { requests, seeds, headrooms: headrooms(args), quick: args.quick };
            Ok((Box::new(Paper::new(scale)?), Vec::new()))
        }
        Name::Fragility => {
            let names = wishes.names(fragility::ARMS);
            let suite = Fragility::new(&names, headrooms(args)[0], requests, seeds(SEEDS))?;
            Ok((Box::new(suite), Vec::new()))
        }
        Name::Public => {
            let cells = if args.quick { cells::quick() } else { [cells::lab(), cells::beyond()].concat() };
            names_cells(&args.cells, &cells)?;
            let (cells, absent) = present(args, requests, cells);
            let default = if args.quick { arms::QUICK } else { arms::PUBLIC };
            let names = wishes.names(default);
            let seeds = Seeds { first: args.first_seed, count: seeds(SEEDS) };
            Ok((Box::new(Public::new(cells, &names, headrooms(args), seeds)?), absent))
        }
    }
}

impl Wishes<'_> {
    /// The policies that were asked for, or those of the suite.
    fn names(&self, default: &[&str]) -> Vec<String> {
        match self.policies {
            [] => default.iter().map(|name| name.to_string()).collect(),
            given => given.to_vec(),
        }
    }
}

/// Whether each text names a cell: a run that leaves out what was asked for would look complete.
fn names_cells(texts: &[String], cells: &[Cell]) -> Result<(), CliError> {
    match texts.iter().find(|text| !cells.iter().any(|cell| cell.name().contains(*text))) {
        Some(text) => Err(CliError::Usage(format!("--cells: no cell has {text:?} in its name"))),
        None => Ok(()),
    }
}

/// Cells whose files are there, as small as they are wished, and what the others lack.
fn present(args: &SuiteArgs, requests: usize, cells: Vec<Cell>) -> (Vec<Cell>, Vec<Absent>) {
    let (mut here, mut absent) = (Vec::new(), Vec::new());
    let named =
        |cell: &Cell| args.cells.is_empty() || args.cells.iter().any(|text| cell.name().contains(text));
    for mut cell in cells.into_iter().filter(named) {
        cell.requests = requests;
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

fn not_run(absent: &[Absent]) -> Option<Section> {
    let row = |(cell, why): &Absent| vec![cell.name(), why.clone()];
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

fn bench(args: &SuiteArgs, cache: &CacheArgs) -> Result<Bench, CliError> {
    Ok(Bench {
        cache: cache.open_or(CACHE)?,
        traces: args.traces.clone(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

fn run_jobs(bench: &Bench, jobs: &[Job]) -> Result<Results, CliError> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed} so far, {eta} left");
    let bar = ProgressBar::new(jobs.len() as u64).with_style(style.expect("the template is a constant"));
    let results = bench.run(jobs, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let Results { fresh, kept, foreign, measured, .. } = &results;
    eprintln!("{fresh} runs, {kept} taken from the cache; {measured} capacities measured");
    if *foreign > 0 {
        eprintln!("--reuse: {foreign} of them were made by another build");
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_names_no_cell_is_refused() {
        let check = |text: &str| names_cells(&["mix-2".into(), text.into()], &cells::lab());
        assert!(check("codellama-34b mix-2 poisson 0.7").is_ok());
        let error = check("CodeLlama").unwrap_err().to_string();
        assert!(error.contains("no cell has \"CodeLlama\""), "{error}");
    }
}
