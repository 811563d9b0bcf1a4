//! Capacity: the request rate that a machine can sustain on given lengths, to which a load is relative.

use super::{Arrival, Setup, SimError, simulate};
use crate::config::Preempt;
use crate::sim::Router;
use crate::units::Nanos;

/// Arrivals that a capacity is taken from: enough that the machine's filling and draining are a small
/// part.
const SAMPLE: usize = 10_000;

/// The saturated request rate, in requests per second, of `fcfs` with swap on one engine of `setup`.
///
/// All requests, repeated up to ten thousand, are there from the start. Counted are the completions after
/// the first tenth and before the queue runs dry, so that neither the filling of the machine nor its
/// draining shows. The prefix cache is off, whatever `setup` says: where prompts share prefixes, a machine
/// that has one is further from saturation than its load says.
///
/// # Errors
/// If the setup is not sound, or so many requests are refused that no time passes in what is counted.
pub fn capacity(setup: &Setup, arrivals: &[Arrival]) -> Result<f64, SimError> {
    let at_once = |a: &Arrival| Arrival { at: Nanos::ZERO, ..a.clone() };
    let sample: Vec<Arrival> = arrivals.iter().cycle().take(SAMPLE).map(at_once).collect();
    let mut setup =
        Setup { policy: "fcfs".into(), gpus: 1, router: Router::RoundRobin, believed: None, ..setup.clone() };
    setup.config.preempt = Preempt::Swap;
    setup.config.waiting_max = SAMPLE as u32;
    setup.config.prefix_cache = false;
    let outcome = simulate(&setup, &sample, &mut ())?;
    let mut ends: Vec<Nanos> = outcome.metrics.records.iter().map(|r| r.last).collect();
    ends.sort_unstable();
    let dry = SAMPLE - (2 * setup.config.max_num_seqs as usize).min(SAMPLE / 2);
    let (low, high) = (SAMPLE / 10, dry - 1);
    // The refused come first, with no time at which they ended.
    if ends[high] == ends[low] {
        let refused = outcome.refusals.map_or(0, |refusals| refusals.count);
        return Err(SimError::NoCapacity { refused, of: SAMPLE as u64 });
    }
    Ok((high - low) as f64 / (ends[high] - ends[low]).as_secs_f64())
}
