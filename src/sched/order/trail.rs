//! TRAIL: shortest predicted remaining output first, with limited preemption (Shahout et al., "Don't Stop
//! Me Now: Embedding Based Scheduling for LLMs", arXiv 2410.01035).
//!
//! A request is ranked by the output tokens that are predicted to remain, and refined as it ages. It can be
//! preempted only while its age is below c times its *initial* prediction; from then on it runs out. The
//! paper has c = 0.8 and a probe of the model's embeddings. With true lengths and c = 0.6 it is the
//! "TRAIL+" that arXiv 2606.18431 compares with, and the default here.
//!
//! Where the sources are silent: "preempted" is read as parked or evicted, so memory evicts whoever is past
//! its limit only when nobody else is left; the age counts output tokens, not the prompt's.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::predict::Lengths;
use crate::sched::{Job, Oracle, Policy, Rank, Resident, View};
use std::sync::Arc;

/// Tokens after which a rank is refined: a block, as fine as it matters.
const REFINE: u32 = 16;

/// The mark of a row that is past its limit.
const RUNS_OUT: u8 = 1;

/// See the module. Parameters: `limit` (0.6), the share of the initial prediction after which nobody is
/// preempted; `noise` (0), the σ of the predictions' lognormal error, and `bias` (1), a factor on all of
/// them, after [`Lengths`], with `seed` (1); `headroom` (0.01).
pub struct Trail {
    name: String,
    headroom: u32,
    limit: f64,
    lengths: Lengths,
}

impl Trail {
    pub(super) fn new(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let limit = params.number("limit", 0.6, 0.0, 1.0)?;
        let lengths = Lengths::read(params, oracle)?;
        Ok(Self { name: params.spec(), headroom, limit, lengths })
    }

    fn remaining(&self, job: &Job) -> i64 {
        self.lengths.remaining(job).ceil() as i64
    }

    /// The age, in output tokens, from which a job is no longer preempted.
    fn runs_out_at(&self, job: &Job) -> u32 {
        (self.limit * self.lengths.initial(job)).ceil() as u32
    }
}

impl Policy for Trail {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, self.remaining(job));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        let (age, limit) = (job.generated.0, self.runs_out_at(job));
        let value = self.remaining(job);
        if age >= limit {
            return Rank { value, until: age + REFINE, mark: RUNS_OUT };
        }
        Rank { value, until: (age + REFINE).min(limit), mark: 0 }
    }

    fn groups(&mut self, view: &mut View<'_>) {
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
    }

    fn protects(&self, row: &Resident) -> bool {
        row.mark == RUNS_OUT
    }
}
