// scatter: words to where they belong: the entries of the block tables that a step changes.
//   target[pairs[i].at] = pairs[i].value
// 256 threads, grid-stride. No place is named twice, so that the order does not matter.
#pragma once

#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

struct ScatterWords {
    using Params = fb_scatter;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = 0;

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        const Global<uint32_t> target(p.target), pairs(p.pairs);
        for (uint32_t at = cta_index() * kThreads + thread_index(); at < p.count; at += cta_count() * kThreads) {
            const auto pair = pairs.load<2>(int64_t(at) * 2);
            target.set(pair.at[0], pair.at[1]);
        }
    }
};

}  // namespace flyball
