//! The plan of one step: a decision in the kernels' words, as flat arrays.
//!
//! What an executor keeps per slot (block tables, sampling parameters) is persistent there; the plan
//! carries only what changed. Copies and swaps come in three ordered parts: before the kernels, beside
//! them, and after them.

use crate::cost::BatchShape;
use crate::ids::{Feed, Slot};
use crate::kv::{CopyBlocks, SwapBlock, TableDelta};
use crate::request::{RequestId, SamplingParams};
use crate::units::Nanos;

/// Where a row's input tokens come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// This one token: a decode's.
    Id(u32),
    /// `tokens` ids in [`BatchPlan::token_ids`], from this place on.
    Ids(u32),
    /// One token: what this row of the step before yields, resolved on the device.
    FromStep(u32),
    /// The content is not known: the request came as a length or as content ids.
    #[default]
    Unknown,
}

/// One sequence of the batch, in 48 bytes: a step writes and reads hundreds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose row it is.
    pub id: RequestId,
    /// The request's own word for itself.
    pub user_data: u64,
    /// Its slot: the row of the block tables.
    pub slot: Slot,
    /// Position of its first new token.
    pub position: u32,
    /// New tokens, at positions from `position` on.
    pub tokens: u32,
    /// Output tokens before this step: what a sampler keys its random stream with.
    pub generated: u32,
    /// Its input, in one word; see [`Row::input`].
    pub(crate) feed: Feed,
    /// Whether its last token's logits are wanted, and a token sampled.
    pub samples: bool,
    /// Whether its request got no token of it: known once the step has settled.
    pub(crate) barren: bool,
}

/// The marks of a row's input, above the stamps of steps, of which two are in flight at most.
const IDS: u8 = 3;
const UNKNOWN: u8 = 4;

impl Default for Row {
    /// Of nobody, with unknown input.
    fn default() -> Self {
        Self {
            id: RequestId::default(),
            user_data: 0,
            feed: Feed::marked(UNKNOWN, 0),
            slot: Slot::default(),
            position: 0,
            tokens: 0,
            generated: 0,
            samples: false,
            barren: false,
        }
    }
}

impl Row {
    /// Its input.
    pub fn input(&self) -> Input {
        let word = self.feed.word();
        match self.feed.mark() {
            0 => Input::Id(word),
            IDS => Input::Ids(word),
            UNKNOWN => Input::Unknown,
            _ => Input::FromStep(word),
        }
    }

    /// With another input.
    #[inline]
    #[must_use]
    pub fn with_input(mut self, input: Input) -> Self {
        self.feed = match input {
            Input::Id(id) => Feed::token(id),
            Input::Ids(start) => Feed::marked(IDS, start),
            Input::FromStep(row) => Feed::marked(1, row),
            Input::Unknown => Feed::marked(UNKNOWN, 0),
        };
        self
    }
}

/// A slot that a new sequence takes: its rows from now on are sampled like this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opened {
    /// The slot; its block table is empty but for the deltas of this plan.
    pub slot: Slot,
    /// The sequence.
    pub id: RequestId,
    /// How its tokens are drawn.
    pub sampling: SamplingParams,
    /// Its tokens so far, if what it draws depends on them.
    pub history: History,
}

/// The tokens that a sequence had before its slot was opened: a range of [`BatchPlan::history`], the prompt's tokens
/// first. Empty if its sampling has no penalties, or its content is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Where they begin.
    pub start: u32,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Output tokens behind them.
    pub output: u32,
}

impl History {
    /// The tokens of the prompt, and of the output.
    pub fn of<'p>(&self, plan: &'p BatchPlan) -> (&'p [u32], &'p [u32]) {
        let tokens = &plan.history[self.start as usize..][..(self.prompt + self.output) as usize];
        tokens.split_at(self.prompt as usize)
    }
}

/// Copies of one part of a step.
#[derive(Debug, Default)]
pub struct Copies {
    /// From the device to the host; these come first.
    pub swap_out: Vec<SwapBlock>,
    /// From the host to the device.
    pub swap_in: Vec<SwapBlock>,
    /// On the device.
    pub device: Vec<CopyBlocks>,
}

impl Copies {
    fn clear(&mut self) {
        self.swap_out.clear();
        self.swap_in.clear();
        self.device.clear();
    }

    /// Whether there is nothing to copy.
    pub fn is_empty(&self) -> bool {
        self.swap_out.is_empty() && self.swap_in.is_empty() && self.device.is_empty()
    }
}

/// Everything that an executor needs for one step.
#[derive(Debug, Default)]
pub struct BatchPlan {
    /// Which step.
    pub step: u64,
    /// When it was decided.
    pub decided: Nanos,
    /// A gap to keep before the kernels.
    pub pause: Nanos,
    /// The sequences, decodes and chunks in the order of the decision.
    pub rows: Vec<Row>,
    /// Input token ids of the chunks, as far as they are known.
    pub token_ids: Vec<u32>,
    /// Slots that changed hands.
    pub opened: Vec<Opened>,
    /// Tokens before this step of sequences that are opened with penalties.
    pub history: Vec<u32>,
    /// Entries of the block tables that changed.
    pub tables: Vec<TableDelta>,
    /// Copies before the kernels.
    pub before: Copies,
    /// Copies beside the kernels; nothing that they touch is used by them.
    pub beside: Copies,
    /// Copies after the kernels.
    pub after: Copies,
    /// The sums that its cost depends on.
    pub shape: BatchShape,
}

impl BatchPlan {
    /// A plan with room for `resident_max` rows, `tokens_max` tokens, a change of all `blocks_max` blocks
    /// and a swap of `swapped_max` of them each way.
    pub fn with_capacity(
        resident_max: usize,
        tokens_max: usize,
        blocks_max: usize,
        swapped_max: usize,
    ) -> Self {
        let swaps = || Copies {
            swap_out: Vec::with_capacity(swapped_max),
            swap_in: Vec::with_capacity(swapped_max),
            device: Vec::new(),
        };
        Self {
            rows: Vec::with_capacity(resident_max),
            token_ids: Vec::with_capacity(tokens_max),
            opened: Vec::with_capacity(resident_max),
            tables: Vec::with_capacity(blocks_max),
            before: swaps(),
            beside: swaps(),
            ..Self::default()
        }
    }

    /// Makes it the empty plan of a step, but for its rows and table entries, which are replaced whole.
    pub fn reset(&mut self, step: u64, decided: Nanos) {
        self.step = step;
        self.decided = decided;
        self.pause = Nanos::ZERO;
        self.token_ids.clear();
        self.opened.clear();
        self.history.clear();
        self.before.clear();
        self.beside.clear();
        self.after.clear();
        self.shape = BatchShape::default();
    }

    /// Whether an executor has nothing to do.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.before.is_empty() && self.beside.is_empty() && self.after.is_empty()
    }
}

impl Clone for Copies {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Keeps its memory: an executor that needs the plan for longer than its submission copies it in each step.
    fn clone_from(&mut self, source: &Self) {
        let Self { swap_out, swap_in, device } = source;
        self.swap_out.clone_from(swap_out);
        self.swap_in.clone_from(swap_in);
        self.device.clone_from(device);
    }
}

impl Clone for BatchPlan {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Keeps its memory, as for [`Copies`].
    fn clone_from(&mut self, source: &Self) {
        let Self {
            step,
            decided,
            pause,
            shape,
            rows,
            token_ids,
            opened,
            history,
            tables,
            before,
            beside,
            after,
        } = source;
        (self.step, self.decided, self.pause, self.shape) = (*step, *decided, *pause, *shape);
        self.rows.clone_from(rows);
        self.token_ids.clone_from(token_ids);
        self.opened.clone_from(opened);
        self.history.clone_from(history);
        self.tables.clone_from(tables);
        self.before.clone_from(before);
        self.beside.clone_from(beside);
        self.after.clone_from(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_comes_back_as_it_was_put_in() {
        assert_eq!(Row::default().input(), Input::Unknown);
        let words = [0, 1, 7, u32::MAX];
        let inputs =
            words.into_iter().flat_map(|word| [Input::Id(word), Input::Ids(word), Input::FromStep(word)]);
        for input in inputs.chain([Input::Unknown]) {
            assert_eq!(Row::default().with_input(input).input(), input);
        }
    }
}
