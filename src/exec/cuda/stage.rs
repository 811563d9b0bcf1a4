//! From a plan to what a step uploads: rows sorted into decodes and chunks, arrays filled, and for each row where its
//! token will come from.

use super::inputs::{Counts, Layout, put_wide};
use super::params::FROM_STEP;
use super::work::Limits;
use super::{CudaError, Device, Event, Pinned};
use crate::batch::{BatchPlan, Input, Row};
use crate::exec::cpu::Said;
use crate::request::SamplingParams;

/// Where a row's token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// It draws none.
    None,
    /// It got none that it should have: its input is not known or not in the vocabulary, and it did not run; or what
    /// its penalties depend on has no room among that of others.
    Failed,
    /// This place among what the step draws. It fails too if the row of the step before that it follows failed.
    Drawn {
        /// The place.
        at: u32,
        /// That row, if its input came from there.
        follows: Option<u32>,
    },
}

/// How the tokens of a slot are drawn.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// As the request says.
    pub sampling: SamplingParams,
    /// What penalties depend on.
    pub said: Said,
}

/// What one step in flight uploads and downloads, and who waits for it.
#[derive(Debug)]
pub struct Stage {
    /// The step.
    pub step: u64,
    /// Arrays as the layout says, then changes of the block tables.
    pub words: Pinned<u32>,
    /// Tokens listed for penalties, then their counts.
    pub said: Pinned<u32>,
    /// Tokens, failures, flags.
    pub results: Pinned<u32>,
    /// Before its kernels; keeps the time.
    pub started: Event,
    /// After them.
    pub ended: Event,
    /// Its results are here.
    pub done: Event,
    /// Of each row of the plan.
    pub yields: Vec<Yield>,
    /// Slots of the rows that draw under penalties, and their places among what is drawn.
    pub noted: Vec<(usize, u32)>,
    /// How long the list for penalties is.
    pub listed: usize,
    /// Changes of the block tables behind the arrays; none if there is no room for so many, and all tables are to be
    /// uploaded.
    pub changes: Option<usize>,
}

impl Stage {
    /// Room for a step.
    ///
    /// # Errors
    /// If the host has too little memory.
    pub fn new(device: &Device, limits: &Limits) -> Result<Self, CudaError> {
        let results = 2 * limits.counts.samples + super::work::Flags::COUNT;
        Ok(Self {
            step: 0,
            words: Pinned::new(device, "a step's inputs", limits.input_words())?,
            said: Pinned::new(device, "a step's penalties", 2 * limits.said)?,
            results: Pinned::new(device, "a step's results", results)?,
            started: device.timer()?,
            ended: device.timer()?,
            done: device.event()?,
            yields: Vec::with_capacity(limits.counts.decodes),
            noted: Vec::with_capacity(limits.counts.samples),
            listed: 0,
            changes: Some(0),
        })
    }
}

/// What the host knows of slots, and lists that each plan fills anew.
#[derive(Debug)]
pub struct Host {
    /// `[slots, table_stride]`: the block tables.
    pub tables: Vec<u32>,
    /// By slot.
    pub drawing: Vec<Drawing>,
    /// Rows with one token, by their place in the plan.
    decodes: Vec<u32>,
    /// The others.
    prefills: Vec<u32>,
    table_stride: usize,
    block_shift: u32,
    vocab: u32,
    /// Tokens listed for penalties, at most.
    said_max: usize,
    /// Whether every row goes through prefill, whose results do not depend on how a sequence was cut.
    invariant: bool,
}

impl Host {
    /// Nothing known yet.
    pub fn new(limits: &Limits, block_size: u32, vocab: u32, invariant: bool) -> Self {
        Self {
            tables: vec![0; limits.slots * limits.table_stride],
            drawing: vec![Drawing::default(); limits.slots],
            decodes: Vec::with_capacity(limits.counts.decodes),
            prefills: Vec::with_capacity(limits.counts.prefills),
            table_stride: limits.table_stride,
            block_shift: block_size.trailing_zeros(),
            vocab,
            said_max: limits.said,
            invariant,
        }
    }

    /// Notes what the plan opens and changes.
    pub fn open(&mut self, plan: &BatchPlan) {
        for opened in &plan.opened {
            let drawing = &mut self.drawing[opened.slot.index()];
            drawing.sampling = opened.sampling;
            let (prompt, output) = opened.history.of(plan);
            drawing.said.begin(prompt, output);
        }
        for delta in &plan.tables {
            self.tables[delta.slot.index() * self.table_stride + delta.index as usize] = delta.block.0;
        }
    }

    /// Whether a row draws under penalties.
    pub fn penalizes(&self, row: &Row) -> bool {
        row.samples && self.drawing[row.slot.index()].sampling.penalizes()
    }

    /// Sorts the rows of a plan, and says where each one's token will come from. `before` are the yields of the step
    /// before.
    pub fn sort(&mut self, plan: &BatchPlan, before: &[Yield], yields: &mut Vec<Yield>) -> Counts {
        self.decodes.clear();
        self.prefills.clear();
        yields.clear();
        let (mut counts, mut listed) = (Counts::default(), 0);
        for row in &plan.rows {
            let known = self.knows(plan, row, before);
            if known {
                let one = row.tokens == 1 && !self.invariant;
                if one { &mut self.decodes } else { &mut self.prefills }.push(yields.len() as u32);
                counts.tokens += row.tokens as usize;
            }
            let yielded = match row.input() {
                _ if !known => Yield::Failed,
                _ if !row.samples => Yield::None,
                _ if !self.lists(row, &mut listed) => Yield::Failed,
                // The place is given when arrays are filled.
                Input::FromStep(from) => Yield::Drawn { at: 0, follows: Some(from) },
                _ => Yield::Drawn { at: 0, follows: None },
            };
            counts.samples += usize::from(matches!(yielded, Yield::Drawn { .. }));
            yields.push(yielded);
        }
        counts.decodes = self.decodes.len();
        counts.prefills = self.prefills.len();
        counts
    }

    fn knows(&self, plan: &BatchPlan, row: &Row, before: &[Yield]) -> bool {
        match row.input() {
            Input::Id(id) => row.tokens == 1 && id < self.vocab,
            Input::Ids(start) => {
                let ids = plan.token_ids.get(start as usize..).and_then(|ids| ids.get(..row.tokens as usize));
                // Without a token there is no place to draw at.
                ids.is_some_and(|ids| !ids.is_empty() && ids.iter().all(|id| *id < self.vocab))
            }
            Input::FromStep(from) => {
                row.tokens == 1 && matches!(before.get(from as usize), Some(Yield::Drawn { .. }))
            }
            Input::Unknown => false,
        }
    }

    /// Whether the tokens that a row's penalties depend on can be listed behind `listed` others; then they count too.
    fn lists(&self, row: &Row, listed: &mut usize) -> bool {
        let said = &self.drawing[row.slot.index()].said;
        let end = *listed + if self.penalizes(row) { said.counts().len() } else { 0 };
        let fits = end <= self.said_max;
        if fits {
            *listed = end;
        }
        fits
    }

    /// Fills the arrays of a step whose layout, perhaps a graph's, is `layout`.
    pub fn fill(&mut self, plan: &BatchPlan, before: &[Yield], layout: &Layout, stage: &mut Stage) {
        let Stage { words, said, yields, noted, listed, changes, .. } = stage;
        let words = words.as_mut_slice();
        words[..layout.words].fill(0);
        // Padding writes no K and V.
        words[layout.slots.clone()].fill(u32::MAX);
        noted.clear();
        let mut filled = Filled { words, layout, said: said.as_mut_slice(), listed: 0, token: 0, sample: 0 };
        for (at, row) in self.decodes.iter().chain(&self.prefills).enumerate() {
            let (index, row) = (*row as usize, &plan.rows[*row as usize]);
            if at >= self.decodes.len() {
                let prefill = at - self.decodes.len();
                filled.words[layout.q_from.start + prefill] = (filled.token - self.decodes.len()) as u32;
            }
            // Decodes are padded in graphs, which have no prefills.
            filled.words[layout.row_slots.start + at] = row.slot.0;
            filled.words[layout.lengths.start + at] = row.position + row.tokens;
            self.fill_tokens(plan, row, before, &mut filled);
            if let Yield::Drawn { at, .. } = &mut yields[index] {
                *at = filled.sample as u32;
                let drawing = &self.drawing[row.slot.index()];
                if drawing.sampling.penalizes() {
                    noted.push((row.slot.index(), *at));
                }
                filled.draw(drawing, row.generated);
            }
        }
        let end = (filled.token - self.decodes.len()) as u32;
        filled.words[layout.q_from.start + self.prefills.len()] = end;
        for sample in filled.sample..layout.counts.samples {
            filled.words[layout.said_from.start + sample + 1] = filled.listed as u32;
        }
        *listed = filled.listed;
        let pairs = words[layout.words..].chunks_exact_mut(2);
        *changes = Some(plan.tables.len()).filter(|changes| *changes <= pairs.len());
        for (delta, pair) in plan.tables.iter().zip(pairs) {
            pair[0] = (delta.slot.index() * self.table_stride) as u32 + delta.index;
            pair[1] = delta.block.0;
        }
    }

    fn fill_tokens(&self, plan: &BatchPlan, row: &Row, before: &[Yield], filled: &mut Filled<'_>) {
        let Filled { words, layout, token, .. } = filled;
        let table = &self.tables[row.slot.index() * self.table_stride..][..self.table_stride];
        for offset in 0..row.tokens {
            let position = row.position + offset;
            let id = match row.input() {
                Input::Id(id) => id,
                Input::Ids(start) => plan.token_ids[(start + offset) as usize],
                Input::FromStep(from) => match before[from as usize] {
                    Yield::Drawn { at, .. } => FROM_STEP | at,
                    Yield::None | Yield::Failed => unreachable!("such rows were sorted out"),
                },
                Input::Unknown => unreachable!("such rows were sorted out"),
            };
            let block = table[(position >> self.block_shift) as usize];
            let inside = position & ((1 << self.block_shift) - 1);
            words[layout.ids.start + *token] = id;
            words[layout.positions.start + *token] = position;
            let slot = (u64::from(block) << self.block_shift) + u64::from(inside);
            put_wide(&mut words[layout.slots.clone()], *token, slot);
            *token += 1;
        }
    }
}

/// How far the arrays of a step are filled.
struct Filled<'a> {
    words: &'a mut [u32],
    layout: &'a Layout,
    said: &'a mut [u32],
    listed: usize,
    token: usize,
    sample: usize,
}

impl Filled<'_> {
    /// The row whose tokens were filled last draws one.
    fn draw(&mut self, drawing: &Drawing, generated: u32) {
        let (layout, at) = (self.layout, self.sample);
        let Drawing { sampling, said } = drawing;
        let mut put = |array: &super::inputs::Words, value: u32| self.words[array.start + at] = value;
        put(&layout.last, self.token as u32 - 1);
        put(&layout.temperature, sampling.temperature.to_bits());
        put(&layout.top_k, sampling.top_k);
        put(&layout.top_p, sampling.top_p.to_bits());
        put(&layout.min_p, sampling.min_p.to_bits());
        put(&layout.drawn_at, generated);
        put(&layout.repetition, sampling.repetition_penalty.to_bits());
        put(&layout.presence, sampling.presence_penalty.to_bits());
        put(&layout.frequency, sampling.frequency_penalty.to_bits());
        put_wide(&mut self.words[layout.seeds.clone()], at, sampling.seed);
        if sampling.penalizes() {
            let room = self.said.len() / 2;
            let (tokens, counts) = self.said.split_at_mut(room);
            for (token, count) in said.counts() {
                (tokens[self.listed], counts[self.listed]) = (token, count);
                self.listed += 1;
            }
        }
        self.words[layout.said_from.start + at + 1] = self.listed as u32;
        self.sample += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{History, Opened};
    use crate::config::Config;
    use crate::ids::Slot;
    use crate::model::tiny;
    use crate::number::Dtype;
    use crate::request::RequestId;

    /// Four rows of four tokens each, one without penalties, where there is room for two lists and a half.
    #[test]
    fn a_row_whose_penalties_have_no_room_fails_alone() {
        let limits = Limits { said: 10, ..Limits::new(&Config::default(), &tiny(), Dtype::Bf16, 64, 8, 4) };
        let mut host = Host::new(&limits, 16, 256, false);
        let mut plan = BatchPlan { history: (0..4).collect(), ..BatchPlan::default() };
        for slot in 0..4 {
            let (slot, id) = (Slot(slot), RequestId::default());
            let repetition_penalty = if slot == Slot(1) { 1.0 } else { 1.5 };
            let sampling = SamplingParams { repetition_penalty, ..SamplingParams::default() };
            let history = History { start: 0, prompt: 4, output: 0 };
            plan.opened.push(Opened { slot, id, sampling, history });
            let row = Row { slot, tokens: 1, position: 4, samples: true, ..Row::default() };
            plan.rows.push(row.with_input(Input::Id(7)));
        }
        host.open(&plan);
        let mut yields = Vec::new();
        let counts = host.sort(&plan, &[], &mut yields);
        let drawn = Yield::Drawn { at: 0, follows: None };
        assert_eq!(yields, [drawn, drawn, drawn, Yield::Failed]);
        // It runs all the same: others may share what it writes.
        assert_eq!((counts.decodes, counts.samples), (4, 3));
    }

    #[test]
    fn a_row_without_tokens_fails() {
        let limits = Limits::new(&Config::default(), &tiny(), Dtype::Bf16, 64, 8, 4);
        let mut host = Host::new(&limits, 16, 256, false);
        let row = Row { tokens: 0, samples: true, ..Row::default() };
        let rows = vec![row.with_input(Input::Ids(0))];
        let mut yields = Vec::new();
        let counts = host.sort(&BatchPlan { rows, ..BatchPlan::default() }, &[], &mut yields);
        assert_eq!((yields, counts), (vec![Yield::Failed], Counts::default()));
    }
}
