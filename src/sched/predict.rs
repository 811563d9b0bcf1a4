//! Length predictions of a chosen quality: true lengths from an [`Oracle`], with seeded errors.
//!
//! What is predicted is a function of the seed, the request's `user_data` and the bin of its age alone,
//! so that each policy and each run sees the same errors, whatever was asked before.

use super::order::{Params, PolicyError};
use super::{Job, Oracle};
use crate::prng::Prng;
use std::sync::Arc;

/// Tokens of the first age bin; bin j > 0 begins at `BIN · 2^(j − 1)`.
const BIN: u32 = 256;

/// Predicted lengths with a multiplicative lognormal error that falls as a request ages.
///
/// At submission one sees ln(true length) + ln(bias) + σz. Each age bin that a request enters (at 256,
/// 512, 1024, … tokens) is one more independent observation of the same quality, and the prediction is
/// the mean of all so far: the smoothing of TRAIL (arXiv 2410.01035) for equal observations, so the
/// error of bin j is σ/√(j + 1). The age itself is known: the error is in what remains.
pub struct Lengths {
    oracle: Arc<dyn Oracle>,
    sigma: f64,
    bias: f64,
    prng: Prng,
}

impl Lengths {
    /// With the `noise` (0), `bias` (1) and `seed` (1) among a policy's parameters.
    pub(crate) fn read(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let noise = params.number("noise", 0.0, 0.0, 4.0)?;
        let bias = params.number("bias", 1.0, 0.01, 100.0)?;
        let seed = params.number("seed", 1.0, 0.0, f64::from(u32::MAX))? as u64;
        Ok(Self::new(oracle, noise, bias, seed))
    }

    /// Predictions off by e^(σz) · `bias`; σ = 0 and a bias of 1 give true lengths.
    pub fn new(oracle: Arc<dyn Oracle>, sigma: f64, bias: f64, seed: u64) -> Self {
        Self { oracle, sigma, bias, prng: Prng::new(seed) }
    }

    /// The output, in tokens, that is predicted at submission.
    pub fn initial(&self, job: &Job) -> f64 {
        self.predicted(job, 0)
    }

    /// The tokens predicted to remain at a job's age.
    pub fn remaining(&self, job: &Job) -> f64 {
        self.predicted(job, job.generated.0)
    }

    fn predicted(&self, job: &Job, generated: u32) -> f64 {
        let truth = output(&*self.oracle, job).saturating_sub(generated);
        f64::from(truth) * self.error(job.user_data, generated)
    }

    /// By what factor the prediction is off at this age. O(log generated).
    fn error(&self, user_data: u64, generated: u32) -> f64 {
        if self.sigma == 0.0 {
            return self.bias;
        }
        let mut draws = self.prng.split(user_data);
        let observations = bin(generated) + 1;
        let sum: f64 = (0..observations).map(|_| draws.normal()).sum();
        self.bias * (self.sigma * sum / f64::from(observations)).exp()
    }
}

/// The true output of a job, in tokens: no more than it asked for.
pub(crate) fn output(oracle: &dyn Oracle, job: &Job) -> u32 {
    oracle.output(job.user_data).min(job.max_tokens).0
}

fn bin(generated: u32) -> u32 {
    (generated / BIN).checked_ilog2().map_or(0, |log| log + 1)
}

/// Scores that order requests by length up to a given quality: Kendall's tau, the share of pairs in the
/// right order less the share in the wrong one; pairs of equal length do not count.
///
/// A score is ln(true length) + βg with g from a Gumbel distribution: the Plackett-Luce model of rankings,
/// whose likelihood LTR trains its predictor by (ListMLE). Of two requests, the longer one then has the
/// larger score with probability 1/(1 + e^(−Δ/β)), Δ being the distance of their logarithms, so the
/// expected tau is the mean of tanh(Δ/2β) over all pairs. β is solved from that on up to
/// [`Ranking::SAMPLE`] lengths spread over all that the oracle knows: tau holds for the workload at hand.
pub struct Ranking {
    oracle: Arc<dyn Oracle>,
    beta: f64,
    prng: Prng,
}

impl Ranking {
    /// The most lengths that β is solved from.
    pub const SAMPLE: u64 = 400;
    /// Scores are logarithms times this: neighbours up to 2^24 tokens differ.
    const SCALE: f64 = (1u64 << 32) as f64;

    /// A ranking with `tau` in (0, 1] in expectation; 1 is the true order.
    pub fn new(oracle: Arc<dyn Oracle>, tau: f64, seed: u64) -> Self {
        let beta = if tau < 1.0 { solve(&distances(&*oracle), tau) } else { 0.0 };
        Self { oracle, beta, prng: Prng::new(seed) }
    }

    /// The score of a job; the shortest first.
    pub fn score(&self, job: &Job) -> i64 {
        let length = f64::from(output(&*self.oracle, job).max(1)).ln();
        // Of an exponential x, −ln x is Gumbel.
        let noise = if self.beta > 0.0 { -self.prng.split(job.user_data).exponential().ln() } else { 0.0 };
        ((length + self.beta * noise) * Self::SCALE) as i64
    }
}

/// The distances of the logarithms of all pairs of sampled lengths that differ.
fn distances(oracle: &dyn Oracle) -> Vec<f64> {
    let (all, taken) = (oracle.requests(), oracle.requests().min(Ranking::SAMPLE));
    let log = |i: u64| f64::from(oracle.output(i * all / taken).0.max(1)).ln();
    let logs: Vec<f64> = (0..taken).map(log).collect();
    let pairs = logs.iter().enumerate().flat_map(|(at, a)| logs[..at].iter().map(move |b| (a - b).abs()));
    pairs.filter(|distance| *distance > 0.0).collect()
}

/// β such that the mean of tanh(Δ/2β) is `tau`; zero if no two lengths differ.
fn solve(distances: &[f64], tau: f64) -> f64 {
    let expected = |beta: f64| distances.iter().map(|d| (d / (2.0 * beta)).tanh()).sum::<f64>();
    let wanted = tau * distances.len() as f64;
    let (mut low, mut high) = (-20f64, 20f64);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if expected(middle.exp()) > wanted { low = middle } else { high = middle }
    }
    if distances.is_empty() { 0.0 } else { low.exp() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Tokens;

    /// Everybody generates a thousand tokens.
    struct Thousand;

    impl Oracle for Thousand {
        fn output(&self, _user_data: u64) -> Tokens {
            Tokens(1000)
        }

        fn requests(&self) -> u64 {
            1
        }
    }

    fn job(user_data: u64, generated: u32) -> Job {
        Job { user_data, generated: Tokens(generated), max_tokens: Tokens(100_000), ..Job::default() }
    }

    fn lengths(sigma: f64, bias: f64, seed: u64) -> Lengths {
        Lengths::new(Arc::new(Thousand), sigma, bias, seed)
    }

    #[test]
    fn predictions_are_a_function_of_seed_and_request() {
        let (a, b, other) = (lengths(0.5, 1.0, 1), lengths(0.5, 1.0, 1), lengths(0.5, 1.0, 2));
        let backwards: Vec<f64> = (0..50).rev().map(|u| b.remaining(&job(u, 300))).collect();
        assert!((0..50).all(|u| a.remaining(&job(u, 300)) == backwards[49 - u as usize]), "order is nothing");
        assert!((0..50).all(|u| a.initial(&job(u, 0)) == a.remaining(&job(u, 0))
            && a.initial(&job(u, 0)) != other.initial(&job(u, 0))));
        assert!(
            (1..50).all(|u| a.initial(&job(u, 0)) != a.initial(&job(0, 0))),
            "each has an error of its own"
        );
    }

    #[test]
    fn no_noise_gives_the_truth_and_bias_scales_it() {
        assert_eq!(lengths(0.0, 1.0, 1).initial(&job(3, 0)), 1000.0);
        assert_eq!(lengths(0.0, 1.0, 1).remaining(&job(3, 999)), 1.0);
        assert_eq!(lengths(0.0, 2.0, 1).remaining(&job(3, 500)), 1000.0);
        let limited = Job { max_tokens: Tokens(600), ..job(3, 500) };
        assert_eq!(lengths(0.0, 1.0, 1).remaining(&limited), 100.0, "no more than it asked for");
    }

    #[test]
    fn errors_have_the_spread_that_was_asked_for_and_fall_with_age() {
        let lengths = lengths(0.8, 1.0, 7);
        for (generated, spread) in [(0, 0.8), (255, 0.8), (256, 0.8 / 2f64.sqrt()), (512, 0.8 / 3f64.sqrt())]
        {
            let truth = f64::from(1000 - generated);
            let logs = (0..20_000).map(|u| (lengths.remaining(&job(u, generated)) / truth).ln().powi(2));
            let found = (logs.sum::<f64>() / 20_000.0).sqrt();
            assert!((found - spread).abs() < 0.02, "{found} at {generated}, not {spread}");
        }
    }

    /// Lengths like those of mix-2: a few short, most of them long.
    struct Mixed;

    impl Oracle for Mixed {
        fn output(&self, user_data: u64) -> Tokens {
            let mut draws = Prng::new(99).split(user_data);
            let (short, share) = (draws.chance(3, 10), draws.unit());
            Tokens(if short { 10 + (240.0 * share) as u32 } else { 900 + (16_000.0 * share) as u32 })
        }

        fn requests(&self) -> u64 {
            3_000
        }
    }

    #[test]
    fn kendall_tau_is_what_was_asked_for() {
        for tau in [0.2, 0.5, 0.8, 1.0] {
            let ranking = Ranking::new(Arc::new(Mixed), tau, 5);
            let pairs = (0..2_000).flat_map(|a| (0..a).map(move |b| (a, b)));
            let sign = |(a, b): (u64, u64)| {
                let truth = Mixed.output(a).cmp(&Mixed.output(b)) as i64;
                (truth * (ranking.score(&job(a, 0)) - ranking.score(&job(b, 0))).signum(), truth.abs())
            };
            let (right, all) = pairs.map(sign).fold((0, 0), |(r, n), (s, c)| (r + s, n + c));
            let found = right as f64 / all as f64;
            assert!((found - tau).abs() < 0.03, "{found}, not {tau}");
        }
    }
}
