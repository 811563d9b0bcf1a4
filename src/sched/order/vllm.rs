//! vLLM V1's default. Running requests first, in order of admission, decode and prefill alike, each
//! with what it lacks up to the step's budget; when a block is missing, the last one is preempted. If
//! nobody was, waiting jobs follow in order, chunked to the rest of the budget: one is admitted if all
//! that is known of it would fit, and takes only its chunk's blocks. vLLM itself always recomputes:
//! `--preempt recompute`.

use super::{Params, PolicyError, place_in_one};
use crate::ids::Places;
use crate::sched::{Admission, Decision, Draft, Job, Policy, Rank, Reason, View};

/// See the module. No parameters.
pub struct Vllm {
    name: String,
    admitted: i64,
    evicted: i64,
}

impl Vllm {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        Ok(Self { name: params.spec(), admitted: 0, evicted: 0 })
    }
}

impl Policy for Vllm {
    fn name(&self) -> &str {
        &self.name
    }

    /// New jobs by arrival; a preempted one goes to the front.
    fn place(&mut self, job: &Job, places: &mut Places) {
        if job.evictions == 0 {
            return place_in_one(places, job.arrival.0 as i64);
        }
        self.evicted += 1;
        place_in_one(places, i64::MIN / 2 - self.evicted);
    }

    fn rank(&mut self, _job: &Job) -> Rank {
        self.admitted += 1;
        Rank::fixed(self.admitted)
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        let mut draft = Draft::new(view, decision);
        run_residents(view, &mut draft);
        if draft.evicted() == 0 {
            super::fcfs::admit_in_order(view, &mut draft, Admission::KnownFits);
        }
    }
}

fn run_residents(view: &View<'_>, draft: &mut Draft<'_>) {
    let mut end = view.order.len();
    let mut at = 0;
    loop {
        at = draft.decode_steady(view, at, end);
        if at == end {
            return;
        }
        let slot = view.order[at];
        let row = view.row(slot);
        at += 1;
        if !row.ready() {
            continue;
        }
        let tokens = row.missing().min(draft.tokens);
        if tokens == 0 {
            draft.park(slot, Reason::TokenBudget);
            continue;
        }
        let reason = if row.decodes() { Reason::Decode } else { Reason::Prefill };
        while !draft.run(slot, row, tokens, reason) {
            end = super::fcfs::evict_last(view, draft, end);
            if end < at {
                return;
            }
        }
    }
}
