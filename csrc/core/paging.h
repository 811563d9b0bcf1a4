// Where a token's K and V lie: pages of a power of two of tokens, each [K|V][heads_kv][page_size][head_dim].
#pragma once

#include <cstdint>

#include "host_device.h"

namespace flyball {

// The tokens of one head in a page are contiguous (HND): a tile of keys is one straight read.
struct Paging {
    int64_t page_stride;
    uint32_t page_shift;
    uint32_t heads_kv;
    uint32_t head_dim;

    FB_HD uint32_t page(uint32_t token) const { return token >> page_shift; }
    FB_HD uint32_t offset(uint32_t token) const { return token & ((1u << page_shift) - 1u); }

    // Elements from the pool's start; a pool exceeds 2^31 elements, so page bases are 64 bits wide.
    FB_HD int64_t key(int64_t page, uint32_t head, uint32_t offset) const {
        return page * page_stride + (int64_t(head) << page_shift) * head_dim + int64_t(offset) * head_dim;
    }
    FB_HD int64_t value(int64_t page, uint32_t head, uint32_t offset) const {
        return key(page, heads_kv + head, offset);
    }
};

}  // namespace flyball
