// Where a token's K and V lie: pages of a power of two of tokens, each [K|V][heads_kv][page_size][head_dim].
#pragma once

#include <cstdint>

#include "../params.h"
#include "host_device.h"

namespace flyball {

// The tokens of one head in a page are contiguous (HND): a tile of keys is one straight read.
struct Paging {
    int64_t page_stride;
    uint32_t page_shift;
    uint32_t head_dim;

    FB_HD Paging(const fb_pool& pool, uint32_t head_dim)
        : page_stride(pool.page_stride), page_shift(pool.page_shift), head_dim(head_dim) {}

    // Elements from the pool's start to a token in a page: `part` counts the heads of K, then those of V. A pool
    // exceeds 2^31 elements, so page bases are 64 bits wide.
    FB_HD int64_t element(int64_t page, uint32_t part, uint32_t token) const {
        const uint32_t offset = token & ((1u << page_shift) - 1u);
        return page * page_stride + (int64_t(part) << page_shift) * head_dim + int64_t(offset) * head_dim;
    }
};

}  // namespace flyball
