// decode_merge: folds the chunks of each row in their order, and writes what decode left open.
//   partial [chunks_max, heads_q, head_dim] float, partial_max, partial_sum -> output [rows, heads_q, head_dim] bf16
// One warp per head of a row, 4 warps per cta, grid-stride. A row of one chunk is done already.
#pragma once

#include "../core/mutant.h"
#include "../core/softmax.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

template <uint32_t head_dim>
struct DecodeMerge {
    using Params = fb_decode;
    static constexpr uint32_t kThreads = 128;
    static constexpr uint32_t kShared = 0;
    static constexpr uint32_t kWidth = head_dim / kLanes;

    static FB_DEVICE void run(const Params& p) {
        const uint32_t items = p.rows * p.heads_q, stride = cta_count() * (kThreads / kLanes);
        for (uint32_t item = cta_index() * (kThreads / kLanes) + warp_index(); item < items; item += stride) {
            const auto row = item / p.heads_q;
            const uint32_t begin = Global<uint32_t>(p.chunk_from)[row];
            const uint32_t end = Global<uint32_t>(p.chunk_from)[row + 1];
            if (end - begin > 1) fold(p, item, begin, end);
        }
    }

private:
    static FB_DEVICE void fold(const Params& p, uint32_t item, uint32_t begin, uint32_t end) {
        const uint32_t dim = lane_index() * kWidth;
        Softmax whole;
        float sum[kWidth] = {};
        for (uint32_t chunk = begin; chunk < end; ++chunk) {
            const int64_t from = int64_t(chunk) * p.heads_q + item % p.heads_q;
            const Softmax part = {Global<float>(p.partial_max)[from], Global<float>(p.partial_sum)[from]};
            const auto values = Global<float>(p.partial).load<kWidth>(from * head_dim + dim);
            const Merged merged = merge(whole, part);
            whole = merged.both;
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; ++i) {
                const float old = mutated(Mutant::stale_max) ? sum[i] : sum[i] * merged.left;
                sum[i] = old + values.at[i] * merged.right;
            }
        }
        Pack<Bf16, kWidth> out;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) out.at[i] = from_float<Bf16>(sum[i] * whole.normalizer());
        Global<Bf16>(p.output).store(int64_t(item) * head_dim + dim, out);
        if (p.lse && lane_index() == 0) Global<float>(p.lse).set(item, whole.lse());
    }
};

}  // namespace flyball
