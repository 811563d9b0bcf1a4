// Splitting rows over KV: fixed chunks at absolute multiples, so that a row's own length alone decides where
// its sums are cut ("batch invariance", Thinking Machines Lab, 2025). Chunks are merged in their order.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace flyball {

// Tokens per chunk of a row of `length`: `chunk`, doubled until `most` chunks suffice, so that merging stays short;
// any number of them where `most` is 0.
FB_HD uint32_t chunk_tokens(uint32_t length, uint32_t chunk, uint32_t most) {
    while (most > 0 && length > uint64_t(most) * chunk) chunk *= 2;
    return chunk;
}

// An empty row has one chunk too: somebody must write its zeros.
FB_HD uint32_t chunk_count(uint32_t length, uint32_t chunk) {
    return length == 0 ? 1u : (length - 1u) / chunk + 1u;
}

struct Span {
    uint32_t begin;
    uint32_t end;
};

FB_HD Span chunk_span(uint32_t index, uint32_t length, uint32_t chunk) {
    const uint32_t begin = index * chunk;
    return {begin, length - begin < chunk ? length : begin + chunk};
}

// Equal shares of all rows' tokens, in blocks of 64, one row behind the other; a row takes up a block at least. A
// share cuts rows wherever it ends: no share waits for another, but what a row's chunks are depends on all rows.
constexpr uint32_t kBlock = 64;

FB_HD uint32_t block_count(uint32_t length) { return length == 0 ? 1u : (length - 1u) / kBlock + 1u; }

// Blocks per share, for at most `shares` of them, of `least` tokens at least.
FB_HD uint32_t share_blocks(uint32_t blocks, uint32_t shares, uint32_t least) {
    const uint32_t equal = (blocks + shares - 1u) / shares, floor = (least + kBlock - 1u) / kBlock;
    return equal > floor ? equal : floor;
}

// The part of a row that begins at block `before` which lies in share `share`.
FB_HD Span share_span(uint32_t share, uint32_t share_size, uint32_t before, uint32_t length) {
    const uint32_t begin = share * share_size, end = begin + share_size;
    const uint32_t from = begin > before ? (begin - before) * kBlock : 0u, to = (end - before) * kBlock;
    return {from, to < length ? to : length};
}

// The row that work item `item` belongs to: the last with `from(row) <= item`. `from` starts at 0 and never
// falls; a row without items is passed over.
template <class From>
FB_HD uint32_t row_of(uint32_t item, uint32_t rows, From from) {
    uint32_t low = 0, high = rows;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (from(middle) <= item) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

}  // namespace flyball
