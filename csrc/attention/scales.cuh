// What turns the numbers of a cache into values: its scales, which may be absent.
#pragma once

#include "../core/softmax.h"
#include "../warp/warp.h"

namespace flyball {

// Of one KV head.
FB_DEVICE float scale_of(uint64_t scales, uint32_t head) { return scales ? Global<float>(scales)[head] : 1.0f; }

// From a product of Q and K, as it is stored, to a logit in log2 units.
template <class Params>
FB_DEVICE float logit_scale(const Params& p, uint32_t head) {
    return p.scale * kLog2E * scale_of(p.pool.k_scale, head);
}

}  // namespace flyball
