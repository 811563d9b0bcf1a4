//! Settle: what came out of a step is credited, its full blocks are published, and who is done ends.

use super::waiting::content_hash;
use super::{Engine, NO_ROW};
use crate::batch::Row;
use crate::cost::BatchShape;
use crate::error::StepError;
use crate::ids::Slot;
use crate::kv::BlockHash;
use crate::request::{FinishReason, Prompt};
use crate::sched::{Event, Phase, TokenEvent};
use crate::units::Nanos;

/// The most tokens of one block, for hashing on the stack.
const BLOCK_MAX: usize = 1024;

impl Engine {
    /// Waits for the oldest step in flight, if there is one, and settles it.
    pub(super) fn settle_oldest(&mut self) -> Result<Option<(u64, BatchShape)>, StepError> {
        let Some(in_flight) = self.in_flight.pop_front() else { return Ok(None) };
        let step = in_flight.step();
        self.executor.wait(in_flight, &mut self.outcome)?;
        let plan = std::mem::take(&mut self.plans[(step & 1) as usize]);
        self.kv.settled(step);
        if !plan.beside.swap_in.is_empty() {
            self.swapped_in(step);
        }
        let finished = self.outcome.finished;
        for (at, row) in plan.rows.iter().enumerate() {
            let token = self.outcome.tokens[at];
            self.settle_row(step, row, token, finished);
        }
        for at in 0..self.outcome.failed.len() {
            let id = plan.rows[self.outcome.failed[at] as usize].id;
            if self.sequence(id).is_some() {
                let ended = self.end(id, FinishReason::Failed, finished);
                self.ended.push(ended);
            }
        }
        self.policy.on(&Event::Tokens(&self.tokens));
        self.policy.on(&Event::Timed(&plan.shape, finished.saturating_sub(self.outcome.started)));
        let shape = plan.shape;
        self.plans[(step & 1) as usize] = plan;
        Ok(Some((step, shape)))
    }

    /// Rows that came back beside the kernels of `step` can run from now on.
    fn swapped_in(&mut self, step: u64) {
        let back = self.rows.iter_mut().zip(&self.hot).filter(|(_, hot)| hot.from_step <= step);
        for (row, _) in back.filter(|(row, _)| row.phase == Phase::SwappingIn) {
            row.phase = Phase::Ready;
        }
    }

    #[inline]
    fn settle_row(&mut self, step: u64, row: &Row, token: u32, finished: Nanos) {
        let slot = row.slot.index();
        let resident = self.rows[slot].id == row.id && self.rows[slot].phase != Phase::Vacant;
        if self.config.prefix_cache && resident {
            self.seal(row.slot, row.position + row.tokens);
        }
        if !row.samples {
            return;
        }
        if !resident {
            return self.settle_absent(row, token, finished);
        }
        let index = row.generated + 1;
        let hot = &mut self.hot[slot];
        hot.last_token = token;
        hot.delivered = index;
        if hot.from_step == step {
            hot.from_row = NO_ROW;
        }
        if hot.stores {
            self.sequence_mut(row.id).output.push(token);
        }
        let ends = self.hot[slot].stop.contains(token);
        self.credit(row, token, index, ends, self.rows[slot].max_tokens, finished);
    }

    /// A token for a sequence that has lost its slot while the step was in flight.
    fn settle_absent(&mut self, row: &Row, token: u32, finished: Nanos) {
        if self.sequence(row.id).is_none() {
            return;
        }
        let index = row.generated + 1;
        let sequence = self.sequence_mut(row.id);
        sequence.last_token = token;
        sequence.delivered = index;
        if matches!(sequence.request.prompt, Prompt::Tokens(_)) {
            sequence.output.push(token);
        }
        let (ends, max_tokens) = (sequence.request.stop.contains(token), sequence.request.max_tokens.0);
        self.credit(row, token, index, ends, max_tokens, finished);
    }

    #[inline]
    fn credit(&mut self, row: &Row, token: u32, index: u32, stops: bool, max_tokens: u32, finished: Nanos) {
        self.tokens.push(TokenEvent { id: row.id, user_data: row.user_data, slot: row.slot, index, token });
        if stops || index == max_tokens {
            let reason = if stops { FinishReason::Stop } else { FinishReason::Length };
            let ended = self.end(row.id, reason, finished);
            self.ended.push(ended);
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
                let mut block = [0; BLOCK_MAX];
                for (i, token) in block[..size].iter_mut().enumerate() {
                    *token = sequence.token(at * size as u32 + i as u32)?;
                }
                Some(self.hot[slot.index()].chain.chain(&block[..size]))
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
