//! The default decision: one walk down the merged order of residents and waiting jobs.
//!
//! 1. Protected residents, then all others and the waiting jobs merged by rank, are chosen until the
//!    batch is full. A chosen resident whose next block is not there evicts the last unprotected
//!    resident behind it, or else itself. A waiting job evicts residents behind it only if together
//!    they suffice; otherwise its group is closed for this step.
//! 2. A chosen decode gets one token, and one is held back for each decode that the walk has yet to
//!    come to; the others are for prefills, in the order of the walk.
//! 3. Residents that were not chosen stay in memory, parked.
//!
//! The order of acts follows Lane's scheduling pass, of which UniBoost's and SRPT's are special cases.

use super::decision::{Decision, Reason};
use super::draft::{Admission, Draft};
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
    let mut marks = std::mem::take(&mut view.scratch.marks);
    let tail = view.order.len();
    let mut walk = Walk { policy, budget, draft, marks: &mut marks, tail, decodes: 0, held_up: false };
    walk.count_decodes(view);
    walk.protected(view);
    walk.merged(view);
    walk.park(view);
    marks.fill(0);
    view.scratch.marks = marks;
}

struct Walk<'w, 'd, P: Policy + ?Sized> {
    policy: &'w mut P,
    budget: Budget,
    draft: Draft<'d>,
    marks: &'w mut Vec<u8>,
    /// Everything in the order from here on is chosen, evicted, protected or not evictable.
    tail: usize,
    /// Decodes that the walk has not come to.
    decodes: u32,
    /// Whether somebody holds up all who wait.
    held_up: bool,
}

impl<P: Policy + ?Sized> Walk<'_, '_, P> {
    fn count_decodes(&mut self, view: &View<'_>) {
        if self.budget.mode != Mode::PrefillOnly {
            let others = view.order.iter().filter(|slot| !view.steady(**slot)).map(|slot| view.row(*slot));
            let lacking = others.filter(|row| row.ready() && row.decodes()).count();
            self.decodes = (view.steady.len() + lacking) as u32;
        }
        self.hold_back();
    }

    /// Holds a token back for each decode that may still be chosen beside one more prefill.
    fn hold_back(&mut self) {
        self.draft.held = self.decodes.min(self.draft.seqs.saturating_sub(1));
    }

    fn protected(&mut self, view: &View<'_>) {
        for at in 0..view.order.len() {
            let ours = self.policy.protects(view.row(view.order[at])) && !self.skips(view, at);
            if ours && self.draft.seqs > 0 {
                self.choose(view, at, 0, Reason::Protected);
            }
        }
    }

    /// Merges residents and waiting jobs by rank; at equal ranks the resident comes first.
    fn merged(&mut self, view: &mut View<'_>) {
        let mut at = 0;
        // Only an admission moves the cursor of the queue, and looking there is not free.
        let mut head = view.waiting.peek();
        while self.draft.seqs > 0 {
            while at < view.order.len() && self.skips(view, at) {
                at += 1;
            }
            let rank = view.order.get(at).map(|slot| view.row(*slot).rank);
            let tokens = self.budget.mode != Mode::DecodeOnly && self.draft.tokens > self.draft.held;
            let admits = tokens && !self.held_up;
            let comes_first = |c: &&Candidate| admits && rank.is_none_or(|rank| c.key < rank);
            if let Some(candidate) = head.as_ref().filter(comes_first) {
                self.admit(view, candidate);
                head = view.waiting.peek();
            } else if rank.is_some() {
                self.choose(view, at, at + 1, Reason::Decode);
                at += 1;
            } else {
                break;
            }
        }
    }

    fn skips(&self, view: &View<'_>, at: usize) -> bool {
        let slot = view.order[at];
        self.marks[slot.index()] != 0 || !view.row(slot).ready()
    }

    /// Chooses the resident at a place of the order. Nearly every one is steady: it needs no more than its
    /// token.
    #[inline(always)]
    fn choose(&mut self, view: &View<'_>, at: usize, floor: usize, reason: Reason) {
        let slot = view.order[at];
        if view.steady(slot) && self.budget.mode != Mode::PrefillOnly && self.draft.tokens > 0 {
            self.marks[slot.index()] = CHOSEN;
            self.decodes -= 1;
            self.draft.decode(slot, reason);
            self.hold_back();
        } else {
            self.choose_any(view, at, floor, reason);
        }
    }

    /// The same for any resident, making room for its next tokens; whoever stands before `floor` is no victim.
    #[inline(never)]
    fn choose_any(&mut self, view: &View<'_>, at: usize, floor: usize, reason: Reason) {
        let slot = view.order[at];
        let row = view.row(slot);
        if row.decodes() {
            self.decode(view, at, floor, reason);
        } else if self.budget.mode != Mode::DecodeOnly {
            self.prefill(view, at, floor, reason);
        }
    }

    fn decode(&mut self, view: &View<'_>, at: usize, floor: usize, reason: Reason) {
        let slot = view.order[at];
        let row = view.row(slot);
        if self.budget.mode == Mode::PrefillOnly || self.draft.tokens == 0 {
            return;
        }
        while row.growth(1, view.config.block_shift()) > self.draft.free {
            let (victim, why) = match self.victim(view, at, floor) {
                Some(victim) => (victim, Reason::Memory),
                None if reason == Reason::Protected => (self.overridden(view, at), Reason::Override),
                None => (slot, Reason::Memory),
            };
            self.evict(view, victim, why);
            if victim == slot {
                return;
            }
        }
        self.marks[slot.index()] = CHOSEN;
        self.decodes -= 1;
        self.draft.run(slot, row, 1, reason);
        self.hold_back();
    }

    /// Gives a prefill its chunk of what the decodes leave, as far as blocks are there. A protected one that
    /// cannot have a single token overrides the last protected resident behind it.
    fn prefill(&mut self, view: &View<'_>, at: usize, floor: usize, reason: Reason) {
        let slot = view.order[at];
        let row = view.row(slot);
        let size = view.config.block_size.0;
        let chunk = row.missing().min(self.draft.tokens.saturating_sub(self.draft.held));
        while row.growth(chunk, view.config.block_shift()) > self.draft.free {
            let stuck =
                reason == Reason::Protected && row.growth(1, view.config.block_shift()) > self.draft.free;
            match self.victim(view, at, floor) {
                Some(victim) => self.evict(view, victim, Reason::Memory),
                None if stuck && self.overridden(view, at) != slot => {
                    self.evict(view, self.overridden(view, at), Reason::Override);
                }
                None => break,
            }
        }
        let held = (row.blocks * size).saturating_sub(row.computed);
        let chunk = chunk.min(self.draft.free.saturating_mul(size).saturating_add(held));
        if chunk > 0 && self.draft.run(slot, row, chunk, Reason::Prefill) {
            self.marks[slot.index()] = CHOSEN;
            self.hold_back();
        }
    }

    /// The last unprotected resident from `floor` on that may go for the one at `at`.
    fn victim(&mut self, view: &View<'_>, at: usize, floor: usize) -> Option<Slot> {
        while self.tail > floor {
            let last = self.tail - 1;
            if last != at && self.evictable(view, last) {
                return Some(self.cheapest(view, last, at, floor));
            }
            self.tail = last;
        }
        None
    }

    /// Of the victims that are equal to the `last` one, the one that is cheapest to restore per block freed.
    fn cheapest(&self, view: &View<'_>, last: usize, at: usize, floor: usize) -> Slot {
        let slack = self.policy.victim_slack();
        let rank = |place: usize| view.row(view.order[place]).rank;
        let low = rank(last).saturating_sub(slack);
        let equals = (floor..last).rev().take_while(|place| rank(*place) > low);
        let others = equals.filter(|place| *place != at && self.evictable(view, *place));
        let price = |slot: Slot| {
            let time = self.draft.restore_time(view, view.row(slot));
            (u128::from(time.0), u128::from(view.pool.returns(slot).0))
        };
        let cheaper = |a: &Slot, b: &Slot| {
            let ((a_time, a_freed), (b_time, b_freed)) = (price(*a), price(*b));
            (a_time * b_freed).cmp(&(b_time * a_freed))
        };
        let slots = std::iter::once(last).chain(others).map(|place| view.order[place]);
        slots.min_by(cheaper).expect("the last one is there")
    }

    /// The last protected resident behind the one at `at`, itself at the least.
    fn overridden(&self, view: &View<'_>, at: usize) -> Slot {
        let last = (at + 1..view.order.len()).rev().find(|last| !self.skips(view, *last));
        view.order[last.unwrap_or(at)]
    }

    /// Evicts a resident that was not chosen.
    fn evict(&mut self, view: &View<'_>, slot: Slot, reason: Reason) {
        self.marks[slot.index()] = EVICTED;
        self.decodes -= u32::from(self.decodes > 0 && view.row(slot).decodes());
        let reserve = view.share_of_host(self.policy.host_reserve(view.row(slot)));
        self.draft.evict_leaving(view, slot, reason, reserve);
        self.hold_back();
    }

    /// Admits a job if it fits, after evictions that together suffice, and its policy takes it; else
    /// closes its group, or all.
    fn admit(&mut self, view: &mut View<'_>, candidate: &Candidate) {
        let admission = self.policy.admission();
        let room = self.room(view, candidate, admission);
        self.held_up = room.is_none() && self.policy.holds_up(candidate);
        let accepted = room.and_then(|first| {
            let reason = self.policy.accepts(candidate)?;
            self.clear(view, first);
            self.draft.fits(view, candidate, admission).then_some(reason)
        });
        match accepted {
            Some(reason) => self.draft.admit(view, candidate, admission, reason),
            None => view.waiting.close(candidate.group),
        }
        self.hold_back();
    }

    /// From where on the residents that come after a candidate must go so that it fits: the end, if
    /// it fits as it is; nothing, if even all of them do not suffice.
    fn room(&self, view: &View<'_>, candidate: &Candidate, admission: Admission) -> Option<usize> {
        if self.draft.fits(view, candidate, admission) {
            return Some(self.tail);
        }
        if !self.policy.preempts() {
            return None;
        }
        let lacks_slot = self.draft.slots == 0;
        let blocks = self.draft.shortage(view, candidate, admission, true)?;
        let (mut freed, mut victims) = (0, 0);
        let mut first = self.tail;
        while freed < blocks || (lacks_slot && victims == 0) {
            first = first.checked_sub(1)?;
            if view.row(view.order[first]).rank <= candidate.key {
                return None;
            }
            if self.evictable(view, first) {
                freed += self.draft.freed(view, view.order[first]).0;
                victims += 1;
            }
        }
        Some(first)
    }

    /// Evicts what is evictable from `first` on.
    fn clear(&mut self, view: &View<'_>, first: usize) {
        for at in (first..self.tail).rev() {
            if self.evictable(view, at) {
                self.evict(view, view.order[at], Reason::Memory);
            }
        }
        self.tail = first;
    }

    fn evictable(&self, view: &View<'_>, at: usize) -> bool {
        !self.skips(view, at) && !self.policy.protects(view.row(view.order[at]))
    }

    /// Names the residents that could run and do not.
    fn park(&mut self, view: &View<'_>) {
        let acted = self.draft.chosen() + self.draft.evicted();
        if acted == view.order.len() {
            return;
        }
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
