//! Gaps between tokens: the largest step that keeps the strictest target among the residents.

use crate::cost::BatchShape;
use crate::request::RequestId;
use crate::sched::{Job, View};
use crate::units::Nanos;

/// Residents that asked for a bound on the gap between their tokens.
#[derive(Debug, Default)]
pub(super) struct Pace {
    targets: Vec<(RequestId, Nanos)>,
}

impl Pace {
    /// Room for all residents, so that no step allocates.
    pub(super) fn reserve(&mut self, residents: usize) {
        self.targets.reserve(residents);
    }

    /// A job became resident.
    pub(super) fn admitted(&mut self, job: &Job) {
        self.targets.extend(job.slo.tbt.map(|target| (job.id, target)));
    }

    /// A resident left.
    pub(super) fn left(&mut self, job: &Job) {
        self.targets.retain(|(id, _)| *id != job.id);
    }

    /// Tokens that a step may have so that its predicted time stays within the strictest target; at
    /// least the decodes, and one prefill token so that nobody waits for ever. O(residents), and only
    /// if somebody has a target.
    pub(super) fn tokens(&self, view: &View<'_>) -> u32 {
        let most = view.config.max_num_batched_tokens.0;
        let Some(target) = self.targets.iter().map(|(_, target)| *target).min() else { return most };
        let mut decodes = BatchShape::default();
        let mut prefix = 0;
        for row in view.order.iter().map(|slot| view.row(*slot)).filter(|row| row.ready()) {
            if row.decodes() {
                decodes.add_decode(row.computed + 1);
            } else {
                prefix = prefix.max(row.computed);
            }
        }
        let fits = |chunk: u32| {
            let mut shape = decodes;
            shape.add_chunk(chunk, prefix);
            view.cost.compute_time(&shape) <= target
        };
        let (mut low, mut high) = (1, most.saturating_sub(decodes.decodes).max(1));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        (decodes.decodes + low).min(most)
    }
}
