// Sums and maxima over the threads of a cta: inside a warp in registers, between warps through shared memory.
#pragma once

#include "warp.h"

namespace flyball {

// `across` folds the values of a warp's lanes for every lane; nothing must change what it folds to. `scratch` has
// room for one value per warp, and may be used again at once.
template <uint32_t threads, class Across>
FB_DEVICE uint64_t cta_fold(uint64_t value, Shared<uint64_t> scratch, Across across) {
    constexpr uint32_t kWarps = threads / kLanes;
    static_assert(kWarps <= kLanes, "one lane per warp");
    value = across(value);
    if (lane_index() == 0) scratch.set(warp_index(), value);
    sync_cta();
    value = across(lane_index() < kWarps ? scratch[lane_index()] : 0);
    sync_cta();
    return value;
}

template <uint32_t threads>
FB_DEVICE uint64_t cta_max(uint64_t value, Shared<uint64_t> scratch) {
    return cta_fold<threads>(value, scratch, [](uint64_t x) { return warp_max(x); });
}

template <uint32_t threads>
FB_DEVICE uint64_t cta_sum(uint64_t value, Shared<uint64_t> scratch) {
    return cta_fold<threads>(value, scratch, [](uint64_t x) { return warp_sum(x); });
}

}  // namespace flyball
