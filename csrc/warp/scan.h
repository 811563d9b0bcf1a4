// A prefix sum over the threads of a cta: by shuffles inside a warp, through shared memory between warps.
#pragma once

#include "warp.h"

namespace flyball {

// The sum of `value` over the threads up to and with this one; `total` becomes that over all. `sums` has room for
// one per warp, and may be used again at once.
template <uint32_t threads>
FB_DEVICE uint64_t cta_scan(uint64_t value, Shared<uint64_t> sums, uint64_t& total) {
    FB_UNROLL
    for (uint32_t delta = 1; delta < kLanes; delta *= 2) {
        const uint64_t left = shuffle_up(value, delta);
        if (lane_index() >= delta) value += left;
    }
    if (lane_index() == kLanes - 1) sums.set(warp_index(), value);
    sync_cta();
    total = 0;
    FB_UNROLL
    for (uint32_t warp = 0; warp < threads / kLanes; ++warp) {
        const uint64_t sum = sums[warp];
        if (warp < warp_index()) value += sum;
        total += sum;
    }
    sync_cta();
    return value;
}

// Calls `set(i, before)` for every i below `count`, `before` being the sum of `size_of(j)` over j < i; returns the
// sum of all. `sums` has room for one per warp.
template <uint32_t threads, class SizeOf, class Set>
FB_DEVICE uint64_t cta_offsets(uint32_t count, Shared<uint64_t> sums, SizeOf size_of, Set set) {
    uint64_t before = 0;
    for (uint32_t base = 0; base < count; base += threads) {
        const uint32_t at = base + thread_index();
        const uint64_t mine = at < count ? size_of(at) : 0;
        uint64_t total;
        const uint64_t through = before + cta_scan<threads>(mine, sums, total);
        before += total;
        if (at < count) set(at, through - mine);
    }
    return before;
}

}  // namespace flyball
