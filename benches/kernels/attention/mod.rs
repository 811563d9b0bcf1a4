//! Attention over pages: the shapes of Llama-3-8B, 32 query heads over 8 of K and V, 128 wide.

pub mod decode;
pub mod mixed;
pub mod prefill;

use crate::data::{Data, Region, shuffled};
use crate::gpu::Gpu;
use crate::gpu::params::Pool;

pub const HEADS_Q: u32 = 32;
pub const HEADS_KV: u32 = 8;
pub const HEAD_DIM: u32 = 128;
pub const SCALE: f32 = 0.088_388_35;

/// The type that the cache holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Bf16,
    E4m3,
}

impl Stored {
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::E4m3 => 1,
        }
    }

    /// As the shapes' names have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::E4m3 => "fp8",
        }
    }

    /// As the kernels' names have it.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::E4m3 => "bf16_e4m3",
        }
    }

    pub fn region(self, data: &Data) -> Region {
        match self {
            Self::Bf16 => data.halves,
            Self::E4m3 => data.codes,
        }
    }
}

/// Rows of one length in pages of one size, their pages shuffled.
pub struct Cache {
    pub stored: Stored,
    pub page_size: u32,
    pub tables: u64,
    pub table_stride: u32,
    pub pages: u32,
}

impl Cache {
    pub fn new(
        gpu: &Gpu,
        data: &mut Data,
        stored: Stored,
        page_size: u32,
        rows: u32,
        length: u32,
    ) -> Result<Self, String> {
        let table_stride = length.div_ceil(page_size);
        let pages = rows * table_stride;
        let tables = data.hold(gpu, &shuffled(pages))?;
        Ok(Self { stored, page_size, tables, table_stride, pages })
    }

    pub fn page_elements(&self) -> u64 {
        u64::from(2 * HEADS_KV * self.page_size * HEAD_DIM)
    }

    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * self.page_elements() * self.stored.bytes()
    }

    /// A set's pages: as a layer of a step has its own, under the step's one table.
    pub fn pool(&self, data: &Data, set: usize) -> Result<Pool, String> {
        Ok(Pool {
            pages: self.stored.region(data).cut(self.bytes(), set)?,
            page_stride: self.page_elements() as i64,
            page_shift: self.page_size.trailing_zeros(),
            heads_kv: HEADS_KV,
            ..Pool::default()
        })
    }
}

/// `4k`, `512`.
pub fn short(count: u32) -> String {
    if count.is_multiple_of(1024) { format!("{}k", count / 1024) } else { count.to_string() }
}
