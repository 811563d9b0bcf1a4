//! `csrc/core`, one function each.

/// What is known of a row of logits, in log2 units.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softmax {
    /// The largest.
    pub max: f32,
    /// Of exp2(logit - max).
    pub sum: f32,
}

/// How Llama 3.1 stretches low frequencies.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RopeScaling {
    /// By how much; 1 changes nothing.
    pub factor: f64,
    /// Turns over the original context below which a frequency is stretched whole.
    pub low_frequency_factor: f64,
    /// Turns above which it is not.
    pub high_frequency_factor: f64,
    /// The context that the model was trained with.
    pub original_context: f64,
}

/// A rotation by some angle.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Of the angle.
    pub cosine: f32,
    /// Of the angle.
    pub sine: f32,
}

/// A half-open range of tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub begin: u32,
    /// One past the last.
    pub end: u32,
}

/// Four words of a counter, or of randomness.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random4 {
    /// The words.
    pub word: [u32; 4],
}

// Each is the template of its name in `csrc/core`, which says what it does.
#[allow(missing_docs)]
mod raw {
    use super::*;

    // SAFETY: these are the functions of `core.cpp`, with the same types; all but the last are pure functions
    // of plain values.
    unsafe extern "C" {
        pub safe fn core_to_bf16(value: f32) -> u16;
        pub safe fn core_to_f16(value: f32) -> u16;
        pub safe fn core_to_e4m3(value: f32) -> u8;
        pub safe fn core_from_bf16(bits: u16) -> f32;
        pub safe fn core_from_f16(bits: u16) -> f32;
        pub safe fn core_from_e4m3(bits: u8) -> f32;
        pub safe fn core_lse(softmax: Softmax) -> f32;
        pub safe fn core_normalizer(softmax: Softmax) -> f32;
        pub safe fn core_philox(counter: Random4, key0: u32, key1: u32) -> Random4;
        pub safe fn core_uniform(word: u32) -> f32;
        pub safe fn core_rope_turns(pair: u32, head_dim: u32, theta: f64, scaling: RopeScaling) -> u64;
        pub safe fn core_rotation(turns: u64, position: u32) -> Rotation;
        pub safe fn core_visible_keys(query: u32, q_len: u32, kv_len: u32) -> u32;
        pub safe fn core_chunk_tokens(length: u32, chunk: u32, most: u32) -> u32;
        pub safe fn core_chunk_count(length: u32, chunk: u32) -> u32;
        pub safe fn core_chunk_span(index: u32, length: u32, chunk: u32) -> Span;
        pub fn core_row_of(item: u32, rows: u32, from: *const u32) -> u32;
    }
}

pub use raw::{
    core_chunk_count as chunk_count, core_chunk_span as chunk_span, core_chunk_tokens as chunk_tokens,
    core_from_bf16 as from_bf16, core_from_e4m3 as from_e4m3, core_from_f16 as from_f16, core_lse as lse,
    core_normalizer as normalizer, core_philox as philox, core_rope_turns as rope_turns,
    core_rotation as rotation, core_to_bf16 as to_bf16, core_to_e4m3 as to_e4m3, core_to_f16 as to_f16,
    core_uniform as uniform, core_visible_keys as visible_keys,
};

/// The row that `item` belongs to, where `from[row]` items lie before each row.
///
/// # Panics
/// If there is no row.
pub fn row_of(item: u32, from: &[u32]) -> usize {
    let rows = u32::try_from(from.len()).expect("rows are counted in 32 bits");
    assert!(rows > 0, "an item belongs to some row");
    // SAFETY: it reads `from[0..rows]` only, by bisection.
    unsafe { raw::core_row_of(item, rows, from.as_ptr()) as usize }
}
