//! Compares flyball with other simulators: how fast they are, and whether the same scheduler gives the same
//! latencies in both.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- speed --trace FILE.csv --speedup 2
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- agree --trace FILE.csv --step-ms 30 \
//!     --kv-tokens 262144
//! ```
//!
//! The file is an Azure trace: a time stamp, prompt tokens and output tokens per line.

mod agree;
mod aisimulate;
mod ours;
mod speed;

use clap::{Args, Parser, Subcommand};
use flyball::trace::{ReadOptions, Trace};
use flyball::units::Nanos;
use std::error::Error;
use std::path::PathBuf;

/// Compares flyball with other simulators.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How fast each replays the trace with its own cost model.
    Speed {
        #[command(flatten)]
        input: Input,
        /// Runs of each, taken in turn.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// How far the latencies of the same scheduler differ when every step takes the same time.
    Agree {
        #[command(flatten)]
        input: Input,
        /// What a step takes, in milliseconds.
        #[arg(long, default_value_t = 30.0)]
        step_ms: f64,
        /// Tokens of KV memory.
        #[arg(long, default_value_t = 262_144)]
        kv_tokens: u32,
    },
}

/// What is replayed.
#[derive(Args)]
struct Input {
    /// The trace file.
    #[arg(long)]
    trace: PathBuf,
    /// Arrive X times as fast.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    speedup: f64,
    /// Use the first N requests.
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
}

/// A request of the trace, in numbers that both sides take.
#[derive(Clone, Copy)]
struct Job {
    at_ms: f64,
    prompt: u32,
    output: u32,
}

impl Input {
    fn jobs(&self) -> Result<Vec<Job>, Box<dyn Error>> {
        let trace = Trace::open(&self.trace, &ReadOptions::default())?;
        let start = trace.rows[0].arrival;
        let ms = |at: Nanos| (at - start).0 as f64 / 1e6 / self.speedup;
        let rows = trace.rows.iter().take(self.requests.unwrap_or(usize::MAX));
        Ok(rows.map(|r| Job { at_ms: ms(r.arrival), prompt: r.prompt.0, output: r.output.0 }).collect())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match Cli::parse().command {
        Command::Speed { input, runs } => speed::compare(&input.jobs()?, runs),
        Command::Agree { input, step_ms, kv_tokens } => agree::compare(&input.jobs()?, step_ms, kv_tokens),
    }
}
