//! Shadow machines: what each strength of the boost would do to the traffic at hand.
//!
//! A small γ helps short prompts and, past some point, costs the tail; where that point lies depends on
//! the traffic. So every arrival also goes to a few machines in virtual time, one per candidate and one
//! that serves first come, first served, with an output length drawn from requests of its class that have
//! finished. The candidate with the best latencies wins among those whose tails are no worse than first come,
//! first served. Model-predictive control: the model has only to tell candidates apart.

mod machine;
mod outlook;
mod tail;

pub(super) use machine::{Arrival, Model, Rates};

use crate::cost::BatchShape;
use crate::units::Nanos;
use machine::Machine;
use outlook::Outlook;

/// Candidates for c in γ = c · Eq. 9, strongest boost last.
pub(super) const CANDIDATES: [f64; 8] = [30.0, 5.0, 1.0, 0.5, 0.25, 0.12, 0.05, 0.02];
/// Arrivals after which evidence counts half.
const HALF_LIFE: u64 = 10_000;
/// Jobs without which no candidate is judged.
const ENOUGH: f32 = 300.0;
/// The share of jobs beyond the 99th percentile.
const P99: f32 = 0.01;
/// The share of jobs beyond a quantile, and how much longer than first come, first served it may be in
/// the shadow: for TTLT, and for TTFT, which a boost works by moving and where trouble shows first.
const TAILS: [(f32, f64, f64); 2] = [(0.05, 1.02, 1.05), (P99, 1.005, 1.3)];
/// Weight of the newest step in how much longer steps take than the model says.
const STRETCH_WEIGHT: f64 = 1.0 / 1_024.0;

/// See the module.
#[derive(Debug)]
pub(super) struct Shadows {
    model: Model,
    fcfs: Machine,
    machines: [Machine; CANDIDATES.len()],
    /// Mean TTFT times mean TTLT times its P99, beside first come, first served, for each candidate that keeps
    /// the tails, as of when it was last examined.
    verdicts: [Option<f64>; CANDIDATES.len()],
    arrivals: u64,
    /// That of first come, first served, and that of a candidate.
    outlooks: [Outlook; 2],
}

impl Shadows {
    pub(super) fn new(model: Model) -> Self {
        Self {
            fcfs: Machine::new(&model, false),
            machines: std::array::from_fn(|_| Machine::new(&model, true)),
            verdicts: [None; CANDIDATES.len()],
            arrivals: 0,
            outlooks: [Outlook::new(), Outlook::new()],
            model,
        }
    }

    /// A step of `shape` took `span`.
    pub(super) fn timed(&mut self, shape: &BatchShape, span: Nanos) {
        let expected = self.model.cost.compute_time(shape).0.max(1) as f64;
        self.model.stretch += STRETCH_WEIGHT * (span.0 as f64 / expected - self.model.stretch);
    }

    /// A job arrives at all machines, with its key under each candidate. O(candidates · log queue).
    pub(super) fn arrive(&mut self, arrival: &Arrival, keys: &[i64; CANDIDATES.len()]) {
        let number = self.arrivals;
        self.arrivals += 1;
        let fcfs = (&mut self.fcfs, arrival.at.0 as i64);
        for (machine, key) in self.machines.iter_mut().zip(keys.iter().copied()).chain([fcfs]) {
            machine.arrive(number, key, arrival, &self.model);
            if number % HALF_LIFE == HALF_LIFE - 1 {
                machine.fade();
            }
        }
    }

    /// Looks at one machine: that of first come, first served, or a candidate's.
    pub(super) fn look(&mut self, at: Option<usize>, rates: &Rates, now: Nanos) {
        let machine = at.map_or(&self.fcfs, |at| &self.machines[at]);
        machine.look(rates, now.0 as f64, &mut self.outlooks[usize::from(at.is_some())]);
    }

    /// Foresees what comes of that.
    pub(super) fn foresee(&mut self, candidate: bool) {
        self.outlooks[usize::from(candidate)].foresee();
    }

    /// Judges a candidate, as foreseen last, beside first come, first served.
    pub(super) fn judge(&mut self, at: usize) {
        let [fcfs, own] = &self.outlooks;
        if fcfs.ttlt.total < ENOUGH {
            return;
        }
        let keeps = TAILS.iter().all(|(above, last, first)| {
            own.ttlt.quantile(*above) <= last * fcfs.ttlt.quantile(*above)
                && own.ttft.quantile(*above) <= first * fcfs.ttft.quantile(*above)
        });
        let score =
            |outlook: &Outlook| outlook.ttft.mean() * outlook.ttlt.mean() * outlook.ttlt.quantile(P99);
        self.verdicts[at] = keeps.then(|| score(own) / score(fcfs));
    }

    /// The best candidate on the evidence so far; `None` if none keeps the tails.
    pub(super) fn best(&self) -> Option<usize> {
        let kept = self.verdicts.iter().enumerate().filter_map(|(at, score)| Some((at, (*score)?)));
        kept.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use machine::tests::{arrival, model};

    /// As if `candidate` alone kept the tails, or none.
    pub(in super::super) fn decided(candidate: Option<usize>) -> Shadows {
        let mut shadows = Shadows::new(model(1));
        candidate.into_iter().for_each(|at| shadows.verdicts[at] = Some(1.0));
        shadows
    }

    const LAST: usize = CANDIDATES.len() - 1;
    /// Those of [`model`].
    const RATES: Rates = Rates { prefill: 1e7, decode: 1e7, step: 1e7 };

    /// Jobs on a machine that takes one at a time, 10 ms per token: `job` gives the time in ms and the
    /// output of each. The last candidate counts those of one token as `pull` seconds older.
    fn run(pull: u64, job: impl Fn(u64) -> (u64, u32)) -> Shadows {
        let mut shadows = Shadows::new(model(1));
        for number in 0..4_000 {
            let (at_ms, output) = job(number);
            let arrival = arrival(at_ms, 1, output);
            let mut keys = [arrival.at.0 as i64; CANDIDATES.len()];
            keys[LAST] -= if output == 1 { pull as i64 * 1_000_000_000 } else { 0 };
            shadows.arrive(&arrival, &keys);
        }
        let now = Nanos(job(4_000).0 * 1_000_000);
        shadows.look(None, &RATES, now);
        shadows.foresee(false);
        for at in 0..CANDIDATES.len() {
            shadows.look(Some(at), &RATES, now);
            shadows.foresee(true);
            shadows.judge(at);
        }
        shadows
    }

    /// Twenty every twenty seconds, every second one short.
    fn bursts(number: u64) -> (u64, u32) {
        (number / 20 * 20_000, if number.is_multiple_of(2) { 150 } else { 1 })
    }

    /// Somewhat more than the machine can do, nine in ten short.
    fn overload(number: u64) -> (u64, u32) {
        (number * 28, if number.is_multiple_of(10) { 20 } else { 1 })
    }

    #[test]
    fn without_a_difference_the_weakest_boost_wins() {
        assert_eq!(run(0, bursts).best(), Some(0));
    }

    #[test]
    fn a_boost_that_helps_the_mean_and_harms_no_tail_is_taken() {
        assert_eq!(run(60, bursts).best(), Some(LAST));
    }

    #[test]
    fn a_boost_that_starves_somebody_is_not_taken() {
        let starved = run(1_000_000, overload);
        assert!(starved.verdicts[0].is_some(), "the order of arrival keeps its own tails");
        assert_eq!(starved.verdicts[LAST], None, "whoever still waits counts");
    }
}
