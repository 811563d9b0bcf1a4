//! Apply and plan: a checked decision changes the state, and becomes flat arrays.

use super::outputs::Outputs;
use super::rowset::{RowSet, WORD};
use super::waiting::job;
use super::{Engine, Published};
use crate::batch::{BatchPlan, History, Input, Opened, Row, Source};
use crate::config::SwapMode;
use crate::cost::BatchShape;
use crate::ids::Slot;
use crate::kv::HostSpan;
use crate::request::{Prompt, RequestId};
use crate::sched::{Admit, Event, Evict, Job, Phase, Rank, Reason, Resident, Restore, Run};
use crate::sequence::Sequence;
use crate::units::{Blocks, Nanos, Tokens};

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
        for park in &self.decision.park {
            self.rows[park.slot.index()].parked = true;
        }
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
            let hashes = self.head.of(sequence, self.config.block_size).take(wanted);
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
            turn_at: 0,
            input: sequence.last_token,
            phase,
            priority: request.priority,
            parked: false,
            mark: rank.mark,
            awaits: 0,
            stores: matches!(request.prompt, Prompt::Tokens(_)),
        };
        debug_assert_eq!(sequence.delivered, sequence.generated, "whoever is admitted awaits no token");
        self.stops[slot.index()] = request.stop;
        self.sieves[slot.index()] = request.stop.sieve();
        self.user_data[slot.index()] = request.user_data;
        self.outputs.fill(slot, &sequence.output);
        let plan = &mut self.plans[self.step as usize % usize::from(self.config.pipeline_depth)];
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

    /// Writes the plan, and moves every row on as if the step had been done.
    pub(super) fn plan(&mut self, now: Nanos) {
        let place = self.plan_of(self.step);
        let Self { plans, decision, rows, user_data, live, outputs, turns, kv, .. } = self;
        let plan = &mut plans[place];
        plan.decided = now;
        plan.pause = decision.pause.map_or(Nanos::ZERO, |p| p.span);
        kv.take_deltas(&mut plan.tables);
        // Every row is written whole, so that old ones need not be cleared first.
        plan.rows.resize(decision.rows(), Row::default());
        let BatchPlan { rows: planned, token_ids, shape, .. } = plan;
        let turns = &mut turns[place];
        turns.clear();
        let mut writer = Writer { live, outputs, token_ids, shape, stamp: Resident::stamp(self.step) };
        let admitted = decision.admit.iter().filter(|a| a.tokens > 0).map(|admit| {
            let sequence = live[admit.id.index()].as_ref();
            let slot = sequence.and_then(Sequence::slot).expect("it was admitted just now");
            (slot, admit.tokens)
        });
        let (running, joining) = planned.split_at_mut(decision.run.len());
        let mut context = writer.run(&decision.run, rows, user_data, running, turns);
        for (at, ((slot, tokens), row)) in (decision.run.len()..).zip(admitted.zip(joining)) {
            let (r, user_data) = (&mut rows[slot.index()], user_data[slot.index()]);
            context += writer.write(at as u32, slot, tokens, r, user_data, row);
            turns.insert(at);
        }
        writer.finish(planned.len() as u32, context);
        self.take_turns(place);
    }

    /// The rows that come to their turn with a plan, from the last on.
    fn take_turns(&mut self, plan: usize) {
        let mut end = self.plans[plan].rows.len();
        while let Some(at) = self.turns[plan].last(end) {
            self.take_turn(self.plans[plan].rows[at].slot);
            end = at;
        }
    }

    /// A row has come to its turn: it may have its last token in flight, ask for a new rank, lack a block from
    /// now on, or have prefilled.
    fn take_turn(&mut self, slot: Slot) {
        let row = &mut self.rows[slot.index()];
        if row.generated >= row.max_tokens {
            row.phase = Phase::Ending;
        }
        if row.generated >= row.rerank_at && row.awaits == Resident::stamp(self.step) {
            self.rerank_resident(slot);
        }
        self.turn_again(slot);
    }

    /// Asks the policy for a resident's rank again.
    pub(super) fn rerank_resident(&mut self, slot: Slot) {
        let Resident { id, generated, mark, .. } = self.rows[slot.index()];
        self.sequence_mut(id).generated = generated;
        let rank = self.rank(id, mark);
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

/// What [`decode`] has done.
struct Decoded {
    /// Rows that it wrote.
    rows: usize,
    /// Tokens in their caches.
    context: u64,
    /// One bit for each that comes to its turn.
    turns: u64,
}

/// Writes steady rows up to the first that is not, at most as many as a word has bits; they are the plan's from
/// `first` on. Nearly every row is steady: it touches its own line and the plan, nothing else. A loop of its own,
/// out of line and without calls, whose few words stay in registers.
#[inline(never)]
fn decode(
    first: u32,
    stamp: u8,
    runs: &[Run],
    rows: &mut [Resident],
    user_data: &[u64],
    planned: &mut [Row],
) -> Decoded {
    // As many as residents: one check of the bounds does for both.
    let user_data = &user_data[..rows.len()];
    let mut done = Decoded { rows: 0, context: 0, turns: 0 };
    for (run, row) in runs.iter().zip(planned) {
        let slot = run.slot;
        let r = &mut rows[slot.index()];
        if r.computed >= r.turn_at {
            break;
        }
        *row = Row {
            id: r.id,
            user_data: user_data[slot.index()],
            slot,
            position: r.computed,
            tokens: 1,
            generated: r.generated,
            word: r.input,
            source: if r.awaits == 0 { Source::Id } else { Source::FromStep },
            samples: true,
            barren: false,
        };
        r.computed += 1;
        r.generated += 1;
        r.parked = false;
        (r.input, r.awaits) = (first + done.rows as u32, stamp);
        done.context += u64::from(r.computed);
        // No branch: which rows these are, nothing foretells.
        done.turns |= u64::from(r.computed == r.turn_at) << done.rows;
        done.rows += 1;
    }
    done
}

/// Writes the rows of a plan.
struct Writer<'e> {
    live: &'e [Option<Sequence>],
    outputs: &'e Outputs,
    token_ids: &'e mut Vec<u32>,
    shape: &'e mut BatchShape,
    /// The step's.
    stamp: u8,
}

impl Writer<'_> {
    /// Writes the rows of the residents that run, and returns how many tokens are in the caches of those that
    /// decode; `turns` gets those that come to their turn.
    fn run(
        &mut self,
        runs: &[Run],
        rows: &mut [Resident],
        user_data: &[u64],
        planned: &mut [Row],
        turns: &mut RowSet,
    ) -> u64 {
        let (mut context, mut at) = (0, 0);
        while at < runs.len() {
            // To the end of a word of the set.
            let end = runs.len().min((at / WORD + 1) * WORD);
            let (runs, planned) = (&runs[at..end], &mut planned[at..end]);
            let done = decode(at as u32, self.stamp, runs, rows, user_data, planned);
            context += done.context;
            turns.words()[at / WORD] |= done.turns << (at % WORD);
            if let Some(run) = runs.get(done.rows) {
                let (slot, place) = (run.slot.index(), at + done.rows);
                let (r, row) = (&mut rows[slot], &mut planned[done.rows]);
                context += self.write(place as u32, run.slot, run.tokens, r, user_data[slot], row);
                turns.insert(place);
                at += 1;
            }
            at += done.rows;
        }
        context
    }

    /// Writes any row, whose turn it is: a prefill chunk, what is computed again after an eviction, or a decode
    /// whose rank never holds. Returns how many tokens are in its cache if it decodes.
    fn write(
        &mut self,
        at: u32,
        slot: Slot,
        tokens: u32,
        r: &mut Resident,
        user_data: u64,
        row: &mut Row,
    ) -> u64 {
        let (decodes, samples) = (r.decodes(), tokens == r.missing());
        let input = match r.awaits {
            0 if decodes => Input::Id(r.input),
            _ if decodes => Input::FromStep(r.input),
            _ if r.stores => self.list(slot, r, tokens),
            _ => Input::Unknown,
        };
        let (position, generated) = (r.computed, r.generated);
        *row = Row { id: r.id, user_data, slot, position, tokens, generated, samples, ..Row::default() }
            .with_input(input);
        if !decodes {
            self.shape.add_chunk(tokens, r.computed);
        }
        r.computed += tokens;
        r.parked = false;
        if samples {
            r.generated += 1;
            (r.input, r.awaits) = (at, self.stamp);
        }
        if decodes { u64::from(r.computed) } else { 0 }
    }

    /// Lists the next tokens of a row, which are known and stored.
    fn list(&mut self, slot: Slot, r: &Resident, tokens: u32) -> Input {
        let start = self.token_ids.len() as u32;
        let prompt = &self.live[r.id.index()].as_ref().expect("a resident is alive").request.prompt;
        let range = r.computed as usize..(r.computed + tokens) as usize;
        let known = prompt.span(self.outputs.of(slot, r.delivered()), range);
        let (head, tail) = known.expect("known tokens are stored");
        self.token_ids.extend_from_slice(head);
        self.token_ids.extend_from_slice(tail);
        Input::Ids(start)
    }

    /// Completes the sums: every row that is not a chunk is a decode.
    fn finish(self, rows: u32, context: u64) {
        let decodes = rows - self.shape.rows;
        self.shape.rows = rows;
        self.shape.tokens += decodes;
        self.shape.decodes = decodes;
        self.shape.decode_context = context;
    }
}
