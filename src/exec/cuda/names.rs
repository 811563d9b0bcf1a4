//! Which kernels of `csrc/table.h` a decoder runs on a device.

use super::{CudaError, DeviceInfo, Kernel, Kernels};
use crate::model::ModelConfig;
use crate::number::Dtype;

/// The kernels of a decoder.
#[derive(Debug)]
pub struct Names {
    pub gather: Kernel,
    pub norm: Kernel,
    pub append: Kernel,
    pub decode_plan: Kernel,
    pub decode: Kernel,
    pub decode_merge: Kernel,
    pub prefill_plan: Kernel,
    pub prefill: Kernel,
    /// Prefill by warpgroup products and tensor copies, where there is one for the device and the model.
    pub prefill_tensor: Option<Kernel>,
    pub silu_mul: Kernel,
    pub penalize: Kernel,
    pub sample: Kernel,
    pub scatter: Kernel,
}

impl Names {
    /// Finds them.
    ///
    /// # Errors
    /// If there is none for the model.
    pub fn new(kernels: &Kernels, model: &ModelConfig, kv: Dtype) -> Result<Self, CudaError> {
        let compute = model.dtype.name();
        let dim = model.head_dim;
        let stored = if kv == model.dtype { compute.to_owned() } else { format!("{compute}_{}", kv.name()) };
        let width = match model.hidden {
            0..=4096 => "4k",
            4097..=8192 => "8k",
            _ => "16k",
        };
        if model.hidden > 16_384 {
            return Err(CudaError::Misfit(format!("hidden is {}, and norms take up to 16384", model.hidden)));
        }
        Ok(Self {
            gather: kernels.get("gather_rows")?,
            norm: kernels.get(&format!("rms_norm_{compute}_{width}"))?,
            append: kernels.get(&format!("append_{stored}_d{dim}"))?,
            decode_plan: kernels.get("decode_plan")?,
            decode: kernels.get(&format!("decode_{stored}_d{dim}"))?,
            decode_merge: kernels.get(&format!("decode_merge_{compute}_d{dim}"))?,
            prefill_plan: kernels.get("prefill_plan")?,
            prefill: kernels.get(&format!("prefill_{stored}_d{dim}"))?,
            prefill_tensor: kernels.get(&format!("prefill_hopper_{stored}_d{dim}")).ok(),
            silu_mul: kernels.get(&format!("silu_mul_{compute}"))?,
            penalize: kernels.get("penalize")?,
            sample: kernels.get("sample_tokens")?,
            scatter: kernels.get("scatter_words")?,
        })
    }

    /// The shares of decode that keep a device busy: as many ctas as run at once, each with one KV head.
    pub fn shares(&self, device: &DeviceInfo, model: &ModelConfig) -> usize {
        (device.sms * self.decode.ctas_per_sm() / model.heads_kv).max(1) as usize
    }
}
