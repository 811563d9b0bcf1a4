//! Settle: what came out of a step is credited, its full blocks are published, and who is done ends.

use super::waiting::content_hash;
use super::{Engine, Published};
use crate::batch::Input;
use crate::cost::BatchShape;
use crate::error::StepError;
use crate::ids::Slot;
use crate::kv::BlockHash;
use crate::request::{FinishReason, Prompt, StopTokens};
use crate::sched::{Event, Phase, TokenEvent};
use crate::sequence::Sequence;
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
        let shift = self.config.block_shift();
        let back = self.rows.iter_mut().zip(&self.hot).filter(|(_, hot)| hot.from_step <= step);
        for (row, _) in back.filter(|(row, _)| row.phase == Phase::SwappingIn) {
            row.phase = Phase::Ready;
            row.steady_again(shift);
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

    /// Credits every token to its request, and lists the requests that end with it. A loop of its own, out of
    /// line, whose few words stay in registers.
    #[inline(never)]
    fn credit(&mut self, step: u64) {
        let Self { plans, outcome, hot, outputs, live, tokens, ending, .. } = self;
        let (rows, hot) = (&plans[(step & 1) as usize].rows[..], &mut hot[..]);
        for (row, &token) in rows.iter().zip(&outcome.tokens) {
            if !row.samples {
                continue;
            }
            let (slot, index) = (row.slot, row.generated + 1);
            let event = TokenEvent { id: row.id, user_data: row.user_data, slot, index, token };
            let h = &mut hot[slot.index()];
            let end = if h.id == row.id {
                h.delivered = index;
                // A later step may yield its next input by now.
                if h.from_step == step {
                    h.input = Input::Id(token);
                }
                if h.stores {
                    outputs[slot.index()].push(token);
                }
                end_of(&h.stop, h.max_tokens, &event)
            } else {
                let Some(end) = credit_absent(live, event) else { continue };
                end
            };
            tokens.push(event);
            if let Some(reason) = end {
                ending.push((row.id, reason));
            }
        }
    }

    /// Publishes what the rows of a step have filled: one decode in sixteen fills a block.
    fn publish(&mut self, step: u64) {
        let shift = self.config.block_shift();
        let plan = (step & 1) as usize;
        let rows = std::mem::take(&mut self.plans[plan].rows);
        for row in &rows {
            let after = row.position + row.tokens;
            if row.position >> shift != after >> shift && self.hot[row.slot.index()].id == row.id {
                self.seal(row.slot, after >> shift);
            }
        }
        self.plans[plan].rows = rows;
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
        let (row, output) = (&self.rows[slot.index()], &self.outputs[slot.index()]);
        let chain = self.published[slot.index()].chain;
        if let Some(start) = start.checked_sub(row.prompt as usize) {
            // Most blocks are of output alone: their prompt, which is cold, is not read.
            let tail = output.get(start..start + size).filter(|_| self.hot[slot.index()].stores);
            return tail.map(|tail| chain.chain(&[], tail));
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

/// Why a request ends with this token, if it does.
#[inline(always)]
fn end_of(stop: &StopTokens, max_tokens: u32, event: &TokenEvent) -> Option<FinishReason> {
    if stop.contains(event.token) {
        Some(FinishReason::Stop)
    } else if event.index == max_tokens {
        Some(FinishReason::Length)
    } else {
        None
    }
}

/// Credits a token to a request that has lost its slot while the step was in flight; nothing if it has ended.
#[cold]
fn credit_absent(live: &mut [Option<Sequence>], event: TokenEvent) -> Option<Option<FinishReason>> {
    let sequence = live[event.id.index()].as_mut().filter(|s| s.id == event.id)?;
    sequence.credit(event.token, event.index);
    Some(end_of(&sequence.request.stop, sequence.request.max_tokens.0, &event))
}
