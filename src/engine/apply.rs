//! Apply and plan: a checked decision changes the state, and becomes flat arrays.

use super::waiting::{job, prompt_hashes};
use super::{Engine, Hot, NO_ROW};
use crate::batch::{BatchPlan, Input, Opened, Row};
use crate::config::SwapMode;
use crate::ids::Slot;
use crate::kv::HostSpan;
use crate::request::{Prompt, RequestId};
use crate::sched::{Admit, Event, Evict, Phase, Rank, Reason, Resident, Restore};
use crate::sequence::Sequence;
use crate::units::{Blocks, Nanos, Tokens};

impl Engine {
    /// Carries out a decision: evictions first, then prefixes are pinned, then tables grow, so that no
    /// act takes what another one counts on.
    pub(super) fn apply(&mut self) {
        let now = self.clock.now();
        self.plans[(self.step & 1) as usize].reset(self.step, now);
        let mut decision = std::mem::take(&mut self.decision);
        decision.evict.iter().for_each(|evict| self.evict(evict));
        decision.admit.iter().for_each(|admit| self.open(admit));
        while let Some((slot, span)) = self.returning.pop() {
            self.bring_back(slot, span);
        }
        for grow in &decision.grow {
            self.grow(grow.slot, grow.blocks);
        }
        decision.admit.iter().for_each(|admit| self.fill(admit));
        for park in &decision.park {
            self.rows[park.slot.index()].parked = true;
        }
        std::mem::swap(&mut self.decision, &mut decision);
    }

    fn grow(&mut self, slot: Slot, blocks: Blocks) {
        self.kv.grow(slot, blocks).expect("the decision was checked against the pool");
        self.rows[slot.index()].blocks += blocks.0;
    }

    /// Takes a row's blocks away. Plans run in their order, so this very plan may use them again.
    fn evict(&mut self, evict: &Evict) {
        let slot = evict.slot;
        let row = self.rows[slot.index()];
        let copies = &mut self.plans[(self.step & 1) as usize].before.swap_out;
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
        self.vacate(slot, None);
        let index = row.id.index();
        let mut sequence = self.live[index].take().expect("a resident is alive");
        let hot = self.hot[slot.index()];
        sequence.generated = row.generated;
        sequence.delivered = hot.delivered;
        sequence.last_token = hot.last_token;
        sequence.evict(span, row.computed);
        self.policy.on(&Event::Evicted(&job(&sequence), evict.restore));
        self.enqueue(&mut sequence);
        self.live[index] = Some(sequence);
    }

    /// Gives a waiting job a slot and pins its cached prefix.
    fn open(&mut self, admit: &Admit) {
        self.dequeue(admit.id);
        let slot = self.free_slots.pop().expect("the decision was checked against the slots");
        let rank = self.rank(admit.id);
        let sequence = self.live[admit.id.index()].as_mut().expect("whoever waits is alive");
        let returned = sequence.computed;
        let span = sequence.admit(slot);
        let mut cached = 0;
        if span.is_none() && sequence.cached > Tokens::ZERO {
            let wanted = self.config.blocks(sequence.cached).0 as usize;
            let hashes = prompt_hashes(&sequence.request.prompt, self.config.block_size).take(wanted);
            cached = self.kv.attach(slot, hashes).0;
            assert_eq!(cached as usize, wanted, "a looked-up prefix stays until it is pinned");
        }
        if let Some(span) = span {
            self.returning.push((slot, span));
        }
        let computed = returned.max(cached * self.config.block_size.0);
        self.seat(admit, slot, rank, computed, cached);
    }

    /// Fills the row of a new resident.
    fn seat(&mut self, admit: &Admit, slot: Slot, rank: Rank, computed: u32, cached: u32) {
        let sequence = self.live[admit.id.index()].as_mut().expect("it was there");
        let request = &sequence.request;
        let prompt = request.prompt.len().0;
        if sequence.evictions == 0 {
            self.counters.prompt_tokens += u64::from(prompt);
            self.counters.cached_tokens += u64::from(computed);
        } else if sequence.computed == 0 {
            self.counters.recomputed_tokens += u64::from(prompt + sequence.generated - computed);
        }
        sequence.computed = 0;
        let phase = if admit.tokens == 0 { Phase::SwappingIn } else { Phase::Ready };
        self.rows[slot.index()] = Resident {
            id: admit.id,
            arrival: request.arrival,
            rank: rank.value,
            prompt,
            generated: sequence.generated,
            max_tokens: request.max_tokens.0,
            computed,
            blocks: self.kv.blocks(slot).0,
            rerank_at: rank.until,
            client: request.client,
            phase,
            priority: request.priority,
            parked: false,
            mark: rank.mark,
        };
        self.hot[slot.index()] = Hot {
            stop: request.stop,
            user_data: request.user_data,
            last_token: sequence.last_token,
            delivered: sequence.delivered,
            from_step: self.step,
            sealed: cached,
            stores: matches!(request.prompt, Prompt::Tokens(_)),
            ..Hot::default()
        };
        let opened = Opened { slot, id: admit.id, sampling: request.sampling };
        self.plans[(self.step & 1) as usize].opened.push(opened);
        self.resume_chain(slot);
        self.reorder(slot);
        let sequence = self.live[admit.id.index()].as_ref().expect("it was there");
        self.policy.on(&Event::Admitted(&job(sequence)));
    }

    /// Lists the copies that bring a sequence back from the host.
    fn bring_back(&mut self, slot: Slot, span: HostSpan) {
        let plan = &mut self.plans[(self.step & 1) as usize];
        let part = match self.config.swap {
            SwapMode::Serial => &mut plan.before,
            SwapMode::Overlap => &mut plan.beside,
        };
        self.kv.swap_in(slot, &span, &mut part.swap_in).expect("the decision was checked against the pool");
        self.kv.free_host(span, Some(self.step));
        self.rows[slot.index()].blocks = self.kv.blocks(slot).0;
    }

    /// Gives a new resident the rest of its blocks.
    fn fill(&mut self, admit: &Admit) {
        let slot = self.sequence(admit.id).and_then(Sequence::slot).expect("it was admitted just now");
        let more = admit.blocks.saturating_sub(self.kv.blocks(slot));
        if more > Blocks::ZERO {
            self.grow(slot, more);
        }
    }

    fn rank(&mut self, id: RequestId) -> Rank {
        let sequence = self.live[id.index()].as_ref().expect("whoever is ranked is alive");
        self.policy.rank(&job(sequence))
    }

    /// Writes the plan, and moves every row on as if the step had been done.
    pub(super) fn plan(&mut self, now: Nanos) {
        let Self { plans, decision, rows, hot, live, rerank, kv, .. } = self;
        let plan = &mut plans[(self.step & 1) as usize];
        plan.decided = now;
        plan.pause = decision.pause.map_or(Nanos::ZERO, |p| p.span);
        let mut writer = Writer { plan, live, rerank, decodes: 0, context: 0 };
        for run in &decision.run {
            let (row, hot) = (&mut rows[run.slot.index()], &mut hot[run.slot.index()]);
            if row.decodes() {
                writer.decode(run.slot, row, hot)
            } else {
                writer.chunk(run.slot, row, hot, run.tokens)
            }
        }
        for admit in decision.admit.iter().filter(|a| a.tokens > 0) {
            let sequence = writer.live[admit.id.index()].as_ref();
            let slot = sequence.and_then(Sequence::slot).expect("it was admitted just now");
            writer.chunk(slot, &mut rows[slot.index()], &mut hot[slot.index()], admit.tokens);
        }
        writer.finish();
        kv.take_deltas(&mut plan.tables);
        while let Some(slot) = self.rerank.pop() {
            self.rerank_resident(slot);
        }
    }

    /// Asks the policy for a resident's rank again.
    pub(super) fn rerank_resident(&mut self, slot: Slot) {
        let (id, generated) = (self.rows[slot.index()].id, self.rows[slot.index()].generated);
        self.sequence_mut(id).generated = generated;
        let rank = self.rank(id);
        if rank.value != self.rows[slot.index()].rank {
            self.unorder(slot);
            self.rows[slot.index()].rank = rank.value;
            self.reorder(slot);
        }
        self.rows[slot.index()].rerank_at = rank.until;
        self.rows[slot.index()].mark = rank.mark;
    }
}

/// Writes rows into a plan.
struct Writer<'e> {
    plan: &'e mut BatchPlan,
    live: &'e [Option<Sequence>],
    rerank: &'e mut Vec<Slot>,
    decodes: u32,
    context: u64,
}

impl Writer<'_> {
    /// Nearly every row of a step is a decode: it touches its two lines and the plan, nothing else.
    #[inline(always)]
    fn decode(&mut self, slot: Slot, r: &mut Resident, hot: &mut Hot) {
        self.decodes += 1;
        self.context += u64::from(r.computed + 1);
        let input = if hot.from_row == NO_ROW {
            self.plan.token_ids.push(hot.last_token);
            Input::Ids(self.plan.token_ids.len() as u32 - 1)
        } else {
            Input::FromStep(hot.from_row)
        };
        self.push(slot, r, hot, 1, true, input);
    }

    /// A prefill chunk, or what is computed again after an eviction.
    fn chunk(&mut self, slot: Slot, r: &mut Resident, hot: &mut Hot, tokens: u32) {
        if r.decodes() {
            return self.decode(slot, r, hot);
        }
        self.plan.shape.add_chunk(tokens, r.computed);
        let input = if hot.stores {
            let start = self.plan.token_ids.len() as u32;
            let sequence = self.live[r.id.index()].as_ref().expect("a resident is alive");
            let span = r.computed..r.computed + tokens;
            let known = span.map(|at| sequence.token(at).expect("known tokens are stored"));
            self.plan.token_ids.extend(known);
            Input::Ids(start)
        } else {
            Input::Unknown
        };
        self.push(slot, r, hot, tokens, tokens == r.missing(), input);
    }

    #[inline(always)]
    fn push(
        &mut self,
        slot: Slot,
        r: &mut Resident,
        hot: &mut Hot,
        tokens: u32,
        samples: bool,
        input: Input,
    ) {
        let at = self.plan.rows.len() as u32;
        self.plan.rows.push(Row {
            id: r.id,
            user_data: hot.user_data,
            slot,
            position: r.computed,
            tokens,
            generated: r.generated,
            samples,
            input,
        });
        r.computed += tokens;
        r.parked = false;
        if !samples {
            return;
        }
        hot.from_row = at;
        hot.from_step = self.plan.step;
        r.generated += 1;
        if r.generated >= r.max_tokens {
            r.phase = Phase::Ending;
        }
        if r.generated >= r.rerank_at {
            self.rerank.push(slot);
        }
    }

    fn finish(self) {
        let shape = &mut self.plan.shape;
        shape.rows += self.decodes;
        shape.tokens += self.decodes;
        shape.decodes += self.decodes;
        shape.decode_context += self.context;
    }
}
