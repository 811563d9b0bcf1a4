//! Chooses the strength of the boost: γ = c · Eq. 9 of arXiv 2606.18431, with c by the shadow machines.

use super::label::Boost;
use super::shadow::{Arrival, CANDIDATES, Model, Rates, Shadows};
use super::traffic::Traffic;
use crate::cost::BatchShape;
use crate::sched::Job;
use crate::units::Nanos;

/// Completions from one candidate's turn to the next: all have theirs within 200.
const TURN: u64 = 25;
/// c before there is evidence: about as strong a boost as costs code nothing in P99; conversations bear twice as much.
const FIRST: f64 = 0.25;
/// How far c goes towards the best candidate at once, as a share of the way on a logarithmic scale. Who was passed
/// over by a strong boost is served late if a surge then makes it weak; and between surges all candidates are
/// alike, and the best is best by chance.
const STRIDE: f64 = 0.3;
/// The share of the variance of machine time below which prompts tell too little for anybody to pass on
/// their account. Reasoning mixes have 1e-6 to 1e-4, the public traces 0.5 and more.
const TOLD: f64 = 0.01;
/// Share of the newest fit of Eq. 9.
const SMOOTHING: f64 = 0.3;

/// See the module.
#[derive(Debug)]
pub(super) struct Tuner {
    /// The user's own c, if there is one.
    fixed: Option<f64>,
    /// `None` until the machine is known.
    shadows: Option<Shadows>,
    candidates: [Boost; CANDIDATES.len()],
    /// c, as the shadows have it.
    scale: f64,
    /// Eq. 9, smoothed, per ns; zero before the first fit.
    slope: f64,
    /// The boost in force.
    pub boost: Boost,
    /// Counts the boosts that were in force.
    pub epoch: u64,
}

impl Tuner {
    pub(super) fn new(fixed: Option<f64>) -> Self {
        Self {
            fixed,
            shadows: None,
            candidates: [Boost::NONE; CANDIDATES.len()],
            scale: FIRST,
            slope: 0.0,
            boost: Boost::NONE,
            epoch: 0,
        }
    }

    /// Sets up the shadow machines after the real one.
    pub(super) fn prime(&mut self, model: Model) {
        self.shadows = Some(Shadows::new(model));
    }

    /// A step of `shape` took `span`.
    pub(super) fn timed(&mut self, shape: &BatchShape, span: Nanos) {
        if let Some(shadows) = &mut self.shadows {
            shadows.timed(shape, span);
        }
    }

    /// Sends an arrival to the shadow machines, with an output that another one had.
    pub(super) fn submitted(&mut self, job: &Job, traffic: &mut Traffic) {
        let Some(shadows) = &mut self.shadows else { return };
        let Some(output) = traffic.classes.draw(job.prompt.0) else { return };
        let arrival = Arrival {
            at: job.arrival,
            prompt: job.prompt.0,
            cached: job.cached.0,
            output,
            newcomer_ns: traffic.newcomer_ns((job.prompt - job.cached).0),
            mean_ns: traffic.mean_job_ns(),
            large_ns: traffic.large_job_ns(),
        };
        let at = job.arrival.0 as i64;
        let keys = self.candidates.each_ref().map(|boost| at - boost.of(job, traffic.prefill_ns));
        shadows.arrive(&arrival, &keys);
    }

    /// A request has finished: perhaps it is some candidate's turn to be judged and fitted again, and
    /// with the first one's turn c goes towards the best. A turn takes five completions, so that no step pays for
    /// all of it.
    pub(super) fn finished(&mut self, traffic: &mut Traffic, now: Nanos) {
        if !traffic.classes.is_known() {
            return;
        }
        let count = traffic.count_finished();
        let turn = (count / TURN) as usize % CANDIDATES.len();
        match (count % TURN, &mut self.shadows) {
            (0, _) => {
                traffic.classes.weigh();
                if turn == 0 || self.slope == 0.0 {
                    self.choose(traffic);
                }
            }
            (1, Some(shadows)) => shadows.look(None, &rates(traffic), now),
            (2, Some(shadows)) => shadows.look(Some(turn), &rates(traffic), now),
            (3, Some(shadows)) => {
                self.candidates[turn] = Boost::fit(CANDIDATES[turn] * self.slope, traffic);
                shadows.foresee(false);
            }
            (4, Some(shadows)) => {
                shadows.foresee(true);
                shadows.judge(turn);
            }
            _ => {}
        }
    }

    fn choose(&mut self, traffic: &mut Traffic) {
        let Some(newest) = traffic.tail_gamma().map(|gamma| gamma * 1e-9) else { return };
        let old = if self.slope == 0.0 { newest } else { self.slope };
        self.slope = old + SMOOTHING * (newest - old);
        if let Some(best) = self.shadows.as_ref().and_then(Shadows::best) {
            self.scale *= (CANDIDATES[best] / self.scale).powf(STRIDE);
        }
        let told = traffic.explained() >= TOLD;
        let c = self.fixed.unwrap_or(if told { self.scale } else { 0.0 });
        let gamma = c * self.slope;
        if self.boost.differs(gamma) {
            self.boost = Boost::fit(gamma, traffic);
            self.epoch += 1;
        }
    }
}

fn rates(traffic: &Traffic) -> Rates {
    Rates { prefill: traffic.prefill_ns, decode: traffic.decode_ns, step: traffic.step_ns }
}

#[cfg(test)]
mod tests {
    use super::super::shadow::tests::decided;
    use super::*;
    use crate::sched::order::gamma::tests::job;

    /// c after so many turns that find `best` the best.
    fn after(turns: u32, best: Option<usize>) -> f64 {
        let mut tuner = Tuner { shadows: Some(decided(best)), ..Tuner::new(None) };
        let mut traffic = Traffic::new();
        traffic.prime(1e3, Nanos(1_000), 1);
        (1..=200).for_each(|ms| traffic.finished(&job(100, 10), 256, Nanos::from_millis(ms)));
        (0..turns).for_each(|_| tuner.choose(&mut traffic));
        tuner.scale
    }

    #[test]
    fn c_goes_part_of_the_way_towards_the_best_and_stays_without_evidence() {
        assert_eq!(after(5, None), FIRST);
        for (best, candidate) in CANDIDATES.into_iter().enumerate() {
            let once = after(1, Some(best));
            assert!((once / (FIRST.powf(1.0 - STRIDE) * candidate.powf(STRIDE)) - 1.0).abs() < 1e-12);
            assert!((after(100, Some(best)) / candidate - 1.0).abs() < 1e-9, "it comes there in the end");
        }
    }
}
