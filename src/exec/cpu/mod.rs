//! A decoder on the CPU: the fallback where no GPU is, and the oracle of the kernels.
//!
//! Every kernel has a twin here, of the same name: [`embedding`], [`rms_norm`], [`Append`], [`decode`], [`prefill`],
//! [`silu_mul`], [`sample_tokens`], [`copy_pages`]. Activations are `f32` throughout; weights and the cache are what
//! they are on a GPU. What is computed of a token depends on its sequence alone, in a fixed order: so a request has
//! the same tokens alone, beside others, after an eviction and on a cached prefix.

mod append;
mod attention;
mod decoder;
mod linear;
mod norm;
mod parallel;
mod pool;
mod sample;
mod simd;

#[cfg(test)]
mod tests;

pub use append::{Append, Place, rotations};
pub use attention::{Cached, decode, prefill};
pub use linear::linear;
pub use norm::{embedding, rms_norm, silu_mul};
pub use pool::{Paging, Pool, copy_pages, copy_pages_within};
pub use sample::{Said, sample_tokens};

use super::{Executor, InFlight, StepOutcome};
use crate::batch::{BatchPlan, Copies, Input, Opened, Row};
use crate::clock::{Clock, sleep};
use crate::config::Config;
use crate::error::ExecError;
use crate::model::{Model, ModelError};
use crate::number::Dtype;
use crate::request::SamplingParams;
use crate::units::{Microjoules, Nanos};
use decoder::{Decoder, Tables, Token};
use std::collections::VecDeque;
use std::sync::Arc;

/// Runs plans on the CPU, one after the other, each while it is waited for.
pub struct CpuExecutor {
    decoder: Decoder,
    clock: Box<dyn Clock>,
    pool: Pool,
    host: Pool,
    tables: Tables,
    slots: Vec<Drawing>,
    pending: VecDeque<BatchPlan>,
    spare: Vec<BatchPlan>,
    /// What each row of the step that ran last yielded: the input of rows that follow it.
    yielded: Vec<Option<u32>>,
    tokens: Vec<Token>,
    /// The most of them.
    tokens_max: usize,
    wanted: Vec<Wanted>,
}

/// How the tokens of a slot are drawn.
#[derive(Clone, Debug, Default)]
struct Drawing {
    sampling: SamplingParams,
    said: Said,
}

/// A row whose token is to be drawn.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    row: usize,
    /// Its last token in the step.
    token: usize,
}

impl CpuExecutor {
    /// An executor for an engine with these limits, whose cache holds `kv`: bf16, f16 or e4m3.
    ///
    /// # Errors
    /// If the engine allows longer sequences than the model.
    pub fn new(
        model: Arc<Model>,
        config: &Config,
        kv: Dtype,
        clock: Box<dyn Clock>,
    ) -> Result<Self, ModelError> {
        let description = model.config();
        if config.max_model_len.0 > description.context {
            return Err(ModelError::Bad {
                field: "max_model_len",
                value: config.max_model_len.0.to_string(),
                bounds: format!("at most the {} positions of the model", description.context),
            });
        }
        let paging = Paging {
            layers: description.layers as usize,
            heads_kv: description.heads_kv as usize,
            page_shift: config.block_shift(),
            head_dim: description.head_dim as usize,
        };
        let (slots, tokens) = (config.max_resident as usize, config.max_num_batched_tokens.0 as usize);
        Ok(Self {
            decoder: Decoder::new(model, tokens),
            clock,
            pool: Pool::new(paging, kv, config.kv_blocks.0 as usize),
            host: Pool::new(paging, kv, config.host_blocks.0 as usize),
            tables: Tables::new(slots, config.blocks_per_seq_max().0 as usize),
            slots: vec![Drawing::default(); slots],
            pending: VecDeque::with_capacity(2),
            spare: vec![BatchPlan::default(); 3],
            yielded: Vec::with_capacity(slots),
            tokens: Vec::with_capacity(tokens),
            tokens_max: tokens,
            wanted: Vec::with_capacity(slots),
        })
    }

    /// Runs a plan and fills the tokens and failures of its outcome.
    fn run(&mut self, plan: &BatchPlan, outcome: &mut StepOutcome) {
        outcome.failed.clear();
        plan.opened.iter().for_each(|opened| self.open(opened, plan));
        for delta in &plan.tables {
            self.tables.set(delta.slot.index(), delta.index as usize, delta.block.0);
        }
        self.copy(&plan.before);
        self.list(plan, &mut outcome.failed);
        self.decoder.forward(&self.tokens, &self.tables, &mut self.pool);
        self.draw(plan, &mut outcome.failed);
        self.copy(&plan.beside);
        self.copy(&plan.after);
        outcome.failed.sort_unstable();
        outcome.tokens.clear();
        outcome.tokens.extend(self.yielded.iter().map(|token| token.unwrap_or(0)));
    }

    /// Lists the tokens of all rows whose input is known; the others fail.
    fn list(&mut self, plan: &BatchPlan, failed: &mut Vec<u32>) {
        self.tokens.clear();
        self.wanted.clear();
        for (at, row) in plan.rows.iter().enumerate() {
            let first = self.tokens.len();
            if !self.list_row(plan, row) {
                self.tokens.truncate(first);
                failed.push(at as u32);
            } else if row.samples {
                self.wanted.push(Wanted { row: at, token: self.tokens.len() - 1 });
            }
        }
    }

    /// Lists the tokens of one row; false if it has none, or if one is not known or not in the vocabulary.
    fn list_row(&mut self, plan: &BatchPlan, row: &Row) -> bool {
        let one;
        let ids = match row.input() {
            Input::Id(id) => {
                one = [id];
                &one[..]
            }
            Input::Ids(start) => &plan.token_ids[start as usize..][..row.tokens as usize],
            Input::FromStep(from) => {
                let Some(id) = self.yielded.get(from as usize).copied().flatten() else { return false };
                one = [id];
                &one[..]
            }
            Input::Unknown => return false,
        };
        let vocab = self.decoder.config().vocab;
        let positions = row.position..row.position + row.tokens;
        let tokens = ids.iter().zip(positions);
        self.tokens.extend(tokens.map(|(id, position)| Token { id: *id, position, slot: row.slot.index() }));
        let whole = !ids.is_empty() && ids.len() == row.tokens as usize;
        whole && ids.iter().all(|id| *id < vocab)
    }

    /// Draws a token for every row that wants one; a row without a largest logit fails.
    fn draw(&mut self, plan: &BatchPlan, failed: &mut Vec<u32>) {
        self.yielded.clear();
        self.yielded.resize(plan.rows.len(), None);
        for wanted in self.wanted.chunks(Decoder::LOGITS_MAX) {
            let mut tokens = [0; Decoder::LOGITS_MAX];
            tokens.iter_mut().zip(wanted).for_each(|(token, wanted)| *token = wanted.token);
            let logits = self.decoder.logits(&tokens[..wanted.len()]);
            for (wanted, logits) in wanted.iter().zip(logits) {
                let row = &plan.rows[wanted.row];
                let token = self.slots[row.slot.index()].draw(logits, row.generated);
                self.yielded[wanted.row] = token;
                if token.is_none() {
                    failed.push(wanted.row as u32);
                }
            }
        }
    }

    fn open(&mut self, opened: &Opened, plan: &BatchPlan) {
        let slot = &mut self.slots[opened.slot.index()];
        slot.sampling = opened.sampling;
        let (prompt, output) = opened.history.of(plan);
        slot.said.begin(prompt, output);
    }

    fn copy(&mut self, copies: &Copies) {
        copy_pages(&self.pool, &mut self.host, copies.swap_out.iter().map(|s| (s.device.0, s.host.0)));
        copy_pages(&self.host, &mut self.pool, copies.swap_in.iter().map(|s| (s.host.0, s.device.0)));
        copy_pages_within(&mut self.pool, copies.device.iter().map(|c| (c.from.0, c.to.0)));
    }
}

impl Drawing {
    /// Draws the token at `position` of the output.
    fn draw(&mut self, logits: &mut [f32], position: u32) -> Option<u32> {
        let penalizes = self.sampling.penalizes();
        if penalizes {
            self.said.penalize(logits, &self.sampling);
        }
        let token = sample_tokens(logits, &self.sampling, position)?;
        if penalizes {
            self.said.output(token);
        }
        Some(token)
    }
}

impl Executor for CpuExecutor {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn submit(&mut self, plan: &BatchPlan) -> Result<InFlight, ExecError> {
        let tokens: usize = plan.rows.iter().map(|row| row.tokens as usize).sum();
        if tokens > self.tokens_max {
            let most = self.tokens_max;
            return Err(ExecError::Unsupported(format!("{tokens} tokens in a step, {most} at most")));
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clone_from(plan);
        self.pending.push_back(copy);
        Ok(InFlight::new(plan.step))
    }

    fn wait(&mut self, step: InFlight, outcome: &mut StepOutcome) -> Result<(), ExecError> {
        let plan = self.pending.pop_front().expect("a step in flight was submitted");
        assert_eq!(plan.step, step.step(), "steps are waited for in their order");
        if plan.pause > Nanos::ZERO {
            sleep(plan.pause);
        }
        outcome.started = self.clock.now();
        self.run(&plan, outcome);
        outcome.finished = self.clock.now();
        // What a processor drew is not known here.
        outcome.energy = Microjoules::ZERO;
        self.spare.push(plan);
        Ok(())
    }
}
