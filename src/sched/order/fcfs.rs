//! First come, first served, with chunked prefill: Sarathi-Serve (OSDI 2024), after the rules of its
//! scheduler. Residents by arrival: decodes first, evicting the last arrived when a block is missing;
//! then unfinished prefills; then waiting jobs in order, each with its whole prompt's KV, until the
//! first that does not fit. A small share of the pool stays free at admission.

use super::{ALL, Params, PolicyError, place_in_one};
use crate::ids::{Places, Slot};
use crate::sched::{Admission, Decision, Draft, Job, Policy, Reason, View};

/// See the module. Parameter `headroom`: the share of the pool kept free at admission (0.01).
pub struct Fcfs {
    name: String,
    headroom: u32,
}

impl Fcfs {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let headroom = headroom(params)?;
        Ok(Self { name: params.spec(), headroom })
    }
}

impl Default for Fcfs {
    fn default() -> Self {
        Self { name: "fcfs".into(), headroom: HEADROOM }
    }
}

/// The default headroom, in parts of ten thousand.
const HEADROOM: u32 = 100;

/// Reads the `headroom` parameter, in parts of ten thousand.
pub(super) fn headroom(params: &mut Params) -> Result<u32, PolicyError> {
    Ok((params.number("headroom", f64::from(HEADROOM) / 10_000.0, 0.0, 0.5)? * 10_000.0).round() as u32)
}

impl Policy for Fcfs {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, job.arrival.0 as i64);
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
        let mut draft = Draft::new(view, decision);
        let mut prefills = std::mem::take(&mut view.scratch.chosen);
        run_decodes(view, &mut draft, &mut prefills);
        run_prefills(view, &mut draft, &prefills);
        prefills.clear();
        view.scratch.chosen = prefills;
        admit_in_order(view, &mut draft, Admission::Known);
    }
}

/// Runs every decode, evicting from the end of the order when a block is missing; lists the rows that
/// still prefill. Admission bounds the residents as it does the batch, so each finds its place in it.
fn run_decodes(view: &View<'_>, draft: &mut Draft<'_>, prefills: &mut Vec<Slot>) {
    let (mut at, mut end) = (0, view.order.len());
    loop {
        at = draft.decode_steady(view, at, end);
        if at == end {
            return;
        }
        let slot = view.order[at];
        let row = view.row(slot);
        if row.ready() && row.decodes() && !draft.run(slot, row, 1, Reason::Decode) {
            // The victim stands behind the row that lacks a block, or is that row itself and the last.
            end = evict_last(view, draft, end);
            continue;
        }
        if row.ready() && !row.decodes() {
            prefills.push(slot);
        }
        at += 1;
    }
}

/// Evicts the last ready row before `end`; returns where it stood.
pub(super) fn evict_last(view: &View<'_>, draft: &mut Draft<'_>, end: usize) -> usize {
    let last = view.order[..end].iter().rposition(|slot| view.row(*slot).ready());
    let last = last.expect("the row that lacks a block is ready itself");
    draft.evict(view, view.order[last], Reason::Memory);
    last
}

/// Gives the step's remaining tokens to the rows that prefill, in order.
fn run_prefills(view: &View<'_>, draft: &mut Draft<'_>, prefills: &[Slot]) {
    for &slot in prefills {
        let row = view.row(slot);
        let chunk = row.missing().min(draft.tokens);
        if chunk == 0 || !draft.run(slot, row, chunk, Reason::Prefill) {
            draft.park(slot, if chunk == 0 { Reason::TokenBudget } else { Reason::Memory });
        }
    }
}

/// Admits waiting jobs in order until the first that does not fit.
pub(super) fn admit_in_order(view: &mut View<'_>, draft: &mut Draft<'_>, admission: Admission) {
    while draft.tokens > 0 && draft.seqs > 0 && residents(view, draft) < view.config.max_num_seqs {
        let Some(candidate) = view.waiting.peek().filter(|c| draft.fits(view, c, admission)) else { return };
        draft.admit(view, &candidate, admission, Reason::Order);
    }
}

/// Rows that hold KV in the draft: all of them run, so they are bounded as the batch is.
fn residents(view: &View<'_>, draft: &Draft<'_>) -> u32 {
    view.config.max_resident - draft.slots
}
