// decode_merge: merges the chunks of each row, and writes what decode left open. Not needed where decode has
// `arrived`: there the last chunk of a row does it.
//   partial [chunks_max, heads_q, head_dim] float, partial_max, partial_sum -> output [rows, heads_q, head_dim]
// One warp per head of a row, 4 warps per cta, grid-stride. A row of one chunk is done already.
//
// Chunks are added in their order under their common maximum: a row's bits depend on its own chunks alone.
#pragma once

#include "../core/mutant.h"
#include "../core/softmax.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

// One query head of one row, by one warp.
template <class Compute, uint32_t head_dim>
struct MergeChunks {
    static constexpr uint32_t kWidth = 4;  // floats per access
    static constexpr uint32_t kSpan = kLanes * kWidth;
    static constexpr uint32_t kPasses = (head_dim + kSpan - 1) / kSpan;
    static constexpr uint32_t kAhead = kPasses == 1 ? 8 : 4;  // partials under way at once
    static_assert(head_dim % kWidth == 0, "");

    static FB_DEVICE void run(const fb_decode& p, uint32_t row, uint32_t head) {
        const uint32_t begin = Global<uint32_t>(p.chunk_from)[row], end = Global<uint32_t>(p.chunk_from)[row + 1];
        const Global<float> maxima(p.partial_max), sums(p.partial_sum);
        Softmax whole;
        for (uint32_t chunk = begin + lane_index(); chunk < end; chunk += kLanes) {
            whole.max = fmaxf(whole.max, maxima[int64_t(chunk) * p.heads_q + head]);
        }
        whole.max = warp_max(whole.max);
        float out[kPasses][kWidth] = {};
        for (uint32_t first = begin; first < end; first += kLanes) {
            const uint32_t mine = first + lane_index();
            float weight = 0.0f;
            if (mine < end) {
                const int64_t from = int64_t(mine) * p.heads_q + head;
                weight = mutated(Mutant::stale_max) ? 1.0f : rescale(maxima[from], whole.max);
                whole.sum += sums[from] * weight;
            }
            add(out, p, first, end, head, weight);
        }
        whole.sum = warp_sum(whole.sum);
        write(out, p, int64_t(row) * p.heads_q + head, whole);
    }

private:
    // Adds up to 32 chunks from `first` on; lane i has the weight of the i-th.
    static FB_DEVICE void add(float (&out)[kPasses][kWidth], const fb_decode& p, uint32_t first, uint32_t end,
                              uint32_t head, float weight) {
        const uint32_t count = end - first < kLanes ? end - first : kLanes;
        for (uint32_t base = 0; base < count; base += kAhead) {
            Pack<float, kWidth> part[kAhead][kPasses];
            FB_UNROLL
            for (uint32_t i = 0; i < kAhead; ++i) {
                FB_UNROLL
                for (uint32_t pass = 0; pass < kPasses; ++pass) {
                    part[i][pass] = {};
                    const int64_t from = (int64_t(first + base + i) * p.heads_q + head) * head_dim;
                    if (base + i < count && dim(pass) < head_dim) {
                        part[i][pass] = Global<float>(p.partial).load<kWidth>(from + dim(pass));
                    }
                }
            }
            FB_UNROLL
            for (uint32_t i = 0; i < kAhead; ++i) {
                // Beyond the last chunk a lane has no weight, and the part is zeros.
                const float factor = shuffle(weight, (base + i) % kLanes);
                FB_UNROLL
                for (uint32_t pass = 0; pass < kPasses; ++pass) {
                    FB_UNROLL
                    for (uint32_t at = 0; at < kWidth; ++at) out[pass][at] += part[i][pass].at[at] * factor;
                }
            }
        }
    }

    static FB_DEVICE void write(const float (&out)[kPasses][kWidth], const fb_decode& p, int64_t item, Softmax whole) {
        const float factor = whole.normalizer();
        FB_UNROLL
        for (uint32_t pass = 0; pass < kPasses; ++pass) {
            if (dim(pass) >= head_dim) continue;
            Pack<Compute, kWidth> pack;
            FB_UNROLL
            for (uint32_t at = 0; at < kWidth; ++at) pack.at[at] = from_float<Compute>(out[pass][at] * factor);
            Global<Compute>(p.output).store(item * head_dim + dim(pass), pack);
        }
        if (p.lse && lane_index() == 0) Global<float>(p.lse).set(item, whole.lse());
    }

    static FB_DEVICE uint32_t dim(uint32_t pass) { return pass * kSpan + lane_index() * kWidth; }
};

template <class Compute, uint32_t head_dim>
struct DecodeMerge {
    using Params = fb_decode;
    static constexpr uint32_t kThreads = 128;
    static constexpr uint32_t kShared = 0;

    static FB_DEVICE void run(const Params& p) {
        wait_for_previous_grid();
        allow_next_grid();
        const Global<uint32_t> from(p.chunk_from);
        const uint32_t items = p.rows * p.heads_q, stride = cta_count() * (kThreads / kLanes);
        for (uint32_t item = cta_index() * (kThreads / kLanes) + warp_index(); item < items; item += stride) {
            const uint32_t row = item / p.heads_q;
            if (from[row + 1] - from[row] > 1) MergeChunks<Compute, head_dim>::run(p, row, item % p.heads_q);
        }
    }
};

}  // namespace flyball
