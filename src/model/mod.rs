//! A decoder: its description, its weights, and where they come from. It computes nothing; executors do.
//!
//! Llama-like: RMSNorm, grouped-query attention with rotary positions and optionally normed queries and keys, a
//! SiLU-gated MLP. Weights are bf16 or f16; queries, keys and values are one matrix, and so are gate and up.

mod checkpoint;
mod config;
mod error;
mod rope;
mod safetensors;
mod weights;

pub use config::ModelConfig;
pub use error::ModelError;
pub use rope::{Rope, RopeScaling, RopeStyle, rotation};
pub use weights::{Layer, Tensor, Weights, widener};

use crate::number::Dtype;
use std::fs::{self, File};
use std::path::Path;

/// A description with its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    config: ModelConfig,
    weights: Weights,
}

impl Model {
    /// A model with made-up weights: the same for the same seed, on every machine.
    ///
    /// # Errors
    /// If the description does not fit together.
    pub fn random(config: ModelConfig, seed: u64) -> Result<Self, ModelError> {
        config.check()?;
        let weights = Weights::random(&config, seed);
        Ok(Self { config, weights })
    }

    /// Its description.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// Opens a file of a model.
fn open(path: &Path) -> Result<File, ModelError> {
    let name = || path.display().to_string();
    let io = |source| ModelError::Io { path: name(), source };
    // To open what is no file may wait for ever, and to read it may never end.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(ModelError::Format { path: name(), what: "it is no regular file".into() });
    }
    File::open(path).map_err(io)
}

/// A small decoder with everything that a large one has: several layers, four query heads for each of two key and
/// value heads, normed queries and keys. For tests and demonstrations, with [`Model::random`].
pub fn tiny() -> ModelConfig {
    ModelConfig {
        layers: 3,
        hidden: 64,
        heads_q: 8,
        heads_kv: 2,
        head_dim: 64,
        intermediate: 96,
        vocab: 256,
        context: 4096,
        norm_epsilon: 1e-5,
        rope: Rope { theta: 1e4, style: RopeStyle::NeoX, scaling: None },
        qk_norm: true,
        tied: false,
        dtype: Dtype::Bf16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn one_seed_gives_one_model_with_every_weight_in_its_shape() {
        let model = Model::random(tiny(), 7).unwrap();
        assert_eq!(model, Model::random(tiny(), 7).unwrap());
        assert_ne!(model, Model::random(tiny(), 8).unwrap());
        let (config, weights) = (model.config(), model.weights());
        assert_eq!(weights.tensors().map(|t| t.bits().len() as u64).sum::<u64>(), config.parameters());
        let layer = &weights.layers[2];
        assert_eq!((layer.qkv.rows(), layer.qkv.columns()), ((8 + 2 + 2) * 64, 64));
        assert_eq!((layer.down.rows(), layer.down.columns()), (64, 96));
        assert_eq!(layer.gate_up.name(), "model.layers.2.mlp.gate_proj.weight");
        assert!(layer.q_norm.is_some() && weights.lm_head.is_some());
    }

    #[test]
    fn rows_of_a_large_tensor_differ_though_weights_come_again() {
        let model = Model::random(ModelConfig { vocab: 70_000, tied: true, ..tiny() }, 3).unwrap();
        let embedding = &model.weights().embedding;
        let rows: HashSet<&[u16]> = embedding.bits().chunks_exact(embedding.columns()).collect();
        assert_eq!(rows.len(), 70_000);
    }

    #[test]
    fn tied_and_plain_models_lack_what_they_do_not_need() {
        let model = Model::random(ModelConfig { tied: true, qk_norm: false, ..tiny() }, 1).unwrap();
        let weights = model.weights();
        assert!(weights.lm_head.is_none() && weights.layers.iter().all(|l| l.q_norm.is_none()));
        assert_eq!(weights.lm_head(), &weights.embedding);
        assert_eq!(
            weights.tensors().map(|t| t.bits().len() as u64).sum::<u64>(),
            model.config().parameters()
        );
    }

    #[test]
    fn weights_are_stored_as_the_description_says() {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            let model = Model::random(ModelConfig { dtype, ..tiny() }, 3).unwrap();
            let wide = widener(dtype);
            let norm = &model.weights().final_norm;
            let mean = norm.bits().iter().map(|b| f64::from(wide(*b))).sum::<f64>() / norm.columns() as f64;
            assert!((mean - 1.0).abs() < 0.1, "{dtype:?}: {mean}");
        }
    }

    #[test]
    fn a_bad_description_makes_no_model() {
        let error = Model::random(ModelConfig { head_dim: 65, ..tiny() }, 1).unwrap_err().to_string();
        assert_eq!(error, "head_dim is 65, but must be one of [64, 80, 96, 128, 256]");
    }
}
