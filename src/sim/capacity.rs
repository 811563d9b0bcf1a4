//! Capacity: the request rate that a machine can sustain on given lengths, to which a load is relative.

use super::{Arrival, Setup, SimError, simulate};
use crate::config::Preempt;
use crate::metrics::nearest_rank;
use crate::sim::Router;
use crate::units::Nanos;

/// The most arrivals that a capacity is taken from.
const SAMPLE_MAX: usize = 10_000;

/// The saturated request rate, in requests per second, of `fcfs` with swap on one engine of `setup`:
/// all requests are there from the start, and the middle eight tenths of the completions are counted, so
/// that neither the filling nor the draining of the machine does.
///
/// # Errors
/// If the setup is not sound.
pub fn capacity(setup: &Setup, arrivals: &[Arrival]) -> Result<f64, SimError> {
    let sample: Vec<Arrival> =
        arrivals.iter().take(SAMPLE_MAX).map(|a| Arrival { at: Nanos::ZERO, ..a.clone() }).collect();
    let mut setup =
        Setup { policy: "fcfs".into(), gpus: 1, router: Router::RoundRobin, believed: None, ..setup.clone() };
    setup.config.preempt = Preempt::Swap;
    setup.config.waiting_max = setup.config.waiting_max.max(sample.len() as u32);
    let outcome = simulate(&setup, &sample, &mut ())?;
    let mut ends: Vec<Nanos> = outcome.metrics.records.iter().map(|r| r.last).collect();
    ends.sort_unstable();
    let (low, high) = (nearest_rank(ends.len(), 0.1), nearest_rank(ends.len(), 0.9));
    let span = (ends[high] - ends[low]).as_secs_f64();
    let whole = ends[ends.len() - 1].as_secs_f64();
    Ok(if span > 0.0 { (high - low) as f64 / span } else { ends.len() as f64 / whole })
}
