//! Shortest job first with true output lengths. The order is fixed at submission and nobody is
//! preempted for it; only memory evicts, the longest remaining job first.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::{Job, Oracle, Policy, Rank, View};
use std::sync::Arc;

/// See the module. Parameter `headroom`: the share of the pool kept free at admission (0.01).
pub struct Sjf {
    name: String,
    headroom: u32,
    oracle: Arc<dyn Oracle>,
}

impl Sjf {
    pub(super) fn new(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        Ok(Self { name: params.spec(), headroom, oracle })
    }
}

impl Policy for Sjf {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, i64::from(self.oracle.output(job.user_data).0));
    }

    /// By what remains at admission, so that the one with the most left goes first when memory is
    /// short.
    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(i64::from(self.oracle.output(job.user_data).0.saturating_sub(job.generated.0)))
    }

    fn groups(&mut self, view: &mut View<'_>) {
        // Residents come before the waiting whatever their lengths: nobody is preempted for the order.
        view.waiting.set_group(ALL, i64::from(u32::MAX), true, view.share_of_pool(self.headroom));
    }

    fn preempts(&self) -> bool {
        false
    }
}
