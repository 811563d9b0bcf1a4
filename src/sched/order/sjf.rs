//! Shortest job first with true output lengths. The order is fixed at submission and nobody is
//! preempted for it; only memory evicts, the longest remaining job first.
//!
//! With `starve=N` whoever waited through N iterations goes before all others that wait, the longest
//! starved first: LTR's guard (arXiv 2408.15792) without preemption, which makes of this the "SJF (LTR+)"
//! of arXiv 2606.18431. Its quantum has no meaning here, since whoever is admitted runs on.

use super::{ALL, Params, PolicyError, fcfs};
use crate::ids::{GroupId, Places};
use crate::sched::predict::Lengths;
use crate::sched::{Candidate, Job, Oracle, Policy, Rank, Reason, View};
use std::sync::Arc;

/// All waiting jobs once more, by the step in which they began to wait.
const IDLE: GroupId = GroupId(1);
/// Behind every resident, whatever its length: nobody is preempted for the order.
const STARVED: i64 = 1 << 32;
/// Behind everybody who is starved.
const WAITING: i64 = 1 << 60;

/// See the module. Parameters: `starve` (never), iterations of waiting until a job goes first; `noise` (0)
/// and `bias` (1) of the lengths, after [`Lengths`], with `seed` (1); `headroom` (0.01), the share of the
/// pool kept free at admission.
pub struct Sjf {
    name: String,
    headroom: u32,
    lengths: Lengths,
    /// Never, if it is not given.
    starve: Option<i64>,
    step: u64,
}

impl Sjf {
    pub(super) fn new(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let starve = params.number("starve", f64::INFINITY, 1.0, f64::from(u32::MAX))?;
        let starve = starve.is_finite().then_some(starve as i64);
        let lengths = Lengths::read(params, oracle)?;
        Ok(Self { name: params.spec(), headroom, lengths, starve, step: 0 })
    }

    /// Of a candidate of the second group.
    fn is_starved(&self, candidate: &Candidate) -> bool {
        let waited = self.step as i64 - (candidate.key - STARVED);
        self.starve.is_some_and(|starve| waited >= starve)
    }
}

impl Policy for Sjf {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(ALL, self.lengths.initial(job).ceil() as i64);
        if self.starve.is_some() {
            places.push(IDLE, self.step as i64);
        }
    }

    /// By what remains, so that the one with the most left goes first when memory is short; looked at again every
    /// sixteen tokens (a block).
    fn rank(&mut self, job: &Job) -> Rank {
        let value = self.lengths.remaining(job).ceil() as i64;
        Rank { value, until: job.generated.0.saturating_add(16), mark: 0 }
    }

    fn groups_used(&self) -> u16 {
        2
    }

    fn groups(&mut self, view: &mut View<'_>) {
        self.step = view.step;
        let headroom = view.share_of_pool(self.headroom);
        view.waiting.set_group(ALL, WAITING, true, headroom);
        if self.starve.is_some() {
            view.waiting.set_group(IDLE, STARVED, true, headroom);
        }
    }

    fn accepts(&mut self, candidate: &Candidate) -> Option<Reason> {
        (candidate.group == ALL || self.is_starved(candidate)).then_some(Reason::Order)
    }

    /// Whoever is starved is not passed by those who take the memory that he waits for.
    fn holds_up(&mut self, candidate: &Candidate) -> bool {
        candidate.group == IDLE && self.is_starved(candidate)
    }

    fn preempts(&self) -> bool {
        false
    }
}
