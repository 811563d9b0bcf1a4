//! Traces: which requests arrive when, and how long they really are.
//!
//! A trace is read ([`Trace::open`]), made up ([`synth()`]), changed (rate, start, length) and described
//! ([`stats`]). It knows nothing of engines, policies or loads: the simulator turns its rows into
//! requests and keeps the true output lengths to itself.
//!
//! Reading is streamed line by line: bytes -> `lines` (gzip, bounds) -> [`formats`] (one row a line)
//! -> [`read`] (checks, order, clock from zero) -> [`Trace`].

pub mod arrivals;
pub mod error;
pub mod formats;
mod lines;
pub mod mixes;
pub mod read;
pub mod stats;
pub mod synth;
pub mod write;

pub use arrivals::Arrivals;
pub use error::TraceError;
pub use formats::Format;
pub use formats::servegen::Window;
pub use mixes::Mix;
pub use read::ReadOptions;
pub use synth::synth;

use crate::prng::{Prng, mix};
use crate::units::{Nanos, Tokens};
use std::sync::Arc;

/// The most tokens of a prompt or an output in a row: the longest model that a config allows.
pub const TOKENS_MAX: u32 = 1 << 24;
/// The most rows of a trace, 2.7 GB of them.
pub const ROWS_MAX: usize = 1 << 26;
/// The latest time that a trace may name, since its own zero or since 1970: 100 years. Policies order by times in
/// `i64`, some of them moved by up to 146 years.
pub const SPAN_MAX: Nanos = Nanos(100 * 366 * 86_400 * 1_000_000_000);
/// Tokens that one content id stands for where a trace does not say: Mooncake's block.
pub const GRANULARITY: Tokens = Tokens(512);

/// Independent random streams of one seed: changing one draw leaves the others as they were.
pub(crate) mod purpose {
    pub const ARRIVALS: u64 = 1;
    pub const LENGTHS: u64 = 2;
    pub const TICKS: u64 = 3;
    pub const CLIENTS: u64 = 4;
}

/// One request of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// When it arrives, since the trace's first row.
    pub arrival: Nanos,
    /// Length of its prompt, at least 1.
    pub prompt: Tokens,
    /// Its true output length, at least 1: for the simulator's script only.
    pub output: Tokens,
    /// Whose it is.
    pub client: u32,
    /// Priority class, 0 the highest.
    pub priority: u8,
    /// Ids of its content, `ceil(prompt / granularity)` of them, each naming its whole prefix.
    pub content: Option<Arc<[u64]>>,
}

/// Rows of the source that are not in the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first [`Skipped::LISTED_MAX`] of them.
    pub first: Vec<SkippedRow>,
}

/// A row of the source that is not in the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedRow {
    /// Its line, from 1; for a generator, the number of the draw.
    pub line: u64,
    /// Why it was left out.
    pub reason: String,
}

impl Skipped {
    /// The most rows that are listed; all are counted.
    pub const LISTED_MAX: usize = 20;

    pub(crate) fn add(&mut self, line: u64, reason: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < Self::LISTED_MAX {
            self.first.push(SkippedRow { line, reason: reason() });
        }
    }
}

/// Requests in the order of their arrival, the first at zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The file's name, or the mix's.
    pub name: String,
    /// The requests; never empty.
    pub rows: Vec<TraceRow>,
    /// Tokens that one content id stands for.
    pub granularity: Tokens,
    /// What the source had beside them.
    pub skipped: Skipped,
    /// Hash of the rows: equal traces have equal digests. Every method keeps it; who changes rows by hand
    /// makes a new trace of them.
    pub digest: u64,
}

impl Trace {
    /// A trace of `rows`, whose clock is moved so that the first arrives at zero.
    ///
    /// # Panics
    /// If there is no row, or if they are not in the order of their arrival.
    pub fn new(name: String, mut rows: Vec<TraceRow>, granularity: Tokens, skipped: Skipped) -> Self {
        assert!(!rows.is_empty(), "a trace has at least one request");
        assert!(rows.is_sorted_by_key(|row| row.arrival), "a trace is in the order of arrival");
        let zero = rows[0].arrival;
        for row in &mut rows {
            row.arrival -= zero;
        }
        let digest = digest(&rows, granularity);
        Self { name, rows, granularity, skipped, digest }
    }

    /// From the first arrival to the last.
    pub fn span(&self) -> Nanos {
        self.rows[self.rows.len() - 1].arrival
    }

    /// Requests per second: one over the mean gap, infinite when all arrive at once.
    pub fn rate(&self) -> f64 {
        match self.span() {
            Nanos::ZERO => f64::INFINITY,
            span => (self.rows.len() - 1) as f64 / span.as_secs_f64(),
        }
    }

    /// Whether its clock ends within what a trace may span, which no change of the rate looks at.
    ///
    /// # Errors
    /// If it does not: nobody could read it.
    pub fn check(&self) -> Result<(), TraceError> {
        if self.span() <= SPAN_MAX {
            return Ok(());
        }
        Err(TraceError::Request(format!("{}: spans more than 100 years; take a higher rate", self.name)))
    }

    /// Makes requests arrive `factor` times as fast: divides the clock, so that bursts stay bursts.
    ///
    /// # Panics
    /// If `factor` is not positive and finite.
    pub fn scale_rate(&mut self, factor: f64) {
        assert!(factor > 0.0 && factor.is_finite(), "a rate is scaled by a positive factor, not {factor}");
        for row in &mut self.rows {
            row.arrival = Nanos((row.arrival.0 as f64 / factor).round() as u64);
        }
        self.digest = digest(&self.rows, self.granularity);
    }

    /// Scales the clock so that [`Trace::rate`] becomes `rate`; all-at-once stays all at once.
    ///
    /// # Panics
    /// If `rate` is not positive and finite.
    pub fn set_rate(&mut self, rate: f64) {
        if self.span() > Nanos::ZERO {
            self.scale_rate(rate / self.rate());
        }
    }

    /// Keeps the first `requests`, at least one.
    pub fn truncate(&mut self, requests: usize) {
        self.rows.truncate(requests.max(1));
        self.digest = digest(&self.rows, self.granularity);
    }

    /// `requests` rows from row `start` on, going round: after the last row comes the first, one mean
    /// gap later. The new clock starts at row `start`.
    ///
    /// A row that comes more than once has fresh content ids each time, equal where they were equal
    /// within one round: otherwise a prefix cache would find every prompt of the round before.
    ///
    /// # Panics
    /// If `requests` is zero.
    pub fn rotated(&self, start: usize, requests: usize) -> Trace {
        let rows = self.rows.len();
        let gap_mean = self.span().0 / (rows as u64 - 1).max(1);
        let round_span = self.span().0.saturating_add(gap_mean);
        let start = start % rows;
        let zero = self.rows[start].arrival;
        let turned = (0..requests).map(|k| {
            let row = &self.rows[(start + k) % rows];
            let clock = round_span.saturating_mul(((start + k) / rows) as u64);
            TraceRow {
                arrival: row.arrival.saturating_add(Nanos(clock)).saturating_sub(zero),
                content: row.content.as_ref().map(|ids| fresh(ids, (k / rows) as u64)),
                ..*row
            }
        });
        Trace::new(self.name.clone(), turned.collect(), self.granularity, self.skipped.clone())
    }

    /// Spreads the arrivals of each tick of the clock over it, uniformly; their order stays.
    ///
    /// For sources that put time on a coarse grid: 3 s in Mooncake's traces. A time belongs to the tick
    /// that it is nearest to, since a third of Mooncake's are a millisecond early: taken to the tick
    /// below, they would make pairs of an empty and a double tick.
    ///
    /// # Panics
    /// If `tick` is zero.
    pub fn spread_ticks(&mut self, tick: Nanos, prng: &mut Prng) {
        assert!(tick > Nanos::ZERO, "a tick lasts a while");
        let mut drawn = Vec::new();
        let nearest = |row: &TraceRow| row.arrival.0.saturating_add(tick.0 / 2) / tick.0;
        for rows in self.rows.chunk_by_mut(|a, b| nearest(a) == nearest(b)) {
            let floor = nearest(&rows[0]) * tick.0;
            drawn.clear();
            drawn.extend(rows.iter().map(|_| floor.saturating_add(prng.below(tick.0))));
            drawn.sort_unstable();
            for (row, &arrival) in rows.iter_mut().zip(&drawn) {
                row.arrival = Nanos(arrival);
            }
        }
        let zero = self.rows[0].arrival;
        for row in &mut self.rows {
            row.arrival -= zero;
        }
        self.digest = digest(&self.rows, self.granularity);
    }
}

/// The ids of round `round` of a trace that repeats; those of round 0 are the trace's own.
fn fresh(ids: &Arc<[u64]>, round: u64) -> Arc<[u64]> {
    match round {
        0 => Arc::clone(ids),
        _ => ids.iter().map(|&id| mix(id ^ mix(round))).collect(),
    }
}

fn digest(rows: &[TraceRow], granularity: Tokens) -> u64 {
    let mut hash = mix(u64::from(granularity.0));
    let mut add = |word: u64| hash = mix(hash ^ word);
    for row in rows {
        add(row.arrival.0);
        add(u64::from(row.prompt.0) << 32 | u64::from(row.output.0));
        add(u64::from(row.client) << 8 | u64::from(row.priority));
        if let Some(ids) = &row.content {
            ids.iter().for_each(|&id| add(id));
        }
    }
    hash
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file of the public traces, if they lie beside the repository; says plainly if not.
    pub(crate) fn public(file: &str) -> Option<PathBuf> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/traces"));
        if !folder.exists() {
            println!("skipped: ../shared/traces is not here");
            return None;
        }
        Some(folder.join(file))
    }

    pub(crate) fn trace_of(arrivals_ms: &[u64]) -> Trace {
        let row = |(i, &ms): (usize, &u64)| TraceRow {
            arrival: Nanos::from_millis(ms),
            prompt: Tokens(i as u32 + 1),
            output: Tokens(7),
            client: 0,
            priority: 0,
            content: Some(vec![i as u64].into()),
        };
        let rows = arrivals_ms.iter().enumerate().map(row).collect();
        Trace::new("made".into(), rows, GRANULARITY, Skipped::default())
    }

    fn arrivals_ms(trace: &Trace) -> Vec<u64> {
        trace.rows.iter().map(|row| row.arrival.0 / 1_000_000).collect()
    }

    #[test]
    fn first_row_is_the_zero_of_the_clock() {
        let trace = trace_of(&[500, 700, 1500]);
        assert_eq!(arrivals_ms(&trace), [0, 200, 1000]);
        assert_eq!(trace.span(), Nanos::from_millis(1000));
        assert!((trace.rate() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn scaling_the_rate_divides_the_clock() {
        let mut trace = trace_of(&[0, 200, 1000]);
        let before = trace.digest;
        trace.scale_rate(4.0);
        assert_eq!(arrivals_ms(&trace), [0, 50, 250]);
        assert_ne!(trace.digest, before);
        trace.set_rate(2.0);
        assert_eq!(arrivals_ms(&trace), [0, 200, 1000]);
        assert_eq!(trace.digest, before);
    }

    #[test]
    fn rotation_goes_round_with_one_mean_gap_at_the_seam() {
        let trace = trace_of(&[0, 200, 1000]);
        let turned = trace.rotated(1, 5);
        // 200 -> 1000 | seam 500 | 0 -> 200 -> 1000
        assert_eq!(arrivals_ms(&turned), [0, 800, 1300, 1500, 2300]);
        let prompts: Vec<u32> = turned.rows.iter().map(|row| row.prompt.0).collect();
        assert_eq!(prompts, [2, 3, 1, 2, 3]);
        let ids: Vec<u64> = turned.rows.iter().map(|row| row.content.as_ref().unwrap()[0]).collect();
        assert_eq!(ids[..3], [1, 2, 0]);
        assert!(ids[3] > 2 && ids[4] > 2, "a repeated prompt must not hit the cache of its first time");
        assert_eq!(trace.rotated(0, 3), trace);
        assert_eq!(trace.rotated(4, 3), trace.rotated(1, 3));
    }

    #[test]
    fn one_request_can_be_repeated() {
        let turned = trace_of(&[9]).rotated(0, 3);
        assert_eq!(arrivals_ms(&turned), [0, 0, 0]);
        assert_eq!(turned.rate(), f64::INFINITY);
    }

    #[test]
    fn spreading_stays_in_the_tick_and_in_order() {
        let at = [0, 0, 0, 2999, 3000, 9000]; // one is early, as a third of Mooncake's are
        let mut trace = trace_of(&at);
        trace.spread_ticks(Nanos::from_millis(3000), &mut Prng::new(1));
        assert_eq!(trace.rows[0].arrival, Nanos::ZERO);
        assert!(trace.rows.is_sorted_by_key(|row| row.arrival));
        for (row, before) in trace.rows.iter().zip(at) {
            let moved = row.arrival.0.abs_diff(before * 1_000_000);
            assert!(moved <= 3_001_000_000, "a row left its tick by {moved} ns");
        }
        let mut again = trace_of(&at);
        again.spread_ticks(Nanos::from_millis(3000), &mut Prng::new(1));
        assert_eq!(again, trace);
    }

    #[test]
    fn digest_sees_every_field() {
        let trace = trace_of(&[0, 1]);
        let changed = |change: fn(&mut TraceRow)| {
            let mut rows = trace.rows.clone();
            change(&mut rows[1]);
            Trace::new("other name".into(), rows, GRANULARITY, Skipped::default()).digest
        };
        assert_eq!(changed(|_| ()), trace.digest);
        assert_ne!(changed(|row| row.arrival = Nanos(2)), trace.digest);
        assert_ne!(changed(|row| row.prompt = Tokens(9)), trace.digest);
        assert_ne!(changed(|row| row.output = Tokens(9)), trace.digest);
        assert_ne!(changed(|row| row.client = 1), trace.digest);
        assert_ne!(changed(|row| row.priority = 1), trace.digest);
        assert_ne!(changed(|row| row.content = None), trace.digest);
    }
}
