//! Norms and turns queries and keys, and writes keys and values into their pages: the twin of `csrc/kv/append.cuh`.

use super::norm::rms_norm;
use super::pool::Pool;
use crate::model::{RopeStyle, rotation};

/// Where a token's key and value go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The page.
    pub page: usize,
    /// Its part.
    pub layer: usize,
    /// The token in the page.
    pub offset: usize,
}

/// What is the same for all tokens of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// Query heads of a token.
    pub heads_q: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// `[head_dim]`, if queries are normed.
    pub q_weight: Option<&'a [f32]>,
    /// `[head_dim]`, if keys are normed.
    pub k_weight: Option<&'a [f32]>,
    /// Of those norms.
    pub epsilon: f32,
    /// Which elements turn together.
    pub style: RopeStyle,
    /// `[heads_kv]`: what is stored, times this, is the key; absent means 1.
    pub k_scale: Option<&'a [f32]>,
    /// The same of values.
    pub v_scale: Option<&'a [f32]>,
}

/// The cosine and sine of each pair of a head at `position`, for `turns` of [`Rope::turns`](crate::model::Rope::turns).
pub fn rotations(turns: &[u64], position: u32, into: &mut [(f32, f32)]) {
    into.iter_mut().zip(turns).for_each(|(into, turns)| *into = rotation(*turns, position));
}

impl Append<'_> {
    /// Does one token: `qkv` is `[heads_q + 2 * heads_kv, head_dim]`, whose queries and keys are normed and turned in
    /// place. A token without a place writes nothing into `pool`.
    pub fn append(&self, qkv: &mut [f32], rotations: &[(f32, f32)], place: Option<Place>, pool: &mut Pool) {
        self.norm_and_rotate(qkv, rotations);
        if let Some(place) = place {
            self.store(qkv, place, pool);
        }
    }

    /// The part of it that touches the token alone.
    #[inline(always)]
    pub(super) fn norm_and_rotate(&self, qkv: &mut [f32], rotations: &[(f32, f32)]) {
        let heads_kv = (qkv.len() / self.head_dim - self.heads_q) / 2;
        let turned = &mut qkv[..(self.heads_q + heads_kv) * self.head_dim];
        for (at, head) in turned.chunks_exact_mut(self.head_dim).enumerate() {
            let weight = if at < self.heads_q { self.q_weight } else { self.k_weight };
            if let Some(weight) = weight {
                rms_norm(head, weight, self.epsilon);
            }
            rotate(head, rotations, self.style);
        }
    }

    /// Writes a token's keys and values, which are normed and turned.
    pub(super) fn store(&self, qkv: &[f32], place: Place, pool: &mut Pool) {
        let paging = *pool.paging();
        let Place { page, layer, offset } = place;
        let (keys, values) = qkv[self.heads_q * self.head_dim..].split_at(paging.heads_kv * self.head_dim);
        let heads = keys.chunks_exact(self.head_dim).zip(values.chunks_exact(self.head_dim)).enumerate();
        for (head, (key, value)) in heads {
            store_scaled(pool, paging.key(page, layer, head, offset), key, self.k_scale.map(|s| s[head]));
            store_scaled(pool, paging.value(page, layer, head, offset), value, self.v_scale.map(|s| s[head]));
        }
    }
}

fn store_scaled(pool: &mut Pool, at: usize, values: &[f32], scale: Option<f32>) {
    match scale {
        None => pool.store(at, values),
        Some(scale) => {
            values.iter().enumerate().for_each(|(i, value)| pool.store(at + i, &[value / scale]));
        }
    }
}

#[inline(always)]
fn rotate(head: &mut [f32], rotations: &[(f32, f32)], style: RopeStyle) {
    match style {
        RopeStyle::NeoX => {
            let (low, high) = head.split_at_mut(rotations.len());
            for ((a, b), turn) in low.iter_mut().zip(high).zip(rotations) {
                (*a, *b) = turned(*a, *b, *turn);
            }
        }
        RopeStyle::Interleaved => {
            for (pair, turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotations) {
                [pair[0], pair[1]] = turned(pair[0], pair[1], *turn).into();
            }
        }
    }
}

#[inline(always)]
fn turned(a: f32, b: f32, (cosine, sine): (f32, f32)) -> (f32, f32) {
    (a * cosine - b * sine, b * cosine + a * sine)
}
