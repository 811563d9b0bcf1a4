//! Shortest remaining processing time with true output lengths, preemptive: the order that minimises
//! the mean latency on one server. Remaining work counts the output tokens still to come.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::predict::Lengths;
use crate::sched::{Job, Oracle, Policy, Rank, View};
use std::sync::Arc;

/// See the module. Parameters: `noise` (0) and `bias` (1) of the lengths, after [`Lengths`], with `seed` (1);
/// `headroom` (0.01), the share of the pool kept free at admission.
pub struct Srpt {
    name: String,
    headroom: u32,
    lengths: Lengths,
}

impl Srpt {
    pub(super) fn new(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let lengths = Lengths::read(params, oracle)?;
        Ok(Self { name: params.spec(), headroom, lengths })
    }

    fn remaining(&self, job: &Job) -> i64 {
        self.lengths.remaining(job).ceil() as i64
    }
}

impl Policy for Srpt {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, self.remaining(job));
    }

    /// A decode lowers the rank by one, so running residents keep their order among themselves; only a
    /// parked one can fall behind, and sixteen tokens (a block) is as fine as it matters.
    fn rank(&mut self, job: &Job) -> Rank {
        Rank { value: self.remaining(job), until: job.generated.0 + 16, mark: 0 }
    }

    fn groups(&mut self, view: &mut View<'_>) {
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
    }
}
