//! Settle: what came out of a step is credited, its full blocks are published, and who is done ends.

use super::waiting::content_hash;
use super::{Engine, NO_ROW};
use crate::cost::BatchShape;
use crate::error::StepError;
use crate::ids::Slot;
use crate::kv::BlockHash;
use crate::request::{FinishReason, Prompt};
use crate::sched::{Event, Phase, TokenEvent};
use crate::units::Nanos;

impl Engine {
    /// Waits for the oldest step in flight, if there is one, and settles it.
    pub(super) fn settle_oldest(&mut self) -> Result<Option<(u64, BatchShape)>, StepError> {
        let Some(in_flight) = self.in_flight.pop_front() else { return Ok(None) };
        let step = in_flight.step();
        self.executor.wait(in_flight, &mut self.outcome)?;
        self.kv.settled(step);
        let plan = &self.plans[(step & 1) as usize];
        let shape = plan.shape;
        if !plan.beside.swap_in.is_empty() {
            self.swapped_in(step);
        }
        if self.config.prefix_cache {
            self.publish(step);
        }
        self.credit(step);
        let finished = self.outcome.finished;
        self.fail_rows(step, finished);
        for at in 0..self.ending.len() {
            let (id, reason) = self.ending[at];
            let ended = self.end(id, reason, finished);
            self.ended.push(ended);
        }
        self.ending.clear();
        self.policy.on(&Event::Tokens(&self.tokens));
        self.policy.on(&Event::Timed(&shape, finished.saturating_sub(self.outcome.started)));
        Ok(Some((step, shape)))
    }

    /// Rows that came back beside the kernels of `step` can run from now on.
    fn swapped_in(&mut self, step: u64) {
        let back = self.rows.iter_mut().zip(&self.hot).filter(|(_, hot)| hot.from_step <= step);
        for (row, _) in back.filter(|(row, _)| row.phase == Phase::SwappingIn) {
            row.phase = Phase::Ready;
        }
    }

    /// Requests whose row failed end as failed, whatever the row yielded.
    fn fail_rows(&mut self, step: u64, finished: Nanos) {
        for at in 0..self.outcome.failed.len() {
            let id = self.plans[(step & 1) as usize].rows[self.outcome.failed[at] as usize].id;
            self.ending.retain(|(ending, _)| *ending != id);
            self.tokens.retain(|token| token.id != id);
            if self.sequence(id).is_some() {
                let ended = self.end(id, FinishReason::Failed, finished);
                self.ended.push(ended);
            }
        }
    }

    /// Credits every token to its request, and lists the requests that end with it.
    #[inline]
    fn credit(&mut self, step: u64) {
        let Self { plans, outcome, rows, hot, live, tokens, ending, .. } = self;
        let plan = &plans[(step & 1) as usize];
        for (row, &token) in plan.rows.iter().zip(&outcome.tokens) {
            if !row.samples {
                continue;
            }
            let index = row.generated + 1;
            let (r, h) = (&rows[row.slot.index()], &mut hot[row.slot.index()]);
            let (stops, max_tokens) = if r.id == row.id && r.phase != Phase::Vacant {
                h.last_token = token;
                h.delivered = index;
                if h.from_step == step {
                    h.from_row = NO_ROW;
                }
                if h.stores {
                    live[row.id.index()].as_mut().expect("a resident is alive").output.push(token);
                }
                (h.stop.contains(token), r.max_tokens)
            } else {
                // It has lost its slot while the step was in flight, or it has ended.
                let absent = live[row.id.index()].as_mut().filter(|s| s.id == row.id);
                let Some(sequence) = absent else { continue };
                sequence.credit(token, index);
                (sequence.request.stop.contains(token), sequence.request.max_tokens.0)
            };
            tokens.push(TokenEvent { id: row.id, user_data: row.user_data, slot: row.slot, index, token });
            if stops {
                ending.push((row.id, FinishReason::Stop));
            } else if index == max_tokens {
                ending.push((row.id, FinishReason::Length));
            }
        }
    }

    /// Publishes what the rows of a step have filled: one decode in sixteen fills a block.
    fn publish(&mut self, step: u64) {
        let shift = self.config.block_shift();
        for at in 0..self.plans[(step & 1) as usize].rows.len() {
            let row = &self.plans[(step & 1) as usize].rows[at];
            let (slot, id, before, after) = (row.slot, row.id, row.position, row.position + row.tokens);
            if before >> shift == after >> shift {
                continue;
            }
            let r = &self.rows[slot.index()];
            if r.id == id && r.phase != Phase::Vacant {
                self.seal(slot, after);
            }
        }
    }

    /// Publishes the blocks of a row that are full now that `computed` tokens have their KV.
    fn seal(&mut self, slot: Slot, computed: u32) {
        let size = self.config.block_size.0;
        let full = computed / size;
        while self.hot[slot.index()].sealed < full {
            let at = self.hot[slot.index()].sealed;
            let Some(hash) = self.block_hash(slot, at) else { return };
            self.kv.seal(slot, at, hash);
            self.hot[slot.index()].sealed = at + 1;
            self.hot[slot.index()].chain = hash;
        }
    }

    /// The hash of a full block of a resident, if its content is known.
    fn block_hash(&self, slot: Slot, at: u32) -> Option<BlockHash> {
        let size = self.config.block_size.0 as usize;
        let sequence = self.sequence(self.rows[slot.index()].id)?;
        match &sequence.request.prompt {
            Prompt::Length(_) => None,
            Prompt::Content { length, .. } => {
                let inside = (at + 1) * size as u32 <= length.0;
                inside.then(|| content_hash(&sequence.request.prompt, at, self.config.block_size))?
            }
            Prompt::Tokens(_) => {
                let chain = self.hot[slot.index()].chain;
                let (start, end) = (at as usize * size, (at as usize + 1) * size);
                sequence.span(start, end).map(|(prompt, output)| chain.chain(prompt, output))
            }
        }
    }

    /// Brings a new resident's hash chain up to the blocks that it got from the cache; blocks that came
    /// back from the host are published again as if they had been computed.
    pub(super) fn resume_chain(&mut self, slot: Slot) {
        if !self.config.prefix_cache {
            return;
        }
        let sealed = std::mem::take(&mut self.hot[slot.index()].sealed);
        for at in 0..sealed {
            let Some(hash) = self.block_hash(slot, at) else { return };
            self.hot[slot.index()].chain = hash;
            self.hot[slot.index()].sealed = at + 1;
        }
    }
}
