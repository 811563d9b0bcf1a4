// The parameter blocks of the kernels, shared with Rust: plain data, fixed offsets, nothing else.
//
// An address is 64 bits wide and 0 where the buffer is absent. Strides and lengths count elements unless
// the name says bytes. Rust's copy states the same offsets; each side proves its own when it compiles.
#pragma once

#include <cstddef>
#include <cstdint>

typedef uint64_t fb_address;

// Elements without a type here have the kernel's compute type, bf16 or f16, as its name says.

// norm: output = (input + residual) / rms * weight; residual, if there is one, becomes the sum.
struct fb_norm {
    fb_address input;     // [rows, hidden]
    fb_address residual;  // [rows, hidden], or absent
    fb_address weight;    // [hidden]
    fb_address output;    // [rows, hidden]
    uint32_t rows;
    uint32_t hidden;  // a multiple of 8
    float epsilon;
    uint32_t reserved;
};
static_assert(sizeof(fb_norm) == 48 && offsetof(fb_norm, rows) == 32 && offsetof(fb_norm, epsilon) == 40, "");

// kv: how a pool of pages lies in memory. A page is [K|V][heads_kv][page_size][head_dim].
struct fb_pool {
    fb_address pages;
    int64_t page_stride;   // elements from a page to the next: a page may hold all layers
    uint32_t page_shift;   // page_size is 1 << page_shift, at least 16
    uint32_t heads_kv;
    fb_address k_scale;  // [heads_kv] float: stored * scale is the value; absent means 1
    fb_address v_scale;  // [heads_kv] float
};
static_assert(sizeof(fb_pool) == 40 && offsetof(fb_pool, page_shift) == 16 && offsetof(fb_pool, k_scale) == 24, "");

// kv/append: norm and rotate what a layer projected, hand out Q, write K and V into their pages.
struct fb_append {
    struct fb_pool pool;
    fb_address qkv;        // [tokens, qkv_stride]: heads_q, then heads_kv of K, then heads_kv of V
    fb_address q;          // [tokens, heads_q, head_dim]
    fb_address q_weight;   // [head_dim], or absent: no QK-norm
    fb_address k_weight;   // [head_dim], or absent
    fb_address turns;      // [head_dim / 2] u64: turns per position, in units of 2^-64
    fb_address positions;  // [tokens] u32
    fb_address slots;      // [tokens] i64: page * page_size + offset; negative writes no K and V
    int64_t qkv_stride;    // a multiple of 8
    uint32_t tokens;
    uint32_t heads_q;
    float epsilon;
    uint32_t interleaved;  // 0: pairs are half a head apart (NeoX); 1: pairs are neighbours
};
static_assert(sizeof(fb_append) == 120 && offsetof(fb_append, qkv) == 40 && offsetof(fb_append, slots) == 88 &&
                  offsetof(fb_append, tokens) == 104 && offsetof(fb_append, interleaved) == 116, "");

// kv/copy: pages[pairs[i].to] = pages[pairs[i].from], in 16-byte pieces. No page is both.
struct fb_copy {
    fb_address source;
    fb_address target;
    fb_address pairs;  // [count, 2] u32: from, to
    uint64_t page_bytes;  // a multiple of 16
    uint32_t count;
    uint32_t reserved;
};
static_assert(sizeof(fb_copy) == 40 && offsetof(fb_copy, page_bytes) == 24 && offsetof(fb_copy, count) == 32, "");

// kv/scatter: target[pairs[i].at] = pairs[i].value: what a step changes in the block tables.
struct fb_scatter {
    fb_address target;  // u32
    fb_address pairs;   // [count, 2] u32: at, value
    uint32_t count;
    uint32_t reserved;
};
static_assert(sizeof(fb_scatter) == 24 && offsetof(fb_scatter, count) == 16, "");

// attention/decode: one query token per row over the paged cache, and the plan that splits the rows: into chunks that
// each row's own length sets, so that its result depends on nothing else; or, with lists, into equal shares of all.
struct fb_decode {
    struct fb_pool pool;
    fb_address q;            // [rows, q_stride]: heads_q heads of head_dim each
    fb_address output;       // [rows, heads_q, head_dim]
    fb_address lse;          // [rows, heads_q] float, natural logarithm; or absent
    fb_address lengths;      // [rows] u32: tokens in the cache, the row's own included; 0 yields zeros
    fb_address tables;       // [rows, table_stride] u32: page ids
    fb_address chunk_from;   // [rows + 1] u32: chunks before each row; filled by the plan
    fb_address chunks;       // [chunks_max, 4] u32: row, first token, end token, chunks of the row; by the plan
    fb_address lists;        // [lists_max, 8] u32: first chunk, end chunk, 2 unused, entry of the first; by the plan
    fb_address partial;      // [chunks_max, heads_q, head_dim] float: unnormalised outputs of chunks
    fb_address partial_of;   // [chunks_max, heads_q, 2] float: their maximum, in log2 units, and sum
    fb_address arrived;      // [rows, heads_kv] u32, zeroed by the plan: chunks done; absent: decode_merge will merge
    fb_address overflow;     // u32: set to 1 by the plan if the rows need more than chunks_max
    int64_t q_stride;        // elements from a row's queries to the next's, a multiple of 8
    int64_t table_stride;
    uint32_t rows;
    uint32_t heads_q;
    float scale;              // of the logits, above 0
    uint32_t chunk;           // tokens per chunk, a multiple of 64; of a list, at least
    uint32_t chunks_max;      // with lists, rows + lists_max suffice
    uint32_t row_chunks_max;  // of a row: its chunks double until so many suffice; 0: no bound. Without lists
    uint32_t lists_max;       // shares of all tokens, each for every KV head: ctas / heads_kv; 0: no lists
    uint32_t reserved;
};
static_assert(sizeof(fb_decode) == 184 && offsetof(fb_decode, q) == 40 && offsetof(fb_decode, lse) == 56 &&
                  offsetof(fb_decode, chunks) == 88 && offsetof(fb_decode, overflow) == 128 &&
                  offsetof(fb_decode, rows) == 152 && offsetof(fb_decode, lists_max) == 176, "");

// attention/prefill: the new tokens of each row, its last ones in the cache, see what precedes them and themselves.
// The group's heads of a token are neighbours: packed row `query * group + head` of a KV head; a tile is `tile` of
// them. The plan lists the tiles, those with most keys first; a tile of row `rows` is padding and yields zeros.
struct fb_prefill {
    struct fb_pool pool;
    fb_address q;           // [tokens, q_stride]: heads_q heads of head_dim each
    fb_address output;      // [tokens, heads_q, head_dim]
    fb_address lse;         // [tokens, heads_q] float, natural logarithm; or absent
    fb_address q_from;      // [rows + 1] u32: new tokens before each row; from q_from[rows] to tokens is padding
    fb_address lengths;     // [rows] u32: tokens in the cache, the new ones included
    fb_address tables;      // [rows, table_stride] u32: page ids
    fb_address tile_from;   // [rows + 2] u32: tiles before each row and before the padding; by the plan
    fb_address tiles;       // [tiles_max, 4] u32: row, tile of the row, its first token, its tokens; by the plan
    fb_address tile_count;  // u32: how many; by the plan
    fb_address overflow;    // u32: set to 1 by the plan if there are more than tiles_max; then it lists none
    int64_t q_stride;       // elements from a token's queries to the next's, a multiple of 8
    int64_t table_stride;
    uint32_t rows;
    uint32_t tokens;  // of the batch, with padding
    uint32_t heads_q;
    uint32_t tile;       // packed rows per tile, as the kernel has them
    uint32_t tiles_max;
    float scale;  // of the logits, above 0
};
static_assert(sizeof(fb_prefill) == 160 && offsetof(fb_prefill, q) == 40 && offsetof(fb_prefill, q_from) == 64 &&
                  offsetof(fb_prefill, tiles) == 96 && offsetof(fb_prefill, q_stride) == 120 &&
                  offsetof(fb_prefill, rows) == 136 && offsetof(fb_prefill, scale) == 156, "");

// The same for kernels that copy by a tensor map, with which the host describes the pool to the copy unit
// (cuTensorMapEncodeTiled), once per pool and layer; it is stale once `pool.pages` changes:
//   bf16, rank 4, at pool.pages, 128-byte swizzle, no interleave, element strides 1, zeros outside
//   sizes    head_dim, page_size, 2 * heads_kv, page_count
//   strides  2 * head_dim, 2 * head_dim * page_size, 2 * page_stride: bytes, of all but the innermost
//   box      64, page_size, 1, 1
struct alignas(64) fb_prefill_tensor {
    uint64_t map[16];
    struct fb_prefill prefill;
    uint32_t page_count;  // of the pool
    uint32_t reserved[7];
};
static_assert(sizeof(fb_prefill_tensor) == 320 && offsetof(fb_prefill_tensor, prefill) == 128 &&
                  offsetof(fb_prefill_tensor, page_count) == 288, "");

// activation: output = silu(gate) * up, by element.
struct fb_activation {
    fb_address input;   // [rows, 2 * width]: a row's gate, then its up
    fb_address output;  // [rows, width]
    uint32_t rows;
    uint32_t width;  // a multiple of 8
};
static_assert(sizeof(fb_activation) == 24 && offsetof(fb_activation, rows) == 16, "");

// gather: target[i] = source[ids[i]], rows of plain bytes: an embedding's, or those of the last tokens of prompts.
struct fb_gather {
    fb_address source;   // [rows, row_bytes]
    fb_address target;   // [count, row_bytes]
    fb_address ids;      // [count] u32; one with FB_FROM_STEP set names a place in `sampled` that holds the id
    fb_address sampled;  // u32: tokens of the step before; or absent
    fb_address failed;   // u32: set to 1 where an id is not below `rows`; the row is then zeros
    uint32_t row_bytes;  // a multiple of 16
    uint32_t count;
    uint32_t rows;
    uint32_t reserved;
};
#define FB_FROM_STEP 0x80000000u
static_assert(sizeof(fb_gather) == 56 && offsetof(fb_gather, failed) == 32 && offsetof(fb_gather, rows) == 48, "");

// penalize: lowers, in place, the logits of tokens that a row has seen. A row lists each token once.
struct fb_penalize {
    fb_address logits;      // [rows, stride] float
    fb_address from;        // [rows + 1] u32: listed tokens before each row
    fb_address tokens;      // [from[rows]] u32
    fb_address counts;      // [from[rows]] u32: how often the output holds it; 0: the prompt alone does
    fb_address repetition;  // [rows] float, above 0: divides a positive logit, multiplies another; 1 is neutral
    fb_address presence;    // [rows] float: taken off if the output holds it; 0 is neutral
    fb_address frequency;   // [rows] float: taken off once per time that the output holds it; 0 is neutral
    int64_t stride;
    uint32_t rows;
    uint32_t vocab;
};
static_assert(sizeof(fb_penalize) == 72 && offsetof(fb_penalize, stride) == 56 && offsetof(fb_penalize, vocab) == 68, "");

// sample: one token per row. A temperature of 0 or less takes the largest logit; top_k 0, top_p 1 and min_p 0 keep all.
struct fb_sample {
    fb_address logits;       // [rows, stride] float, at an address that 16 bytes divide
    fb_address temperature;  // [rows] float
    fb_address top_k;        // [rows] u32
    fb_address top_p;        // [rows] float
    fb_address min_p;        // [rows] float; or absent: 0
    fb_address seeds;        // [rows] u64: of the requests
    fb_address positions;    // [rows] u32: of the tokens drawn
    fb_address tokens;       // [rows] u32
    fb_address failed;       // [rows] u32: 1 where no logit or an infinite one leads; the token is then 0
    int64_t stride;          // a multiple of 4, at least vocab
    uint32_t rows;
    uint32_t vocab;
};
static_assert(sizeof(fb_sample) == 88 && offsetof(fb_sample, seeds) == 40 && offsetof(fb_sample, stride) == 72 &&
                  offsetof(fb_sample, vocab) == 84, "");
