// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128 random bits from
// a counter and a key, no state. Keyed by a request and a position, a draw is the same in every batch slot.
#pragma once

#include <cstdint>

#include "number.h"

namespace flyball {

struct Random4 {
    uint32_t word[4];

    // An index that is not known when compiling would send the words to memory.
    FB_HD uint32_t pick(uint32_t index) const {
        const uint32_t low = index & 1u ? word[1] : word[0], high = index & 1u ? word[3] : word[2];
        return index & 2u ? high : low;
    }
};

FB_HD Random4 philox(Random4 counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = uint64_t(0xD2511F53u) * counter.word[0];
        const uint64_t product1 = uint64_t(0xCD9E8D57u) * counter.word[2];
        counter = {{uint32_t(product1 >> 32) ^ counter.word[1] ^ key0, uint32_t(product1),
                    uint32_t(product0 >> 32) ^ counter.word[3] ^ key1, uint32_t(product0)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// Uniform in (0, 1): the middles of 2^23 equal parts, so that neither end occurs. That of ~word is 1 less that of
// word, exactly. The upper bits are the mantissa of a number from 1 to 2, which is quicker than a conversion.
FB_HD float uniform(uint32_t word) { return float_of(0x3f800000u | word >> 9) - (1.0f - 0x1p-24f); }

}  // namespace flyball
