//! What one run leaves: latencies as curves of quantiles, and a few counts. Small enough to keep, and
//! enough to draw every curve from.

use super::stats::slope;
use crate::metrics::{RequestRecord, nearest_rank};
use crate::sim::Outcome;
use crate::units::{Nanos, Tokens};
use serde::{Deserialize, Serialize};

/// Steps of half a percent below 100 %.
const STEPS: usize = 199;

/// The shares at which curves are kept: 0.5 %, 1 %, ... 99.5 %, then 99.9 % and 100 %.
pub fn shares() -> impl Iterator<Item = f64> {
    (1..=STEPS).map(|i| i as f64 / 200.0).chain([0.999, 1.0])
}

/// The distribution of one latency over the requests of a run, in seconds. Nearest rank; a request that
/// did not end is `None`, later than all. Where no request has that latency, all values are NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Mean; `None` if a request did not end.
    mean: Option<f32>,
    /// At [`shares`]; empty of no requests.
    at: Vec<Option<f32>>,
}

impl Curve {
    /// Of latencies, infinite where a request did not end; sorted for it.
    pub fn of(values: &mut [f64]) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        // Seven digits are more than any table prints, and files stay small.
        let finite = |v: f64| v.is_finite().then_some(v as f32);
        let mean = super::stats::mean(values);
        let place = |share: f64| values[nearest_rank(values.len(), share)];
        let kept = shares().filter(|_| !values.is_empty());
        Self { mean: finite(mean), at: kept.map(|share| finite(place(share))).collect() }
    }

    /// Whether no request has this latency.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Mean, infinite if a request did not end.
    pub fn mean(&self) -> f64 {
        if self.is_empty() { f64::NAN } else { self.mean.map_or(f64::INFINITY, f64::from) }
    }

    /// The value at a share that the curve is kept at.
    ///
    /// # Panics
    /// If it is kept at no such share.
    pub fn at(&self, share: f64) -> f64 {
        let place = shares().position(|s| (s - share).abs() < 1e-9);
        self.value(place.unwrap_or_else(|| panic!("a curve is not kept at {share}")))
    }

    fn value(&self, place: usize) -> f64 {
        self.at.get(place).map_or(f64::NAN, |value| value.map_or(f64::INFINITY, f64::from))
    }

    /// Share and value, in their order.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        shares().enumerate().map(|(i, share)| (share, self.value(i)))
    }

    /// The share of requests that take at most `limit` seconds: linear between the points that are kept. What never
    /// ends is within no limit.
    pub fn within(&self, limit: f64) -> f64 {
        let mut below = (0.0, 0.0);
        for (share, value) in self.points() {
            if value > limit || value.is_infinite() {
                let reach = if value.is_finite() { (limit - below.1) / (value - below.1) } else { 0.0 };
                return below.0 + (share - below.0) * reach;
            }
            below = (share, value);
        }
        1.0
    }
}

/// Long and short requests apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// TTLT of the short ones.
    pub short: Curve,
    /// TTLT of the long ones.
    pub long: Curve,
    /// Least-squares slope of a long one's TTLT over its place in the order of arrival, s per request.
    pub long_slope_s: f64,
}

/// The figures of one run. Nothing in it depends on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Time to first token.
    pub ttft: Curve,
    /// Mean gap per request between its tokens.
    pub tpot: Curve,
    /// Time to last token.
    pub ttlt: Curve,
    /// 99th percentile of all gaps between tokens, pooled, in seconds.
    pub tbt_p99_s: f64,
    /// Output tokens per second.
    pub tok_s: f64,
    /// Requests per second that the machine was asked for.
    pub offered_qps: f64,
    /// Requests over the time until the last one ended.
    pub achieved_qps: f64,
    /// Requests submitted.
    pub submitted: u64,
    /// Requests that ended as they should.
    pub finished: u64,
    /// Evictions by swap.
    pub swaps: u64,
    /// Evictions by recompute.
    pub recomputes: u64,
    /// Tokens moved to the host.
    pub swapped_tokens: u64,
    /// Tokens computed again.
    pub recomputed_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Steps of the engine.
    pub steps: u64,
    /// Joules per output token, modelled.
    pub j_per_token: f64,
    /// Long and short apart, where the work has both.
    pub split: Option<Split>,
}

/// Prompts of at least this many tokens are long where long and short are told apart.
const LONG: Tokens = Tokens(1000);

impl Figures {
    /// Of a run that was asked for `offered_qps`; `split` tells long and short apart.
    pub fn of(outcome: &Outcome, offered_qps: f64, split: bool) -> Self {
        let records = &outcome.metrics.records;
        let summary = outcome.metrics.summary(crate::metrics::About::default(), outcome.counters);
        let curve = |f: fn(&RequestRecord) -> Option<Nanos>| {
            Curve::of(&mut records.iter().map(|r| seconds(f(r))).collect::<Vec<_>>())
        };
        Self {
            ttft: curve(RequestRecord::ttft),
            tpot: Curve::of(&mut records.iter().filter_map(RequestRecord::tpot_counted).collect::<Vec<_>>()),
            ttlt: curve(RequestRecord::ttlt),
            tbt_p99_s: summary.tbt_s.p99,
            tok_s: summary.throughput_tok_s,
            offered_qps,
            achieved_qps: summary.requests.finished as f64 / summary.makespan_s.max(1e-9),
            submitted: summary.requests.submitted,
            finished: summary.requests.finished,
            swaps: summary.preemptions.swap,
            recomputes: summary.preemptions.recompute,
            swapped_tokens: summary.tokens.swapped,
            recomputed_tokens: summary.tokens.recomputed,
            output_tokens: summary.tokens.output,
            steps: summary.steps,
            j_per_token: summary.energy.j_per_output_token,
            split: split.then(|| Split::of(records)),
        }
    }
}

impl Split {
    fn of(records: &[RequestRecord]) -> Self {
        let ttlt = |long: bool| {
            let places = records.iter().enumerate().filter(move |(_, r)| (r.prompt >= LONG) == long);
            places.map(|(place, r)| (place as f64, seconds(r.ttlt())))
        };
        let curve = |long| Curve::of(&mut ttlt(long).map(|p| p.1).collect::<Vec<_>>());
        let ended: Vec<(f64, f64)> = ttlt(true).filter(|p| p.1.is_finite()).collect();
        Self { short: curve(false), long: curve(true), long_slope_s: slope(&ended) }
    }
}

fn seconds(latency: Option<Nanos>) -> f64 {
    latency.map_or(f64::INFINITY, Nanos::as_secs_f64)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run whose latencies are `seconds` times 1 to 100, TTFT a tenth of them.
    pub fn made(seconds: f64) -> Figures {
        let curve = |by: f64| Curve::of(&mut (1..=100).map(|i| f64::from(i) * by).collect::<Vec<_>>());
        Figures {
            ttft: curve(seconds / 10.0),
            tpot: curve(seconds / 1000.0),
            ttlt: curve(seconds),
            tbt_p99_s: seconds,
            tok_s: 1000.0,
            offered_qps: 1.0,
            achieved_qps: 1.0,
            submitted: 100,
            finished: 100,
            swaps: 0,
            recomputes: 0,
            swapped_tokens: 0,
            recomputed_tokens: 0,
            output_tokens: 10,
            steps: 10,
            j_per_token: 1.0,
            split: None,
        }
    }

    #[test]
    fn a_curve_has_nearest_ranks() {
        let mut values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let curve = Curve::of(&mut values);
        assert_eq!(curve.mean(), 500.5);
        for (share, value) in [(0.005, 5.0), (0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            assert_eq!(curve.at(share), value);
        }
        assert_eq!(curve.points().count(), 201);
    }

    #[test]
    fn attainment_by_hand() {
        let curve = Curve::of(&mut (1..=1000).map(f64::from).collect::<Vec<_>>());
        assert_eq!(curve.within(500.0), 0.5);
        assert!((curve.within(502.5) - 0.5025).abs() < 1e-12);
        assert!((curve.within(2.5) - 0.0025).abs() < 1e-12);
        assert_eq!((curve.within(0.0), curve.within(1000.0), curve.within(1e9)), (0.0, 1.0, 1.0));
    }

    #[test]
    fn what_never_ends_is_never_within() {
        let mut values = vec![1.0; 100];
        values[7] = f64::INFINITY;
        let curve = Curve::of(&mut values);
        assert_eq!(curve.mean(), f64::INFINITY);
        assert_eq!((curve.at(0.99), curve.at(1.0)), (1.0, f64::INFINITY));
        assert_eq!((curve.within(1e12), curve.within(f64::INFINITY)), (0.99, 0.99));
        let read: Curve = serde_json::from_str(&serde_json::to_string(&curve).unwrap()).unwrap();
        assert_eq!(read, curve);
    }

    #[test]
    fn a_curve_of_nothing_has_no_value() {
        let curve = Curve::of(&mut []);
        assert!(curve.is_empty() && curve.mean().is_nan() && curve.at(0.99).is_nan());
        let read: Curve = serde_json::from_str(&serde_json::to_string(&curve).unwrap()).unwrap();
        assert_eq!(read, curve);
    }
}
