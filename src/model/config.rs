//! What a decoder looks like: sizes and constants, checked once.

use super::ModelError;
use super::rope::Rope;
use crate::number::Dtype;
use serde::{Deserialize, Serialize};

/// The sizes and constants of a decoder.
///
/// A layer is `x += attention(norm(x)); x += mlp(norm(x))` with RMSNorm, grouped-query attention with rotary
/// positions, and a SiLU-gated MLP, no biases: Llama 2 and 3, Mistral without a sliding window, Qwen3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Layers.
    pub layers: u32,
    /// Elements of a token between layers; a multiple of 8.
    pub hidden: u32,
    /// Query heads of a layer.
    pub heads_q: u32,
    /// Key and value heads of a layer, of which each serves `heads_q / heads_kv` query heads.
    pub heads_kv: u32,
    /// Elements of a head: one of [`ModelConfig::HEAD_DIMS`].
    pub head_dim: u32,
    /// Elements of a token inside the MLP; a multiple of 8.
    pub intermediate: u32,
    /// Token ids.
    pub vocab: u32,
    /// The most positions that the model was made for.
    pub context: u32,
    /// Added to the mean square before its root is taken.
    pub norm_epsilon: f32,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// Whether queries and keys are normed by head before they are turned.
    pub qk_norm: bool,
    /// Whether the embedding is also the output projection.
    pub tied: bool,
    /// What the weights are stored as: bf16 or f16.
    pub dtype: Dtype,
}

impl ModelConfig {
    /// The head sizes that kernels exist for.
    pub const HEAD_DIMS: &[u32] = &[64, 80, 96, 128, 256];
    /// The most query heads that share a key and value head.
    pub const GROUP_MAX: u32 = 16;
    /// The largest vocabulary: a bound above those of every Llama, Mistral and Qwen3 (151,936 at most). Sampling's
    /// masses, at most 2^40 + 1 each, add up within 64 bits for 2^5 times as many.
    pub const VOCAB_MAX: u32 = 1 << 18;

    /// Query heads per key and value head.
    pub const fn group(&self) -> u32 {
        self.heads_q / self.heads_kv
    }

    /// Elements of a token's queries, which is what attention yields.
    pub const fn q_width(&self) -> usize {
        self.heads_q as usize * self.head_dim as usize
    }

    /// Elements of a token's keys, or values.
    pub const fn kv_width(&self) -> usize {
        self.heads_kv as usize * self.head_dim as usize
    }

    /// Elements of a token's fused projection: queries, keys, values.
    pub const fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// What logits of attention are multiplied with: one over the root of `head_dim`.
    pub fn attention_scale(&self) -> f32 {
        (1.0 / f64::from(self.head_dim).sqrt()) as f32
    }

    /// Elements of a KV block of `block_size` tokens, all layers:
    /// `[layers][K|V][heads_kv][block_size][head_dim]`.
    pub const fn block_elements(&self, block_size: u32) -> usize {
        self.layers as usize * self.layer_elements(block_size)
    }

    /// Elements of one layer's part of a KV block.
    pub const fn layer_elements(&self, block_size: u32) -> usize {
        2 * self.kv_width() * block_size as usize
    }

    /// Weights in all; a tied output projection counts once.
    pub fn parameters(&self) -> u64 {
        let [hidden, q, qkv, mlp, vocab] = [
            self.hidden as usize,
            self.q_width(),
            self.qkv_width(),
            self.intermediate as usize,
            self.vocab as usize,
        ]
        .map(|n| n as u64);
        let qk_norm = if self.qk_norm { 2 * u64::from(self.head_dim) } else { 0 };
        let layer = hidden * (qkv + q + 3 * mlp + 2) + qk_norm;
        let heads = if self.tied { 1 } else { 2 };
        layer * u64::from(self.layers) + hidden * (heads * vocab + 1)
    }

    /// Whether the numbers fit together.
    ///
    /// # Errors
    /// The first that does not, with its value and its bounds.
    pub fn check(&self) -> Result<(), ModelError> {
        within("layers", self.layers, 1, 1024)?;
        within("hidden", self.hidden, 8, 1 << 16)?;
        multiple_of_8("hidden", self.hidden)?;
        within("heads_q", self.heads_q, 1, 1024)?;
        within("heads_kv", self.heads_kv, 1, self.heads_q)?;
        let whole = self.heads_q.is_multiple_of(self.heads_kv) && self.group() <= Self::GROUP_MAX;
        ensure(whole, "heads_kv", self.heads_kv, || {
            format!("heads_q ({}) divided by 1 to {}", self.heads_q, Self::GROUP_MAX)
        })?;
        let known = Self::HEAD_DIMS.contains(&self.head_dim);
        ensure(known, "head_dim", self.head_dim, || format!("one of {:?}", Self::HEAD_DIMS))?;
        within("intermediate", self.intermediate, 8, 1 << 20)?;
        multiple_of_8("intermediate", self.intermediate)?;
        within("vocab", self.vocab, 1, Self::VOCAB_MAX)?;
        within("context", self.context, 1, 1 << 24)?;
        let epsilon = self.norm_epsilon;
        ensure(epsilon > 0.0 && epsilon < 1.0, "norm_epsilon", epsilon, || "above 0 and below 1".into())?;
        let half = matches!(self.dtype, Dtype::Bf16 | Dtype::F16);
        ensure(half, "dtype", self.dtype.name(), || "bf16 or f16".into())?;
        self.rope.check()
    }
}

fn multiple_of_8(field: &'static str, value: u32) -> Result<(), ModelError> {
    ensure(value.is_multiple_of(8), field, value, || "a multiple of 8".into())
}

fn within(field: &'static str, value: u32, low: u32, high: u32) -> Result<(), ModelError> {
    ensure((low..=high).contains(&value), field, value, || format!("in {low}..={high}"))
}

pub(super) fn ensure(
    holds: bool,
    field: &'static str,
    value: impl ToString,
    bounds: impl FnOnce() -> String,
) -> Result<(), ModelError> {
    if holds { Ok(()) } else { Err(ModelError::Bad { field, value: value.to_string(), bounds: bounds() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny;

    #[test]
    fn each_bad_number_is_named() {
        let name = |change: fn(&mut ModelConfig)| {
            let mut config = tiny();
            change(&mut config);
            match config.check().unwrap_err() {
                ModelError::Bad { field, .. } => field,
                other => panic!("{other}"),
            }
        };
        tiny().check().unwrap();
        assert_eq!(name(|c| c.layers = 0), "layers");
        assert_eq!(name(|c| c.hidden = 12), "hidden");
        assert_eq!(name(|c| c.heads_kv = 3), "heads_kv");
        assert_eq!(name(|c| (c.heads_q, c.heads_kv) = (17, 1)), "heads_kv");
        assert_eq!(name(|c| c.head_dim = 72), "head_dim");
        assert_eq!(name(|c| c.intermediate = 4), "intermediate");
        assert_eq!(name(|c| c.vocab = 1 << 19), "vocab");
        assert_eq!(name(|c| c.context = 0), "context");
        assert_eq!(name(|c| c.norm_epsilon = f32::NAN), "norm_epsilon");
        assert_eq!(name(|c| c.dtype = Dtype::E4m3), "dtype");
        assert_eq!(name(|c| c.rope.theta = 1.0), "rope theta");
    }

    #[test]
    fn widths_are_those_of_a_known_model() {
        // Llama 3 8B: 8,030,261,248 parameters, 131,072 bytes of KV per token.
        let config = ModelConfig {
            layers: 32,
            hidden: 4096,
            heads_q: 32,
            heads_kv: 8,
            head_dim: 128,
            intermediate: 14_336,
            vocab: 128_256,
            context: 8192,
            qk_norm: false,
            tied: false,
            ..tiny()
        };
        config.check().unwrap();
        assert_eq!(config.parameters(), 8_030_261_248);
        assert_eq!(config.block_elements(16) * config.dtype.bytes(), 16 * 131_072);
        assert_eq!((config.group(), config.qkv_width()), (4, 6144));
    }
}
