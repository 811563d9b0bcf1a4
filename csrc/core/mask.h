// Causal visibility of a chunk of queries that follows a prefix already in the cache.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace flyball {

// How many keys query `query` of `q_len` sees when the cache holds `kv_len` tokens, the chunk included: its
// edge is aligned bottom right, so the last query sees every key. A chunk longer than the cache sees nothing
// with its first queries.
FB_HD uint32_t visible_keys(uint32_t query, uint32_t q_len, uint32_t kv_len) {
    const int64_t edge = int64_t(kv_len) - q_len + query + 1;
    return edge < 0 ? 0u : uint32_t(edge);
}

}  // namespace flyball
