//! A decoder's step: tokens in, the hidden states of all of them out, and logits of those that are wanted.

use super::append::{Append, Place, rotations};
use super::attention::{Attend, Cached};
use super::linear::linear;
use super::norm::{embedding, rms_norm, silu_mul};
use super::parallel::each_part;
use super::pool::Pool;
use super::simd::widest;
use crate::model::{Layer, Model, ModelConfig, Tensor, widener};
use std::sync::Arc;

/// A token of a step.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its position in its sequence.
    pub position: u32,
    /// The row of the block tables.
    pub slot: usize,
}

/// The block tables of all slots, each `width` long.
#[derive(Debug)]
pub struct Tables {
    pages: Vec<u32>,
    width: usize,
}

impl Tables {
    pub fn new(slots: usize, width: usize) -> Self {
        Self { pages: vec![0; slots * width], width }
    }

    pub fn set(&mut self, slot: usize, index: usize, page: u32) {
        self.pages[slot * self.width..][..self.width][index] = page;
    }

    fn of(&self, slot: usize) -> &[u32] {
        &self.pages[slot * self.width..][..self.width]
    }
}

/// A model, its constants in `f32`, and the buffers of a step.
pub struct Decoder {
    model: Arc<Model>,
    turns: Vec<u64>,
    norms: Vec<Norms>,
    final_norm: Vec<f32>,
    work: Work,
}

/// The norms of a layer, widened.
struct Norms {
    attention: Vec<f32>,
    mlp: Vec<f32>,
    q: Option<Vec<f32>>,
    k: Option<Vec<f32>>,
}

/// Activations, one row per token.
struct Work {
    /// Between layers.
    hidden: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    gated: Vec<f32>,
    projected: Vec<f32>,
    rotations: Vec<(f32, f32)>,
    logits: Vec<f32>,
    scratch: Vec<f32>,
}

impl Decoder {
    /// Rows whose logits are computed at once.
    pub const LOGITS_MAX: usize = 8;

    /// A decoder for steps of up to `tokens_max` tokens.
    pub fn new(model: Arc<Model>, tokens_max: usize) -> Self {
        let config = model.config();
        let wide =
            |tensor: &Tensor| tensor.bits().iter().map(|b| widener(config.dtype)(*b)).collect::<Vec<_>>();
        let norms = |layer: &Layer| Norms {
            attention: wide(&layer.attention_norm),
            mlp: wide(&layer.mlp_norm),
            q: layer.q_norm.as_ref().map(wide),
            k: layer.k_norm.as_ref().map(wide),
        };
        let weights = model.weights();
        Self {
            turns: config.rope.turns(config.head_dim),
            norms: weights.layers.iter().map(norms).collect(),
            final_norm: wide(&weights.final_norm),
            work: Work::new(config, tokens_max),
            model,
        }
    }

    /// What the model looks like.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// Runs all layers over `tokens`, whose keys and values go into `pool`.
    pub fn forward(&mut self, tokens: &[Token], tables: &Tables, pool: &mut Pool) {
        let config = self.model.config();
        let (width, half) = (config.hidden as usize, config.head_dim as usize / 2);
        for (at, token) in tokens.iter().enumerate() {
            let hidden = &mut self.work.hidden[at * width..][..width];
            embedding(&self.model.weights().embedding, config.dtype, token.id, hidden);
            rotations(&self.turns, token.position, &mut self.work.rotations[at * half..][..half]);
        }
        let layers = self.model.weights().layers.iter().zip(&self.norms).enumerate();
        for (at, (layer, norms)) in layers {
            let pass = Pass { config, layer, norms, at, tokens };
            pass.attention(&mut self.work, tables, pool);
            pass.mlp(&mut self.work);
        }
    }

    /// The logits of these tokens of the last [`Decoder::forward`], at most [`Decoder::LOGITS_MAX`], one row each.
    pub fn logits(&mut self, tokens: &[usize]) -> impl Iterator<Item = &mut [f32]> {
        let config = self.model.config();
        let (width, vocab) = (config.hidden as usize, config.vocab as usize);
        let Work { hidden, normed, logits, scratch, .. } = &mut self.work;
        let normed = &mut normed[..tokens.len() * width];
        for (normed, token) in normed.chunks_exact_mut(width).zip(tokens) {
            normed.copy_from_slice(&hidden[token * width..][..width]);
            rms_norm(normed, &self.final_norm, config.norm_epsilon);
        }
        let logits = &mut logits[..tokens.len() * vocab];
        linear(normed, self.model.weights().lm_head(), config.dtype, logits, scratch);
        logits.chunks_exact_mut(vocab)
    }
}

impl Work {
    fn new(config: &ModelConfig, tokens: usize) -> Self {
        let (hidden, mlp) = (config.hidden as usize, config.intermediate as usize);
        let logits = config.vocab as usize * Decoder::LOGITS_MAX;
        let widest = hidden.max(config.qkv_width()).max(2 * mlp) * tokens;
        let rows = |width: usize| vec![0.0; tokens * width];
        Self {
            hidden: rows(hidden),
            normed: vec![0.0; tokens.max(Decoder::LOGITS_MAX) * hidden],
            qkv: rows(config.qkv_width()),
            attended: rows(config.q_width()),
            gate_up: rows(2 * mlp),
            gated: rows(mlp),
            projected: rows(hidden),
            rotations: vec![(1.0, 0.0); tokens * config.head_dim as usize / 2],
            logits: vec![0.0; logits],
            scratch: vec![0.0; widest.max(logits)],
        }
    }
}

/// One layer of a step.
struct Pass<'a> {
    config: &'a ModelConfig,
    layer: &'a Layer,
    norms: &'a Norms,
    at: usize,
    tokens: &'a [Token],
}

impl Pass<'_> {
    /// `hidden += attention(norm(hidden))`.
    fn attention(&self, work: &mut Work, tables: &Tables, pool: &mut Pool) {
        let config = self.config;
        self.norm(&self.norms.attention, work);
        let qkv = &mut work.qkv[..self.tokens.len() * config.qkv_width()];
        let normed = &work.normed[..self.tokens.len() * config.hidden as usize];
        linear(normed, &self.layer.qkv, config.dtype, qkv, &mut work.scratch);
        self.append(qkv, &work.rotations, tables, pool);
        self.attend(qkv, &mut work.attended, tables, pool);
        self.project_back(&work.attended, &self.layer.output, &mut work.projected, &mut work.scratch);
        self.add(work);
    }

    /// `hidden += mlp(norm(hidden))`.
    fn mlp(&self, work: &mut Work) {
        let config = self.config;
        self.norm(&self.norms.mlp, work);
        let (tokens, mlp) = (self.tokens.len(), config.intermediate as usize);
        let gate_up = &mut work.gate_up[..tokens * 2 * mlp];
        let normed = &work.normed[..tokens * config.hidden as usize];
        linear(normed, &self.layer.gate_up, config.dtype, gate_up, &mut work.scratch);
        each_part(&mut work.gated[..tokens * mlp], mlp, tokens * mlp * 8, |token, gated| {
            widest(|| silu_mul(&gate_up[token * 2 * mlp..][..2 * mlp], gated));
        });
        self.project_back(&work.gated, &self.layer.down, &mut work.projected, &mut work.scratch);
        self.add(work);
    }

    fn norm(&self, weight: &[f32], work: &mut Work) {
        let width = self.config.hidden as usize;
        let elements = self.tokens.len() * width;
        work.normed[..elements].copy_from_slice(&work.hidden[..elements]);
        each_part(&mut work.normed[..elements], width, elements * 2, |_, row| {
            widest(|| rms_norm(row, weight, self.config.norm_epsilon));
        });
    }

    fn append(&self, qkv: &mut [f32], rotations: &[(f32, f32)], tables: &Tables, pool: &mut Pool) {
        let config = self.config;
        let append = Append {
            heads_q: config.heads_q as usize,
            head_dim: config.head_dim as usize,
            q_weight: self.norms.q.as_deref(),
            k_weight: self.norms.k.as_deref(),
            epsilon: config.norm_epsilon,
            style: config.rope.style,
            k_scale: None,
            v_scale: None,
        };
        let half = append.head_dim / 2;
        let cost = qkv.len() * 4;
        each_part(qkv, config.qkv_width(), cost, |token, qkv| {
            widest(|| append.norm_and_rotate(qkv, &rotations[token * half..][..half]));
        });
        let shift = pool.paging().page_shift;
        for (token, qkv) in self.tokens.iter().zip(qkv.chunks_exact(config.qkv_width())) {
            let position = token.position as usize;
            let page = tables.of(token.slot)[position >> shift] as usize;
            let place = Place { page, layer: self.at, offset: position & ((1 << shift) - 1) };
            append.store(qkv, place, pool);
        }
    }

    /// Every token and head by itself, whether decoded or part of a chunk.
    fn attend(&self, qkv: &[f32], attended: &mut [f32], tables: &Tables, pool: &Pool) {
        let config = self.config;
        let (heads_kv, group) = (config.heads_kv as usize, config.group() as usize);
        let width = group * config.head_dim as usize;
        let seen: usize = self.tokens.iter().map(|token| token.position as usize + 1).sum();
        let cost = 2 * seen * config.q_width();
        each_part(&mut attended[..self.tokens.len() * config.q_width()], width, cost, |at, output| {
            let (Token { position, slot, .. }, head) = (self.tokens[at / heads_kv], at % heads_kv);
            let query = &qkv[at / heads_kv * config.qkv_width() + head * width..][..width];
            let table = tables.of(slot);
            let cached = &Cached { pool, layer: self.at, table, k_scale: None, v_scale: None };
            let mut lse = [0.0; ModelConfig::GROUP_MAX as usize];
            let (length, scale, lse) = (position as usize + 1, config.attention_scale(), &mut lse[..group]);
            widest(Attend { query, cached, head, length, scale, output, lse });
        });
    }

    fn project_back(&self, input: &[f32], weight: &Tensor, output: &mut [f32], scratch: &mut [f32]) {
        let tokens = self.tokens.len();
        let input = &input[..tokens * weight.columns()];
        linear(input, weight, self.config.dtype, &mut output[..tokens * weight.rows()], scratch);
    }

    fn add(&self, work: &mut Work) {
        let elements = self.tokens.len() * self.config.hidden as usize;
        let projected = &work.projected[..elements];
        work.hidden[..elements].iter_mut().zip(projected).for_each(|(hidden, more)| *hidden += more);
    }
}
