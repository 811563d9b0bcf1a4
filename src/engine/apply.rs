//! Apply: a checked decision changes the state.

use super::waiting::job;
use super::{Engine, Published};
use crate::batch::{History, Opened};
use crate::config::SwapMode;
use crate::ids::{Feed, Slot};
use crate::kv::HostSpan;
use crate::request::{Prompt, RequestId};
use crate::sched::{Admit, Event, Evict, Job, Phase, Rank, Reason, Resident, Restore};
use crate::sequence::Sequence;
use crate::units::{Blocks, Tokens};

impl Engine {
    /// Carries out a decision: evictions first, then prefixes are pinned, then tables grow, so that no
    /// act takes what another one counts on.
    pub(super) fn apply(&mut self) {
        let now = self.clock.now();
        let plan = self.plan_of(self.step);
        self.plans[plan].reset(self.step, now);
        (0..self.decision.evict.len()).for_each(|at| self.evict(self.decision.evict[at]));
        (0..self.decision.admit.len()).for_each(|at| self.open(self.decision.admit[at]));
        while let Some((slot, span)) = self.returning.pop() {
            self.bring_back(slot, span);
        }
        for at in 0..self.decision.grow.len() {
            let grow = self.decision.grow[at];
            self.grow(grow.slot, grow.blocks);
        }
        (0..self.decision.admit.len()).for_each(|at| self.fill(self.decision.admit[at]));
        self.park();
    }

    /// Notes who is parked in this step, and nobody else.
    fn park(&mut self) {
        self.parked.clear();
        self.decision.park.iter().for_each(|park| self.parked.set(park.slot, true));
    }

    fn grow(&mut self, slot: Slot, blocks: Blocks) {
        self.kv.grow(slot, blocks).expect("the decision was checked against the pool");
        self.rows[slot.index()].blocks += blocks.0;
        self.turn_again(slot);
    }

    /// Takes a row's blocks away. Plans run in their order, so this very plan may use them again.
    fn evict(&mut self, evict: Evict) {
        let slot = evict.slot;
        let row = self.rows[slot.index()];
        let plan = self.plan_of(self.step);
        let copies = &mut self.plans[plan].before.swap_out;
        let span = match evict.restore {
            Restore::Recompute => None,
            Restore::Swap => Some(self.kv.swap_out(slot, None, copies).expect("the host tier was checked")),
        };
        match span {
            Some(_) => {
                self.counters.swaps += 1;
                self.counters.swapped_tokens += u64::from(row.computed);
            }
            None => self.counters.recomputes += 1,
        }
        self.counters.overrides += u64::from(evict.reason == Reason::Override);
        let index = row.id.index();
        self.vacate(slot, None);
        let mut sequence = self.live[index].take().expect("a resident is alive");
        if row.stores {
            sequence.output.clear();
            sequence.output.extend_from_slice(self.outputs.of(slot, row.delivered()));
        }
        sequence.evict(span, row.computed);
        self.policy.on(&Event::Evicted(&job(&sequence), evict.restore));
        self.enqueue(&mut sequence);
        self.live[index] = Some(sequence);
    }

    /// Gives a waiting job a slot and pins its cached prefix.
    fn open(&mut self, admit: Admit) {
        self.dequeue(admit.id);
        let slot = self.free_slots.pop().expect("the decision was checked against the slots");
        let rank = self.rank(admit.id, 0);
        let sequence = self.live[admit.id.index()].as_mut().expect("whoever waits is alive");
        let returned = sequence.computed;
        let span = sequence.admit(slot);
        let mut published = Published::NOTHING;
        if span.is_none() && sequence.cached > Tokens::ZERO {
            let wanted = self.config.blocks(sequence.cached).0 as usize;
            let hashes = self.heads.of(sequence, self.config.block_size).take(wanted);
            published.blocks = self.kv.attach(slot, hashes.inspect(|hash| published.chain = *hash)).0;
            assert_eq!(published.blocks as usize, wanted, "a looked-up prefix stays until it is pinned");
        }
        if let Some(span) = span {
            self.returning.push((slot, span));
        }
        // What came back from the host is published again as if it had been computed.
        let computed = returned.max(published.blocks * self.config.block_size.0);
        self.published[slot.index()] = published;
        self.seat(admit, slot, rank, computed);
    }

    /// Fills the row of a new resident.
    fn seat(&mut self, admit: Admit, slot: Slot, rank: Rank, computed: u32) {
        let place = self.plan_of(self.step);
        let sequence = self.live[admit.id.index()].as_mut().expect("it was there");
        let request = &sequence.request;
        let prompt = request.prompt.len().0;
        if sequence.evictions == 0 {
            self.counters.prompt_tokens += u64::from(prompt);
            self.counters.cached_tokens += u64::from(computed);
        } else {
            self.counters.recomputed_tokens += u64::from(sequence.dropped.saturating_sub(computed));
        }
        sequence.computed = 0;
        let phase = if admit.tokens == 0 { Phase::SwappingIn } else { Phase::Ready };
        self.rows[slot.index()] = Resident {
            id: admit.id,
            user_data: request.user_data,
            rank: rank.value,
            prompt,
            missing: prompt + sequence.generated - computed,
            max_tokens: request.max_tokens.0,
            computed,
            blocks: self.kv.blocks(slot).0,
            rerank_at: rank.until,
            turn_at: 0,
            feed: Feed::token(sequence.last_token),
            phase,
            priority: request.priority,
            mark: rank.mark,
            stores: matches!(request.prompt, Prompt::Tokens(_)),
        };
        debug_assert_eq!(sequence.delivered, sequence.generated, "whoever is admitted awaits no token");
        self.stops[slot.index()] = request.stop;
        self.sieves[slot.index()] = request.stop.sieve();
        self.outputs.fill(slot, &sequence.output);
        let plan = &mut self.plans[place];
        let history = history(sequence, &mut plan.history);
        plan.opened.push(Opened { slot, id: admit.id, sampling: request.sampling, history });
        self.turn_again(slot);
        self.reorder(slot);
        let sequence = self.live[admit.id.index()].as_ref().expect("it was there");
        self.policy.on(&Event::Admitted(&job(sequence)));
    }

    /// Lists the copies that bring a sequence back from the host.
    fn bring_back(&mut self, slot: Slot, span: HostSpan) {
        let place = self.plan_of(self.step);
        let plan = &mut self.plans[place];
        let part = match self.config.swap {
            SwapMode::Serial => &mut plan.before,
            SwapMode::Overlap => &mut plan.beside,
        };
        self.kv.swap_in(slot, &span, &mut part.swap_in).expect("the decision was checked against the pool");
        self.kv.free_host(span, Some(self.step));
        self.rows[slot.index()].blocks = self.kv.blocks(slot).0;
        self.turn_again(slot);
    }

    /// Gives a new resident the rest of its blocks.
    fn fill(&mut self, admit: Admit) {
        let slot = self.sequence(admit.id).and_then(Sequence::slot).expect("it was admitted just now");
        let more = admit.blocks.saturating_sub(self.kv.blocks(slot));
        if more > Blocks::ZERO {
            self.grow(slot, more);
        }
    }

    fn rank(&mut self, id: RequestId, mark: u8) -> Rank {
        let sequence = self.live[id.index()].as_ref().expect("whoever is ranked is alive");
        self.policy.rank(&Job { mark, ..job(sequence) })
    }

    /// Asks the policy for a resident's rank again.
    pub(super) fn rerank_resident(&mut self, slot: Slot) {
        let row = self.rows[slot.index()];
        self.sequence_mut(row.id).generated = row.generated();
        let rank = self.rank(row.id, row.mark);
        if rank.value != self.rows[slot.index()].rank {
            self.unorder(slot);
            self.rows[slot.index()].rank = rank.value;
            self.reorder(slot);
        }
        self.rows[slot.index()].rerank_at = rank.until;
        self.rows[slot.index()].mark = rank.mark;
        self.turn_again(slot);
    }
}

/// Lists the tokens of a sequence, if its sampling depends on them and they are known. None is in flight, since a
/// sequence is not admitted in the step that evicts it.
fn history(sequence: &Sequence, into: &mut Vec<u32>) -> History {
    let Prompt::Tokens(prompt) = &sequence.request.prompt else { return History::default() };
    if !sequence.request.sampling.penalizes() {
        return History::default();
    }
    debug_assert_eq!(sequence.output.len(), sequence.generated as usize, "no token is in flight");
    let start = into.len() as u32;
    into.extend_from_slice(prompt);
    into.extend_from_slice(&sequence.output);
    History { start, prompt: prompt.len() as u32, output: sequence.output.len() as u32 }
}
