//! γ-Boost with true sizes: the clairvoyant bound on the tail (Yu and Scully, "Strongly Tail-Optimal
//! Scheduling in the Light-Tailed M/G/1", arXiv 2404.08826).
//!
//! A job of size s counts as arrived b_γ(s) = (1/γ) ln(1/(1 − e^(−γs))) earlier, and the earliest goes first,
//! preemptively. In the light-tailed M/G/1 the best tail constant is that of the γ > 0 with
//! γ = λ (E[e^(γS)] − 1).
//!
//! The machine is no M/G/1, so a size is what a request takes from a full machine: its output times the
//! time of a decode in the largest batch of average requests that slots and memory allow, divided by that
//! batch, and its prompt times the marginal time of a prefill token. λ and the sizes are those of the last
//! 1000 arrivals; γ is solved anew every 200 arrivals, after 50 at first, and the order with it. At a
//! measured load of 0.99 or more, where γ vanishes or does not exist, λ is taken to be that of 0.99.

use super::boost::boost;
use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::cost::BatchShape;
use crate::ids::Places;
use crate::sched::predict::output;
use crate::sched::{Event, Job, Oracle, Policy, Rank, View};
use crate::units::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;

/// Arrivals that λ and the sizes are taken from.
const WINDOW: usize = 1000;
/// Arrivals between two fits, and before the first.
const REFIT: u32 = 200;
const FIRST: u32 = 50;
/// The largest load that γ is solved for.
const LOAD_MAX: f64 = 0.99;

/// See the module. Parameters: `gamma` (0), γ per second of service, 0 for the solved one; `headroom`
/// (0.01).
pub struct OracleBoost {
    name: String,
    headroom: u32,
    oracle: Arc<dyn Oracle>,
    fixed: bool,
    gamma: f64,
    price: Price,
    /// Arrival, prompt and output of the last arrivals.
    recent: VecDeque<(Nanos, f64, f64)>,
    /// Arrivals until the next fit.
    left: u32,
    epoch: u64,
}

/// What a request takes from a full machine, in seconds per token.
#[derive(Clone, Copy, Debug)]
struct Price {
    prompt: f64,
    output: f64,
}

impl OracleBoost {
    pub(super) fn new(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let gamma = params.number("gamma", 0.0, 0.0, 1e3)?;
        Ok(Self {
            name: params.spec(),
            headroom,
            oracle,
            fixed: gamma > 0.0,
            // Until the first fit the boost is far below any gap of arrivals.
            gamma: if gamma > 0.0 { gamma } else { 1e3 },
            price: Price { prompt: 1e-4, output: 1e-3 },
            recent: VecDeque::with_capacity(WINDOW),
            left: FIRST,
            epoch: 0,
        })
    }

    fn size(&self, prompt: f64, output: f64) -> f64 {
        self.price.prompt * prompt + self.price.output * output
    }

    fn value(&self, job: &Job) -> i64 {
        let output = f64::from(output(&*self.oracle, job).max(1));
        let ahead = boost(self.gamma, self.size(f64::from(job.prompt.0), output));
        job.arrival.0 as i64 - (ahead * 1e9) as i64
    }

    fn fit(&mut self, view: &View<'_>) {
        let count = self.recent.len() as f64;
        let mean = |of: fn(&(Nanos, f64, f64)) -> f64| self.recent.iter().map(of).sum::<f64>() / count;
        self.price = price(view, mean(|r| r.1), mean(|r| r.2));
        let (first, last) = (self.recent[0].0, self.recent[self.recent.len() - 1].0);
        let sizes: Vec<f64> = self.recent.iter().map(|r| self.size(r.1, r.2)).collect();
        let rate = (count - 1.0) / last.saturating_sub(first).as_secs_f64().max(1e-9);
        if !self.fixed {
            self.gamma = solve(rate, &sizes);
        }
        (self.left, self.epoch) = (REFIT, self.epoch + 1);
    }
}

/// What tokens cost in the largest batch of average requests, each half-way through its output.
fn price(view: &View<'_>, prompt: f64, output: f64) -> Price {
    let context = prompt + output / 2.0;
    let held = f64::from(view.config.kv_blocks.0) * f64::from(view.config.block_size.0) / context;
    let rows = held.clamp(1.0, f64::from(view.config.max_num_seqs)) as u32;
    let mut full = BatchShape::default();
    (0..rows).for_each(|_| full.add_decode(context as u32));
    let step = view.cost.compute_time(&full).as_secs_f64();
    Price { prompt: view.cost.prefill_token_ns() / 1e9, output: step / f64::from(rows) }
}

/// The positive root of γ = λ (E[e^(γS)] − 1), with λ no more than what loads the machine to
/// [`LOAD_MAX`].
fn solve(rate: f64, sizes: &[f64]) -> f64 {
    let count = sizes.len() as f64;
    let rate = rate.min(LOAD_MAX * count / sizes.iter().sum::<f64>());
    let excess = |gamma: f64| rate * sizes.iter().map(|s| (gamma * s).exp_m1()).sum::<f64>() / count - gamma;
    let mut high = 1e-9;
    while excess(high) <= 0.0 {
        high *= 2.0;
    }
    let mut low = high / 2.0;
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if excess(middle) > 0.0 { high = middle } else { low = middle }
    }
    high
}

impl Policy for OracleBoost {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, self.value(job));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(self.value(job))
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn groups(&mut self, view: &mut View<'_>) {
        if self.left == 0 {
            self.fit(view);
        }
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
    }

    fn on(&mut self, event: &Event<'_>) {
        if let Event::Submitted(job) = event {
            if self.recent.len() == WINDOW {
                self.recent.pop_front();
            }
            let output = f64::from(output(&*self.oracle, job).max(1));
            self.recent.push_back((job.arrival, f64::from(job.prompt.0), output));
            self.left = self.left.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_of_exponential_sizes_is_mu_less_lambda() {
        // M/M/1: γ = μ − λ. Quantiles stand for the sizes; the mean of e^(γS) is near its own for small γ.
        let sizes: Vec<f64> = (0..100_000).map(|i| -(1.0 - (f64::from(i) + 0.5) / 1e5).ln()).collect();
        for load in [0.7, 0.8, 0.9] {
            let gamma = solve(load, &sizes);
            assert!((gamma - (1.0 - load)).abs() < 0.01, "{gamma} at {load}");
        }
    }

    #[test]
    fn an_overload_counts_as_the_largest_load() {
        let sizes = [1.0, 2.0, 3.0];
        assert_eq!(solve(5.0, &sizes), solve(LOAD_MAX / 2.0, &sizes));
        assert!(solve(5.0, &sizes) > 0.0);
    }
}
