//! The command line: reads arguments, runs, prints. Exit code 0 is done, 1 failed, 2 wrong usage.

/// Prints a line, as [`print`] does.
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::print(format_args!("{}\n", format_args!($($arg)*))) };
}

mod capacities;
mod compare;
pub mod doctor;
mod output;
mod records;
mod replay;
mod suite;
pub mod trace;
mod values;
mod workload;

use crate::error::ProfileError;
use crate::record::RecordError;
use crate::sched::order::PolicyError;
use crate::sim::SimError;
use crate::suite::SuiteError;
use crate::trace::TraceError;
use clap::{Args, Parser, Subcommand};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use thiserror::Error;

/// flyball: tail-aware scheduling for LLM inference, replayed as it runs.
#[derive(Parser, Debug)]
#[command(
    version,
    about,
    after_help = "Examples:
  flyball replay
  flyball replay --trace AzureLLMInferenceTrace_conv.csv --rate-scale 2
  flyball compare --policies fcfs,las,srpt --trace mix-2 --load 0.99 --seeds 3
  flyball trace inspect AzureLLMInferenceTrace_code.csv"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Replay(replay::ReplayArgs),
    Compare(compare::CompareArgs),
    Doctor(DoctorArgs),
    Trace(trace::TraceArgs),
}

/// Say what this node has, and what works here and what not.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  flyball doctor
  flyball doctor --json node.json")]
struct DoctorArgs {
    /// Write the findings as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Sim(#[from] SimError),
    #[error(transparent)]
    Suite(#[from] SuiteError),
    #[error("{}: {source}", path.display())]
    Record { path: PathBuf, source: Box<RecordError> },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("standard output: {0}")]
    Print(&'static io::Error),
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Policy(_) | Self::Suite(SuiteError::Policy(_)) => 2,
            Self::Profile(ProfileError::Unknown { .. }) | Self::Trace(TraceError::Request(_)) => 2,
            Self::Sim(SimError::Config(_) | SimError::Policy(_)) => 2,
            _ => 1,
        }
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Replay(args) => replay::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Doctor(args) => examine(args),
        Command::Trace(args) => trace::run(args).map_err(CliError::from),
    };
    match result.and_then(|()| printed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flyball: {error}");
            ExitCode::from(error.code())
        }
    }
}

/// Why the first text that was lost could not be printed.
static UNPRINTED: OnceLock<io::Error> = OnceLock::new();

/// Prints. What cannot be printed stops no command, since files may follow: [`printed`] tells it in the end.
fn print(text: fmt::Arguments<'_>) {
    if let Err(error) = io::stdout().write_fmt(text) {
        // Only the first is told.
        let _ = UNPRINTED.set(error);
    }
}

/// Whether everything was printed. Whoever closed the pipe has seen enough.
fn printed() -> Result<(), CliError> {
    match UNPRINTED.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Print(error)),
        _ => Ok(()),
    }
}

fn examine(args: DoctorArgs) -> Result<(), CliError> {
    let found = doctor::report();
    say!("{found}");
    let Some(path) = args.json else { return Ok(()) };
    Ok(output::write_json(&path, &found)?)
}
