//! What the boosting policies share: the boost itself, and the tail slope that its γ comes from.

/// ln 5 = ln F̄(t95) − ln F̄(t99): the drop of the log tail between the two percentiles of Eq. 9.
const LN_5: f64 = 1.609_437_912_434_100_4;

/// b_γ(w) = (1/γ) ln(1 / (1 − e^(−γw))): how much earlier a job of work `w` counts as having arrived.
/// Decreasing and convex in `w`, unbounded at zero; in the unit of `w`, with `gamma` in its inverse.
///
/// Yu and Scully, arXiv 2404.08826; Beyond Prediction, arXiv 2606.18431, section 3.
pub(super) fn boost(gamma: f64, work: f64) -> f64 {
    -(-(-gamma * work).exp_m1()).ln() / gamma
}

/// The slope of the log tail of recent latencies: Eq. 9 of arXiv 2606.18431.
#[derive(Debug)]
pub(super) struct TailSlope {
    /// The last latencies, in seconds; a ring.
    recent: Vec<f64>,
    sorted: Vec<f64>,
    next: usize,
}

impl TailSlope {
    /// Looks at the last `window` latencies.
    pub(super) fn new(window: usize) -> Self {
        Self { recent: Vec::with_capacity(window), sorted: Vec::with_capacity(window), next: 0 }
    }

    /// Adds a latency, in seconds.
    pub(super) fn push(&mut self, latency: f64) {
        if self.recent.len() < self.recent.capacity() {
            self.recent.push(latency);
        } else {
            self.recent[self.next] = latency;
            self.next = (self.next + 1) % self.recent.len();
        }
    }

    /// The spread between the 95th and the 99th percentile, in seconds; at least a nanosecond.
    pub(super) fn spread(&mut self) -> f64 {
        self.sorted.clone_from(&self.recent);
        let rank = |q: f64| ((q * self.recent.len() as f64).ceil() as usize).max(1) - 1;
        let (p95, p99) = (rank(0.95), rank(0.99));
        let (_, t95, above) = self.sorted.select_nth_unstable_by(p95, f64::total_cmp);
        let t99 = match p99.checked_sub(p95 + 1) {
            Some(at) => *above.select_nth_unstable_by(at, f64::total_cmp).1,
            None => *t95,
        };
        (t99 - *t95).max(1e-9)
    }

    /// γ of Eq. 9, per second: ln 5 / (t99 − t95).
    pub(super) fn gamma(&mut self) -> f64 {
        LN_5 / self.spread()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boost_falls_with_work_and_gamma_sets_its_size() {
        // Fig. 5 of arXiv 2606.18431, γ = 1e-4: 256 tokens count for about 37,000, 16,384 for 2,200.
        assert!((boost(1e-4, 256.0) - 36_800.0).abs() < 300.0, "{}", boost(1e-4, 256.0));
        assert!((boost(1e-4, 16_384.0) - 2_170.0).abs() < 30.0, "{}", boost(1e-4, 16_384.0));
        assert!(boost(1e-4, 0.0).is_infinite());
        assert_eq!(boost(10.0, 1e6), 0.0);
    }

    #[test]
    fn gamma_is_the_slope_of_an_exponential_tail() {
        // The quantiles of an exponential with rate 0.5: γ must be that rate.
        let mut tail = TailSlope::new(10_000);
        (0..20_000).for_each(|i| tail.push(-(1.0 - (f64::from(i % 10_000) + 0.5) / 1e4).ln() / 0.5));
        assert!((tail.gamma() - 0.5).abs() < 0.01, "{}", tail.gamma());
    }
}
