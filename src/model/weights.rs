//! The weights of a decoder: matrices of small floats, and made-up ones for tests and demonstrations.

use super::{ModelConfig, ModelError};
use crate::number::{Dtype, from_bf16, from_f16, to_bf16, to_f16};
use crate::prng::Prng;

/// A matrix, or a vector as a matrix of one row: `[rows, columns]` small floats of the model's type, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    name: String,
    rows: usize,
    columns: usize,
    bits: Box<[u16]>,
}

impl Tensor {
    /// A tensor of these bits.
    ///
    /// # Errors
    /// If they are not `rows * columns`.
    pub fn new(
        name: impl Into<String>,
        rows: usize,
        columns: usize,
        bits: Vec<u16>,
    ) -> Result<Self, ModelError> {
        let name = name.into();
        if rows * columns != bits.len() {
            return Err(ModelError::Shape { name, shape: vec![bits.len()], expected: vec![rows, columns] });
        }
        Ok(Self { name, rows, columns, bits: bits.into() })
    }

    /// Its name, as in checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows: outputs of a projection, token ids of an embedding, 1 for a vector.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns: inputs of a projection.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All elements.
    pub fn bits(&self) -> &[u16] {
        &self.bits
    }

    /// One row.
    pub fn row(&self, at: usize) -> &[u16] {
        &self.bits[at * self.columns..][..self.columns]
    }
}

/// The weights of one layer. A projection is `[outputs, inputs]`: its output is `weight * input`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// `[1, hidden]`, before attention.
    pub attention_norm: Tensor,
    /// `[heads_q * head_dim + 2 * heads_kv * head_dim, hidden]`: queries, keys, values.
    pub qkv: Tensor,
    /// `[1, head_dim]`, of queries, if the model norms them.
    pub q_norm: Option<Tensor>,
    /// `[1, head_dim]`, of keys, if the model norms them.
    pub k_norm: Option<Tensor>,
    /// `[hidden, heads_q * head_dim]`.
    pub output: Tensor,
    /// `[1, hidden]`, before the MLP.
    pub mlp_norm: Tensor,
    /// `[2 * intermediate, hidden]`: the gate, then what it gates.
    pub gate_up: Tensor,
    /// `[hidden, intermediate]`.
    pub down: Tensor,
}

/// All weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// `[vocab, hidden]`.
    pub embedding: Tensor,
    /// In their order.
    pub layers: Vec<Layer>,
    /// `[1, hidden]`, after the last layer.
    pub final_norm: Tensor,
    /// `[vocab, hidden]`; absent where the embedding serves.
    pub lm_head: Option<Tensor>,
}

/// What tokens begin as, in the Hugging Face format.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";

/// Where the parts of a model come from: a generator of made-up weights, or a checkpoint.
pub(super) trait Source {
    /// The part of this name and shape, or parts of these names one below the other.
    fn take(&mut self, names: &[String], rows: &[usize], columns: usize) -> Result<Tensor, ModelError>;
}

impl Weights {
    /// Takes every weight that `config` calls for, by its name in the Hugging Face format.
    pub(super) fn collect(config: &ModelConfig, source: &mut dyn Source) -> Result<Self, ModelError> {
        let (hidden, vocab) = (config.hidden as usize, config.vocab as usize);
        let embedding = source.take(&[EMBEDDING.into()], &[vocab], hidden)?;
        let layers = (0..config.layers).map(|at| layer(config, at, source)).collect::<Result<_, _>>()?;
        let final_norm = source.take(&["model.norm.weight".into()], &[1], hidden)?;
        let lm_head = match config.tied {
            true => None,
            false => Some(source.take(&["lm_head.weight".into()], &[vocab], hidden)?),
        };
        Ok(Self { embedding, layers, final_norm, lm_head })
    }

    /// Made-up weights of `seed`, scaled such that activations keep their size from layer to layer and logits
    /// have a standard deviation near 3: tokens are neither certain nor ties.
    pub(super) fn random(config: &ModelConfig, seed: u64) -> Self {
        let mut source = Random { config, prng: Prng::new(seed) };
        Self::collect(config, &mut source).expect("made-up weights have the shape that is asked for")
    }

    /// The output projection, `[vocab, hidden]`.
    pub fn lm_head(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embedding)
    }

    /// Every tensor.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let layers = self.layers.iter().flat_map(|layer| {
            let Layer { attention_norm, qkv, q_norm, k_norm, output, mlp_norm, gate_up, down } = layer;
            let always = [attention_norm, qkv, output, mlp_norm, gate_up, down];
            always.into_iter().chain(q_norm).chain(k_norm)
        });
        [&self.embedding, &self.final_norm].into_iter().chain(layers).chain(&self.lm_head)
    }
}

fn layer(config: &ModelConfig, at: u32, source: &mut dyn Source) -> Result<Layer, ModelError> {
    let (hidden, head_dim) = (config.hidden as usize, config.head_dim as usize);
    let (q, kv, mlp) = (config.q_width(), config.kv_width(), config.intermediate as usize);
    let mut take = |parts: &[&str], rows: &[usize], columns: usize| {
        let names: Vec<_> = parts.iter().map(|part| format!("model.layers.{at}.{part}.weight")).collect();
        source.take(&names, rows, columns)
    };
    let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    let qk_norm = config.qk_norm;
    Ok(Layer {
        attention_norm: take(&["input_layernorm"], &[1], hidden)?,
        qkv: take(&qkv, &[q, kv, kv], hidden)?,
        q_norm: qk_norm.then(|| take(&["self_attn.q_norm"], &[1], head_dim)).transpose()?,
        k_norm: qk_norm.then(|| take(&["self_attn.k_norm"], &[1], head_dim)).transpose()?,
        output: take(&["self_attn.o_proj"], &[hidden], q)?,
        mlp_norm: take(&["post_attention_layernorm"], &[1], hidden)?,
        gate_up: take(&["mlp.gate_proj", "mlp.up_proj"], &[mlp, mlp], hidden)?,
        down: take(&["mlp.down_proj"], &[hidden], mlp)?,
    })
}

struct Random<'c> {
    config: &'c ModelConfig,
    prng: Prng,
}

/// Weights of a tensor that are drawn before they come again: a prime, so that rows are cut elsewhere each time.
const DRAWN_MAX: usize = (1 << 22) - 3;

impl Source for Random<'_> {
    fn take(&mut self, names: &[String], rows: &[usize], columns: usize) -> Result<Tensor, ModelError> {
        let (name, rows) = (&names[0], rows.iter().sum::<usize>());
        let fan_in = 1.0 / (columns as f64).sqrt();
        let (mean, deviation) = match () {
            () if rows == 1 => (1.0, 0.1),
            // A tied embedding yields logits near 3 all the same.
            () if name.contains("embed_tokens") && self.config.tied => (0.0, 3.0 * fan_in),
            () if name.contains("embed_tokens") => (0.0, 1.0),
            () if name.contains("lm_head") => (0.0, 3.0 * fan_in),
            // What goes into the residual stream adds up over all layers.
            () if name.contains("o_proj") || name.contains("down_proj") => {
                (0.0, fan_in / f64::from(2 * self.config.layers).sqrt())
            }
            () => (0.0, fan_in),
        };
        let round = rounder(self.config.dtype);
        let draw = || round((mean + deviation * self.prng.normal()) as f32);
        let count = rows * columns;
        let drawn: Vec<u16> = std::iter::repeat_with(draw).take(count.min(DRAWN_MAX)).collect();
        Tensor::new(name, rows, columns, drawn.iter().copied().cycle().take(count).collect())
    }
}

/// What rounds to a type of weights.
pub(super) fn rounder(dtype: Dtype) -> fn(f32) -> u16 {
    if dtype == Dtype::F16 { to_f16 } else { to_bf16 }
}

/// What widens a type of weights.
pub fn widener(dtype: Dtype) -> fn(u16) -> f32 {
    if dtype == Dtype::F16 { from_f16 } else { from_bf16 }
}
