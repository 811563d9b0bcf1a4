//! The parameter blocks of `csrc/params.h`, which says what each field means.
//!
//! Both sides state the same sizes and offsets, and prove them when they compile.

use std::mem::{offset_of, size_of};

/// Where a buffer is, from [`Memory`](crate::Memory); 0 where there is none.
pub type Address = u64;

/// A parameter block: plain data without padding.
pub trait Params: sealed::Params {}

mod sealed {
    pub trait Params {}
}

macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* } $bytes:literal { $($at:ident: $offset:literal,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $type,)* }

        const _: () = assert!(size_of::<$name>() == $bytes);
        // No padding, so that every byte of a block is initialised.
        const _: () = assert!(0 $(+ size_of::<$type>())* == $bytes);
        $(const _: () = assert!(offset_of!($name, $at) == $offset);)*

        impl sealed::Params for $name {}
        impl Params for $name {}
    };
}

params! {
    /// `fb_norm`.
    Norm {
        input: Address, residual: Address, weight: Address, output: Address,
        rows: u32, hidden: u32, epsilon: f32, reserved: u32,
    } 48 { rows: 32, epsilon: 40, }
}

params! {
    /// `fb_pool`.
    Pool {
        pages: Address, page_stride: i64, page_shift: u32, heads_kv: u32, k_scale: Address, v_scale: Address,
    } 40 { page_shift: 16, k_scale: 24, }
}

params! {
    /// `fb_append`.
    Append {
        pool: Pool, qkv: Address, q: Address, q_weight: Address, k_weight: Address, turns: Address,
        positions: Address, slots: Address, qkv_stride: i64,
        tokens: u32, heads_q: u32, epsilon: f32, interleaved: u32,
    } 120 { qkv: 40, slots: 88, tokens: 104, interleaved: 116, }
}

params! {
    /// `fb_copy`.
    Copy {
        source: Address, target: Address, pairs: Address, page_bytes: u64, count: u32, reserved: u32,
    } 40 { page_bytes: 24, count: 32, }
}

params! {
    /// `fb_decode`.
    Decode {
        pool: Pool, q: Address, output: Address, lse: Address, lengths: Address, tables: Address,
        chunk_from: Address, chunks: Address, partial: Address, partial_max: Address, partial_sum: Address,
        arrived: Address, overflow: Address, q_stride: i64, table_stride: i64,
        rows: u32, heads_q: u32, scale: f32, chunk: u32, chunks_max: u32, reserved: u32,
    } 176 { q: 40, lse: 56, chunks: 88, overflow: 128, rows: 152, chunk: 164, }
}

params! {
    /// `fb_prefill`.
    Prefill {
        pool: Pool, q: Address, output: Address, lse: Address, q_from: Address, lengths: Address,
        tables: Address, tile_from: Address, tiles: Address, tile_count: Address, overflow: Address,
        q_stride: i64, table_stride: i64,
        rows: u32, tokens: u32, heads_q: u32, tile: u32, tiles_max: u32, scale: f32,
    } 160 { q: 40, q_from: 64, tiles: 96, q_stride: 120, rows: 136, scale: 156, }
}

params! {
    /// `fb_prefill_tensor`.
    #[repr(align(64))]
    PrefillTensor {
        map: [u64; 16], prefill: Prefill, page_count: u32, reserved: [u32; 7],
    } 320 { prefill: 128, page_count: 288, }
}

params! {
    /// `fb_sample`.
    Sample {
        logits: Address, temperature: Address, top_k: Address, top_p: Address, seeds: Address,
        positions: Address, tokens: Address, failed: Address, stride: i64, rows: u32, vocab: u32,
    } 80 { stride: 64, vocab: 76, }
}

params! {
    /// Of the probes: a buffer of 64 words.
    Probe { buffer: Address, } 8 { buffer: 0, }
}
