//! The express lane's account: what newcomers may take of the machine before their turn.

use crate::units::Nanos;

/// The credit holds at most this many mean jobs.
pub(super) const BURST: f64 = 10.0;

/// A leaky bucket in machine time: it fills at `share` of real time, and is full when nobody waits.
#[derive(Debug)]
pub(super) struct Lane {
    share: f64,
    credit_ns: f64,
}

impl Lane {
    /// A lane with `share` of the machine.
    pub(super) fn new(share: f64) -> Self {
        Self { share, credit_ns: 0.0 }
    }

    /// Its share of the machine.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// A step of `span` has passed. A mean job takes `mean_ns` of the machine.
    pub(super) fn pass(&mut self, span: Nanos, mean_ns: f64) {
        self.credit_ns = (self.credit_ns + self.share * span.0 as f64).min(BURST * mean_ns);
    }

    /// Nobody waits: whoever comes next overtakes nobody.
    pub(super) fn refill(&mut self, mean_ns: f64) {
        self.credit_ns = BURST * mean_ns;
    }

    /// Takes a newcomer of `cost_ns` if that is no more than `most_ns` and the credit is not used up.
    pub(super) fn take(&mut self, cost_ns: f64, most_ns: f64) -> bool {
        let takes = cost_ns <= most_ns && self.credit_ns > 0.0;
        if takes {
            self.credit_ns -= cost_ns;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_spends_its_share_and_a_burst_at_most() {
        let mut lane = Lane::new(0.25);
        let (mean, cost) = (1e9, 1e8);
        lane.refill(mean);
        let mut spent = 0.0;
        for _ in 0..1_000 {
            while lane.take(cost, 0.25 * mean) {
                spent += cost;
            }
            lane.pass(Nanos(50_000_000), mean);
        }
        let bound = 0.25 * 1_000.0 * 5e7 + BURST * mean + cost;
        assert!(spent <= bound && spent > bound - 2.0 * cost, "{spent} of {bound}");
        assert!(!lane.take(3e8, 0.25 * mean), "who is not small waits for his turn");
    }
}
