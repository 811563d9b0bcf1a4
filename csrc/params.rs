// What bindgen makes of csrc/params.h, which says what each field means: written by
// tools/bind-params, never by hand. The includer defines params!, which gets each block's fields' types.

pub const FROM_STEP: u32 = 2147483648;
pub type Address = u64;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Norm {
    pub input: Address,
    pub residual: Address,
    pub weight: Address,
    pub output: Address,
    pub rows: u32,
    pub hidden: u32,
    pub epsilon: f32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Norm"][::std::mem::size_of::<Norm>() - 48usize];
    ["Alignment of Norm"][::std::mem::align_of::<Norm>() - 8usize];
    ["Offset of field: Norm::input"][::std::mem::offset_of!(Norm, input) - 0usize];
    ["Offset of field: Norm::residual"][::std::mem::offset_of!(Norm, residual) - 8usize];
    ["Offset of field: Norm::weight"][::std::mem::offset_of!(Norm, weight) - 16usize];
    ["Offset of field: Norm::output"][::std::mem::offset_of!(Norm, output) - 24usize];
    ["Offset of field: Norm::rows"][::std::mem::offset_of!(Norm, rows) - 32usize];
    ["Offset of field: Norm::hidden"][::std::mem::offset_of!(Norm, hidden) - 36usize];
    ["Offset of field: Norm::epsilon"][::std::mem::offset_of!(Norm, epsilon) - 40usize];
    ["Offset of field: Norm::reserved"][::std::mem::offset_of!(Norm, reserved) - 44usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Pool {
    pub pages: Address,
    pub page_stride: i64,
    pub page_shift: u32,
    pub heads_kv: u32,
    pub k_scale: Address,
    pub v_scale: Address,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Pool"][::std::mem::size_of::<Pool>() - 40usize];
    ["Alignment of Pool"][::std::mem::align_of::<Pool>() - 8usize];
    ["Offset of field: Pool::pages"][::std::mem::offset_of!(Pool, pages) - 0usize];
    ["Offset of field: Pool::page_stride"][::std::mem::offset_of!(Pool, page_stride) - 8usize];
    ["Offset of field: Pool::page_shift"][::std::mem::offset_of!(Pool, page_shift) - 16usize];
    ["Offset of field: Pool::heads_kv"][::std::mem::offset_of!(Pool, heads_kv) - 20usize];
    ["Offset of field: Pool::k_scale"][::std::mem::offset_of!(Pool, k_scale) - 24usize];
    ["Offset of field: Pool::v_scale"][::std::mem::offset_of!(Pool, v_scale) - 32usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Append {
    pub pool: Pool,
    pub qkv: Address,
    pub q: Address,
    pub q_weight: Address,
    pub k_weight: Address,
    pub turns: Address,
    pub positions: Address,
    pub slots: Address,
    pub qkv_stride: i64,
    pub tokens: u32,
    pub heads_q: u32,
    pub epsilon: f32,
    pub interleaved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Append"][::std::mem::size_of::<Append>() - 120usize];
    ["Alignment of Append"][::std::mem::align_of::<Append>() - 8usize];
    ["Offset of field: Append::pool"][::std::mem::offset_of!(Append, pool) - 0usize];
    ["Offset of field: Append::qkv"][::std::mem::offset_of!(Append, qkv) - 40usize];
    ["Offset of field: Append::q"][::std::mem::offset_of!(Append, q) - 48usize];
    ["Offset of field: Append::q_weight"][::std::mem::offset_of!(Append, q_weight) - 56usize];
    ["Offset of field: Append::k_weight"][::std::mem::offset_of!(Append, k_weight) - 64usize];
    ["Offset of field: Append::turns"][::std::mem::offset_of!(Append, turns) - 72usize];
    ["Offset of field: Append::positions"][::std::mem::offset_of!(Append, positions) - 80usize];
    ["Offset of field: Append::slots"][::std::mem::offset_of!(Append, slots) - 88usize];
    ["Offset of field: Append::qkv_stride"][::std::mem::offset_of!(Append, qkv_stride) - 96usize];
    ["Offset of field: Append::tokens"][::std::mem::offset_of!(Append, tokens) - 104usize];
    ["Offset of field: Append::heads_q"][::std::mem::offset_of!(Append, heads_q) - 108usize];
    ["Offset of field: Append::epsilon"][::std::mem::offset_of!(Append, epsilon) - 112usize];
    ["Offset of field: Append::interleaved"][::std::mem::offset_of!(Append, interleaved) - 116usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Copy {
    pub source: Address,
    pub target: Address,
    pub pairs: Address,
    pub page_bytes: u64,
    pub count: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Copy"][::std::mem::size_of::<Copy>() - 40usize];
    ["Alignment of Copy"][::std::mem::align_of::<Copy>() - 8usize];
    ["Offset of field: Copy::source"][::std::mem::offset_of!(Copy, source) - 0usize];
    ["Offset of field: Copy::target"][::std::mem::offset_of!(Copy, target) - 8usize];
    ["Offset of field: Copy::pairs"][::std::mem::offset_of!(Copy, pairs) - 16usize];
    ["Offset of field: Copy::page_bytes"][::std::mem::offset_of!(Copy, page_bytes) - 24usize];
    ["Offset of field: Copy::count"][::std::mem::offset_of!(Copy, count) - 32usize];
    ["Offset of field: Copy::reserved"][::std::mem::offset_of!(Copy, reserved) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Scatter {
    pub target: Address,
    pub pairs: Address,
    pub count: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Scatter"][::std::mem::size_of::<Scatter>() - 24usize];
    ["Alignment of Scatter"][::std::mem::align_of::<Scatter>() - 8usize];
    ["Offset of field: Scatter::target"][::std::mem::offset_of!(Scatter, target) - 0usize];
    ["Offset of field: Scatter::pairs"][::std::mem::offset_of!(Scatter, pairs) - 8usize];
    ["Offset of field: Scatter::count"][::std::mem::offset_of!(Scatter, count) - 16usize];
    ["Offset of field: Scatter::reserved"][::std::mem::offset_of!(Scatter, reserved) - 20usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Decode {
    pub pool: Pool,
    pub q: Address,
    pub output: Address,
    pub lse: Address,
    pub lengths: Address,
    pub tables: Address,
    pub chunk_from: Address,
    pub chunks: Address,
    pub lists: Address,
    pub partial: Address,
    pub partial_of: Address,
    pub arrived: Address,
    pub overflow: Address,
    pub q_stride: i64,
    pub table_stride: i64,
    pub rows: u32,
    pub heads_q: u32,
    pub scale: f32,
    pub chunk: u32,
    pub chunks_max: u32,
    pub row_chunks_max: u32,
    pub lists_max: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Decode"][::std::mem::size_of::<Decode>() - 184usize];
    ["Alignment of Decode"][::std::mem::align_of::<Decode>() - 8usize];
    ["Offset of field: Decode::pool"][::std::mem::offset_of!(Decode, pool) - 0usize];
    ["Offset of field: Decode::q"][::std::mem::offset_of!(Decode, q) - 40usize];
    ["Offset of field: Decode::output"][::std::mem::offset_of!(Decode, output) - 48usize];
    ["Offset of field: Decode::lse"][::std::mem::offset_of!(Decode, lse) - 56usize];
    ["Offset of field: Decode::lengths"][::std::mem::offset_of!(Decode, lengths) - 64usize];
    ["Offset of field: Decode::tables"][::std::mem::offset_of!(Decode, tables) - 72usize];
    ["Offset of field: Decode::chunk_from"][::std::mem::offset_of!(Decode, chunk_from) - 80usize];
    ["Offset of field: Decode::chunks"][::std::mem::offset_of!(Decode, chunks) - 88usize];
    ["Offset of field: Decode::lists"][::std::mem::offset_of!(Decode, lists) - 96usize];
    ["Offset of field: Decode::partial"][::std::mem::offset_of!(Decode, partial) - 104usize];
    ["Offset of field: Decode::partial_of"][::std::mem::offset_of!(Decode, partial_of) - 112usize];
    ["Offset of field: Decode::arrived"][::std::mem::offset_of!(Decode, arrived) - 120usize];
    ["Offset of field: Decode::overflow"][::std::mem::offset_of!(Decode, overflow) - 128usize];
    ["Offset of field: Decode::q_stride"][::std::mem::offset_of!(Decode, q_stride) - 136usize];
    ["Offset of field: Decode::table_stride"][::std::mem::offset_of!(Decode, table_stride) - 144usize];
    ["Offset of field: Decode::rows"][::std::mem::offset_of!(Decode, rows) - 152usize];
    ["Offset of field: Decode::heads_q"][::std::mem::offset_of!(Decode, heads_q) - 156usize];
    ["Offset of field: Decode::scale"][::std::mem::offset_of!(Decode, scale) - 160usize];
    ["Offset of field: Decode::chunk"][::std::mem::offset_of!(Decode, chunk) - 164usize];
    ["Offset of field: Decode::chunks_max"][::std::mem::offset_of!(Decode, chunks_max) - 168usize];
    ["Offset of field: Decode::row_chunks_max"][::std::mem::offset_of!(Decode, row_chunks_max) - 172usize];
    ["Offset of field: Decode::lists_max"][::std::mem::offset_of!(Decode, lists_max) - 176usize];
    ["Offset of field: Decode::reserved"][::std::mem::offset_of!(Decode, reserved) - 180usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Prefill {
    pub pool: Pool,
    pub q: Address,
    pub output: Address,
    pub lse: Address,
    pub q_from: Address,
    pub lengths: Address,
    pub tables: Address,
    pub tile_from: Address,
    pub tiles: Address,
    pub tile_count: Address,
    pub overflow: Address,
    pub q_stride: i64,
    pub table_stride: i64,
    pub rows: u32,
    pub tokens: u32,
    pub heads_q: u32,
    pub tile: u32,
    pub tiles_max: u32,
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Prefill"][::std::mem::size_of::<Prefill>() - 160usize];
    ["Alignment of Prefill"][::std::mem::align_of::<Prefill>() - 8usize];
    ["Offset of field: Prefill::pool"][::std::mem::offset_of!(Prefill, pool) - 0usize];
    ["Offset of field: Prefill::q"][::std::mem::offset_of!(Prefill, q) - 40usize];
    ["Offset of field: Prefill::output"][::std::mem::offset_of!(Prefill, output) - 48usize];
    ["Offset of field: Prefill::lse"][::std::mem::offset_of!(Prefill, lse) - 56usize];
    ["Offset of field: Prefill::q_from"][::std::mem::offset_of!(Prefill, q_from) - 64usize];
    ["Offset of field: Prefill::lengths"][::std::mem::offset_of!(Prefill, lengths) - 72usize];
    ["Offset of field: Prefill::tables"][::std::mem::offset_of!(Prefill, tables) - 80usize];
    ["Offset of field: Prefill::tile_from"][::std::mem::offset_of!(Prefill, tile_from) - 88usize];
    ["Offset of field: Prefill::tiles"][::std::mem::offset_of!(Prefill, tiles) - 96usize];
    ["Offset of field: Prefill::tile_count"][::std::mem::offset_of!(Prefill, tile_count) - 104usize];
    ["Offset of field: Prefill::overflow"][::std::mem::offset_of!(Prefill, overflow) - 112usize];
    ["Offset of field: Prefill::q_stride"][::std::mem::offset_of!(Prefill, q_stride) - 120usize];
    ["Offset of field: Prefill::table_stride"][::std::mem::offset_of!(Prefill, table_stride) - 128usize];
    ["Offset of field: Prefill::rows"][::std::mem::offset_of!(Prefill, rows) - 136usize];
    ["Offset of field: Prefill::tokens"][::std::mem::offset_of!(Prefill, tokens) - 140usize];
    ["Offset of field: Prefill::heads_q"][::std::mem::offset_of!(Prefill, heads_q) - 144usize];
    ["Offset of field: Prefill::tile"][::std::mem::offset_of!(Prefill, tile) - 148usize];
    ["Offset of field: Prefill::tiles_max"][::std::mem::offset_of!(Prefill, tiles_max) - 152usize];
    ["Offset of field: Prefill::scale"][::std::mem::offset_of!(Prefill, scale) - 156usize];
};
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone)]
pub struct PrefillTensor {
    pub map: [u64; 16usize],
    pub prefill: Prefill,
    pub page_count: u32,
    pub reserved: [u32; 7usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PrefillTensor"][::std::mem::size_of::<PrefillTensor>() - 320usize];
    ["Alignment of PrefillTensor"][::std::mem::align_of::<PrefillTensor>() - 64usize];
    ["Offset of field: PrefillTensor::map"][::std::mem::offset_of!(PrefillTensor, map) - 0usize];
    ["Offset of field: PrefillTensor::prefill"][::std::mem::offset_of!(PrefillTensor, prefill) - 128usize];
    ["Offset of field: PrefillTensor::page_count"]
        [::std::mem::offset_of!(PrefillTensor, page_count) - 288usize];
    ["Offset of field: PrefillTensor::reserved"][::std::mem::offset_of!(PrefillTensor, reserved) - 292usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Activation {
    pub input: Address,
    pub output: Address,
    pub rows: u32,
    pub width: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Activation"][::std::mem::size_of::<Activation>() - 24usize];
    ["Alignment of Activation"][::std::mem::align_of::<Activation>() - 8usize];
    ["Offset of field: Activation::input"][::std::mem::offset_of!(Activation, input) - 0usize];
    ["Offset of field: Activation::output"][::std::mem::offset_of!(Activation, output) - 8usize];
    ["Offset of field: Activation::rows"][::std::mem::offset_of!(Activation, rows) - 16usize];
    ["Offset of field: Activation::width"][::std::mem::offset_of!(Activation, width) - 20usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Gather {
    pub source: Address,
    pub target: Address,
    pub ids: Address,
    pub sampled: Address,
    pub failed: Address,
    pub row_bytes: u32,
    pub count: u32,
    pub rows: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Gather"][::std::mem::size_of::<Gather>() - 56usize];
    ["Alignment of Gather"][::std::mem::align_of::<Gather>() - 8usize];
    ["Offset of field: Gather::source"][::std::mem::offset_of!(Gather, source) - 0usize];
    ["Offset of field: Gather::target"][::std::mem::offset_of!(Gather, target) - 8usize];
    ["Offset of field: Gather::ids"][::std::mem::offset_of!(Gather, ids) - 16usize];
    ["Offset of field: Gather::sampled"][::std::mem::offset_of!(Gather, sampled) - 24usize];
    ["Offset of field: Gather::failed"][::std::mem::offset_of!(Gather, failed) - 32usize];
    ["Offset of field: Gather::row_bytes"][::std::mem::offset_of!(Gather, row_bytes) - 40usize];
    ["Offset of field: Gather::count"][::std::mem::offset_of!(Gather, count) - 44usize];
    ["Offset of field: Gather::rows"][::std::mem::offset_of!(Gather, rows) - 48usize];
    ["Offset of field: Gather::reserved"][::std::mem::offset_of!(Gather, reserved) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Penalize {
    pub logits: Address,
    pub from: Address,
    pub tokens: Address,
    pub counts: Address,
    pub repetition: Address,
    pub presence: Address,
    pub frequency: Address,
    pub stride: i64,
    pub rows: u32,
    pub vocab: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Penalize"][::std::mem::size_of::<Penalize>() - 72usize];
    ["Alignment of Penalize"][::std::mem::align_of::<Penalize>() - 8usize];
    ["Offset of field: Penalize::logits"][::std::mem::offset_of!(Penalize, logits) - 0usize];
    ["Offset of field: Penalize::from"][::std::mem::offset_of!(Penalize, from) - 8usize];
    ["Offset of field: Penalize::tokens"][::std::mem::offset_of!(Penalize, tokens) - 16usize];
    ["Offset of field: Penalize::counts"][::std::mem::offset_of!(Penalize, counts) - 24usize];
    ["Offset of field: Penalize::repetition"][::std::mem::offset_of!(Penalize, repetition) - 32usize];
    ["Offset of field: Penalize::presence"][::std::mem::offset_of!(Penalize, presence) - 40usize];
    ["Offset of field: Penalize::frequency"][::std::mem::offset_of!(Penalize, frequency) - 48usize];
    ["Offset of field: Penalize::stride"][::std::mem::offset_of!(Penalize, stride) - 56usize];
    ["Offset of field: Penalize::rows"][::std::mem::offset_of!(Penalize, rows) - 64usize];
    ["Offset of field: Penalize::vocab"][::std::mem::offset_of!(Penalize, vocab) - 68usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct Sample {
    pub logits: Address,
    pub temperature: Address,
    pub top_k: Address,
    pub top_p: Address,
    pub min_p: Address,
    pub seeds: Address,
    pub positions: Address,
    pub tokens: Address,
    pub failed: Address,
    pub stride: i64,
    pub rows: u32,
    pub vocab: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Sample"][::std::mem::size_of::<Sample>() - 88usize];
    ["Alignment of Sample"][::std::mem::align_of::<Sample>() - 8usize];
    ["Offset of field: Sample::logits"][::std::mem::offset_of!(Sample, logits) - 0usize];
    ["Offset of field: Sample::temperature"][::std::mem::offset_of!(Sample, temperature) - 8usize];
    ["Offset of field: Sample::top_k"][::std::mem::offset_of!(Sample, top_k) - 16usize];
    ["Offset of field: Sample::top_p"][::std::mem::offset_of!(Sample, top_p) - 24usize];
    ["Offset of field: Sample::min_p"][::std::mem::offset_of!(Sample, min_p) - 32usize];
    ["Offset of field: Sample::seeds"][::std::mem::offset_of!(Sample, seeds) - 40usize];
    ["Offset of field: Sample::positions"][::std::mem::offset_of!(Sample, positions) - 48usize];
    ["Offset of field: Sample::tokens"][::std::mem::offset_of!(Sample, tokens) - 56usize];
    ["Offset of field: Sample::failed"][::std::mem::offset_of!(Sample, failed) - 64usize];
    ["Offset of field: Sample::stride"][::std::mem::offset_of!(Sample, stride) - 72usize];
    ["Offset of field: Sample::rows"][::std::mem::offset_of!(Sample, rows) - 80usize];
    ["Offset of field: Sample::vocab"][::std::mem::offset_of!(Sample, vocab) - 84usize];
};
params!(Norm: Address, Address, Address, Address, u32, u32, f32, u32);
params!(Pool: Address, i64, u32, u32, Address, Address);
params!(Append: Pool, Address, Address, Address, Address, Address, Address, Address, i64, u32, u32, f32, u32);
params!(Copy: Address, Address, Address, u64, u32, u32);
params!(Scatter: Address, Address, u32, u32);
params!(Decode: Pool, Address, Address, Address, Address, Address, Address, Address, Address, Address, Address, Address, Address, i64, i64, u32, u32, f32, u32, u32, u32, u32, u32);
params!(Prefill: Pool, Address, Address, Address, Address, Address, Address, Address, Address, Address, Address, i64, i64, u32, u32, u32, u32, u32, f32);
params!(PrefillTensor: [u64; 16usize], Prefill, u32, [u32; 7usize]);
params!(Activation: Address, Address, u32, u32);
params!(Gather: Address, Address, Address, Address, Address, u32, u32, u32, u32);
params!(Penalize: Address, Address, Address, Address, Address, Address, Address, i64, u32, u32);
params!(Sample: Address, Address, Address, Address, Address, Address, Address, Address, Address, i64, u32, u32);
