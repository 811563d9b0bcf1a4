//! Length predictions of a chosen quality: true lengths from an [`Oracle`], with seeded errors.
//!
//! What is predicted is a function of the seed, the request's `user_data` and the bin of its age alone,
//! so that each policy and each run sees the same errors, whatever was asked before.

use super::Oracle;
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
    /// Predictions off by e^(σz) · `bias`; σ = 0 and a bias of 1 give true lengths.
    pub fn new(oracle: Arc<dyn Oracle>, sigma: f64, bias: f64, seed: u64) -> Self {
        Self { oracle, sigma, bias, prng: Prng::new(seed) }
    }

    /// The output, in tokens, that is predicted at submission.
    pub fn initial(&self, user_data: u64) -> f64 {
        f64::from(self.oracle.output(user_data).0) * self.error(user_data, 0)
    }

    /// The tokens predicted to remain once `generated` are there.
    pub fn remaining(&self, user_data: u64, generated: u32) -> f64 {
        let truth = self.oracle.output(user_data).0.saturating_sub(generated);
        f64::from(truth) * self.error(user_data, generated)
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

fn bin(generated: u32) -> u32 {
    (generated / BIN).checked_ilog2().map_or(0, |log| log + 1)
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
    }

    fn lengths(sigma: f64, bias: f64, seed: u64) -> Lengths {
        Lengths::new(Arc::new(Thousand), sigma, bias, seed)
    }

    #[test]
    fn predictions_are_a_function_of_seed_and_request() {
        let (a, b, other) = (lengths(0.5, 1.0, 1), lengths(0.5, 1.0, 1), lengths(0.5, 1.0, 2));
        let backwards: Vec<f64> = (0..50).rev().map(|u| b.remaining(u, 300)).collect();
        assert!((0..50).all(|u| a.remaining(u, 300) == backwards[49 - u as usize]), "order is nothing");
        assert!((0..50).all(|u| a.initial(u) == a.remaining(u, 0) && a.initial(u) != other.initial(u)));
        assert!((1..50).all(|u| a.initial(u) != a.initial(0)), "each has an error of its own");
    }

    #[test]
    fn no_noise_gives_the_truth_and_bias_scales_it() {
        assert_eq!(lengths(0.0, 1.0, 1).initial(3), 1000.0);
        assert_eq!(lengths(0.0, 1.0, 1).remaining(3, 999), 1.0);
        assert_eq!(lengths(0.0, 2.0, 1).remaining(3, 500), 1000.0);
    }

    #[test]
    fn errors_have_the_spread_that_was_asked_for_and_fall_with_age() {
        let lengths = lengths(0.8, 1.0, 7);
        for (generated, spread) in [(0, 0.8), (255, 0.8), (256, 0.8 / 2f64.sqrt()), (512, 0.8 / 3f64.sqrt())]
        {
            let truth = f64::from(1000 - generated);
            let logs = (0..20_000).map(|u| (lengths.remaining(u, generated) / truth).ln().powi(2));
            let found = (logs.sum::<f64>() / 20_000.0).sqrt();
            assert!((found - spread).abs() < 0.02, "{found} at {generated}, not {spread}");
        }
    }
}
