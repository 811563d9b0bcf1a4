// decode_merge: merges the chunks of each row, and writes what decode left open. Not needed where decode has
// `arrived`: there the last chunk of a row does it.
//   partial [chunks_max, heads_q, head_dim] float, partial_of -> output [rows, heads_q, head_dim]
// One warp per head of a row, a cta each so that they have the bandwidth of many multiprocessors, grid-stride. A row of
// one chunk is done already.
//
// Chunks are added in their order under their common maximum: a row's bits depend on its own chunks alone.
#pragma once

#include "../core/chunks.h"
#include "../core/mutant.h"
#include "../core/softmax.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

FB_DEVICE Span row_chunks(const fb_decode& p, uint32_t row) {
    const Global<uint32_t> from(p.chunk_from);
    return {from[row], from[row + 1]};
}

// One query head of one row, by one warp, which has `at_once` accesses to partials under way.
template <class Compute, uint32_t head_dim, uint32_t at_once>
class MergeChunks {
public:
    FB_DEVICE MergeChunks(const fb_decode& p, Span chunks, uint32_t head)
        : p(p), begin(chunks.begin), end(chunks.end), head(head) {}

    // `item` counts the heads of all rows.
    FB_DEVICE void merge(int64_t item) {
        Softmax mine = softmax_of(begin + lane_index()), whole;
        // Partials need not wait for the maxima of all.
        load(begin);
        whole.max = warp_max(max_from(begin + kLanes + lane_index(), mine.max));
        for (uint32_t first = begin; first < end; first += kLanes) {
            if (first > begin) mine = softmax_of(first + lane_index());
            const float weight = mutated(Mutant::stale_max) ? 1.0f : rescale(mine.max, whole.max);
            whole.sum += mine.sum * weight;
            const uint32_t last = end - first < kLanes ? end : first + kLanes;
            for (uint32_t chunk = first; chunk < last; chunk += kAhead) {
                if (chunk > begin) load(chunk);
                add(chunk, weight, chunk - first);
            }
        }
        whole.sum = warp_sum(whole.sum);
        write(item, whole);
    }

private:
    static constexpr uint32_t kWidth = 4;  // floats per access
    static constexpr uint32_t kSpan = kLanes * kWidth;
    static constexpr uint32_t kPasses = (head_dim + kSpan - 1) / kSpan;
    static constexpr uint32_t kAhead = at_once / kPasses;
    static constexpr uint32_t kGroup = 8 / kPasses;  // of which all are taken, or none
    static_assert(head_dim % kWidth == 0 && kLanes % kAhead == 0 && kAhead % kGroup == 0, "");

    const fb_decode& p;
    const uint32_t begin, end;
    const uint32_t head;
    Pack<float, kWidth> part[kAhead][kPasses];
    float out[kPasses][kWidth] = {};

    static FB_DEVICE uint32_t dim(uint32_t pass) { return pass * kSpan + lane_index() * kWidth; }

    // Nothing, beyond the last.
    FB_DEVICE Softmax softmax_of(uint32_t chunk) const {
        if (chunk >= end) return {};
        const auto pair = Global<float>(p.partial_of).template load<2>((int64_t(chunk) * p.heads_q + head) * 2);
        return {pair.at[0], pair.at[1]};
    }

    FB_DEVICE float max_from(uint32_t chunk, float max) const {
        for (; chunk < end; chunk += kLanes) max = fmaxf(max, softmax_of(chunk).max);
        return max;
    }

    FB_DEVICE void load(uint32_t first) {
        const Global<float> partial(Global<float>(p.partial).address_of(
            (int64_t(first) * p.heads_q + head) * head_dim + lane_index() * kWidth));
        const uint32_t step = p.heads_q * head_dim;
        FB_UNROLL
        for (uint32_t i = 0; i < kAhead; ++i) {
            if (i > 0 && i % kGroup == 0 && first + i >= end) return;
            FB_UNROLL
            for (uint32_t pass = 0; pass < kPasses; ++pass) {
                part[i][pass] = {};
                if (first + i < end && dim(pass) < head_dim) {
                    part[i][pass] = partial.template load<kWidth>(i * step + pass * kSpan);
                }
            }
        }
    }

    // What was loaded from `first` on. Lane i has the weight of the i-th of 32, of which these begin at `base`; beyond
    // the last chunk there is no weight, and the part is zeros.
    FB_DEVICE void add(uint32_t first, float weight, uint32_t base) {
        FB_UNROLL
        for (uint32_t i = 0; i < kAhead; ++i) {
            if (i > 0 && i % kGroup == 0 && first + i >= end) return;
            const float factor = shuffle(weight, base + i);
            FB_UNROLL
            for (uint32_t pass = 0; pass < kPasses; ++pass) {
                FB_UNROLL
                for (uint32_t at = 0; at < kWidth; ++at) out[pass][at] += part[i][pass].at[at] * factor;
            }
        }
    }

    FB_DEVICE void write(int64_t item, Softmax whole) const {
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
};

template <class Compute, uint32_t head_dim>
struct DecodeMerge {
    using Params = fb_decode;
    static constexpr uint32_t kThreads = kLanes;
    static constexpr uint32_t kShared = 0;

    static FB_DEVICE void run(const Params& p) {
        uint32_t item = cta_index();
        // The plan is older than decode, the grid ahead.
        Span chunks = chunks_of(p, item / p.heads_q);
        follow_previous_grid();
        while (item < p.rows * p.heads_q) {
            if (chunks.end - chunks.begin > 1) {
                MergeChunks<Compute, head_dim, kLanes>(p, chunks, item % p.heads_q).merge(item);
            }
            item += cta_count();
            chunks = chunks_of(p, item / p.heads_q);
        }
    }

private:
    static FB_DEVICE Span chunks_of(const Params& p, uint32_t row) {
        return row < p.rows ? row_chunks(p, row) : Span{0, 0};
    }
};

}  // namespace flyball
