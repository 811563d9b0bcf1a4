// Cutting the queries of a prefill into tiles of packed rows: a token's heads of one group are neighbours.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "mask.h"
#include "number.h"

namespace flyball {

// A row's new tokens, and what of them one tile holds.
struct Queries {
    uint32_t tokens;
    uint32_t length;  // of the cache, the new ones included
    uint32_t group;   // query heads per KV head

    FB_HD uint64_t packed() const { return uint64_t(tokens) * group; }
    FB_HD uint32_t tiles(uint32_t tile) const { return uint32_t((packed() + tile - 1) / tile); }

    // How many keys packed row `at` sees.
    FB_HD uint32_t visible(uint32_t at) const { return visible_keys(at / group, tokens, length); }

    // How many keys the tile's last token sees: none of its tokens sees more.
    FB_HD uint32_t keys(uint32_t index, uint32_t tile) const {
        const uint64_t end = (uint64_t(index) + 1) * tile, last = (end < packed() ? end : packed()) - 1;
        return visible(uint32_t(last));
    }
};

// 256 classes of work that rise with the number of keys, eight to an octave; none is a class of its own.
constexpr uint32_t kWorkClasses = 256;

FB_HD uint32_t work_class(uint32_t keys) {
    if (keys == 0) return 0;
    const uint32_t work = (bits_of(float(keys)) >> 20) - (127u << 3) + 1;
    return work < kWorkClasses ? work : kWorkClasses - 1;
}

}  // namespace flyball
