//! Arrival processes: when requests come, if no trace says it.

use super::error::TraceError;
use crate::prng::Prng;
use crate::units::Nanos;
use std::ops::RangeInclusive;

/// An arrival process. Rates are requests per second and hold in expectation: a finite trace differs
/// by its own luck, which [`crate::trace::Trace::set_rate`] takes out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Independent exponential gaps: index of dispersion 1.
    Poisson {
        /// Requests per second.
        rate: f64,
    },
    /// Independent gaps with a gamma distribution.
    Gamma {
        /// Requests per second.
        rate: f64,
        /// Coefficient of variation of the gaps; 1 is Poisson.
        cv: f64,
    },
    /// Bursts at a multiple of the mean rate, with exponential silences between that keep the mean.
    OnOff {
        /// Requests per second.
        rate: f64,
        /// Mean requests of a burst; their number is geometric.
        burst_requests: f64,
        /// A burst's rate over the mean rate: drawn anew for each burst, uniformly from low to high.
        burst_factor: (f64, f64),
    },
    /// Everything at time zero.
    AllAtOnce,
}

/// CVs of gamma gaps: below, all gaps are the mean, and above, nearly all are zero; neither can be drawn in the end.
const CVS: RangeInclusive<f64> = 0.001..=100.0;

impl Arrivals {
    /// What [`Arrivals::parse`] reads.
    pub const NAMES: &str = "poisson, gamma:CV, onoff, all-at-once";

    /// Bursts of 60 requests on average at 10 to 30 times the mean rate.
    pub const fn on_off(rate: f64) -> Self {
        Self::OnOff { rate, burst_requests: 60.0, burst_factor: (10.0, 30.0) }
    }

    /// The process that the command line calls so.
    ///
    /// # Errors
    /// An unknown name, or a number that cannot be.
    pub fn parse(name: &str, rate: f64) -> Result<Self, TraceError> {
        let arrivals = match name.split_once(':') {
            None if name == "poisson" => Self::Poisson { rate },
            None if name == "onoff" => Self::on_off(rate),
            None if name == "all-at-once" => Self::AllAtOnce,
            Some(("gamma", cv)) => {
                let bad = |_| TraceError::Request(format!("gamma:{cv} needs a number, such as gamma:3"));
                Self::Gamma { rate, cv: cv.parse().map_err(bad)? }
            }
            _ => {
                let known = Self::NAMES;
                return Err(TraceError::Request(format!("no arrival process {name:?}: known are {known}")));
            }
        };
        arrivals.check()?;
        Ok(arrivals)
    }

    /// The same process at another rate; all at once stays all at once.
    pub const fn with_rate(self, rate: f64) -> Self {
        match self {
            Self::Poisson { .. } => Self::Poisson { rate },
            Self::Gamma { cv, .. } => Self::Gamma { rate, cv },
            Self::OnOff { burst_requests, burst_factor, .. } => {
                Self::OnOff { rate, burst_requests, burst_factor }
            }
            Self::AllAtOnce => Self::AllAtOnce,
        }
    }

    /// Whether its numbers can be.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(self) -> Result<(), TraceError> {
        let positive = |what: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(TraceError::Request(format!("{what} is {value}, but must be above zero"))),
        };
        match self {
            Self::Poisson { rate } => positive("the rate", rate),
            Self::Gamma { rate, cv } => {
                positive("the rate", rate)?;
                match CVS.contains(&cv) {
                    true => Ok(()),
                    false => {
                        let (low, high) = (CVS.start(), CVS.end());
                        Err(TraceError::Request(format!("the CV is {cv}, but must be in {low}..={high}")))
                    }
                }
            }
            Self::OnOff { rate, burst_requests, burst_factor: (low, high) } => {
                positive("the rate", rate)?;
                if !(burst_requests >= 1.0 && burst_requests.is_finite()) {
                    let reason = format!("a burst has {burst_requests} requests, but needs at least 1");
                    return Err(TraceError::Request(reason));
                }
                match 1.0 <= low && low <= high && high.is_finite() {
                    true => Ok(()),
                    false => Err(TraceError::Request(format!("a burst factor is in {low}..={high}"))),
                }
            }
            Self::AllAtOnce => Ok(()),
        }
    }

    /// The arrival times of `requests` requests, the first at zero.
    ///
    /// # Errors
    /// If [`Arrivals::check`] fails.
    pub fn draw(self, requests: usize, prng: &mut Prng) -> Result<Vec<Nanos>, TraceError> {
        self.check()?;
        let mut gaps = Gaps { arrivals: self, prng, burst_left: 0, burst_rate: 0.0 };
        gaps.open_burst();
        let mut now = Nanos::ZERO;
        let mut times = Vec::with_capacity(requests);
        for _ in 0..requests {
            times.push(now);
            now = now.saturating_add(Nanos::from_secs_f64(gaps.next_secs()));
        }
        Ok(times)
    }
}

struct Gaps<'a> {
    arrivals: Arrivals,
    prng: &'a mut Prng,
    /// Requests of this burst that are still to come.
    burst_left: u64,
    burst_rate: f64,
}

impl Gaps<'_> {
    fn next_secs(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Poisson { rate } => self.prng.exponential() / rate,
            Arrivals::Gamma { rate, cv } => self.prng.gamma(1.0 / (cv * cv)) / rate,
            Arrivals::OnOff { rate, burst_requests, burst_factor } if self.burst_left == 0 => {
                self.open_burst();
                self.prng.exponential() * silence_secs_mean(rate, burst_requests, burst_factor)
            }
            Arrivals::OnOff { .. } => {
                self.burst_left -= 1;
                self.prng.exponential() / self.burst_rate
            }
            Arrivals::AllAtOnce => 0.0,
        }
    }

    /// Draws the size and the rate of a burst whose first request comes now.
    fn open_burst(&mut self) {
        if let Arrivals::OnOff { rate, burst_requests, burst_factor: (low, high) } = self.arrivals {
            self.burst_left = geometric(self.prng, burst_requests) - 1;
            self.burst_rate = rate * (low + (high - low) * self.prng.unit());
        }
    }
}

/// The silence that makes a cycle of one burst and one silence last `burst_requests / rate`.
///
/// A burst of n requests at f times the rate has n - 1 gaps of mean 1 / (f * rate).
fn silence_secs_mean(rate: f64, burst_requests: f64, (low, high): (f64, f64)) -> f64 {
    // The mean of 1 / f for f uniform in low..high.
    let inverse_mean = if high > low { (high / low).ln() / (high - low) } else { 1.0 / low };
    (burst_requests - (burst_requests - 1.0) * inverse_mean) / rate
}

/// A count of at least one with the given mean.
fn geometric(prng: &mut Prng, mean: f64) -> u64 {
    if mean <= 1.0 {
        return 1;
    }
    (prng.unit().ln() / (-1.0 / mean).ln_1p()).ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::stats;

    /// Mean rate, CV of the gaps and index of dispersion in windows of ten mean gaps.
    fn measured(arrivals: Arrivals, requests: usize, seed: u64) -> (f64, f64, f64) {
        let times = arrivals.draw(requests, &mut Prng::new(seed)).unwrap();
        assert_eq!(times.len(), requests);
        assert_eq!(times[0], Nanos::ZERO);
        assert!(times.is_sorted());
        let rate = (requests - 1) as f64 / times[requests - 1].as_secs_f64();
        let window = Nanos::from_secs_f64(10.0 / rate);
        (rate, stats::gap_cv(&times).unwrap(), stats::dispersion(&times, window).unwrap())
    }

    #[test]
    fn processes_have_their_rate_and_variation() {
        let (rate, cv, di) = measured(Arrivals::Poisson { rate: 5.0 }, 200_000, 1);
        assert!((rate / 5.0 - 1.0).abs() < 0.01, "{rate}");
        assert!((cv - 1.0).abs() < 0.01 && (di - 1.0).abs() < 0.05, "{cv} {di}");
        for wanted in [0.25, 3.0] {
            let (rate, cv, di) = measured(Arrivals::Gamma { rate: 0.24, cv: wanted }, 200_000, 2);
            assert!((rate / 0.24 - 1.0).abs() < 0.03, "{rate}");
            assert!((cv / wanted - 1.0).abs() < 0.03, "{cv}");
            assert_eq!(di > 1.0, wanted > 1.0, "{di}");
        }
    }

    #[test]
    fn bursts_keep_the_mean_rate() {
        // 600,000 requests are 10,000 bursts of 60: the mean rate is known to about 1.5 %.
        let (rate, cv, di) = measured(Arrivals::on_off(0.9), 600_000, 3);
        assert!((rate / 0.9 - 1.0).abs() < 0.05, "{rate}");
        assert!(cv > 5.0 && di > 5.0, "{cv} {di}");
        let fixed = Arrivals::OnOff { rate: 0.9, burst_requests: 1.0, burst_factor: (10.0, 10.0) };
        let (rate, cv, _) = measured(fixed, 100_000, 3);
        assert!((rate / 0.9 - 1.0).abs() < 0.02 && (cv - 1.0).abs() < 0.02, "{rate} {cv}");
    }

    #[test]
    fn names_on_the_command_line() {
        assert_eq!(Arrivals::parse("poisson", 2.0).unwrap(), Arrivals::Poisson { rate: 2.0 });
        assert_eq!(Arrivals::parse("gamma:3", 2.0).unwrap(), Arrivals::Gamma { rate: 2.0, cv: 3.0 });
        assert_eq!(Arrivals::parse("onoff", 2.0).unwrap(), Arrivals::on_off(2.0));
        assert_eq!(Arrivals::parse("all-at-once", 0.0).unwrap(), Arrivals::AllAtOnce);
        for (name, rate) in [
            ("poison", 1.0),
            ("gamma:x", 1.0),
            ("gamma:0", 1.0),
            ("gamma:-1", 1.0),
            ("gamma:1e200", 1.0),
            ("gamma:1e-200", 1.0),
            ("gamma:NaN", 1.0),
            ("poisson", 0.0),
            ("onoff", f64::NAN),
            ("poisson", f64::INFINITY),
        ] {
            assert!(Arrivals::parse(name, rate).is_err(), "{name} {rate}");
        }
    }

    #[test]
    fn the_rate_can_be_set_later() {
        let onoff = Arrivals::parse("onoff", 1.0).unwrap();
        assert_eq!(onoff.with_rate(7.0), Arrivals::on_off(7.0));
        assert_eq!(Arrivals::AllAtOnce.with_rate(7.0), Arrivals::AllAtOnce);
    }

    #[test]
    fn the_extreme_variations_can_be_drawn() {
        for cv in [*CVS.start(), *CVS.end()] {
            let times = Arrivals::Gamma { rate: 1.0, cv }.draw(10_000, &mut Prng::new(1)).unwrap();
            assert!(times[9_999] > Nanos::ZERO, "{cv}");
        }
    }

    #[test]
    fn all_at_once_is_at_zero() {
        assert_eq!(Arrivals::AllAtOnce.draw(3, &mut Prng::new(1)).unwrap(), [Nanos::ZERO; 3]);
    }
}
