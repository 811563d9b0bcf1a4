//! The default decision: one walk down the merged order of residents and waiting jobs.
//!
//! 1. Protected residents, then all others and the waiting jobs merged by rank, are chosen until the
//!    batch is full. A chosen resident whose next block is not there evicts the last unprotected
//!    resident behind it, or else itself. A waiting job evicts residents behind it only if together
//!    they suffice; otherwise its group is closed for this step.
//! 2. Chosen decodes get one token each; what is left goes to chosen prefills in the chosen order.
//! 3. Residents that were not chosen stay in memory, parked.
//!
//! The order of acts follows Lane's scheduling pass, of which UniBoost's and SRPT's are special cases.

use super::decision::{Decision, Reason};
use super::draft::Draft;
use super::view::{Candidate, View};
use super::{Budget, Mode, Policy};
use crate::ids::Slot;

const CHOSEN: u8 = 1;
const EVICTED: u8 = 2;

/// Fills `decision` for `policy`. O(residents + admissions · log waiting).
pub fn walk<P: Policy + ?Sized>(policy: &mut P, view: &mut View<'_>, decision: &mut Decision) {
    policy.groups(view);
    let budget = policy.budget(view);
    let mut draft = Draft::new(view, decision);
    draft.tokens = draft.tokens.min(budget.tokens.0);
    let mut chosen = std::mem::take(&mut view.scratch.chosen);
    let mut marks = std::mem::take(&mut view.scratch.marks);
    let mut walk =
        Walk { policy, budget, draft, chosen: &mut chosen, marks: &mut marks, tail: view.order.len() };
    walk.protected(view);
    walk.merged(view);
    walk.park(view);
    for slot in view.order {
        marks[slot.index()] = 0;
    }
    chosen.clear();
    view.scratch.chosen = chosen;
    view.scratch.marks = marks;
}

struct Walk<'w, 'd, P: Policy + ?Sized> {
    policy: &'w mut P,
    budget: Budget,
    draft: Draft<'d>,
    /// Prefills that wait for what the decodes leave of the step's tokens.
    chosen: &'w mut Vec<Slot>,
    marks: &'w mut Vec<u8>,
    /// Everything in the order from here on is chosen, evicted, protected or not evictable.
    tail: usize,
}

impl<P: Policy + ?Sized> Walk<'_, '_, P> {
    fn protected(&mut self, view: &View<'_>) {
        for at in 0..view.order.len() {
            let row = view.row(view.order[at]);
            if row.ready() && self.policy.protects(row) {
                self.choose(view, at);
            }
        }
    }

    /// Merges residents and waiting jobs by rank; at equal ranks the resident comes first.
    fn merged(&mut self, view: &mut View<'_>) {
        let mut at = 0;
        loop {
            while at < view.order.len() && self.skips(view, at) {
                at += 1;
            }
            let resident = view.order.get(at).map(|slot| view.row(*slot).rank);
            let waiting = self.next_waiting(view).filter(|c| resident.is_none_or(|rank| c.key < rank));
            match (waiting, resident) {
                (Some(candidate), _) => self.admit(view, &candidate),
                (None, Some(_)) if self.draft.seqs > 0 => {
                    self.choose(view, at);
                    at += 1;
                }
                _ => break,
            }
        }
        self.prefills(view);
    }

    fn skips(&self, view: &View<'_>, at: usize) -> bool {
        let slot = view.order[at];
        self.marks[slot.index()] != 0 || !view.row(slot).ready()
    }

    fn next_waiting(&self, view: &mut View<'_>) -> Option<Candidate> {
        let wanted = self.budget.mode != Mode::DecodeOnly && self.draft.seqs > 0 && self.draft.tokens > 0;
        if wanted { view.waiting.peek() } else { None }
    }

    /// Chooses the resident at a place of the order, making room for its next token.
    fn choose(&mut self, view: &View<'_>, at: usize) {
        let slot = view.order[at];
        let row = view.row(slot);
        if self.draft.seqs == 0 {
            return;
        }
        if !row.decodes() {
            self.marks[slot.index()] = CHOSEN;
            self.chosen.push(slot);
            return;
        }
        if self.budget.mode == Mode::PrefillOnly || self.draft.tokens == 0 {
            return;
        }
        while row.growth(1, view.config.block_shift()) > self.draft.free {
            match self.victim(view, at) {
                Some(victim) => self.evict(view, victim, Reason::Memory),
                None => return self.evict(view, slot, Reason::Override),
            }
        }
        self.marks[slot.index()] = CHOSEN;
        self.draft.run(slot, row, 1, Reason::Decode);
    }

    /// The last resident behind `at` that may go: unprotected if there is one.
    fn victim(&mut self, view: &View<'_>, at: usize) -> Option<Slot> {
        while self.tail > at + 1 {
            let slot = view.order[self.tail - 1];
            if !self.skips(view, self.tail - 1) && !self.policy.protects(view.row(slot)) {
                return Some(slot);
            }
            self.tail -= 1;
        }
        None
    }

    fn evict(&mut self, view: &View<'_>, slot: Slot, reason: Reason) {
        self.marks[slot.index()] = EVICTED;
        self.draft.evict(view, slot, reason);
    }

    /// Admits a job if it fits, after evictions that together suffice; else closes its group.
    fn admit(&mut self, view: &mut View<'_>, candidate: &Candidate) {
        let admission = self.policy.admission();
        let shortage = self.draft.shortage(view, candidate, admission);
        if shortage > 0 && !self.make_room(view, candidate, shortage) {
            return view.waiting.close(candidate.group);
        }
        if self.draft.fits(view, candidate, admission) {
            self.draft.admit(view, candidate, admission, Reason::Order);
        } else {
            view.waiting.close(candidate.group);
        }
    }

    /// Evicts residents that come after a candidate, last first, only if together they suffice.
    fn make_room(&mut self, view: &View<'_>, candidate: &Candidate, shortage: u32) -> bool {
        if !self.policy.preempts() {
            return false;
        }
        let lacks_slot = self.draft.slots == 0;
        if shortage == u32::MAX && !lacks_slot {
            return false;
        }
        let blocks = if shortage == u32::MAX { 0 } else { shortage };
        let mut freed = 0;
        let mut first = self.tail;
        while first > 0 && (freed < blocks || (lacks_slot && first == self.tail)) {
            let slot = view.order[first - 1];
            if view.row(slot).rank <= candidate.key {
                break;
            }
            first -= 1;
            if self.evictable(view, first) {
                freed += view.pool.returns(slot).0;
            }
        }
        let suffices = freed >= blocks && (freed > 0 || !lacks_slot);
        if suffices {
            for at in (first..self.tail).rev() {
                if self.evictable(view, at) {
                    self.evict(view, view.order[at], Reason::Memory);
                }
            }
            self.tail = first;
        }
        suffices
    }

    fn evictable(&self, view: &View<'_>, at: usize) -> bool {
        !self.skips(view, at) && !self.policy.protects(view.row(view.order[at]))
    }

    /// Gives what the decodes left to the chosen prefills, in order.
    fn prefills(&mut self, view: &View<'_>) {
        for i in 0..self.chosen.len() {
            let slot = self.chosen[i];
            let row = view.row(slot);
            let chunk = row.missing().min(self.draft.tokens);
            let held = (row.blocks * view.config.block_size.0).saturating_sub(row.computed);
            let fits = self.draft.free.saturating_mul(view.config.block_size.0).saturating_add(held);
            let runs = chunk > 0 && fits > 0 && self.draft.seqs > 0 && self.budget.mode != Mode::DecodeOnly;
            let ran = runs && self.draft.run(slot, row, chunk.min(fits), Reason::Prefill);
            if !ran {
                self.marks[slot.index()] = 0;
            }
        }
    }

    /// Names the residents that could run and do not.
    fn park(&mut self, view: &View<'_>) {
        for slot in view.order {
            if self.marks[slot.index()] == 0 && view.row(*slot).ready() {
                let reason = match self.budget.mode {
                    Mode::PrefillOnly => Reason::PrefillOnly,
                    Mode::DecodeOnly if !view.row(*slot).decodes() => Reason::DecodeOnly,
                    _ if self.draft.seqs == 0 => Reason::Slots,
                    _ => Reason::TokenBudget,
                };
                self.draft.park(*slot, reason);
            }
        }
    }
}
