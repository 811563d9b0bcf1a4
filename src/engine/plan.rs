//! Plan: what runs in a step becomes flat arrays, and every row moves on as if the step had been done.

use super::Engine;
use super::outputs::Outputs;
use super::rowset::{RowSet, WORD};
use crate::batch::{BatchPlan, Input, Row};
use crate::cost::BatchShape;
use crate::ids::{Feed, Slot};
use crate::sched::{Phase, Resident, Run};
use crate::sequence::Sequence;
use crate::units::Nanos;

impl Engine {
    /// Writes the plan, and moves every row on as if the step had been done.
    pub(super) fn plan(&mut self, now: Nanos) {
        let place = self.plan_of(self.step);
        let Self { plans, decision, rows, live, outputs, turns, kv, .. } = self;
        let plan = &mut plans[place];
        plan.decided = now;
        plan.pause = decision.pause.map_or(Nanos::ZERO, |p| p.span);
        kv.take_deltas(&mut plan.tables);
        // Every row is written whole, so that old ones need not be cleared first.
        plan.rows.resize(decision.rows(), Row::default());
        let BatchPlan { rows: planned, token_ids, shape, .. } = plan;
        let turns = &mut turns[place];
        turns.reset(planned.len());
        let mut writer = Writer { live, outputs, token_ids, shape, stamp: Resident::stamp(self.step) };
        let admitted = decision.admit.iter().filter(|a| a.tokens > 0).map(|admit| {
            let sequence = live[admit.id.index()].as_ref();
            let slot = sequence.and_then(Sequence::slot).expect("it was admitted just now");
            (slot, admit.tokens)
        });
        let (running, joining) = planned.split_at_mut(decision.run.len());
        let mut context = writer.run(&decision.run, rows, running, turns);
        for (at, ((slot, tokens), row)) in (decision.run.len()..).zip(admitted.zip(joining)) {
            context += writer.write(at as u32, slot, tokens, &mut rows[slot.index()], row);
            turns.insert(at);
        }
        writer.finish(planned.len() as u32, context);
        self.take_turns(place);
    }

    /// The rows that come to their turn with a plan, from the last on. Those that only fill a block which nobody
    /// publishes are done with that: nothing of them is to be noted when the step settles.
    fn take_turns(&mut self, plan: usize) {
        let mut end = self.plans[plan].rows.len();
        while let Some(at) = self.turns[plan].last(end) {
            let Row { slot, samples, .. } = self.plans[plan].rows[at];
            self.take_turn(slot);
            if samples && !self.config.prefix_cache && self.rows[slot.index()].ready() {
                self.turns[plan].remove(at);
            }
            end = at;
        }
    }

    /// A row has come to its turn: it may have its last token in flight, ask for a new rank, lack a block from
    /// now on, or have prefilled.
    fn take_turn(&mut self, slot: Slot) {
        let row = &mut self.rows[slot.index()];
        if row.generated() >= row.max_tokens {
            row.phase = Phase::Ending;
        }
        if row.generated() >= row.rerank_at && row.awaits() == Resident::stamp(self.step) {
            self.rerank_resident(slot);
        }
        self.turn_again(slot);
    }
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

/// Writes steady rows up to the first that is not, at most as many as a word has bits. Each awaits from now on what
/// it yields, the first of them `feed`. Nearly every row is steady: it touches its own line and the plan, nothing
/// else. A loop of its own, out of line and without calls, whose few words stay in registers.
#[inline(never)]
fn decode(mut feed: Feed, runs: &[Run], rows: &mut [Resident], planned: &mut [Row]) -> Decoded {
    let mut done = Decoded { rows: 0, context: 0, turns: 0 };
    for (run, row) in runs.iter().zip(planned) {
        let slot = run.slot;
        let r = &mut rows[slot.index()];
        if r.computed >= r.turn_at {
            break;
        }
        *row = Row {
            id: r.id,
            user_data: r.user_data,
            slot,
            position: r.computed,
            tokens: 1,
            generated: r.generated(),
            feed: r.feed,
            samples: true,
            barren: false,
        };
        r.computed += 1;
        (r.feed, feed) = (feed, feed.next());
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
    fn run(&mut self, runs: &[Run], rows: &mut [Resident], planned: &mut [Row], turns: &mut RowSet) -> u64 {
        let (mut context, mut at) = (0, 0);
        while at < runs.len() {
            // To the end of a word of the set.
            let end = runs.len().min((at / WORD + 1) * WORD);
            let (runs, planned) = (&runs[at..end], &mut planned[at..end]);
            let done = decode(Feed::marked(self.stamp, at as u32), runs, rows, planned);
            context += done.context;
            turns.words()[at / WORD] |= done.turns << (at % WORD);
            if let Some(run) = runs.get(done.rows) {
                let (slot, place) = (run.slot.index(), at + done.rows);
                let (r, row) = (&mut rows[slot], &mut planned[done.rows]);
                context += self.write(place as u32, run.slot, run.tokens, r, row);
                turns.insert(place);
                at += 1;
            }
            at += done.rows;
        }
        context
    }

    /// Writes any row, whose turn it is: a prefill chunk, what is computed again after an eviction, or a decode
    /// whose rank never holds. Returns how many tokens are in its cache if it decodes.
    fn write(&mut self, at: u32, slot: Slot, tokens: u32, r: &mut Resident, row: &mut Row) -> u64 {
        let (decodes, samples) = (r.decodes(), tokens == r.missing());
        let input = match r.awaits() {
            0 if decodes => Input::Id(r.feed.word()),
            _ if decodes => Input::FromStep(r.feed.word()),
            _ if r.stores => self.list(slot, r, tokens),
            _ => Input::Unknown,
        };
        let (id, user_data, position, generated) = (r.id, r.user_data, r.computed, r.generated());
        *row = Row { id, user_data, slot, position, tokens, generated, samples, ..Row::default() }
            .with_input(input);
        if !decodes {
            self.shape.add_chunk(tokens, r.computed);
        }
        r.computed += tokens;
        r.missing -= tokens;
        if samples {
            r.missing += 1;
            r.feed = Feed::marked(self.stamp, at);
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
