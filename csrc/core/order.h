// Floats as integers in the same order, so that thresholds are found and ties are broken exactly.
#pragma once

#include <cstdint>

#include "number.h"

namespace flyball {

// Rises with the value; 0 for what can never be chosen, NaN and minus infinity. The two zeros are one: a sum with
// zero is never minus zero.
FB_HD uint32_t order_key(float value) {
    const uint32_t bits = bits_of(value + 0.0f);
    if (is_nan(bits) || bits == 0xff800000u) return 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The least key of what can be chosen.
constexpr uint32_t kLeastKey = 0x00800000u;

// The least value with such a key; minus infinity for keys that none has.
FB_HD float order_value(uint32_t key) {
    if (key < kLeastKey) return float_of(0xff800000u);
    return float_of(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// For a maximum over (key, index): the larger key first, then the lower index.
FB_HD uint64_t ranked(uint32_t key, uint32_t index) { return uint64_t(key) << 32 | uint32_t(~index); }
FB_HD uint32_t ranked_key(uint64_t rank) { return uint32_t(rank >> 32); }
FB_HD uint32_t ranked_index(uint64_t rank) { return ~uint32_t(rank); }

}  // namespace flyball
