//! From a cell and a seed to a machine and its arrivals.

use super::SuiteError;
use super::cells::{Cell, SERVEGEN, Work};
use crate::config::{Config, Preempt};
use crate::cost::{CostModel, Profile};
use crate::prng::Prng;
use crate::request::Prompt;
use crate::sim::{Arrival, Router, Setup};
use crate::trace::{Arrivals, GRANULARITY, Mix, ReadOptions, Skipped, Trace, TraceRow, Window, synth};
use crate::units::{Blocks, Nanos, Tokens};
use std::path::Path;

/// Where a recorded trace starts is drawn from this stream of the seed, as in `flyball compare`.
const START: u64 = 0x0707;
/// Lengths of long and short requests.
const LENGTHS: u64 = 0x0a03;

/// A machine and its work, before the rate is set.
pub struct Prepared {
    /// The machine.
    pub profile: Profile,
    /// Everything but the policy.
    pub setup: Setup,
    /// The work, in stretches that are brought to the load one by one; nearly always one.
    pub parts: Vec<Trace>,
}

/// What seed `seed` of a cell runs, at any load; recorded traces are below `traces`.
///
/// # Errors
/// If a file cannot be read.
pub fn prepare(cell: &Cell, seed: u64, traces: &Path) -> Result<Prepared, SuiteError> {
    let mut profile = Profile::load(cell.profile)?;
    if let Some(gb_s) = cell.change.swap_gb_s {
        profile = profile.with_swap_gb_s(gb_s);
    }
    let parts = parts(cell, seed, traces)?;
    let setup = Setup {
        config: limits(cell, &profile, &parts),
        policy: String::new(),
        cost: CostModel::new(&profile),
        believed: None,
        gpus: 1,
        router: Router::LeastWork,
        max_tokens: None,
        host_step: Nanos::ZERO,
        seed,
    };
    Ok(Prepared { profile, setup, parts })
}

fn parts(cell: &Cell, seed: u64, traces: &Path) -> Result<Vec<Trace>, SuiteError> {
    let drawn = |mix: Mix, requests: usize, seed: u64| {
        Arrivals::parse(cell.arrivals, 1.0).and_then(|arrivals| synth(mix, requests, arrivals, seed))
    };
    match cell.work {
        Work::Mix(mix) => Ok(vec![drawn(mix, cell.requests, seed)?]),
        Work::Shift(before, after) => {
            let half = cell.requests / 2;
            // Another stream of lengths and gaps for the second half, the same for every policy.
            Ok(vec![drawn(before, half, seed)?, drawn(after, cell.requests - half, !seed)?])
        }
        Work::LongAndShort => Ok(vec![long_and_short(cell, seed)?]),
        Work::Public(public) => {
            let file = public.find(traces).ok_or(SuiteError::NoFile(public.files))?;
            let sampled = public == SERVEGEN;
            let untimed = if public.untimed { cell.arrivals } else { "poisson" };
            let options = ReadOptions {
                seed,
                arrivals: Some(Arrivals::parse(untimed, 1.0)?),
                requests: sampled.then_some(cell.requests),
                window: TWENTY_MINUTES,
                ..ReadOptions::default()
            };
            let trace = Trace::open(&file, &options)?;
            // Clients are drawn anew for each seed; a recorded trace starts elsewhere.
            let start = Prng::new(seed).split(START).below(trace.rows.len() as u64);
            Ok(vec![trace.rotated(if sampled { 0 } else { start as usize }, cell.requests)])
        }
    }
}

/// A tenth of each client's rate over the first twenty minutes: some 10,000 to 25,000 requests, whose
/// drift and bursts are of the scale at which they are run.
const TWENTY_MINUTES: Window =
    Window { start: Nanos::ZERO, duration: Nanos::from_millis(1_200_000), client_scale: 0.1 };

/// Nine of ten with 125 tokens of prompt and 100 of output, one with 2,000 and 6,000 (A.3); the paper
/// gives no spread, so each length is uniform within a fifth of it.
fn long_and_short(cell: &Cell, seed: u64) -> Result<Trace, SuiteError> {
    let seed = Prng::new(seed);
    let mut lengths = seed.split(LENGTHS);
    let times = Arrivals::parse(cell.arrivals, 1.0)?.draw(cell.requests, &mut seed.split(START))?;
    let mut around = |tokens: u64| Tokens(lengths.between(tokens * 4 / 5, tokens * 6 / 5) as u32);
    let mut tenth = seed.split(LENGTHS + 1);
    let rows = times.into_iter().map(|arrival| {
        let (prompt, output) = if tenth.chance(1, 10) { (2000, 6000) } else { (125, 100) };
        let (prompt, output) = (around(prompt), around(output));
        TraceRow { arrival, prompt, output, client: 0, priority: 0, content: None }
    });
    Ok(Trace::new(cell.work.to_string(), rows.collect(), GRANULARITY, Skipped::default()))
}

fn limits(cell: &Cell, profile: &Profile, parts: &[Trace]) -> Config {
    let default = Config::default();
    let whole = |tokens: u32| Blocks(tokens / default.block_size.0);
    let change = &cell.change;
    let max_num_seqs = change.max_num_seqs.unwrap_or(profile.limits.max_num_seqs);
    Config {
        kv_blocks: whole(change.kv_tokens.unwrap_or(profile.limits.kv_tokens.0)),
        host_blocks: whole(profile.limits.host_kv_tokens.0),
        max_num_seqs,
        max_resident: max_num_seqs.saturating_mul(2),
        max_num_batched_tokens: Tokens(change.chunk.unwrap_or(1024)),
        max_model_len: profile.limits.max_model_len,
        waiting_max: cell.requests as u32,
        prefix_cache: parts.iter().flat_map(|part| &part.rows).any(|row| row.content.is_some()),
        preempt: change.preempt.unwrap_or(Preempt::Auto),
        ..default
    }
}

/// The parts one after the other, with a mean gap between, each at the rate that is given for it.
pub fn at_rates(parts: &[Trace], rates: &[f64]) -> Trace {
    let mut rows: Vec<TraceRow> = Vec::new();
    for (part, rate) in parts.iter().zip(rates) {
        let mut part = part.clone();
        part.set_rate(*rate);
        let gap = Nanos::from_secs_f64(1.0 / rate);
        let start = rows.last().map_or(Nanos::ZERO, |last| last.arrival.saturating_add(gap));
        let moved = |row: TraceRow| TraceRow { arrival: start.saturating_add(row.arrival), ..row };
        rows.extend(part.rows.into_iter().map(moved));
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    Trace::new(names.join(">"), rows, parts[0].granularity, parts[0].skipped.clone())
}

/// The requests of a trace.
pub fn arrivals(trace: &Trace) -> Vec<Arrival> {
    let prompt = |row: &TraceRow| match &row.content {
        None => Prompt::Length(row.prompt),
        Some(ids) => Prompt::Content { length: row.prompt, granularity: trace.granularity, ids: ids.clone() },
    };
    let arrival = |row: &TraceRow| Arrival {
        at: row.arrival,
        prompt: prompt(row),
        output: row.output,
        client: row.client,
        priority: row.priority,
    };
    trace.rows.iter().map(arrival).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::cells::A100;

    fn cell(work: Work) -> Cell {
        Cell { requests: 400, ..Cell::new(A100, work, "poisson", 0.9) }
    }

    #[test]
    fn a_seed_is_one_list_of_arrivals() {
        let digest = |seed| {
            let none = Path::new("none");
            prepare(&cell(Work::Mix(Mix::Mix2)), seed, none).unwrap().parts[0].digest
        };
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
    }

    #[test]
    fn halves_of_a_shift_have_their_own_rates() {
        let work = Work::Shift(Mix::Mix1, Mix::Mix2);
        let prepared = prepare(&cell(work), 1, Path::new("none")).unwrap();
        let trace = at_rates(&prepared.parts, &[4.0, 1.0]);
        assert_eq!(trace.rows.len(), 400);
        assert!(trace.rows.is_sorted_by_key(|row| row.arrival));
        let middle = trace.rows[199].arrival.as_secs_f64();
        assert!((middle - 199.0 / 4.0).abs() < 1e-6, "{middle}");
        let end = trace.span().as_secs_f64();
        assert!((end - middle - 200.0).abs() < 1e-6, "{end}");
        assert_eq!(trace.name, "mix-1>mix-2");
    }

    #[test]
    fn a_tenth_is_long() {
        let trace = long_and_short(&Cell { requests: 5000, ..cell(Work::LongAndShort) }, 1).unwrap();
        let long = trace.rows.iter().filter(|row| row.prompt >= Tokens(1600)).count();
        assert!((450..550).contains(&long), "{long}");
        assert!(trace.rows.iter().all(|row| (row.prompt < Tokens(200)) == (row.output < Tokens(200))));
    }

    #[test]
    fn changes_reach_the_machine() {
        let mut cell = cell(Work::Mix(Mix::Mix1));
        cell.change.kv_tokens = Some(1600);
        cell.change.chunk = Some(256);
        cell.change.swap_gb_s = Some(5.0);
        let prepared = prepare(&cell, 1, Path::new("none")).unwrap();
        assert_eq!(prepared.setup.config.kv_blocks, Blocks(100));
        assert_eq!(prepared.setup.config.max_num_batched_tokens, Tokens(256));
        assert_eq!(serde_json::to_value(&prepared.profile).unwrap()["swap"]["gb_s"], 5.0);
    }
}
