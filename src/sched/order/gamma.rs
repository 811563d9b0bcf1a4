//! What `uniboost` and `distboost` share: from tokens and arrival to a priority, with a γ that is
//! fitted while it runs.
//!
//! Φ = a − b_γ(w̃), smallest first. Arrival a and boost are in seconds here, Φ in nanoseconds; γ is
//! per second. Section and equation numbers are those of arXiv 2606.18431.

use super::boost::{TailSlope, boost};
use super::{Params, PolicyError};
use crate::cost::BatchShape;
use crate::request::FinishReason;
use crate::sched::{Event, Job};
use crate::units::{Bytes, Nanos};

/// γ before the first fit: 1.6e-4 per ms, where Fig. 9 begins.
const FIRST: f64 = 0.16;
/// Latencies that a fit looks at. The paper gives no number.
const WINDOW: f64 = 1000.0;
/// Completions from one fit to the next. The paper fits "when enough samples are in".
const REFIT: f64 = 200.0;
/// The weight of a fit against the γ before it. The paper gives no number.
const SMOOTHING: f64 = 0.3;
/// Work of one token under `tokens-as-ms`, in seconds.
const MILLISECOND: f64 = 1e-3;

/// How γ̂ follows from the spread t99 − t95 of the latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// ln 5 / spread: Eq. 9, the slope of the log tail.
    Eq9,
    /// (ln 99 − ln 95) / spread: UPDATE_GAMMA of the appendix, 39 times less.
    Appendix,
}

impl Rule {
    /// γ̂, per second.
    fn estimate(self, tail: &mut TailSlope) -> f64 {
        match self {
            Self::Eq9 => tail.gamma(),
            Self::Appendix => (99.0_f64 / 95.0).ln() / tail.spread(),
        }
    }
}

/// γ-Ada, phase 4: every 200 completions γ ← (1 − β)γ + β·scale·γ̂, clipped.
///
/// The paper gives neither window, smoothing, bounds nor the first value. Here the window is 1000,
/// β = 0.3, the bounds are 1e-5 and 10 per second, and γ is 0.16 per second until the first fit. The
/// scale multiplies γ̂, not the first value, which fades with the fits.
#[derive(Debug)]
struct Ada {
    rule: Rule,
    scale: f64,
    smoothing: f64,
    bounds: (f64, f64),
    tail: TailSlope,
}

impl Ada {
    fn refit(&mut self, gamma: f64) -> f64 {
        let fitted = self.scale * self.rule.estimate(&mut self.tail);
        let (low, high) = self.bounds;
        ((1.0 - self.smoothing) * gamma + self.smoothing * fitted).clamp(low, high)
    }
}

/// What one token counts as work, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PerToken {
    prefill: f64,
    decode: f64,
}

/// Service seconds: the mean step time per decoded token, and what a prefill token adds to a step.
///
/// Measured over all steps without swaps since the start; taken over at each fit, so that ranks given
/// between two fits agree.
#[derive(Debug, Default)]
struct Measured {
    /// Time and number of steps that decode alone.
    decode: (f64, f64),
    /// Time, number with decodes, and prefill tokens of the other steps.
    mixed: (f64, f64, f64),
}

impl Measured {
    fn add(&mut self, shape: &BatchShape, span: Nanos) {
        let span = span.as_secs_f64();
        if shape.swap_in + shape.swap_out > Bytes::ZERO {
            return;
        }
        if shape.chunk_tokens > 0 {
            self.mixed.0 += span;
            self.mixed.1 += f64::from(u8::from(shape.decodes > 0));
            self.mixed.2 += f64::from(shape.chunk_tokens);
        } else if shape.decodes > 0 {
            self.decode.0 += span;
            self.decode.1 += 1.0;
        }
    }

    /// The measured values, where there are any; `before` otherwise.
    fn per_token(&self, before: PerToken) -> PerToken {
        let decode = if self.decode.1 > 0.0 { self.decode.0 / self.decode.1 } else { before.decode };
        let added = self.mixed.0 - self.mixed.1 * decode;
        let prefill = if added > 0.0 { added / self.mixed.2 } else { before.prefill };
        PerToken { prefill, decode }
    }
}

/// Turns arrival and tokens into Φ, and learns γ. See the module.
///
/// Parameters: `gamma` fixes γ, per second; `ada=off` keeps it at its first value; `gamma-rule`
/// (`eq9`, `appendix`), `gamma-scale` (1), `gamma-smoothing` (0.3), `gamma-min` (1e-5), `gamma-max` (10),
/// `window` (1000 latencies) and `refit` (every 200 completions) say how it is fitted. `units`
/// (`tokens-as-ms`, `service-seconds`) says what a token counts.
#[derive(Debug)]
pub(super) struct Booster {
    gamma: f64,
    ada: Option<Ada>,
    per_token: PerToken,
    measured: Option<Measured>,
    completions: u32,
    refit_every: u32,
    epoch: u64,
}

impl Booster {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let fixed = params.number("gamma", 0.0, 1e-6, 1e3)?;
        let ada = if fixed > 0.0 { None } else { ada(params)? };
        let seconds = params.choice("units", &["tokens-as-ms", "service-seconds"])? == 1;
        // Until steps were measured: a decode step of an 8B model, and the prefill token of SGLang's
        // implementation (pull request 35637).
        let guessed = PerToken { prefill: 64e-6, decode: 10e-3 };
        let counted = PerToken { prefill: MILLISECOND, decode: MILLISECOND };
        Ok(Self {
            gamma: if fixed > 0.0 { fixed } else { FIRST },
            ada,
            per_token: if seconds { guessed } else { counted },
            measured: seconds.then(Measured::default),
            completions: 0,
            refit_every: params.number("refit", REFIT, 1.0, 1e6)? as u32,
            epoch: 0,
        })
    }

    /// Φ of a job whose work is the larger of `prefill` and `decoded` tokens, in nanoseconds.
    pub(super) fn phi(&self, job: &Job, prefill: u32, decoded: u32) -> i64 {
        let prefill = self.per_token.prefill * f64::from(prefill);
        let decoded = self.per_token.decode * f64::from(decoded);
        job.arrival.0 as i64 - (boost(self.gamma, prefill.max(decoded)) * 1e9) as i64
    }

    /// Whether prefill and decoded tokens count alike.
    pub(super) fn counts_alike(&self) -> bool {
        self.measured.is_none()
    }

    /// Counts the fits: ranks of another epoch are out of date.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Hears steps and completions; whoever was cancelled, failed or came too late has no latency.
    pub(super) fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Timed(shape, span) => {
                if let Some(measured) = &mut self.measured {
                    measured.add(shape, *span);
                }
            }
            Event::Finished(job, FinishReason::Stop | FinishReason::Length, at) => {
                self.completed(at.saturating_sub(job.arrival));
            }
            _ => {}
        }
    }

    fn completed(&mut self, latency: Nanos) {
        if let Some(ada) = &mut self.ada {
            ada.tail.push(latency.as_secs_f64());
        }
        self.completions += 1;
        if self.completions.is_multiple_of(self.refit_every) {
            self.refit();
        }
    }

    fn refit(&mut self) {
        if let Some(ada) = &mut self.ada {
            self.gamma = ada.refit(self.gamma);
        }
        if let Some(measured) = &self.measured {
            self.per_token = measured.per_token(self.per_token);
        }
        if self.ada.is_some() || self.measured.is_some() {
            self.epoch += 1;
        }
    }
}

fn ada(params: &mut Params) -> Result<Option<Ada>, PolicyError> {
    let on = params.choice("ada", &["on", "off"])? == 0;
    let rule = [Rule::Eq9, Rule::Appendix][params.choice("gamma-rule", &["eq9", "appendix"])?];
    let scale = params.number("gamma-scale", 1.0, 1e-6, 1e6)?;
    let smoothing = params.number("gamma-smoothing", SMOOTHING, 0.001, 1.0)?;
    let low = params.number("gamma-min", 1e-5, 1e-6, 1e3)?;
    let high = params.number("gamma-max", 10.0_f64.max(low), low, 1e3)?;
    let tail = TailSlope::new(params.number("window", WINDOW, 1.0, 1e6)? as usize);
    Ok(on.then_some(Ada { rule, scale, smoothing, bounds: (low, high), tail }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::units::Tokens;

    /// A job of this prompt and output that arrived at zero.
    pub(in super::super) fn job(prompt: u32, generated: u32) -> Job {
        let (prompt, generated) = (Tokens(prompt), Tokens(generated));
        Job { prompt, generated, max_tokens: Tokens(100_000), ..Job::default() }
    }

    fn booster(parameters: &str) -> Booster {
        let mut params = Params::new(&format!("test:{parameters}")).unwrap();
        let booster = Booster::new(&mut params).unwrap();
        params.finish().unwrap();
        booster
    }

    /// Ends `count` jobs whose latencies are the quantiles of an exponential of this rate.
    fn finish(booster: &mut Booster, count: u32, rate: f64) {
        for i in 0..count {
            let latency = -(1.0 - (f64::from(i * 7919 % 1000) + 0.5) / 1e3).ln() / rate;
            let at = Nanos((latency * 1e9) as u64);
            booster.on(&Event::Finished(&job(1, 1), FinishReason::Stop, at));
        }
    }

    #[test]
    fn phi_is_arrival_less_the_boost_of_the_larger_work() {
        let booster = booster("gamma=0.1");
        // Fig. 5 in seconds: γ = 1e-4 per ms, 256 tokens of a millisecond each.
        let phi = booster.phi(&job(10, 0), 10, 256);
        assert!((phi as f64 / 1e9 + 36.8).abs() < 0.1, "{phi}");
        assert_eq!(phi, booster.phi(&job(10, 0), 256, 10));
        let later = Job { arrival: Nanos::from_millis(5), ..job(10, 0) };
        assert_eq!(booster.phi(&later, 10, 256), phi + 5_000_000);
    }

    #[test]
    fn gamma_converges_to_the_tail_slope_by_the_smoothing() {
        let mut booster = booster("ada=on");
        assert_eq!(booster.gamma, 0.16);
        finish(&mut booster, 199, 0.5);
        assert_eq!((booster.gamma, booster.epoch()), (0.16, 0), "the first fit takes 200 latencies");
        finish(&mut booster, 1, 0.5);
        assert_eq!(booster.epoch(), 1);
        finish(&mut booster, 5000, 0.5);
        assert!((booster.gamma - 0.5).abs() < 0.02, "{}", booster.gamma);
        let before = booster.gamma;
        finish(&mut booster, 1000, 0.05);
        let (first, last) = (booster.gamma, 0.05);
        assert!(first > last && first < before, "five fits leave 0.7^5 of the way: {first}");
    }

    #[test]
    fn gamma_keeps_within_its_bounds() {
        let mut flat = booster("gamma-max=2:gamma-smoothing=1");
        (0..200).for_each(|_| flat.completed(Nanos::from_millis(100)));
        assert_eq!(flat.gamma, 2.0, "no spread at all");
        let mut wide = booster("gamma-min=0.01:gamma-smoothing=1");
        finish(&mut wide, 1000, 1e-4);
        assert_eq!(wide.gamma, 0.01);
    }

    #[test]
    fn the_appendix_and_the_scale_multiply_the_estimate() {
        let fitted = |parameters: &str| {
            let mut booster = booster(&format!("gamma-smoothing=1:{parameters}"));
            finish(&mut booster, 1000, 0.5);
            booster.gamma
        };
        let ratio = fitted("gamma-rule=eq9") / fitted("gamma-rule=appendix");
        assert!((ratio - 39.02).abs() < 0.1, "ln 5 against ln(99/95): {ratio}");
        assert!((fitted("gamma-scale=0.3") / fitted("gamma-scale=1") - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_fixed_gamma_stays_and_whoever_did_not_complete_does_not_count() {
        let mut fixed = booster("gamma=0.02");
        finish(&mut fixed, 1000, 0.5);
        assert_eq!((fixed.gamma, fixed.epoch()), (0.02, 0));
        let mut off = booster("ada=off");
        finish(&mut off, 1000, 0.5);
        assert_eq!((off.gamma, off.epoch()), (0.16, 0));
        let mut ada = booster("ada=on");
        for _ in 0..1000 {
            ada.on(&Event::Finished(&job(1, 1), FinishReason::Cancelled, Nanos(1)));
        }
        assert_eq!((ada.gamma, ada.epoch()), (0.16, 0));
    }

    #[test]
    fn service_seconds_are_what_steps_took() {
        let mut booster = booster("units=service-seconds:gamma=1");
        let decode = BatchShape { decodes: 8, tokens: 8, rows: 8, ..BatchShape::default() };
        let mixed = BatchShape { chunk_tokens: 1000, tokens: 1008, rows: 9, ..decode };
        let swap = BatchShape { swap_in: Bytes(1), ..decode };
        for (shape, millis) in [(decode, 20), (mixed, 70), (swap, 900)] {
            booster.on(&Event::Timed(&shape, Nanos::from_millis(millis)));
        }
        assert_eq!(booster.per_token.decode, 10e-3, "a guess until the first fit");
        finish(&mut booster, 200, 1.0);
        assert_eq!((booster.per_token.decode, booster.epoch()), (20e-3, 1));
        assert!((booster.per_token.prefill - 50e-6).abs() < 1e-12, "{:?}", booster.per_token);
    }
}
