//! Shadow machines: what each strength of the boost would do to the traffic at hand.
//!
//! A small γ helps short prompts and, past some point, costs the tail; where that point lies depends on
//! the traffic. So every arrival also goes to a few single servers in virtual time, one per candidate
//! and one that serves first come first served, with an output length drawn from requests of its class
//! that have finished. The candidate with the smallest mean latency wins among those whose tails are no
//! worse than first come first served. Model-predictive control with the simplest of models: it has
//! only to tell candidates apart.

use crate::units::Nanos;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Candidates for c in γ = c · Eq. 9, strongest boost last.
pub(super) const CANDIDATES: [f64; 8] = [100.0, 30.0, 10.0, 3.0, 1.0, 0.5, 0.25, 0.12];
/// Jobs that a shadow queue holds; those beyond are left out.
const QUEUE_MAX: usize = 4_096;
/// Jobs that a shadow serves per arrival, so that no arrival costs more than its share.
const SERVED_MAX: usize = 4;
/// Arrivals after which evidence counts half.
const HALF_LIFE: u64 = 2_000;
/// Jobs without which no candidate is judged.
const ENOUGH: f32 = 300.0;
/// The share of jobs beyond a quantile, and how much longer than first come first served it may be in
/// the shadow: for TTLT, and for TTFT, which a boost works by moving.
const TAILS: [(f32, f64, f64); 2] = [(0.05, 1.05, 1.07), (0.01, 1.05, 1.3)];

/// A job of the shadow machines, in ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// When it arrived.
    pub arrival: Nanos,
    /// Machine time that its prompt takes.
    pub prefill: f64,
    /// Machine time that its output takes.
    pub decode: f64,
    /// Time from first to last token if nothing delays it.
    pub span: f64,
}

/// Counts of latencies, 32 bins per doubling, that fade.
#[derive(Debug)]
struct Tail {
    counts: Vec<f32>,
    total: f32,
    sum: f64,
}

const PER_OCTAVE: f64 = 32.0;
/// The first bin begins at a millisecond.
const FIRST_NS: f64 = 1e6;
const BINS: usize = 800;

impl Tail {
    fn new() -> Self {
        Self { counts: vec![0.0; BINS], total: 0.0, sum: 0.0 }
    }

    fn add(&mut self, ns: f64) {
        let bin = ((ns / FIRST_NS).max(1.0).log2() * PER_OCTAVE) as usize;
        self.counts[bin.min(BINS - 1)] += 1.0;
        self.total += 1.0;
        self.sum += ns;
    }

    fn fade(&mut self) {
        self.counts.iter_mut().for_each(|c| *c *= 0.5);
        self.total *= 0.5;
        self.sum *= 0.5;
    }

    /// The latency that a share `above` of all exceeds, between bins by interpolation.
    fn quantile(&self, above: f32) -> f64 {
        let mut left = above * self.total;
        for (bin, count) in self.counts.iter().enumerate().rev() {
            if *count >= left && *count > 0.0 {
                let inside = 1.0 - f64::from(left / count);
                return FIRST_NS * ((bin as f64 + inside) / PER_OCTAVE).exp2();
            }
            left -= count;
        }
        0.0
    }

    /// How many were longer than `ns`, within bins by interpolation.
    fn beyond(&self, ns: f64) -> f32 {
        let at = (ns / FIRST_NS).max(1.0).log2() * PER_OCTAVE;
        let bin = (at as usize).min(BINS - 1);
        let inside = (1.0 - at.fract()) as f32;
        self.counts[bin] * inside + self.counts[bin + 1..].iter().sum::<f32>()
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.total.max(1.0))
    }
}

/// A job in a shadow's queue: the smallest key first, ties by arrival.
#[derive(Debug)]
struct Waiting {
    key: i64,
    number: u64,
    work: Work,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.key, other.number).cmp(&(self.key, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

/// One server under one order.
#[derive(Debug)]
struct Machine {
    queue: BinaryHeap<Waiting>,
    /// When the server is free, in ns.
    free: f64,
    ttft: Tail,
    ttlt: Tail,
}

impl Machine {
    fn new() -> Self {
        let queue = BinaryHeap::with_capacity(QUEUE_MAX);
        Self { queue, free: 0.0, ttft: Tail::new(), ttlt: Tail::new() }
    }

    /// Serves what it can until `now`.
    fn serve(&mut self, now: f64) {
        for _ in 0..SERVED_MAX {
            if self.free > now {
                return;
            }
            let Some(Waiting { work, .. }) = self.queue.pop() else { return };
            let arrival = work.arrival.0 as f64;
            let start = self.free.max(arrival);
            self.free = start + work.prefill + work.decode;
            let first = start - arrival + work.prefill;
            self.ttft.add(first);
            self.ttlt.add(first + work.span);
        }
    }

    fn fade(&mut self) {
        self.ttft.fade();
        self.ttlt.fade();
    }

    /// Whether no tail is longer than that of `fcfs`, but for what is allowed. Whoever still waits
    /// counts with his age, else a machine would look good that lets some wait for ever.
    fn keeps_tails(&self, fcfs: &Self, now: f64) -> bool {
        TAILS.iter().all(|(above, last, first)| {
            self.within(&self.ttlt, last * fcfs.ttlt.quantile(*above), *above, now)
                && self.within(&self.ttft, first * fcfs.ttft.quantile(*above), *above, now)
        })
    }

    fn within(&self, tail: &Tail, limit: f64, above: f32, now: f64) -> bool {
        let overdue = self.queue.iter().filter(|w| now - w.work.arrival.0 as f64 > limit).count() as f32;
        tail.beyond(limit) + overdue <= above * (tail.total + overdue)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shadows {
    fcfs: Machine,
    machines: Vec<Machine>,
    /// The mean latency of each candidate that keeps the tails, as of when it was last examined.
    verdicts: [Option<f64>; CANDIDATES.len()],
    arrivals: u64,
}

impl Shadows {
    pub(super) fn new() -> Self {
        let machines = CANDIDATES.iter().map(|_| Machine::new()).collect();
        Self { fcfs: Machine::new(), machines, verdicts: [None; CANDIDATES.len()], arrivals: 0 }
    }

    /// A job arrives at all machines, with its key under each candidate. O(candidates · log queue).
    pub(super) fn arrive(&mut self, work: Work, keys: &[i64; CANDIDATES.len()]) {
        let (number, now) = (self.arrivals, work.arrival.0 as f64);
        self.arrivals += 1;
        let fcfs = (&mut self.fcfs, work.arrival.0 as i64);
        for (machine, key) in self.machines.iter_mut().zip(keys.iter().copied()).chain([fcfs]) {
            machine.serve(now);
            if machine.queue.len() < QUEUE_MAX {
                machine.queue.push(Waiting { key, number, work });
            }
            if number % HALF_LIFE == HALF_LIFE - 1 {
                machine.fade();
            }
        }
    }

    /// Looks at one candidate again.
    pub(super) fn examine(&mut self, at: usize, now: Nanos) {
        let machine = &self.machines[at];
        let known = self.fcfs.ttlt.total >= ENOUGH;
        self.verdicts[at] =
            (known && machine.keeps_tails(&self.fcfs, now.0 as f64)).then(|| machine.ttlt.mean());
    }

    /// The best candidate on the evidence so far; `None` if none keeps the tails.
    pub(super) fn best(&self) -> Option<usize> {
        let kept = self.verdicts.iter().enumerate().filter_map(|(at, mean)| Some((at, (*mean)?)));
        kept.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: f64 = 1e9;

    /// Short and long jobs in turn at full load, with the short ones pulled forward by `pull` seconds
    /// times the candidate's number.
    fn run(pull: f64) -> Shadows {
        let mut shadows = Shadows::new();
        for number in 0..4_000u64 {
            let long = number.is_multiple_of(2);
            let arrival = Nanos(number * 1_000_000_000);
            let decode = if long { 1.9 * SECOND } else { 0.1 * SECOND };
            let work = Work { arrival, prefill: 0.0, decode, span: 0.0 };
            let key =
                |at: usize| arrival.0 as i64 - if long { 0 } else { (at as f64 * pull * SECOND) as i64 };
            shadows.arrive(work, &std::array::from_fn(key));
        }
        (0..CANDIDATES.len()).for_each(|at| shadows.examine(at, Nanos(4_000_000_000_000)));
        shadows
    }

    #[test]
    fn without_a_difference_the_weakest_boost_wins() {
        assert_eq!(run(0.0).best(), Some(0));
    }

    #[test]
    fn a_boost_that_starves_somebody_is_not_taken() {
        let mut shadows = Shadows::new();
        // Short jobs fill the machine; every tenth is long, and the last candidate lets it wait for ever.
        for number in 0..4_000u64 {
            let long = number % 10 == 0;
            let arrival = Nanos(number * 1_000_000_000);
            let decode = if long { 1.5 * SECOND } else { 1.0 * SECOND };
            let work = Work { arrival, prefill: 0.0, decode, span: 0.0 };
            let mut keys = [arrival.0 as i64; CANDIDATES.len()];
            keys[CANDIDATES.len() - 1] += if long { i64::MAX / 4 } else { 0 };
            shadows.arrive(work, &keys);
        }
        (0..CANDIDATES.len()).for_each(|at| shadows.examine(at, Nanos(4_000_000_000_000)));
        assert!(shadows.verdicts[0].is_some(), "the order of arrival keeps its own tails");
        assert_eq!(shadows.verdicts[CANDIDATES.len() - 1], None, "whoever still waits counts");
    }

    #[test]
    fn quantiles_and_what_lies_beyond_agree() {
        let mut tail = Tail::new();
        (1..=10_000).for_each(|i| tail.add(f64::from(i) * 1e6));
        let p95 = tail.quantile(0.05);
        assert!((p95 / 9.5e9 - 1.0).abs() < 0.01, "{p95}");
        assert!((tail.beyond(p95) / 500.0 - 1.0).abs() < 0.02, "{}", tail.beyond(p95));
        tail.fade();
        assert!((tail.quantile(0.05) / p95 - 1.0).abs() < 1e-6, "fading keeps the shape");
    }
}
