//! What a trace is like, in numbers. Quantiles are nearest rank.

use super::{Trace, TraceRow};
use crate::units::{Nanos, Tokens};
use serde::Serialize;
use std::collections::HashSet;

/// Quantiles of token counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// The mean.
    pub mean: f64,
    /// The least.
    pub min: Tokens,
    /// The median.
    pub p50: Tokens,
    /// The 90th percentile.
    pub p90: Tokens,
    /// The 95th percentile.
    pub p95: Tokens,
    /// The 99th percentile.
    pub p99: Tokens,
    /// The most.
    pub max: Tokens,
}

impl Lengths {
    /// The quantiles of at least one length.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(mut lengths: Vec<Tokens>) -> Self {
        assert!(!lengths.is_empty(), "no lengths have no quantiles");
        lengths.sort_unstable();
        let rank = |percent: usize| lengths[(lengths.len() * percent).div_ceil(100).max(1) - 1];
        let sum: u64 = lengths.iter().map(|tokens| u64::from(tokens.0)).sum();
        Self {
            mean: sum as f64 / lengths.len() as f64,
            min: lengths[0],
            p50: rank(50),
            p90: rank(90),
            p95: rank(95),
            p99: rank(99),
            max: lengths[lengths.len() - 1],
        }
    }
}

/// How much of the prompts an unlimited prefix cache would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reuse {
    /// Content ids in all prompts.
    pub ids: u64,
    /// Different ones.
    pub distinct: u64,
    /// Ids in the leading run of a prompt that was seen before.
    pub reused: u64,
}

impl Reuse {
    /// The reused share of all ids.
    pub fn share(self) -> f64 {
        self.reused as f64 / self.ids.max(1) as f64
    }
}

/// Everything that `flyball trace inspect` says of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// `flyball.trace-summary/1`.
    pub schema: &'static str,
    /// The trace's name.
    pub name: String,
    /// Hash of its rows, as hexadecimal.
    pub digest: String,
    /// How many requests.
    pub requests: u64,
    /// Rows of the source that are not in it.
    pub skipped: u64,
    /// Different clients.
    pub clients: u64,
    /// From the first arrival to the last.
    pub span_s: f64,
    /// Requests per second; null when all arrive at once.
    pub rate: Option<f64>,
    /// Coefficient of variation of the gaps.
    pub gap_cv: Option<f64>,
    /// Index of dispersion of arrivals per second.
    pub dispersion_1s: Option<f64>,
    /// Index of dispersion of arrivals per 10 s.
    pub dispersion_10s: Option<f64>,
    /// Index of dispersion of arrivals per minute.
    pub dispersion_60s: Option<f64>,
    /// The grid on which all arrivals fall, if it is a second or coarser: gap CV and the dispersion in
    /// shorter windows then come from rounding, not from the traffic.
    pub grid_s: Option<f64>,
    /// Prompt lengths.
    pub prompt: Lengths,
    /// Output lengths.
    pub output: Lengths,
    /// Reuse of prompts, where the trace knows their content.
    pub reuse: Option<Reuse>,
}

impl Trace {
    /// Everything about it at once. O(n log n).
    pub fn summary(&self) -> Summary {
        let times: Vec<Nanos> = self.rows.iter().map(|row| row.arrival).collect();
        let dispersion = |secs: u64| dispersion(&times, Nanos::from_millis(secs * 1000));
        Summary {
            schema: "flyball.trace-summary/1",
            name: self.name.clone(),
            digest: format!("{:016x}", self.digest),
            requests: self.rows.len() as u64,
            skipped: self.skipped.count,
            clients: self.rows.iter().map(|row| row.client).collect::<HashSet<_>>().len() as u64,
            span_s: self.span().as_secs_f64(),
            rate: Some(self.rate()).filter(|rate| rate.is_finite()),
            gap_cv: gap_cv(&times),
            dispersion_1s: dispersion(1),
            dispersion_10s: dispersion(10),
            dispersion_60s: dispersion(60),
            grid_s: self.grid().map(Nanos::as_secs_f64),
            prompt: self.prompt_lengths(),
            output: self.output_lengths(),
            reuse: self.reuse(),
        }
    }

    /// Prompt lengths.
    pub fn prompt_lengths(&self) -> Lengths {
        Lengths::of(self.rows.iter().map(|row| row.prompt).collect())
    }

    /// True output lengths.
    pub fn output_lengths(&self) -> Lengths {
        Lengths::of(self.rows.iter().map(|row| row.output).collect())
    }

    /// Reuse of prompts by an unlimited prefix cache; `None` if no row knows its content.
    pub fn reuse(&self) -> Option<Reuse> {
        let mut seen: HashSet<u64> = HashSet::new();
        let mut reuse = Reuse { ids: 0, distinct: 0, reused: 0 };
        for ids in self.rows.iter().filter_map(|row| row.content.as_deref()) {
            reuse.ids += ids.len() as u64;
            reuse.reused += ids.iter().take_while(|id| seen.contains(id)).count() as u64;
            seen.extend(ids);
        }
        reuse.distinct = seen.len() as u64;
        (reuse.ids > 0).then_some(reuse)
    }

    /// The grid on which all arrivals fall within 5 ms, if it is a second or coarser.
    pub fn grid(&self) -> Option<Nanos> {
        const CENTISECOND: u64 = 10_000_000;
        let rounded = |row: &TraceRow| row.arrival.0.saturating_add(CENTISECOND / 2) / CENTISECOND;
        let divisor = self.rows.iter().fold(0, |divisor, row| common_divisor(divisor, rounded(row)));
        Some(Nanos(divisor * CENTISECOND)).filter(|grid| *grid >= Nanos::from_millis(1000))
    }

    /// Requests in each of `bins` equal parts of the span; all in one if it has none.
    pub fn arrivals_in(&self, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        let span = u128::from(self.span().0) + 1;
        for row in &self.rows {
            counts[(u128::from(row.arrival.0) * bins as u128 / span) as usize] += 1;
        }
        counts
    }
}

/// Coefficient of variation of the gaps between sorted times; `None` without a gap above zero.
pub fn gap_cv(times: &[Nanos]) -> Option<f64> {
    let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
    let (mean, variance) = moments(gaps)?;
    (mean > 0.0).then(|| variance.sqrt() / mean)
}

/// Variance over mean of the number of times per window, over the whole windows from zero on; 1 for
/// Poisson. `None` with fewer than two windows.
pub fn dispersion(times: &[Nanos], window: Nanos) -> Option<f64> {
    let windows = times.last()?.0 / window.0;
    if windows < 2 {
        return None;
    }
    let mut count = 0.0;
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut current = 0;
    // Windows without a time add nothing to either sum.
    for time in times {
        let at = time.0 / window.0;
        if at != current {
            (sum, squares) = (sum + count, squares + count * count);
            (count, current) = (0.0, at);
        }
        if at >= windows {
            break;
        }
        count += 1.0;
    }
    let mean = sum / windows as f64;
    Some((squares / windows as f64 - mean * mean) / mean)
}

/// The greatest number that divides both (Euclid).
fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Mean and population variance (Welford, 1962).
fn moments(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (mut n, mut mean, mut sum) = (0.0, 0.0, 0.0);
    for value in values {
        n += 1.0;
        let delta = value - mean;
        mean += delta / n;
        sum += delta * (value - mean);
    }
    (n > 0.0).then(|| (mean, sum / n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::trace_of;

    fn times(secs: &[f64]) -> Vec<Nanos> {
        secs.iter().map(|secs| Nanos::from_secs_f64(*secs)).collect()
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        let of = |n: u32| Lengths::of((1..=n).rev().map(Tokens).collect());
        let lengths = of(200);
        assert_eq!([lengths.p50, lengths.p90, lengths.p95, lengths.p99], [100, 180, 190, 198].map(Tokens));
        assert_eq!((lengths.min, lengths.max, lengths.mean), (Tokens(1), Tokens(200), 100.5));
        let one = of(1);
        assert_eq!((one.min, one.p50, one.p99, one.max), (Tokens(1), Tokens(1), Tokens(1), Tokens(1)));
    }

    #[test]
    fn dispersion_counts_whole_windows_with_empty_ones() {
        // Counts 3, 0, 1 in three whole windows; the rest of the last second is no window.
        let di = dispersion(&times(&[0.0, 0.1, 0.9, 2.5, 3.2]), Nanos::from_millis(1000)).unwrap();
        let variance = (9.0 + 0.0 + 1.0) / 3.0 - (4.0f64 / 3.0).powi(2);
        assert!((di - variance / (4.0 / 3.0)).abs() < 1e-12, "{di}");
        assert_eq!(dispersion(&times(&[0.0, 1.5]), Nanos::from_millis(1000)), None);
        assert_eq!(dispersion(&[], Nanos::from_millis(1000)), None);
    }

    #[test]
    fn even_gaps_do_not_vary() {
        assert_eq!(gap_cv(&times(&[0.0, 1.0, 2.0])), Some(0.0));
        assert_eq!(gap_cv(&times(&[0.0, 0.0])), None);
        assert_eq!(gap_cv(&times(&[0.0])), None);
        let cv = gap_cv(&times(&[0.0, 1.0, 4.0])).unwrap();
        assert!((cv - 0.5).abs() < 1e-12, "{cv}");
    }

    #[test]
    fn reuse_counts_leading_runs_only() {
        let mut trace = trace_of(&[0, 1, 2]);
        let contents: [&[u64]; 3] = [&[0, 1, 2], &[0, 9, 2], &[0, 9, 7, 1]];
        for (row, ids) in trace.rows.iter_mut().zip(contents) {
            row.content = Some(ids.into());
        }
        assert_eq!(trace.reuse(), Some(Reuse { ids: 10, distinct: 5, reused: 3 }));
        trace.rows.iter_mut().for_each(|row| row.content = None);
        assert_eq!(trace.reuse(), None);
    }

    #[test]
    fn a_coarse_grid_is_seen() {
        assert_eq!(trace_of(&[0, 0, 9000, 14_999]).grid(), Some(Nanos::from_millis(3000)));
        assert_eq!(trace_of(&[0, 9000, 15_010]).grid(), None);
        assert_eq!(trace_of(&[4, 4]).grid(), None);
    }

    #[test]
    fn arrivals_fall_into_bins() {
        assert_eq!(trace_of(&[0, 1, 2, 10]).arrivals_in(2), [3, 1]);
        assert_eq!(trace_of(&[5, 5]).arrivals_in(3), [2, 0, 0]);
    }
}
