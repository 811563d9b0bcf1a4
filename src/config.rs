//! Every limit of the system, checked once when an engine is built. Nothing is unbounded.

use crate::error::ConfigError;
use crate::request::RequestId;
use crate::units::{Blocks, Tokens};
use serde::{Deserialize, Serialize};

/// How an evicted sequence keeps its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preempt {
    /// Its blocks go to host memory and come back.
    Swap,
    /// Its blocks are dropped and computed again.
    Recompute,
    /// Whichever the cost model says is cheaper for this sequence.
    #[default]
    Auto,
}

/// Whether swap traffic delays the step that it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapMode {
    /// Copies run before the kernels of their step; a sequence runs in the step that brings it back.
    #[default]
    Serial,
    /// Sequences come back beside the kernels, and run in the step after. What leaves goes before the
    /// kernels all the same, since they write into its blocks.
    Overlap,
}

/// The limits and modes of one engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Tokens of one KV block; a power of two.
    pub block_size: Tokens,
    /// KV blocks on the device.
    pub kv_blocks: Blocks,
    /// KV blocks in host memory, for swapped sequences.
    pub host_blocks: Blocks,
    /// The most sequences in one step.
    pub max_num_seqs: u32,
    /// The most sequences that hold KV on the device, scheduled or parked.
    pub max_resident: u32,
    /// The most tokens in one step.
    pub max_num_batched_tokens: Tokens,
    /// The most tokens of one sequence, prompt and output.
    pub max_model_len: Tokens,
    /// The most requests that wait.
    pub waiting_max: u32,
    /// The most groups that a policy may keep.
    pub groups_max: u16,
    /// The most content keys and generated tokens held for live requests with known content.
    pub content_tokens_max: u32,
    /// Share KV blocks between requests with equal prefixes.
    pub prefix_cache: bool,
    /// How an evicted sequence keeps its state.
    pub preempt: Preempt,
    /// Whether swap traffic delays its step.
    pub swap: SwapMode,
    /// Steps in flight: 1, or 2 to decide the next step while the device works on this one.
    pub pipeline_depth: u8,
    /// Waiting jobs that a step ranks anew after the policy has started a new rank epoch.
    pub rerank_per_step: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            block_size: Tokens(16),
            kv_blocks: Blocks(900_000 / 16),
            host_blocks: Blocks(4 * 900_000 / 16),
            max_num_seqs: 256,
            max_resident: 512,
            max_num_batched_tokens: Tokens(1024),
            max_model_len: Tokens(131_072),
            waiting_max: 16_384,
            groups_max: 64,
            content_tokens_max: 1 << 22,
            prefix_cache: false,
            preempt: Preempt::Auto,
            swap: SwapMode::Serial,
            pipeline_depth: 1,
            rerank_per_step: 16,
        }
    }
}

impl Config {
    /// The blocks that hold `tokens`.
    pub const fn blocks(&self, tokens: Tokens) -> Blocks {
        tokens.blocks(self.block_size)
    }

    /// `log2` of the block size, which is a power of two.
    #[inline]
    pub const fn block_shift(&self) -> u32 {
        self.block_size.0.trailing_zeros()
    }

    /// The most blocks of one sequence: the longest that the model and the pool allow.
    pub fn blocks_per_seq_max(&self) -> Blocks {
        self.blocks(self.max_model_len).min(self.kv_blocks)
    }

    /// The most requests alive at once.
    pub const fn alive_max(&self) -> usize {
        self.waiting_max as usize + self.max_resident as usize
    }

    /// Whether there are as many groups as a policy uses.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn check_groups(&self, used: u16) -> Result<(), ConfigError> {
        within("groups_max", self.groups_max.into(), used.into(), GROUPS)
    }

    /// Whether the limits fit together.
    ///
    /// # Errors
    /// The first limit that does not, with its value and its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        within("block_size", self.block_size.0.into(), 1, 1024)?;
        if !self.block_size.0.is_power_of_two() {
            return Err(ConfigError::NotPowerOfTwo { field: "block_size", value: self.block_size.0.into() });
        }
        within("kv_blocks", self.kv_blocks.0.into(), 2, 1 << 28)?;
        within("host_blocks", self.host_blocks.0.into(), 0, 1 << 28)?;
        within("max_num_seqs", self.max_num_seqs.into(), 1, 1 << 16)?;
        within("max_resident", self.max_resident.into(), self.max_num_seqs.into(), 1 << 16)?;
        within(
            "max_num_batched_tokens",
            self.max_num_batched_tokens.0.into(),
            self.max_num_seqs.into(),
            1 << 24,
        )?;
        within("max_model_len", self.max_model_len.0.into(), 2, 1 << 24)?;
        let alive_max = RequestId::ALIVE_MAX as u64;
        within("waiting_max", self.waiting_max.into(), 1, alive_max - u64::from(self.max_resident))?;
        within("groups_max", self.groups_max.into(), 1, GROUPS)?;
        within("pipeline_depth", self.pipeline_depth.into(), 1, 2)?;
        within("rerank_per_step", self.rerank_per_step.into(), 1, u32::MAX.into())
    }
}

/// The most groups of a policy: one more is the engine's own.
const GROUPS: u64 = u16::MAX as u64 - 1;

fn within(field: &'static str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    let fine = (low..=high).contains(&value);
    fine.then_some(()).ok_or(ConfigError::OutOfRange { field, value, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_config_is_sound() {
        Config::default().check().unwrap();
    }

    #[test]
    fn each_bad_limit_is_named() {
        let name = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            match config.check().unwrap_err() {
                ConfigError::OutOfRange { field, .. } | ConfigError::NotPowerOfTwo { field, .. } => field,
            }
        };
        assert_eq!(name(|c| c.block_size = Tokens(24)), "block_size");
        assert_eq!(name(|c| c.kv_blocks = Blocks(0)), "kv_blocks");
        assert_eq!(name(|c| c.max_resident = 3), "max_resident");
        assert_eq!(name(|c| c.max_num_batched_tokens = Tokens(5)), "max_num_batched_tokens");
        assert_eq!(name(|c| c.pipeline_depth = 3), "pipeline_depth");
        assert_eq!(name(|c| c.waiting_max = u32::MAX), "waiting_max");
    }
}
