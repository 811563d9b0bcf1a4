// Floats as integers in the same order, so that thresholds are found and ties are broken exactly.
#pragma once

#include <cstdint>

#include "number.h"

namespace flyball {

// Rises with the value; 0 for what can never be chosen, NaN and minus infinity.
FB_HD uint32_t order_key(float value) {
    const uint32_t bits = bits_of(value);
    if (is_nan(bits) || bits == 0xff800000u) return 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

FB_HD float order_value(uint32_t key) { return float_of(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// For a maximum over (key, index): the larger key first, then the lower index.
FB_HD uint64_t ranked(uint32_t key, uint32_t index) { return uint64_t(key) << 32 | uint32_t(~index); }
FB_HD uint32_t ranked_key(uint64_t rank) { return uint32_t(rank >> 32); }
FB_HD uint32_t ranked_index(uint64_t rank) { return ~uint32_t(rank); }

}  // namespace flyball
