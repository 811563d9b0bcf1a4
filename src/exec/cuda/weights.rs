//! A model's weights on the device.

use super::{Arena, Buffer, CudaError, Stream};
use crate::model::{Layer, Model, Tensor};

/// The weights of one layer, as [`Layer`] has them.
#[derive(Debug)]
pub struct LayerWeights {
    pub attention_norm: Buffer<u8>,
    pub qkv: Buffer<u8>,
    pub q_norm: Option<Buffer<u8>>,
    pub k_norm: Option<Buffer<u8>>,
    pub output: Buffer<u8>,
    pub mlp_norm: Buffer<u8>,
    pub gate_up: Buffer<u8>,
    pub down: Buffer<u8>,
}

/// All weights.
#[derive(Debug)]
pub struct DeviceWeights {
    pub embedding: Buffer<u8>,
    pub layers: Vec<LayerWeights>,
    pub final_norm: Buffer<u8>,
    pub lm_head: Buffer<u8>,
    /// Turns per position of each pair of a head.
    pub turns: Buffer<u64>,
}

impl DeviceWeights {
    /// Bytes that they take of an arena.
    pub fn bytes(model: &Model) -> u64 {
        let tensors: u64 = model.weights().tensors().map(|t| Arena::bytes_of::<u16>(t.bits().len())).sum();
        tensors + Arena::bytes_of::<u64>(model.config().head_dim as usize / 2)
    }

    /// Copies them.
    ///
    /// # Errors
    /// If the arena is full or the device is lost.
    pub fn upload(model: &Model, arena: &mut Arena, stream: &Stream) -> Result<Self, CudaError> {
        let turns = model.config().rope.turns(model.config().head_dim);
        let kept = arena.take("the rotary frequencies", turns.len())?;
        stream.upload(&turns, &kept)?;
        let mut put = |tensor: &Tensor| {
            let buffer = arena.take::<u16>(tensor.name(), tensor.bits().len())?;
            stream.upload(tensor.bits(), &buffer)?;
            Ok::<_, CudaError>(buffer.as_bytes())
        };
        let weights = model.weights();
        let embedding = put(&weights.embedding)?;
        let layers = weights
            .layers
            .iter()
            .map(|layer| LayerWeights::upload(layer, &mut put))
            .collect::<Result<_, _>>()?;
        let final_norm = put(&weights.final_norm)?;
        let lm_head = weights.lm_head.as_ref().map_or_else(|| Ok(embedding.clone()), &mut put)?;
        Ok(Self { embedding, layers, final_norm, lm_head, turns: kept })
    }
}

impl LayerWeights {
    fn upload(
        layer: &Layer,
        put: &mut impl FnMut(&Tensor) -> Result<Buffer<u8>, CudaError>,
    ) -> Result<Self, CudaError> {
        Ok(Self {
            attention_norm: put(&layer.attention_norm)?,
            qkv: put(&layer.qkv)?,
            q_norm: layer.q_norm.as_ref().map(&mut *put).transpose()?,
            k_norm: layer.k_norm.as_ref().map(&mut *put).transpose()?,
            output: put(&layer.output)?,
            mlp_norm: put(&layer.mlp_norm)?,
            gate_up: put(&layer.gate_up)?,
            down: put(&layer.down)?,
        })
    }
}
