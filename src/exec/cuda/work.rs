//! The buffers of a step, and where they come from.

use super::inputs::{Counts, Layout};
use super::products::logit_stride;
use super::{Arena, Buffer, CudaError, Device, gemm};
use crate::config::Config;
use crate::model::ModelConfig;
use crate::number::Dtype;

/// How decode's tokens are cut into equal shares, and who merges a row's chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeCut {
    /// Tokens of a share, at least.
    pub share: u32,
    /// A kernel of its own merges, or else the last chunk of a row to be done.
    pub merged_apart: bool,
}

impl DecodeCut {
    /// For so many rows: with few of them it is latency that counts. On an H200 a kernel of its own was up to 2.2 us
    /// faster for 1 and 8 rows and never by 2 % slower; for more rows it was within 1 % either way (benches/results,
    /// with shares of 128).
    pub fn of(rows: u32) -> Self {
        let few = rows <= 8;
        Self { share: if few { 64 } else { 128 }, merged_apart: few }
    }
}

/// Packed rows of a tile of prefill.
pub const TILE: u32 = 128;

/// Tokens listed for penalties, at most: 32 MiB with their counts. Rows whose tokens do not fit fail.
const SAID_MAX: usize = 1 << 22;

/// The most of everything in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// With padding.
    pub counts: Counts,
    /// Rows of the block tables.
    pub slots: usize,
    /// Entries of such a row.
    pub table_stride: usize,
    /// Equal shares that decode's tokens are cut into, each for all KV heads.
    pub shares: usize,
    /// Tiles of prefill over all rows.
    pub tiles: usize,
    /// Changes of the block tables; with more, where requests share prefixes, all tables are uploaded.
    pub changes: usize,
    /// Tokens listed for penalties over all rows.
    pub said: usize,
    /// Bytes of a KV block, all layers.
    pub block_bytes: usize,
    /// KV blocks on the device.
    pub blocks: usize,
}

impl Limits {
    /// Those of an engine with a model. `tokens` and `samples` are the most rows that products are planned for.
    pub fn new(
        config: &Config,
        model: &ModelConfig,
        kv: Dtype,
        tokens: usize,
        samples: usize,
        shares: usize,
    ) -> Self {
        let rows = (config.max_num_seqs as usize).max(config.max_resident as usize).min(tokens);
        // Decodes are padded with the rest of their graph, and a row of padding takes a chunk as any other.
        let decodes = rows.max(samples);
        let blocks_of_row = config.blocks_per_seq_max().0 as usize;
        let longest = blocks_of_row * config.block_size.0 as usize;
        let cached = config.kv_blocks.0 as usize * config.block_size.0 as usize;
        // Rows that share a prefix list its tokens each; others list none that is not in their own blocks.
        let listed = config.max_num_seqs as usize * longest.min(model.vocab as usize);
        let said = if config.prefix_cache { listed } else { listed.min(cached + longest) };
        Self {
            counts: Counts { tokens, decodes, prefills: rows, samples },
            slots: config.max_resident as usize,
            table_stride: blocks_of_row.next_multiple_of(4),
            shares,
            tiles: (tokens * model.group() as usize).div_ceil(TILE as usize) + rows + 1,
            changes: config.kv_blocks.0 as usize,
            said: said.min(SAID_MAX),
            block_bytes: model.block_elements(config.block_size.0) * kv.bytes(),
            blocks: config.kv_blocks.0 as usize,
        }
    }

    /// The parts that rows may be cut into: each once by its own end, and by the end of each share.
    pub fn chunks(&self) -> usize {
        self.counts.decodes + self.shares
    }

    /// Words of the block that a step uploads, changes of the tables behind it.
    pub fn input_words(&self) -> usize {
        // Decodes and prefills are never both at their most, but nothing is larger than this.
        Layout::new(self.counts).words + 2 * self.changes
    }
}

/// What a step tells the host: words behind the drawn tokens and their failures.
#[derive(Clone, Copy, Debug)]
pub struct Flags;

impl Flags {
    /// Decode's plan had too few chunks.
    pub const DECODE: usize = 0;
    /// Prefill's plan had too few tiles.
    pub const PREFILL: usize = 1;
    /// A token id was not in the vocabulary.
    pub const GATHER: usize = 2;
    /// How many there are.
    pub const COUNT: usize = 4;
}

macro_rules! work {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $len:expr,)*) => {
        /// The buffers of a step.
        #[derive(Debug)]
        pub struct Work { $($(#[$doc])* pub $name: Buffer<$type>,)* }

        impl Work {
            /// Bytes that they take of an arena.
            pub fn bytes(limits: &Limits, model: &ModelConfig) -> u64 {
                let sizes = Sizes::new(limits, model);
                [$(Arena::bytes_of::<$type>($len(&sizes))),*].iter().sum()
            }

            /// Takes them.
            ///
            /// # Errors
            /// If the arena is full.
            pub fn new(limits: &Limits, model: &ModelConfig, arena: &mut Arena) -> Result<Self, CudaError> {
                let sizes = Sizes::new(limits, model);
                Ok(Self { $($name: arena.take(stringify!($name), $len(&sizes))?,)* })
            }
        }
    };
}

/// What the lengths are made of.
struct Sizes {
    limits: Limits,
    hidden: usize,
    q: usize,
    qkv: usize,
    mlp: usize,
    heads: usize,
    heads_kv: usize,
    stride: usize,
}

impl Sizes {
    fn new(limits: &Limits, model: &ModelConfig) -> Self {
        Self {
            limits: *limits,
            hidden: model.hidden as usize,
            q: model.q_width(),
            qkv: model.qkv_width(),
            mlp: model.intermediate as usize,
            heads: model.heads_q as usize,
            heads_kv: model.heads_kv as usize,
            stride: logit_stride(model),
        }
    }

    fn tokens(&self, width: usize) -> usize {
        2 * self.limits.counts.tokens * width
    }

    fn rows(&self) -> usize {
        self.limits.counts.decodes + self.limits.counts.prefills
    }
}

work! {
    /// `[tokens, hidden]` between layers.
    hidden: u8 = |s: &Sizes| s.tokens(s.hidden),
    /// `[tokens, hidden]`.
    normed: u8 = |s: &Sizes| s.tokens(s.hidden),
    /// `[tokens, qkv]`.
    qkv: u8 = |s: &Sizes| s.tokens(s.qkv),
    /// `[tokens, q]`, normed and turned.
    q: u8 = |s: &Sizes| s.tokens(s.q),
    /// `[tokens, q]`.
    attended: u8 = |s: &Sizes| s.tokens(s.q),
    /// `[tokens, hidden]`, to be added to `hidden`.
    projected: u8 = |s: &Sizes| s.tokens(s.hidden),
    /// `[tokens, 2 * mlp]`.
    gate_up: u8 = |s: &Sizes| s.tokens(2 * s.mlp),
    /// `[tokens, mlp]`.
    gated: u8 = |s: &Sizes| s.tokens(s.mlp),
    /// `[samples, hidden]` of `hidden`.
    picked: u8 = |s: &Sizes| 2 * s.limits.counts.samples * s.hidden,
    /// `[samples, hidden]` of `projected`, then normed.
    picked_more: u8 = |s: &Sizes| 2 * s.limits.counts.samples * s.hidden,
    /// `[samples, stride]`.
    logits: f32 = |s: &Sizes| s.limits.counts.samples * s.stride,
    /// `[slots, table_stride]`, kept from step to step.
    slot_tables: u32 = |s: &Sizes| s.limits.slots * s.limits.table_stride,
    /// `[rows, table_stride]` of this step.
    tables: u32 = |s: &Sizes| s.rows() * s.limits.table_stride,
    /// `[rows + 1]`.
    chunk_from: u32 = |s: &Sizes| s.rows() + 1,
    /// `[chunks, 4]`.
    chunks: u32 = |s: &Sizes| 4 * s.limits.chunks(),
    /// `[shares, 8]`: chunks that follow each other.
    lists: u32 = |s: &Sizes| 8 * s.limits.shares,
    /// `[chunks, q]`.
    partial: f32 = |s: &Sizes| s.limits.chunks() * s.q,
    /// `[chunks, heads, 2]`: their maximum and sum.
    partial_of: f32 = |s: &Sizes| 2 * s.limits.chunks() * s.heads,
    /// `[rows, heads_kv]`: chunks that are done.
    arrived: u32 = |s: &Sizes| s.rows() * s.heads_kv,
    /// `[rows + 2]`.
    tile_from: u32 = |s: &Sizes| s.rows() + 2,
    /// `[tiles, 4]`.
    tiles: u32 = |s: &Sizes| 4 * s.limits.tiles,
    /// One word.
    tile_count: u32 = |_: &Sizes| 1,
    /// Tokens `[samples]`, failures `[samples]`, [`Flags`].
    results: u32 = |s: &Sizes| 2 * s.limits.counts.samples + Flags::COUNT,
    /// What the host uploads.
    inputs: u32 = |s: &Sizes| s.limits.input_words(),
    /// Tokens listed for penalties, then their counts.
    said: u32 = |s: &Sizes| 2 * s.limits.said,
    /// Of cuBLASLt.
    workspace: u8 = |_: &Sizes| gemm::WORKSPACE,
}

/// Sets what may be read before anybody wrote it: block tables, and the padding of products.
///
/// # Errors
/// If the device is lost.
pub fn clear(work: &Work, device: &Device) -> Result<(), CudaError> {
    let stream = device.stream()?;
    stream.fill(&work.slot_tables, 0)?;
    stream.fill(&work.results, 0)?;
    for input in [&work.normed, &work.attended, &work.gated, &work.picked_more] {
        stream.fill(input, 0)?;
    }
    stream.synchronize()
}

#[cfg(test)]
mod tests {
    use super::super::products::row_counts;
    use super::*;
    use crate::model::tiny;

    /// 385 decodes are 512 rows in a graph: each row of padding takes a chunk too, and each share may cut one more.
    #[test]
    fn a_batch_between_two_graph_sizes_fits_the_plan() {
        let config = Config { max_num_seqs: 400, max_resident: 400, ..Config::default() };
        let (shares, rows) = (33, *row_counts(400, false).last().unwrap());
        let limits = Limits::new(&config, &tiny(), Dtype::Bf16, 1024, rows, shares);
        assert_eq!(rows, 512);
        assert!(limits.counts.decodes >= rows && limits.chunks() >= rows + shares, "{limits:?}");
    }
}
