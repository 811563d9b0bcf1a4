//! Settle: what came out of a step is credited, its full blocks are published, and who is done ends.

use super::outputs::Outputs;
use super::rowset::WORD;
use super::waiting::content_hash;
use super::{Engine, Published, Yields};
use crate::batch::{Opened, Row};
use crate::cost::BatchShape;
use crate::error::StepError;
use crate::ids::{Feed, Slot};
use crate::kv::BlockHash;
use crate::request::{FinishReason, Prompt, StopSieve, StopTokens};
use crate::sched::{Event, Phase, Resident};
use crate::units::Nanos;

impl Engine {
    /// Waits for the oldest step in flight, if there is one, and settles it.
    pub(super) fn settle_oldest(&mut self) -> Result<Option<(u64, BatchShape)>, StepError> {
        let Some(in_flight) = self.in_flight.pop_front() else { return Ok(None) };
        let step = in_flight.step();
        self.executor.wait(in_flight, &mut self.outcome)?;
        self.kv.settled(step);
        let plan = self.plan_of(step);
        let shape = self.plans[plan].shape;
        if !self.plans[plan].beside.swap_in.is_empty() {
            self.swapped_in(plan);
        }
        let finished = self.outcome.finished;
        self.credit(step);
        self.fail_rows(step, finished);
        self.attend(step);
        for at in 0..self.ending.len() {
            let (id, reason) = self.ending[at];
            let ended = self.end(id, reason, finished);
            self.ended.push(ended);
        }
        self.ending.clear();
        let yields = Yields::new(&self.plans[plan].rows, &self.outcome.tokens, self.yielded);
        self.policy.on(&Event::Tokens(&yields));
        self.policy.on(&Event::Timed(&shape, finished.saturating_sub(self.outcome.started)));
        Ok(Some((step, shape)))
    }

    /// Rows that came back beside the kernels of a step, which opened them, can run from now on.
    fn swapped_in(&mut self, plan: usize) {
        for at in 0..self.plans[plan].opened.len() {
            let Opened { slot, id, .. } = self.plans[plan].opened[at];
            let row = &mut self.rows[slot.index()];
            if row.id == id && row.phase == Phase::SwappingIn {
                row.phase = Phase::Ready;
                self.turn_again(slot);
            }
        }
    }

    /// Requests whose row failed end as failed, whatever the row yielded, before anything of them is published.
    fn fail_rows(&mut self, step: u64, finished: Nanos) {
        let plan = self.plan_of(step);
        self.yielded = self.plans[plan].rows.len();
        for at in 0..self.outcome.failed.len() {
            let place = self.outcome.failed[at] as usize;
            let row = self.plans[plan].rows[place];
            self.mark_barren(plan, place);
            if self.sequence(row.id).is_some() {
                let mut sequence = self.remove(row.id);
                // The row's own token is none.
                sequence.delivered = row.generated;
                let ended = self.bury(sequence, FinishReason::Failed, finished);
                self.ended.push(ended);
            }
        }
    }

    /// Credits every token to its request. Notes the rows that came to a turn, which may fill a block, end, or yield
    /// nothing; those that got what may be a stop token; and those whose request has lost its slot.
    fn credit(&mut self, step: u64) {
        let (plan, stamp) = (self.plan_of(step), Resident::stamp(step));
        let Self { plans, outcome, rows, sieves, outputs, turns, noted, .. } = self;
        let planned = &plans[plan].rows;
        let yields = planned.chunks(WORD).zip(outcome.tokens.chunks(WORD));
        noted.reset(planned.len());
        for ((planned, tokens), (noted, turns)) in
            yields.zip(noted.words().iter_mut().zip(turns[plan].words()))
        {
            *noted = *turns | credit(planned, tokens, stamp, rows, sieves, outputs);
        }
    }

    /// Two positions that differ in these bits lie in different blocks, if anybody asks.
    fn filled_mask(&self) -> u32 {
        if self.config.prefix_cache { u32::MAX << self.config.block_shift() } else { 0 }
    }

    /// Publishes what the noted rows of a step have filled, one decode in sixteen a block, and lists the requests
    /// that end with it.
    fn attend(&mut self, step: u64) {
        let (plan, blocks) = (self.plan_of(step), self.filled_mask());
        let mut from = 0;
        while let Some(place) = self.noted.next(from) {
            from = place + 1;
            let row = self.plans[plan].rows[place];
            let (slot, token) = (row.slot, self.outcome.tokens[place]);
            let r = &self.rows[slot.index()];
            let (yields, end) = if r.id == row.id {
                let end = end_of(&self.stops[slot.index()], r.max_tokens, &row, token);
                let after = row.position + row.tokens;
                if (row.position ^ after) & blocks != 0 {
                    self.seal(slot, after >> self.config.block_shift());
                }
                (row.samples, end.filter(|_| row.samples))
            } else {
                self.credit_absent(&row, token)
            };
            if !yields {
                self.mark_barren(plan, place);
            }
            self.ending.extend(end.map(|reason| (row.id, reason)));
        }
    }

    /// A row of a plan turns out to yield nothing.
    fn mark_barren(&mut self, plan: usize, place: usize) {
        let row = &mut self.plans[plan].rows[place];
        self.yielded -= usize::from(!row.barren);
        row.barren = true;
    }

    /// Credits a token to a request that has lost its slot while the step was in flight: whether it has not
    /// ended, and why it does now.
    fn credit_absent(&mut self, row: &Row, token: u32) -> (bool, Option<FinishReason>) {
        let sequence = self.live[row.id.index()].as_mut().filter(|s| s.id == row.id && row.samples);
        let Some(sequence) = sequence else { return (false, None) };
        sequence.credit(token, row.generated + 1);
        (true, end_of(&sequence.request.stop, sequence.request.max_tokens.0, row, token))
    }

    /// Publishes the first `full` blocks of a resident, whose KV is computed.
    fn seal(&mut self, slot: Slot, full: u32) {
        for at in self.published[slot.index()].blocks..full {
            let Some(hash) = self.block_hash(slot, at) else { return };
            self.kv.seal(slot, at, hash);
            self.published[slot.index()] = Published { blocks: at + 1, chain: hash };
        }
    }

    /// The hash of a full block of a resident, if its content is known.
    fn block_hash(&self, slot: Slot, at: u32) -> Option<BlockHash> {
        let block_size = self.config.block_size;
        let (start, size) = ((at * block_size.0) as usize, block_size.0 as usize);
        let (row, output) = (&self.rows[slot.index()], self.output_of(slot));
        let chain = self.published[slot.index()].chain;
        if let Some(start) = start.checked_sub(row.prompt as usize) {
            // Most blocks are of output alone: their prompt, which is cold, is not read.
            return output.get(start..start + size).map(|tail| chain.chain(&[], tail));
        }
        match &self.sequence(row.id)?.request.prompt {
            Prompt::Length(_) => None,
            prompt @ Prompt::Content { length, .. } => {
                let inside = (at + 1) * block_size.0 <= length.0;
                inside.then(|| content_hash(prompt, at, block_size))?
            }
            prompt @ Prompt::Tokens(_) => {
                let (head, tail) = prompt.span(output, start..start + size)?;
                Some(chain.chain(head, tail))
            }
        }
    }
}

/// Credits the tokens of as many rows as a word has bits, and notes those whose request has lost its slot, or
/// that got what may be a stop token. A loop of its own, out of line and without calls, whose few words stay in
/// registers; from the last row on, since then one shift puts every bit in its place. Rows that sample nothing need
/// no test: they come to their turn, and nobody awaits a token of them.
#[inline(never)]
fn credit(
    planned: &[Row],
    tokens: &[u32],
    stamp: u8,
    rows: &mut [Resident],
    sieves: &[StopSieve],
    outputs: &mut Outputs,
) -> u64 {
    // As many as residents: one check of the bounds does for both.
    let sieves = &sieves[..rows.len()];
    let mut noted = 0;
    for (row, &token) in planned.iter().zip(tokens).rev() {
        let r = &mut rows[row.slot.index()];
        if r.id != row.id {
            noted = noted << 1 | 1;
            continue;
        }
        // A later step may yield its next input by now.
        if r.awaits() == stamp {
            r.feed = Feed::token(token);
        }
        if r.stores && row.samples {
            outputs.put(row.slot, row.generated, token);
        }
        // No branch: which tokens the sieve holds, nothing foretells.
        noted = noted << 1 | u64::from(sieves[row.slot.index()].holds(token));
    }
    noted
}

/// Why a request ends with the token of this row, if it does.
fn end_of(stop: &StopTokens, max_tokens: u32, row: &Row, token: u32) -> Option<FinishReason> {
    if stop.contains(token) {
        Some(FinishReason::Stop)
    } else if row.generated + 1 == max_tokens {
        Some(FinishReason::Length)
    } else {
        None
    }
}
