//! Attention over paged keys and values: the twins of `csrc/attention`.
//!
//! A query sees the tokens before its own and itself, in tiles of [`TILE`] tokens from the first on, by an online
//! softmax (Milakov and Gimelshein, 2018). So what comes out depends on the sequence alone: not on its batch, not on
//! where its pages lie, and not on whether the query was decoded or part of a chunk.

use super::linear::dot;
use super::norm::exp2;
use super::pool::Pool;
use super::simd::{Work, widest};
use crate::model::ModelConfig;
use std::f32::consts::{LN_2, LOG2_E};

/// Tokens whose weights are computed under one maximum.
const TILE: usize = 64;
/// The most query heads that share keys and values.
const GROUP_MAX: usize = ModelConfig::GROUP_MAX as usize;
/// The largest head.
const HEAD_DIM_MAX: usize = 256;

/// The keys and values of one sequence in one layer.
#[derive(Clone, Copy, Debug)]
pub struct Cached<'a> {
    /// Where they lie.
    pub pool: &'a Pool,
    /// Which layer of it.
    pub layer: usize,
    /// The sequence's pages, in their order.
    pub table: &'a [u32],
    /// `[heads_kv]`: what is stored, times this, is the key; absent means 1.
    pub k_scale: Option<&'a [f32]>,
    /// The same of values.
    pub v_scale: Option<&'a [f32]>,
}

/// One query token over the first `length` tokens: `query` and `output` are `[heads_q, head_dim]`, `lse` is
/// `[heads_q]`, the natural logarithm of each head's sum. No token at all yields zeros, and minus infinity.
pub fn decode(
    query: &[f32],
    cached: &Cached<'_>,
    length: usize,
    scale: f32,
    output: &mut [f32],
    lse: &mut [f32],
) {
    let heads_kv = cached.pool.paging().heads_kv;
    let (width, group) = (query.len() / heads_kv, lse.len() / heads_kv);
    for head in 0..heads_kv {
        let part = head * width..(head + 1) * width;
        let (query, output) = (&query[part.clone()], &mut output[part]);
        let lse = &mut lse[head * group..][..group];
        widest(Attend { query, cached, head, length, scale, output, lse });
    }
}

/// A chunk of `tokens` queries, the last tokens of `length`: `queries` and `output` are `[tokens, heads_q, head_dim]`,
/// `lse` is `[tokens, heads_q]`. Each sees the tokens before it and itself; a chunk longer than the cache sees nothing
/// with its first queries.
pub fn prefill(
    tokens: usize,
    queries: &[f32],
    cached: &Cached<'_>,
    length: usize,
    scale: f32,
    output: &mut [f32],
    lse: &mut [f32],
) {
    for token in 0..tokens {
        let visible = (length + token + 1).saturating_sub(tokens);
        let part = |len: usize| token * (len / tokens)..(token + 1) * (len / tokens);
        let (query, heads) = (part(queries.len()), part(lse.len()));
        decode(&queries[query.clone()], cached, visible, scale, &mut output[query], &mut lse[heads]);
    }
}

/// The query heads of one group over the first `length` tokens of their key and value head.
pub(super) struct Attend<'a> {
    /// `[group, head_dim]`.
    pub query: &'a [f32],
    pub cached: &'a Cached<'a>,
    /// The key and value head.
    pub head: usize,
    pub length: usize,
    /// Of the logits.
    pub scale: f32,
    /// `[group, head_dim]`.
    pub output: &'a mut [f32],
    /// `[group]`.
    pub lse: &'a mut [f32],
}

impl Work for Attend<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { query, cached, head, length, scale, output, lse } = self;
        let dim = cached.pool.paging().head_dim;
        let group = lse.len();
        let factor = scale * LOG2_E * cached.k_scale.map_or(1.0, |s| s[head]);
        let mut rows = [Softmax::EMPTY; GROUP_MAX];
        let mut weights = [[0.0_f32; TILE]; GROUP_MAX];
        let mut wide = [0.0_f32; HEAD_DIM_MAX];
        let wide = &mut wide[..dim];
        output.fill(0.0);
        for begin in (0..length).step_by(TILE) {
            let tokens = TILE.min(length - begin);
            for token in 0..tokens {
                cached.pool.load(cached.key(head, begin + token), wide);
                for (weights, query) in weights.iter_mut().zip(query.chunks_exact(dim)) {
                    weights[token] = dot(query, wide) * factor;
                }
            }
            let softmaxes = rows[..group].iter_mut().zip(&mut weights).zip(output.chunks_exact_mut(dim));
            for ((row, weights), output) in softmaxes {
                let keep = row.weigh(&mut weights[..tokens]);
                output.iter_mut().for_each(|o| *o *= keep);
            }
            for token in 0..tokens {
                cached.pool.load(cached.value(head, begin + token), wide);
                for (weights, output) in weights.iter().zip(output.chunks_exact_mut(dim)) {
                    output.iter_mut().zip(&*wide).for_each(|(o, v)| *o += weights[token] * v);
                }
            }
        }
        let unit = cached.v_scale.map_or(1.0, |s| s[head]);
        for ((row, output), lse) in rows.iter().zip(output.chunks_exact_mut(dim)).zip(lse) {
            let factor = row.normalizer() * unit;
            output.iter_mut().for_each(|o| *o *= factor);
            *lse = row.lse();
        }
    }
}

impl Cached<'_> {
    #[inline(always)]
    fn key(&self, head: usize, token: usize) -> usize {
        let paging = self.pool.paging();
        let page = self.table[token >> paging.page_shift] as usize;
        paging.key(page, self.layer, head, token & ((1 << paging.page_shift) - 1))
    }

    #[inline(always)]
    fn value(&self, head: usize, token: usize) -> usize {
        let paging = self.pool.paging();
        let page = self.table[token >> paging.page_shift] as usize;
        paging.value(page, self.layer, head, token & ((1 << paging.page_shift) - 1))
    }
}

/// What is known of a row after some of its logits, which are in log2 units: the twin of `csrc/core/softmax.h`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Softmax {
    max: f32,
    /// Of `2^(logit - max)`.
    sum: f32,
}

impl Softmax {
    const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Turns logits into weights under the maximum so far, and says by what to multiply what was summed under the old
    /// one. Where all are minus infinity so far, their difference would be NaN: their weight is 0.
    #[inline(always)]
    fn weigh(&mut self, logits: &mut [f32]) -> f32 {
        let max = logits.iter().fold(self.max, |max, logit| max.max(*logit));
        let keep = if self.max == f32::NEG_INFINITY { 0.0 } else { exp2(self.max - max) };
        let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
        logits.iter_mut().for_each(|logit| *logit = exp2(*logit - base));
        self.sum = logits.iter().fold(self.sum * keep, |sum, weight| sum + weight);
        self.max = max;
        keep
    }

    fn normalizer(&self) -> f32 {
        if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum }
    }

    fn lse(&self) -> f32 {
        if self.sum == 0.0 { f32::NEG_INFINITY } else { (self.max + self.sum.log2()) * LN_2 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::Paging;
    use super::*;
    use crate::number::Dtype;
    use crate::prng::Prng;

    const GROUP: usize = 3;
    const PAGING: Paging = Paging { layers: 2, heads_kv: 2, page_shift: 4, head_dim: 16 };

    /// A sequence of `length` tokens on shuffled pages, in layer 1.
    fn sequence(p: &mut Prng, length: usize) -> (Pool, Vec<u32>) {
        let pages = length.div_ceil(16) + 2;
        let mut table: Vec<u32> = (0..pages as u32).collect();
        (1..pages).rev().for_each(|at| table.swap(at, p.below(at as u64 + 1) as usize));
        let mut pool = Pool::new(PAGING, Dtype::Bf16, pages);
        for token in 0..length {
            for head in 0..2 {
                let (page, offset) = (table[token / 16] as usize, token % 16);
                for at in [PAGING.key(page, 1, head, offset), PAGING.value(page, 1, head, offset)] {
                    let values: Vec<f32> = (0..16).map(|_| p.normal() as f32).collect();
                    pool.store(at, &values);
                }
            }
        }
        (pool, table)
    }

    /// The output and the logarithm of the sum of one head, in `f64`.
    fn reference(
        query: &[f32],
        cached: &Cached<'_>,
        head: usize,
        length: usize,
        scale: f32,
    ) -> (Vec<f64>, f64) {
        let load = |at| {
            let mut wide = vec![0.0; PAGING.head_dim];
            cached.pool.load(at, &mut wide);
            wide
        };
        let logits: Vec<f64> = (0..length)
            .map(|token| {
                let key = load(cached.key(head, token));
                let sum: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(k)).sum();
                sum * f64::from(scale)
            })
            .collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
        let mut output = vec![0.0; PAGING.head_dim];
        for (token, logit) in logits.iter().enumerate() {
            let weight = (logit - max).exp() / sum;
            let value = load(cached.value(head, token));
            output.iter_mut().zip(value).for_each(|(o, v)| *o += weight * f64::from(v));
        }
        (output, max + sum.ln())
    }

    #[test]
    fn a_chunk_is_its_reference_and_each_of_its_tokens_is_a_decode() {
        let mut p = Prng::new(1);
        let width = 2 * GROUP * PAGING.head_dim;
        for (length, tokens) in [(1, 1), (16, 3), (63, 1), (64, 64), (65, 2), (200, 7)] {
            let (pool, table) = sequence(&mut p, length);
            let cached = Cached { pool: &pool, layer: 1, table: &table, k_scale: None, v_scale: None };
            let queries: Vec<f32> = (0..tokens * width).map(|_| p.normal() as f32).collect();
            let (mut output, mut lse) = (vec![f32::NAN; tokens * width], vec![f32::NAN; tokens * 2 * GROUP]);
            prefill(tokens, &queries, &cached, length, 0.25, &mut output, &mut lse);
            for token in 0..tokens {
                let visible = length - tokens + token + 1;
                let query = &queries[token * width..][..width];
                let (mut alone, mut alone_lse) = (vec![f32::NAN; width], [f32::NAN; 2 * GROUP]);
                decode(query, &cached, visible, 0.25, &mut alone, &mut alone_lse);
                assert_eq!(alone, output[token * width..][..width]);
                for (head, alone_lse) in alone_lse.iter().enumerate() {
                    let part = head * PAGING.head_dim..(head + 1) * PAGING.head_dim;
                    let (want, want_lse) =
                        reference(&query[part.clone()], &cached, head / GROUP, visible, 0.25);
                    let off = alone[part].iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs());
                    assert!(off.fold(0.0, f64::max) < 2e-6, "{length} tokens, head {head}");
                    assert!((f64::from(*alone_lse) - want_lse).abs() < 2e-6);
                }
            }
        }
    }

    #[test]
    fn nothing_to_see_is_zeros() {
        let (pool, table) = sequence(&mut Prng::new(2), 2);
        let cached = Cached { pool: &pool, layer: 1, table: &table, k_scale: None, v_scale: None };
        let width = 2 * GROUP * PAGING.head_dim;
        let (mut output, mut lse) = (vec![f32::NAN; 3 * width], vec![f32::NAN; 6 * GROUP]);
        prefill(3, &vec![1.0; 3 * width], &cached, 2, 1.0, &mut output, &mut lse);
        assert!(output[..width].iter().all(|o| *o == 0.0) && output[width..].iter().all(|o| o.is_finite()));
        assert!(lse[..2 * GROUP].iter().all(|l| *l == f32::NEG_INFINITY));
    }
}
