//! The accounts of a run: latencies per request, gaps between tokens, energy and power, and the summary
//! that people and machines read.
//!
//! TTFT is from arrival to first token, TTLT to the last; TBT is every gap between two tokens, pooled;
//! TPOT is (TTLT − TTFT) / (n − 1) per request of n ≥ 2 tokens. Percentiles of per-request values are
//! exact, nearest rank, over all submitted requests, an unfinished one counting as infinite, and one of a
//! single token having no TPOT; only pooled TBT is a histogram.

use crate::config::Config;
use crate::engine::{Counters, Gauges, StepReport, Yields};
use crate::request::FinishReason;
use crate::units::{Microjoules, Nanos, Tokens, float};
use serde::{Deserialize, Serialize};

/// What became of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestRecord {
    /// When it arrived.
    pub arrival: Nanos,
    /// When its first token came; zero if none did.
    pub first: Nanos,
    /// When its last token came; zero until it has ended.
    pub last: Nanos,
    /// Its prompt.
    pub prompt: Tokens,
    /// Prompt tokens that came from the prefix cache.
    pub cached: Tokens,
    /// Its output; zero until it has ended.
    pub output: Tokens,
    /// Why it ended; `None` while it has not.
    pub reason: Option<FinishReason>,
}

impl RequestRecord {
    fn served(&self) -> bool {
        matches!(self.reason, Some(FinishReason::Stop | FinishReason::Length))
    }

    /// Time to first token, if there was one.
    pub fn ttft(&self) -> Option<Nanos> {
        (self.output > Tokens::ZERO).then(|| self.first.saturating_sub(self.arrival))
    }

    /// Time to last token, if it was served to its end.
    pub fn ttlt(&self) -> Option<Nanos> {
        self.served().then(|| self.last.saturating_sub(self.arrival))
    }

    /// Mean time per output token after the first, if it was served to its end and had more than one.
    pub fn tpot(&self) -> Option<f64> {
        let gaps = self.output.0.checked_sub(1).filter(|n| *n > 0)?;
        self.served().then(|| self.last.saturating_sub(self.first).as_secs_f64() / f64::from(gaps))
    }

    /// What statistics of TPOT count of it: infinite unless it was served to its end, and nothing of a single
    /// token, which has no gap.
    pub(crate) fn tpot_counted(&self) -> Option<f64> {
        if self.served() { self.tpot() } else { Some(f64::INFINITY) }
    }
}

/// Counts of values by size, each known to 1 part in 256 (0.4 %).
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 58 * 256], total: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts `value` `times` times.
    #[inline]
    pub fn add(&mut self, value: u64, times: u64) {
        self.counts[Self::bin(value)] += times;
        self.total += times;
        self.sum += u128::from(value) * u128::from(times);
        self.max = self.max.max(value);
    }

    /// Eight bits behind the leading one; exact below 512.
    fn bin(value: u64) -> usize {
        let shift = (63 - (value | 256).leading_zeros()) - 8;
        (shift as usize) * 256 + (value >> shift) as usize
    }

    /// The middle of a bin.
    fn value(bin: usize) -> u64 {
        if bin < 512 {
            return bin as u64;
        }
        let shift = bin / 256 - 1;
        ((bin - shift * 256) as u64) << shift | 1 << (shift - 1)
    }

    /// The value at a quantile, nearest rank; zero without values.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (bin, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Self::value(bin).min(self.max);
            }
        }
        0
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn stats(&self) -> Stats {
        let secs = |ns: u64| ns as f64 * 1e-9;
        let q = |q| secs(self.quantile(q));
        let mean = self.sum as f64 / self.total.max(1) as f64 * 1e-9;
        Stats { mean, p50: q(0.5), p90: q(0.9), p95: q(0.95), p99: q(0.99), max: secs(self.max) }
    }
}

/// Mean and percentiles of one quantity, in its own unit. `null` in JSON is infinite: a request did not
/// end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Stats {
    /// Of `values`, which are sorted for it; all zero without values.
    pub fn of(values: &mut [f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        values.sort_unstable_by(f64::total_cmp);
        let q = |q| values[nearest_rank(values.len(), q)];
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Self { mean, p50: q(0.5), p90: q(0.9), p95: q(0.95), p99: q(0.99), max: q(1.0) }
    }
}

/// The place of a quantile among `len` sorted values, nearest rank.
pub fn nearest_rank(len: usize, q: f64) -> usize {
    // A rank that is whole stays so: 0.14 times 50 is a hair above 7.
    ((len as f64 * q * (1.0 - 1e-12)).ceil() as usize).clamp(1, len) - 1
}

/// The energy of one board over time, second by second.
#[derive(Clone, Debug, Default)]
struct PowerMeter {
    total: Microjoules,
    seconds: Vec<Seconds>,
}

/// Consecutive seconds, `to` not included, with equal energy.
#[derive(Clone, Copy, Debug)]
struct Seconds {
    from: u64,
    to: u64,
    /// Of each second, in microjoules.
    energy: f64,
}

const SECOND: u64 = 1_000_000_000;

impl PowerMeter {
    /// Adds a stretch of even power; each begins where the one before ended, or later.
    fn add(&mut self, from: Nanos, to: Nanos, energy: Microjoules) {
        self.total += energy;
        let span = to.0.saturating_sub(from.0);
        let per_ns = float(energy.0) / float(span.max(1));
        let (first, last) = (from.0 / SECOND, to.0 / SECOND);
        if first >= last {
            return self.add_seconds(first, first + 1, per_ns * float(span));
        }
        self.add_seconds(first, first + 1, per_ns * float((first + 1) * SECOND - from.0));
        // An idle gap may last years: its whole seconds count at once.
        self.add_seconds(first + 1, last, per_ns * float(SECOND));
        self.add_seconds(last, last + 1, per_ns * float(to.0 - last * SECOND));
    }

    fn add_seconds(&mut self, from: u64, to: u64, energy: f64) {
        match self.seconds.last_mut() {
            Some(last) if last.from == from && last.to == to => last.energy += energy,
            _ if from < to => self.seconds.push(Seconds { from, to, energy }),
            _ => {}
        }
    }
}

/// The largest energy of one second over all boards, as power.
fn max_1s_w(boards: &[PowerMeter]) -> f64 {
    let changes = |s: &Seconds| [(s.from, s.energy), (s.to, -s.energy)];
    let mut changes: Vec<(u64, f64)> = boards.iter().flat_map(|b| &b.seconds).flat_map(changes).collect();
    // What ends before what begins: then no sum on the way is larger than that of a second.
    changes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut now = 0.0;
    let sums = changes.iter().map(|(_, change)| {
        now += change;
        now
    });
    sums.fold(0.0, f64::max) * 1e-6
}

/// One stretch of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Largest number of rows that ran in a step.
    pub running: u32,
    /// Largest number of requests that waited.
    pub waiting: u32,
    /// Largest number of blocks held.
    pub kv_held: u32,
    /// Evictions.
    pub preemptions: u32,
    /// Output tokens.
    pub tokens: u64,
    /// Joules.
    pub joules: f64,
}

impl Point {
    fn merged(self, other: Self) -> Self {
        Self {
            running: self.running.max(other.running),
            waiting: self.waiting.max(other.waiting),
            kv_held: self.kv_held.max(other.kv_held),
            preemptions: self.preemptions + other.preemptions,
            tokens: self.tokens + other.tokens,
            joules: self.joules + other.joules,
        }
    }
}

/// A run over time, in at most [`Timeline::POINTS_MAX`] equal stretches, which double when they run out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// How long each stretch is.
    pub span: Nanos,
    /// The stretches.
    pub points: Vec<Point>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { span: Self::SPAN_MIN, points: Vec::new() }
    }
}

impl Timeline {
    /// The most stretches.
    pub const POINTS_MAX: usize = 512;
    /// How long a stretch is before the first doubling.
    const SPAN_MIN: Nanos = Nanos(SECOND / 16);

    fn at(&mut self, time: Nanos) -> &mut Point {
        let mut index = self.index(time);
        while index >= Self::POINTS_MAX {
            self.halve();
            index = self.index(time);
        }
        if index >= self.points.len() {
            self.points.resize(index + 1, Point::default());
        }
        &mut self.points[index]
    }

    /// The stretch of a time. Both divisors are constant, since a division by a number takes longer than all else here.
    fn index(&self, time: Nanos) -> usize {
        let doublings = (self.span.0 / Self::SPAN_MIN.0).trailing_zeros();
        ((time.0 / Self::SPAN_MIN.0) >> doublings) as usize
    }

    /// Adds energy evenly to all stretches between two times.
    fn spread(&mut self, from: Nanos, to: Nanos, joules: f64) {
        self.at(to);
        let stretches = self.index(from)..=self.index(to);
        let each = joules / stretches.clone().count() as f64;
        self.points[stretches].iter_mut().for_each(|point| point.joules += each);
    }

    fn halve(&mut self) {
        let merge = |pair: &[Point]| pair.iter().copied().fold(Point::default(), Point::merged);
        self.points = self.points.chunks(2).map(merge).collect();
        self.span = Nanos(self.span.0 * 2);
    }
}

/// When a token came that has not come.
const NEVER: Nanos = Nanos::MAX;

/// Everything that a run leaves, filled step by step.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// By the requests' `user_data`, which counts them from zero.
    pub records: Vec<RequestRecord>,
    /// When the last token of each came so far, or [`NEVER`]: all that most tokens touch, so that it stays near.
    last: Vec<Nanos>,
    /// All gaps between two tokens.
    pub tbt: Histogram,
    /// The run over time.
    pub timeline: Timeline,
    /// By board.
    power: Vec<PowerMeter>,
    finished_at: Nanos,
    output_tokens: u64,
    refused: u64,
}

impl Metrics {
    /// Of a run on `boards`, with room for `requests`.
    pub fn new(boards: usize, requests: usize) -> Self {
        let (records, last) = (Vec::with_capacity(requests), Vec::with_capacity(requests));
        Self { records, last, power: vec![PowerMeter::default(); boards], ..Self::default() }
    }

    /// A request arrives; its `user_data` is the number of those before it.
    pub fn arrived(&mut self, arrival: Nanos, prompt: Tokens) {
        self.records.push(RequestRecord { arrival, prompt, ..RequestRecord::default() });
        self.last.push(NEVER);
    }

    /// The last that arrived was refused.
    pub fn refused(&mut self) {
        self.refused += 1;
        self.records.last_mut().expect("it arrived").reason = Some(FinishReason::Rejected);
    }

    /// Adds an idle gap of a board.
    pub fn idle(&mut self, board: usize, from: Nanos, to: Nanos, energy: Microjoules) {
        self.power[board].add(from, to, energy);
        // A drawing spreads a gap over the stretches that it finds empty, and beside other boards none is.
        match self.power.len() {
            1 => self.timeline.at(from).joules += energy.as_joules_f64(),
            _ => self.timeline.spread(from, to, energy.as_joules_f64()),
        }
    }

    /// Adds one step of a board.
    pub fn step(&mut self, board: usize, report: &StepReport<'_>, gauges: Gauges) {
        if report.settled.is_some() {
            self.settled(board, report, gauges);
        }
        for ended in report.ended {
            let record = &mut self.records[ended.user_data as usize];
            record.reason = Some(ended.reason);
            record.output = ended.generated;
            record.cached = ended.cached;
            let last = self.last[ended.user_data as usize];
            record.last = if last == NEVER { Nanos::ZERO } else { last };
        }
    }

    #[inline]
    fn settled(&mut self, board: usize, report: &StepReport<'_>, gauges: Gauges) {
        let outcome = report.outcome;
        let now = outcome.finished;
        self.count_gaps(report.tokens, now);
        self.output_tokens += report.tokens.len() as u64;
        // Engines are stepped one after the other: the one that was stepped last need not end last.
        self.finished_at = self.finished_at.max(now);
        self.power[board].add(outcome.started, now, outcome.energy);
        let point = self.timeline.at(now);
        point.running = point.running.max(outcome.tokens.len() as u32);
        point.waiting = point.waiting.max(gauges.waiting as u32);
        point.kv_held = point.kv_held.max(gauges.kv_held.0);
        point.preemptions += report.decision.evict.len() as u32;
        point.tokens += report.tokens.len() as u64;
        point.joules += outcome.energy.as_joules_f64();
    }

    /// Counts the gaps that these tokens end. Most rows of a step had their last token at the same time: they are
    /// counted together. A loop of its own, out of line, whose few words stay in registers.
    #[inline(never)]
    fn count_gaps(&mut self, tokens: Yields<'_>, now: Nanos) {
        let Self { records, last, tbt, .. } = self;
        let (mut before, mut times) = (now, 0);
        tokens.iter().for_each(|token| {
            let last = std::mem::replace(&mut last[token.user_data as usize], now);
            if last == before {
                times += 1;
            } else if last == NEVER {
                records[token.user_data as usize].first = now;
            } else {
                tbt.add((now - before).0, times);
                (before, times) = (last, 1);
            }
        });
        tbt.add((now - before).0, times);
    }

    /// Output tokens so far.
    pub fn output_tokens(&self) -> u64 {
        self.output_tokens
    }

    /// When the last step ended that any board has done.
    pub fn finished_at(&self) -> Nanos {
        self.finished_at
    }

    /// How many requests arrived.
    pub fn submitted(&self) -> usize {
        self.records.len()
    }

    /// The figures of the whole run; `about` holds what the run itself does not know.
    pub fn summary(&self, about: About, counters: Counters) -> Summary {
        let ended = |reason| self.records.iter().filter(|r| r.reason == Some(reason)).count() as u64;
        let or_infinite = |v: Option<Nanos>| v.map_or(f64::INFINITY, Nanos::as_secs_f64);
        let all = |f: &dyn Fn(&RequestRecord) -> f64| {
            Stats::of(&mut self.records.iter().map(f).collect::<Vec<_>>())
        };
        let mut tpot: Vec<f64> = self.records.iter().filter_map(RequestRecord::tpot_counted).collect();
        let span = self.finished_at.as_secs_f64();
        let joules = self.power.iter().map(|board| board.total).sum::<Microjoules>().as_joules_f64();
        let per = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Summary {
            schema: "flyball.summary/1".into(),
            policy: about.policy,
            executor: about.executor,
            profile: about.profile,
            trace: about.trace,
            load: about.load,
            seed: about.seed,
            gpus: about.gpus,
            config: about.config,
            requests: RequestCounts {
                submitted: self.records.len() as u64,
                finished: ended(FinishReason::Stop) + ended(FinishReason::Length),
                rejected: ended(FinishReason::Rejected),
                cancelled: ended(FinishReason::Cancelled),
                deadline: ended(FinishReason::Deadline),
                failed: ended(FinishReason::Failed),
            },
            tokens: TokenCounts {
                prompt: self.records.iter().map(|r| u64::from(r.prompt.0)).sum(),
                cached: counters.cached_tokens,
                output: self.output_tokens,
                recomputed: counters.recomputed_tokens,
                swapped: counters.swapped_tokens,
            },
            ttft_s: all(&|r| or_infinite(r.ttft())),
            tbt_s: self.tbt.stats(),
            tpot_s: Stats::of(&mut tpot),
            ttlt_s: all(&|r| or_infinite(r.ttlt())),
            throughput_tok_s: per(self.output_tokens as f64, span),
            makespan_s: span,
            preemptions: Preemptions {
                swap: counters.swaps,
                recompute: counters.recomputes,
                overrides: counters.overrides,
            },
            steps: counters.steps,
            energy: EnergyFigures {
                joules,
                j_per_output_token: per(joules, self.output_tokens as f64),
                source: "modelled".into(),
            },
            power: PowerFigures {
                mean_w: per(joules, span),
                // A run that ends within a second has no whole one: the mean of the run is that of it.
                max_1s_w: if span < 1.0 { per(joules, span) } else { max_1s_w(&self.power) },
                ..PowerFigures::default()
            },
            host: about.host,
        }
    }
}

/// What a summary says of a run beside its figures.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The policy's name.
    pub policy: String,
    /// The executor's name.
    pub executor: String,
    /// The profile's name.
    pub profile: String,
    /// The trace.
    pub trace: TraceInfo,
    /// Offered load relative to capacity, if it was set.
    pub load: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// How many engines.
    pub gpus: u32,
    /// Limits of each engine.
    pub config: Config,
    /// What the run cost here.
    pub host: HostFigures,
}

/// Which trace was run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceInfo {
    /// Its name.
    pub name: String,
    /// Hash of its rows, in hexadecimal.
    pub digest: String,
    /// By how much its rate was multiplied.
    pub rate_scale: f64,
    /// Requests per second as they were run.
    pub rate: f64,
    /// Rows of the source that were skipped as bad.
    pub skipped: u64,
}

/// How requests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// All.
    pub submitted: u64,
    /// By a stop token or their length.
    pub finished: u64,
    /// Refused.
    pub rejected: u64,
    /// Cancelled by the client.
    pub cancelled: u64,
    /// Past their deadline.
    pub deadline: u64,
    /// Failed in the executor.
    pub failed: u64,
}

/// Tokens of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Of the prompts.
    pub prompt: u64,
    /// Of these, from the prefix cache.
    pub cached: u64,
    /// Generated.
    pub output: u64,
    /// Computed again after evictions.
    pub recomputed: u64,
    /// Moved to the host.
    pub swapped: u64,
}

/// Evictions of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preemptions {
    /// By swap.
    pub swap: u64,
    /// By recompute.
    pub recompute: u64,
    /// Of rows that the policy protects.
    #[serde(default)]
    pub overrides: u64,
}

/// Energy of a run, over all boards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnergyFigures {
    /// Joules, idle gaps included.
    pub joules: f64,
    /// Per output token.
    pub j_per_output_token: f64,
    /// `modelled`, or which meter.
    pub source: String,
}

/// Power of a run, over all boards; the fields of a cap are null without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PowerFigures {
    /// The cap.
    pub cap_w: Option<f64>,
    /// Mean.
    pub mean_w: f64,
    /// Largest mean of one second; of the run if it is shorter.
    pub max_1s_w: f64,
    /// How far that is above the cap.
    pub overshoot_pct_1s: Option<f64>,
    /// Seconds with their mean above the cap.
    pub violation_s: Option<f64>,
    /// Until the power stays within 5 % of the cap after a step of it.
    pub settling_s: Option<f64>,
}

/// What a run cost on this machine. The only part of a summary that two equal runs do not share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFigures {
    /// Seconds of the simulation loop, with all metrics on.
    pub wall_s: f64,
    /// Nanoseconds per step, metrics included; one step in 16 is timed.
    pub ns_per_step: StepNanos,
}

/// Nanoseconds per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepNanos {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

impl StepNanos {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram) -> Self {
        Self { p50: histogram.quantile(0.5), p99: histogram.quantile(0.99), max: histogram.max }
    }
}

/// The figures of one run, as `--json` writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// `flyball.summary/1`.
    pub schema: String,
    /// The policy's name.
    pub policy: String,
    /// The executor's name.
    pub executor: String,
    /// The profile's name.
    pub profile: String,
    /// The trace.
    pub trace: TraceInfo,
    /// Offered load relative to capacity, if it was set.
    pub load: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// How many engines.
    pub gpus: u32,
    /// Limits of each engine.
    pub config: Config,
    /// How requests ended.
    pub requests: RequestCounts,
    /// Tokens.
    pub tokens: TokenCounts,
    /// Time to first token.
    pub ttft_s: Stats,
    /// Every gap between two tokens, pooled.
    pub tbt_s: Stats,
    /// Mean gap per request.
    pub tpot_s: Stats,
    /// Time to last token.
    pub ttlt_s: Stats,
    /// Output tokens per second.
    pub throughput_tok_s: f64,
    /// Until the last token.
    pub makespan_s: f64,
    /// Evictions.
    pub preemptions: Preemptions,
    /// Calls of `engine.step()`.
    pub steps: u64,
    /// Energy.
    pub energy: EnergyFigures,
    /// Power.
    pub power: PowerFigures,
    /// What it cost here.
    pub host: HostFigures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_is_within_half_a_percent() {
        for value in [1, 255, 256, 511, 512, 1000, 123_456, 987_654_321, u64::MAX / 3] {
            let mut h = Histogram::default();
            h.add(value, 3);
            h.add(value * 2, 1);
            let error = h.quantile(0.5) as f64 / value as f64 - 1.0;
            assert!(error.abs() < 0.005, "{value}: {error}");
        }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let stats = Stats::of(&mut values);
        assert_eq!((stats.p50, stats.p99, stats.max, stats.mean), (50.0, 99.0, 100.0, 50.5));
        assert_eq!(Stats::of(&mut [7.0]).p99, 7.0);
        for (i, len) in (1..=200).flat_map(|i| [50, 200, 10_000].map(|len| (i, len))) {
            assert_eq!(nearest_rank(len, i as f64 / 200.0), (i * len).div_ceil(200) - 1, "{i}/200 of {len}");
        }
    }

    #[test]
    fn power_is_split_over_seconds() {
        let mut meter = PowerMeter::default();
        meter.add(Nanos(0), Nanos(SECOND / 2), Microjoules(100_000_000));
        meter.add(Nanos(SECOND / 2), Nanos(SECOND * 5 / 2), Microjoules(800_000_000));
        assert_eq!(meter.total, Microjoules(900_000_000));
        let watts = max_1s_w(&[meter]);
        assert!((watts - 400.0).abs() < 1.0, "{watts}");
    }

    #[test]
    fn power_of_a_second_is_that_of_all_boards() {
        let board = |stretches: &[(u64, u64)]| {
            let mut meter = PowerMeter::default();
            // 100 W each.
            let add = |(from, to): &(u64, u64)| {
                meter.add(Nanos(from * SECOND), Nanos(to * SECOND), Microjoules((to - from) * 100_000_000));
            };
            stretches.iter().for_each(add);
            meter
        };
        let watts = |boards: &[PowerMeter]| max_1s_w(boards).round();
        let (whole, halves) = (board(&[(0, 9)]), board(&[(0, 2), (5, 9)]));
        assert_eq!(watts(&[]), 0.0);
        assert_eq!(watts(&[whole.clone(), halves.clone()]), 200.0);
        assert_eq!(watts(&[whole, halves.clone(), board(&[(2, 5)])]), 200.0, "two at any time");
        assert_eq!(watts(&[halves, board(&[(2, 5)])]), 100.0);
    }

    /// A gap of fifty years once took 16 s, a turn of a loop for each second.
    #[test]
    fn an_idle_gap_costs_as_much_as_a_short_one() {
        let mut meter = PowerMeter::default();
        meter.add(Nanos(SECOND / 2), Nanos(1_700_000_000 * SECOND), Microjoules(1_700_000_000_000_000));
        assert_eq!(meter.seconds.len(), 3);
        let watts = max_1s_w(&[meter]);
        assert!((watts - 1.0).abs() < 1e-6, "{watts}");
    }

    #[test]
    fn a_board_that_idles_beside_others_has_no_peak() {
        let mut metrics = Metrics::new(2, 0);
        metrics.idle(1, Nanos(5 * SECOND), Nanos(10 * SECOND), Microjoules(500_000_000));
        let joules: Vec<f64> = metrics.timeline.points.iter().map(|p| p.joules).collect();
        assert!((joules.iter().sum::<f64>() - 500.0).abs() < 1e-9);
        assert!(
            joules[..80].iter().all(|j| *j == 0.0) && joules[80..].iter().all(|j| (6.0..6.5).contains(j))
        );
    }

    #[test]
    fn timeline_keeps_sums_when_it_doubles() {
        let mut line = Timeline::default();
        (0..2000).for_each(|i| line.at(Nanos(i * SECOND / 16)).tokens += 1);
        assert!(line.points.len() <= Timeline::POINTS_MAX);
        assert_eq!(line.points.iter().map(|p| p.tokens).sum::<u64>(), 2000);
    }
}
