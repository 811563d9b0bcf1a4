//! Times the kernels on a GPU: microseconds per launch, bytes and FLOP, one JSON object a line.
//!
//! ```text
//! kernels [--out FILE] [--quick] [--sweep] [--power] [--families decode,prefill,...]
//! ```
//!
//! Inputs are random, for zeros run faster; the L2 is cold, for launches rotate over three times its size; launches
//! are captured in a graph of at least half a millisecond and timed by events around its replays, the median of 30 or
//! more. Bytes are what must move at least once; FLOP of causal attention count the visible half alone. `--sweep` adds
//! decode over chunk sizes and ctas per multiprocessor. `--power` times nothing: it holds the GPU idle, in decode and
//! in prefill for some seconds each and says when, for who reads the meter meanwhile.
//!
//! Without a GPU it says so and fails; under `--test` it says that nothing was run.

mod attention;
mod ceilings;
mod data;
mod gpu;
mod measure;
mod power;
mod sample;
mod small;

use measure::{Bench, Stop};
use std::process::{Command, ExitCode};

/// What is timed, in this order; each by its name.
const FAMILIES: &[(&str, fn(&mut Bench) -> Result<(), Stop>)] = &[
    ("ceilings", ceilings::run),
    ("decode", attention::decode::run),
    ("sample", sample::run),
    ("small", small::run),
    ("prefill", attention::prefill::run),
    ("mixed", attention::mixed::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        println!("kernels: times a GPU; nothing was run");
        return ExitCode::SUCCESS;
    }
    let failed = match run(&arguments) {
        Ok(failed) => failed,
        Err(Stop::Failed(why)) => {
            eprintln!("kernels: {why}");
            return ExitCode::FAILURE;
        }
        Err(Stop::Broken(row)) => {
            eprintln!("kernels: {row} broke the device's context; a new process goes on after it");
            return resume(&arguments, &row);
        }
    };
    if failed > 0 {
        eprintln!("kernels: {failed} rows failed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Goes on after a row, in a new process; fails, for the row did.
fn resume(arguments: &[String], row: &str) -> ExitCode {
    let mut rest: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(at) = rest.iter().position(|argument| *argument == "--after") {
        rest.drain(at..at + 2);
    }
    rest.extend(["--after", row]);
    let resumed = std::env::current_exe().and_then(|path| Command::new(path).args(rest).status());
    if let Err(error) = resumed {
        eprintln!("kernels: could not go on: {error}");
    }
    ExitCode::FAILURE
}

/// How many rows failed.
fn run(arguments: &[String]) -> Result<usize, Stop> {
    let options = measure::Options::parse(arguments)?;
    let mut bench = Bench::new(options)?;
    if bench.options.power {
        power::run(&mut bench)?;
        return Ok(bench.failed);
    }
    for (name, family) in FAMILIES {
        if bench.options.wants(name) {
            let from = std::time::Instant::now();
            family(&mut bench)?;
            eprintln!("kernels: {name}: {:.1} s", from.elapsed().as_secs_f64());
        }
    }
    Ok(bench.failed)
}
