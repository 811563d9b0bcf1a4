//! The flags that name a machine and its work, and what they make: a setup and its arrivals.

use super::CliError;
use super::capacities::Capacities;
use super::values::{positive, process, requests};
use crate::config::{Config, Preempt, SwapMode};
use crate::cost::{CostModel, Profile};
use crate::metrics::TraceInfo;
use crate::sim::{Arrival, Router, Setup, capacity};
use crate::suite::run::key;
use crate::suite::work::arrivals;
use crate::trace::{Arrivals, Format, Mix, ReadOptions, Trace, synth};
use crate::units::{Blocks, Nanos, Tokens};
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;

/// Requests of the built-in workload of `replay`.
const DEFAULT_REQUESTS: usize = 2_000;
/// Its load.
const DEFAULT_LOAD: f64 = 0.95;
/// Requests of a mix in `compare`, and of a rotated trace.
const COMPARE_REQUESTS: usize = 10_000;
/// The most that a config allows.
const RESIDENT_MAX: u32 = 1 << 16;

/// What is run, and on what.
#[derive(Args, Clone, Debug)]
pub(super) struct WorkloadArgs {
    #[arg(
        long,
        help = format!("A trace file, a ServeGen folder, or a built-in mix: {}", Mix::names()),
        default_value = "mix-1",
        help_heading = "Work"
    )]
    trace: String,
    /// The trace's format; guessed from its content otherwise.
    #[arg(long, help_heading = "Work")]
    format: Option<Format>,
    /// Leave out rows that cannot be read, and say so, instead of failing.
    #[arg(long, help_heading = "Work")]
    skip_bad: bool,
    /// Multiply the trace's rate, keeping its bursts.
    #[arg(long, value_name = "X", value_parser = positive, conflicts_with = "load", help_heading = "Work")]
    rate_scale: Option<f64>,
    /// Scale the rate to this share of the machine's capacity: the saturated rate of fcfs with swap, and
    /// without a prefix cache.
    #[arg(long, value_name = "RHO", value_parser = positive, help_heading = "Work")]
    load: Option<f64>,
    /// Use this many requests.
    #[arg(long, value_name = "N", value_parser = requests, help_heading = "Work")]
    requests: Option<usize>,
    #[arg(
        long,
        help = format!("Arrivals of a mix or of a length table: {}", Arrivals::NAMES),
        value_name = "PROCESS",
        default_value = "poisson",
        value_parser = process,
        help_heading = "Work"
    )]
    arrivals: Arrivals,
    /// The most tokens that a request asks for. Never the row's own length; the model's limit otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Work")]
    max_tokens: Option<u32>,
    /// Model and machine: a built-in profile or a profile's JSON file.
    #[arg(long, default_value = "h200-llama-3-8b", help_heading = "Machine")]
    profile: String,
    /// Engines, each with the whole machine of the profile.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Machine")]
    gpus: u32,
    /// Which engine gets a request: random, round-robin, least-work, prefix-affinity.
    #[arg(long, default_value = "least-work", help_heading = "Machine")]
    router: Router,
    /// The most sequences in one step; the profile's otherwise.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_num_seqs: Option<u32>,
    /// The most tokens in one step.
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = "Limits")]
    max_num_batched_tokens: u32,
    /// Tokens of a KV block.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Limits"
    )]
    block_size: u32,
    /// Tokens of KV on the device; the profile's otherwise.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    kv_tokens: Option<u32>,
    /// How an evicted sequence keeps its state: swap, recompute, or auto, whichever is cheaper.
    #[arg(long, default_value = "auto", value_parser = preempt, help_heading = "Limits")]
    preempt: Preempt,
    /// Whether sequences come back from the host before the kernels or beside them: serial, overlap.
    #[arg(long, default_value = "serial", value_parser = swap, help_heading = "Limits")]
    swap: SwapMode,
    /// Share KV between equal prefixes: auto (where the trace knows contents), on, off.
    #[arg(long, default_value = "auto", value_parser = ["auto", "on", "off"], help_heading = "Limits")]
    prefix_cache: String,
    /// Steps in flight: 1, or 2 to decide a step while the one before runs.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Limits")]
    pipeline_depth: u8,
    /// Host time between the decision of a step and its start, in microseconds.
    #[arg(
        long,
        value_name = "US",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=STEP_SECS_MAX * 1_000_000),
        help_heading = "Machine"
    )]
    host_step_us: u64,
    /// Let every step take this long, whatever is in it: to compare schedulers alone.
    #[arg(long, value_name = "MS", value_parser = step_ms, help_heading = "Machine")]
    constant_step_ms: Option<f64>,
    /// Let the policy believe times that are wrong by this factor.
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Machine")]
    believed_time: Option<f64>,
}

/// The longest step that can be asked for: a quarter of an hour, far from where the clock ends.
const STEP_SECS_MAX: u64 = 1000;

fn step_ms(text: &str) -> Result<f64, String> {
    let ms_max = (STEP_SECS_MAX * 1000) as f64;
    match text.parse() {
        Ok(ms) if ms > 0.0 && ms <= ms_max => Ok(ms),
        _ => Err(format!("must be a number above zero, at most {ms_max}")),
    }
}

fn preempt(text: &str) -> Result<Preempt, String> {
    match text {
        "swap" => Ok(Preempt::Swap),
        "recompute" => Ok(Preempt::Recompute),
        "auto" => Ok(Preempt::Auto),
        _ => Err("must be swap, recompute or auto".into()),
    }
}

fn swap(text: &str) -> Result<SwapMode, String> {
    match text {
        "serial" => Ok(SwapMode::Serial),
        "overlap" => Ok(SwapMode::Overlap),
        _ => Err("must be serial or overlap".into()),
    }
}

/// A machine and its work, ready to be simulated under any policy.
pub(super) struct Workload {
    pub setup: Setup,
    pub arrivals: Vec<Arrival>,
    pub profile: String,
    pub trace: TraceInfo,
    pub load: Option<f64>,
    /// What a user should know of the trace before the figures.
    pub notes: Vec<String>,
}

/// Which rows of the trace were left out.
fn skipped(trace: &Trace) -> Vec<String> {
    if trace.skipped.count == 0 {
        return Vec::new();
    }
    let head = format!("{} rows of {} were skipped:", trace.skipped.count, trace.name);
    let rows = trace.skipped.first.iter().map(|row| format!("  line {}: {}", row.line, row.reason));
    std::iter::once(head).chain(rows).collect()
}

impl WorkloadArgs {
    /// The load that was asked for, or that of a mix, unless it has no rate to scale.
    pub fn load(&self) -> Option<f64> {
        let at_once = self.arrivals == Arrivals::AllAtOnce || self.requests == Some(1);
        let built_in = self.rate_scale.is_none() && !at_once && Mix::parse(&self.trace).is_ok();
        self.load.or(built_in.then_some(DEFAULT_LOAD))
    }

    /// What a replay runs: the trace as it is.
    pub fn replay(&self, seed: u64, capacities: &Capacities) -> Result<Workload, CliError> {
        let trace = self.open(seed, self.requests, DEFAULT_REQUESTS)?;
        let mut workload = self.workload(trace, self.load(), seed, capacities)?;
        let (name, has) = (&workload.trace.name, workload.arrivals.len());
        if let Some(wanted) = self.requests.filter(|wanted| *wanted > has) {
            workload.notes.push(format!("{name} has {has} requests, not {wanted}: all of them are replayed"));
        }
        Ok(workload)
    }

    /// What seed `seed` of a comparison runs: a recorded trace starts elsewhere for each seed.
    pub fn compare(
        &self,
        load: Option<f64>,
        seed: u64,
        capacities: &Capacities,
    ) -> Result<Workload, CliError> {
        let mix = Mix::parse(&self.trace).is_ok();
        let mut trace = self.open(seed, self.requests.filter(|_| mix), COMPARE_REQUESTS)?;
        if !mix {
            let requests = self.requests.unwrap_or(COMPARE_REQUESTS.min(trace.rows.len()));
            let start = crate::prng::Prng::new(seed).split(0x0707).below(trace.rows.len() as u64);
            trace = trace.rotated(start as usize, requests);
        }
        self.workload(trace, load, seed, capacities)
    }

    /// What the policy believes of the machine, for a record: the profile, the time of every step if
    /// that is told, and the factor by which it is wrong about time.
    pub fn beliefs(&self) -> Result<(Profile, Option<Nanos>, Option<f64>), CliError> {
        Ok((Profile::load(&self.profile)?, self.constant_step(), self.believed_time))
    }

    fn constant_step(&self) -> Option<Nanos> {
        self.constant_step_ms.map(|ms| Nanos::from_secs_f64(ms * 1e-3))
    }

    fn open(&self, seed: u64, requests: Option<usize>, default: usize) -> Result<Trace, CliError> {
        let path = Path::new(&self.trace);
        match Mix::parse(&self.trace) {
            Ok(mix) => return Ok(synth(mix, requests.unwrap_or(default), self.arrivals, seed)?),
            Err(unknown) if !path.exists() => {
                return Err(CliError::Usage(format!("--trace: no such file, and {unknown}")));
            }
            Err(_) => {}
        }
        let options = ReadOptions {
            format: self.format,
            skip_bad: self.skip_bad,
            seed,
            arrivals: Some(self.arrivals),
            requests,
            ..ReadOptions::default()
        };
        Ok(Trace::open(path, &options)?)
    }

    fn workload(
        &self,
        mut trace: Trace,
        load: Option<f64>,
        seed: u64,
        capacities: &Capacities,
    ) -> Result<Workload, CliError> {
        let profile = Profile::load(&self.profile)?;
        let setup = self.setup(&profile, &trace, seed);
        let mut scale = self.rate_scale.unwrap_or(1.0);
        if let Some(load) = load {
            if trace.span() == Nanos::ZERO {
                let reason = format!(
                    "all requests of {} arrive at once, so no load can be set; --rate-scale 1 instead runs them so",
                    trace.name
                );
                return Err(CliError::Usage(reason));
            }
            let measure = || capacity(&setup, &arrivals(&trace));
            let capacity = capacities.of(&self.capacity_key(&profile, &setup, &trace), measure)?;
            let rate = load * f64::from(self.gpus) * capacity;
            scale = rate / trace.rate();
            trace.set_rate(rate);
        } else if scale != 1.0 {
            trace.scale_rate(scale);
        }
        trace.check()?;
        Ok(Workload {
            setup,
            arrivals: arrivals(&trace),
            profile: profile.name,
            trace: TraceInfo {
                name: trace.name.clone(),
                digest: format!("{:016x}", trace.digest),
                rate_scale: scale,
                rate: trace.rate(),
                skipped: trace.skipped.count,
            },
            load,
            notes: skipped(&trace),
        })
    }

    /// Everything that determines the capacity, but the code.
    fn capacity_key(&self, profile: &Profile, setup: &Setup, trace: &Trace) -> Value {
        let mut key = key("capacity", profile, setup, trace, "fcfs");
        key["max_tokens"] = json!(self.max_tokens);
        key["host_step_us"] = json!(self.host_step_us);
        key["constant_step_ms"] = json!(self.constant_step_ms);
        key
    }

    fn setup(&self, profile: &Profile, trace: &Trace, seed: u64) -> Setup {
        let mut cost = CostModel::new(profile);
        if let Some(step) = self.constant_step() {
            cost = cost.with_constant_step(step);
        }
        Setup {
            config: self.config(profile, trace),
            policy: String::new(),
            believed: self.believed_time.map(|factor| cost.clone().scaled(factor, 1.0)),
            cost,
            gpus: self.gpus,
            router: self.router,
            max_tokens: self.max_tokens.map(Tokens),
            host_step: Nanos(self.host_step_us * 1000),
            seed,
        }
    }

    fn config(&self, profile: &Profile, trace: &Trace) -> Config {
        let limits = &profile.limits;
        let block_size = Tokens(self.block_size);
        let whole = |tokens: u32| Blocks(tokens / block_size.0);
        let max_num_seqs = self.max_num_seqs.unwrap_or(limits.max_num_seqs);
        let contents = trace.rows.iter().any(|row| row.content.is_some());
        Config {
            block_size,
            kv_blocks: whole(self.kv_tokens.unwrap_or(limits.kv_tokens.0)),
            host_blocks: whole(limits.host_kv_tokens.0),
            max_num_seqs,
            max_resident: max_num_seqs.saturating_mul(2).min(RESIDENT_MAX),
            max_num_batched_tokens: Tokens(self.max_num_batched_tokens),
            max_model_len: limits.max_model_len,
            waiting_max: trace.rows.len() as u32,
            prefix_cache: self.prefix_cache == "on" || (self.prefix_cache == "auto" && contents),
            preempt: self.preempt,
            swap: self.swap,
            pipeline_depth: self.pipeline_depth,
            ..Config::default()
        }
    }
}
