//! Shortest remaining output first with look-ahead packing, after MC-SF (Jaillet et al., "Online Scheduling for LLM Inference with KV Cache Constraints", arXiv
//! 2502.07115).
//!
//! The shortest waiting job is admitted if, were all residents to run in every step from now on, their KV
//! and its own fit together at each completion to come, which is where the KV peaks; otherwise nobody is.
//! So nobody is evicted for memory and none preempts, as in MC-SF; beyond it, only the `max_num_seqs`
//! shortest residents run in a step, and jobs have prompts that count in chunks.
//!
//! It knows the lengths but is no bound on the mean: where swapping is cheap, SJF and TRAIL, which admit more
//! and evict, have a smaller one.
//!
//! Blocks of a shared prefix count in full for each who holds them: whose they are, and so when the last of those ends,
//! a policy cannot see. With a prefix cache it admits fewer than would fit.
//!
//! Needs O(residents · log residents) in steps with waiting jobs.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::predict::output;
use crate::sched::{Candidate, Job, Oracle, Policy, Rank, Reason, View};
use std::sync::Arc;

/// See the module. Parameter `headroom`: the share of the pool kept free at each peak (0.01).
pub struct OracleSrpt {
    name: String,
    headroom: u32,
    oracle: Arc<dyn Oracle>,
    /// Output tokens in all, by [`crate::request::RequestId::index`].
    outputs: Vec<u32>,
    packing: Packing,
}

/// Who holds KV and for how long.
#[derive(Debug, Default)]
struct Packing {
    capacity: u64,
    /// Remaining steps and held tokens of each, the last to end first.
    held: Vec<(u32, u32)>,
    /// Tokens by which blocks may exceed what they hold.
    slack: u32,
}

impl Packing {
    /// Whether all fit at each completion.
    fn fits(&self) -> bool {
        let mut held = 0;
        (1u64..).zip(&self.held).all(|(count, (remaining, tokens))| {
            held += u64::from(tokens + self.slack);
            held + count * u64::from(*remaining) <= self.capacity
        })
    }

    /// Adds one if all fit with it.
    fn add(&mut self, remaining: u32, tokens: u32) -> bool {
        let at = self.held.partition_point(|(other, _)| *other > remaining);
        self.held.insert(at, (remaining, tokens));
        let fits = self.held.len() == 1 || self.fits();
        if !fits {
            self.held.remove(at);
        }
        fits
    }
}

impl OracleSrpt {
    pub(super) fn new(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let (outputs, packing) = (Vec::new(), Packing::default());
        Ok(Self { name: params.spec(), headroom, oracle, outputs, packing })
    }

    fn remaining(&self, job: &Job) -> u32 {
        output(&*self.oracle, job).saturating_sub(job.generated.0).max(1)
    }
}

impl Policy for OracleSrpt {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        let (index, remaining) = (job.id.index(), self.remaining(job));
        self.outputs.resize(self.outputs.len().max(index + 1), 0);
        self.outputs[index] = job.generated.0 + remaining;
        place_in_one(places, i64::from(remaining));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank { value: i64::from(self.remaining(job)), until: job.generated.0 + 16, mark: 0 }
    }

    fn groups(&mut self, view: &mut View<'_>) {
        // Residents come before the waiting: nobody is preempted for the order.
        view.waiting.set_group(ALL, i64::from(u32::MAX), true, view.share_of_pool(self.headroom));
        self.packing.held.clear();
        if view.waiting.is_empty() {
            return;
        }
        let free = view.config.kv_blocks - view.share_of_pool(self.headroom);
        self.packing.capacity = u64::from(free.0) * u64::from(view.config.block_size.0);
        self.packing.slack = view.config.block_size.0 - 1;
        let rows = view.order.iter().map(|slot| view.row(*slot));
        let outputs = &self.outputs;
        let held = rows.map(|row| (outputs[row.id.index()].saturating_sub(row.generated()), row.known()));
        self.packing.held.extend(held);
        self.packing.held.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn accepts(&mut self, candidate: &Candidate) -> Option<Reason> {
        let remaining = self.remaining(&candidate.job);
        self.packing.add(remaining, candidate.job.known().0).then_some(Reason::Order)
    }

    fn preempts(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_looks_at_every_completion_to_come() {
        let mut packing = Packing { capacity: 100, ..Packing::default() };
        assert!(packing.add(50, 20), "one that ends with 70");
        // Together they hold 20 + 10 + 2·30 = 90 when the second one ends.
        assert!(packing.add(30, 10));
        assert!(!packing.add(10, 45), "75 and 3·10 are too many when the third one would end");
        assert!(packing.add(5, 40), "70 and 3·5 are not");
        assert!(!packing.add(60, 5), "it would outlast them: 25 + 2·50 when the first one ends");
    }
}
