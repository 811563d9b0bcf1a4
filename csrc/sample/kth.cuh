// The k-th largest of some keys, exactly.
#pragma once

#include "../core/mutant.h"
#include "../warp/scan.h"
#include "logits.cuh"

namespace flyball {

// The largest key with at least `k` of the threads' keys at or above it, if there is one between `low` and `high`, the
// largest of all; else `low`. Bits below `last` stay zero, so that it may be less.
FB_DEVICE uint32_t kth_of_threads(uint32_t mine, uint32_t k, uint32_t low, uint32_t high, int32_t last) {
    uint32_t found = 0;
    FB_ROLL
    for (int32_t bit = 31; bit >= last; --bit) {
        const uint32_t more = found | 1u << bit;
        if (more <= low || (more <= high && sync_cta_count(mine >= more) >= k)) found = more;
    }
    return found;
}

// The same of a list, of which every thread looks at a part in turn.
FB_DEVICE uint32_t kth_of(const Candidates& list, uint32_t k, uint32_t low, uint32_t high) {
    uint32_t found = 0;
    FB_ROLL
    for (int32_t bit = 31; bit >= 0; --bit) {
        const uint32_t more = found | 1u << bit;
        if (more > low) {
            if (more > high) continue;
            uint32_t above = 0;
            FB_ROLL
            for (uint32_t first = 0; first < list.count; first += kSampleThreads) {
                const uint32_t at = first + thread_index();
                above += sync_cta_count(at < list.count && ranked_key(list.ranks[at]) >= more);
            }
            if (above < k) continue;
        }
        found = more;
    }
    return found;
}

// The same of a whole row, among the keys from `least` on: by radix descent, 11 bits of the key at a time, one read
// of the row each. If there are fewer than `k`, the lowest of them.
class Descent {
public:
    static constexpr uint32_t kDigits = 2048;
    static constexpr uint32_t kHistogramBytes = kDigits * sizeof(uint32_t);

    FB_DEVICE Descent(Shared<uint32_t> histogram, Shared<uint64_t> sums, Shared<uint32_t> found)
        : histogram(histogram), sums(sums), found(found) {}

    FB_DEVICE uint32_t kth(const Logits& row, uint32_t k, uint32_t least) const {
        uint32_t prefix = 0;
        uint64_t left = k;
        FB_ROLL
        for (int32_t shift = 21; shift > -11; shift -= 11) {
            const uint32_t low = shift < 0 ? 0 : uint32_t(shift), bits = shift < 0 ? 10 : 11;
            FB_ROLL
            for (uint32_t at = thread_index(); at < kDigits; at += kSampleThreads) histogram.set(at, 0);
            sync_cta();
            row.each([&](uint32_t, float, uint32_t key) {
                // By 32 or more in the first pass, where all keys go.
                if (key < least || uint64_t(key) >> (low + bits) != prefix) return;
                atomic_add(histogram, key >> low & ((1u << bits) - 1), 1);
            });
            if (!mutated(Mutant::histogram_unsynced)) sync_cta();
            prefix = prefix << bits | digit(left);
        }
        return prefix;
    }

private:
    const Shared<uint32_t> histogram;
    const Shared<uint64_t> sums;
    const Shared<uint32_t> found;

    // The digit in which the count from the top reaches `left`, from which it takes what lies above.
    FB_DEVICE uint32_t digit(uint64_t& left) const {
        constexpr uint32_t kEach = kDigits / kSampleThreads;
        static_assert(kEach == 2, "two neighbours per thread");
        const uint32_t upper = kDigits - 1 - kEach * thread_index(), lower = upper - 1;
        const uint64_t first = histogram[upper], mine = first + histogram[lower];
        uint64_t total;
        const uint64_t above = cta_scan<kSampleThreads>(mine, sums, total) - mine;
        if (left > total) left = total;
        // True of one thread alone.
        if (above < left && left <= above + mine) {
            const bool reached = left <= above + first;
            found.set(0, reached ? upper : lower);
            found.set(1, uint32_t(reached ? above : above + first));
        }
        sync_cta();
        left -= found[1];
        return found[0];
    }
};

}  // namespace flyball
