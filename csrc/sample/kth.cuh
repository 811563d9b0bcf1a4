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

// How many of a row's keys fall into each of some bins.
class Histogram {
public:
    static constexpr uint32_t kBins = 2048;
    static constexpr uint32_t kFoundAt = kBins * sizeof(uint32_t);
    static constexpr uint32_t kBytes = kFoundAt + 2 * sizeof(uint64_t);

    FB_DEVICE Histogram(uint32_t at, Shared<uint64_t> sums) : counts(at), found(at + kFoundAt), sums(sums) {}

    // A barrier must follow.
    FB_DEVICE void clear() const {
        FB_ROLL
        for (uint32_t at = thread_index(); at < kBins; at += kSampleThreads) counts.set(at, 0);
    }

    FB_DEVICE void count(uint32_t bin) const { atomic_add(counts, bin, 1); }

    // The bin in which the weight from the top reaches `left`, from which it takes what lies above; the lowest that
    // weighs anything if there is too little. A bin weighs weight(bin, count).
    template <class Weight>
    FB_DEVICE uint32_t reached(uint64_t& left, Weight weight) const {
        constexpr uint32_t kEach = kBins / kSampleThreads;
        static_assert(kEach == 2, "two neighbours per thread");
        if (!mutated(Mutant::histogram_unsynced)) sync_cta();
        const uint32_t upper = kBins - 1 - kEach * thread_index(), lower = upper - 1;
        const uint64_t first = weight(upper, counts[upper]), mine = first + weight(lower, counts[lower]);
        uint64_t total;
        const uint64_t above = cta_scan<kSampleThreads>(mine, sums, total) - mine;
        if (left > total) left = total;
        // True of one thread alone.
        if (above < left && left <= above + mine) {
            const bool reached = left <= above + first;
            found.set(0, reached ? upper : lower);
            found.set(1, reached ? above : above + first);
        }
        sync_cta();
        left -= found[1];
        const uint32_t bin = uint32_t(found[0]);
        sync_cta();  // whoever is done may use its place for something else
        return bin;
    }

private:
    const Shared<uint32_t> counts;
    const Shared<uint64_t> found;
    const Shared<uint64_t> sums;
};

// The same of a whole row, among the keys from `least` on: by radix descent, 11 bits of the key at a time, one read
// of the row each. If there are fewer than `k`, the lowest of them.
FB_DEVICE uint32_t kth_of(const Logits& row, uint32_t k, uint32_t least, const Histogram& histogram) {
    uint32_t prefix = 0;
    uint64_t left = k;
    FB_ROLL
    for (int32_t shift = 21; shift > -11; shift -= 11) {
        const uint32_t low = shift < 0 ? 0 : uint32_t(shift), bits = shift < 0 ? 10 : 11;
        histogram.clear();
        sync_cta();
        row.each([&](uint32_t, float, uint32_t key) {
            // By 32 or more in the first pass, where all keys go.
            if (key < least || uint64_t(key) >> (low + bits) != prefix) return;
            histogram.count(key >> low & ((1u << bits) - 1));
        });
        prefix = prefix << bits | histogram.reached(left, [](uint32_t, uint32_t count) { return uint64_t(count); });
    }
    return prefix;
}

}  // namespace flyball
