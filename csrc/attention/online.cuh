// Online softmax on accumulators (Milakov and Gimelshein, 2018): logits of a row, as four lanes hold them, become
// weights, and what was summed so far comes under the new maximum.
#pragma once

#include "../core/softmax.h"
#include "../warp/warp.h"

namespace flyball {

// Of one row, so far.
struct OnlineRow {
    float max = minus_infinity();  // of unscaled logits
    float sum = 0.0f;              // this lane's share

    // All lanes of the warp: the sum is over the four that share the row. `scale` turns logits into log2 units.
    FB_DEVICE Softmax whole(float scale) const { return {rounded_product(max, scale), warp_sum<4>(sum)}; }
};

// Hides keys from `end` on; `key` is that of the first column.
template <uint32_t columns>
FB_DEVICE void hide(FragmentC (&logits)[columns], uint32_t half, uint32_t key, uint32_t end) {
    FB_UNROLL
    for (uint32_t block = 0; block < columns; ++block) {
        FB_UNROLL
        for (uint32_t i = 0; i < 2; ++i) {
            float& logit = logits[block].at[2 * half + i];
            if (key + 8 * block + lane_index() % 4 * 2 + i >= end) logit = minus_infinity();
        }
    }
}

// Turns half of the rows' logits into weights, exp2(logit * scale - max * scale): one multiply-add, one exp2.
template <uint32_t columns, uint32_t blocks>
FB_DEVICE void weigh(FragmentC (&logits)[columns], FragmentC (&out)[blocks], uint32_t half, float scale,
                     OnlineRow& row) {
    float most = row.max;
    FB_UNROLL
    for (uint32_t block = 0; block < columns; ++block) {
        most = fmaxf(most, fmaxf(logits[block].at[2 * half], logits[block].at[2 * half + 1]));
    }
    most = warp_max<4>(most);
    // Where nothing is visible yet, any finite number will do: the difference of two infinities is NaN.
    const float base = most == minus_infinity() ? 0.0f : most * scale;
    // A maximum that stays multiplies by 1, and not by what rounding makes of it: else a row's bits would depend on
    // whether a neighbour's maximum rose.
    if (warp_any(most != row.max)) {
        const float keep = most != row.max ? exp2_fast(fmaf(row.max, scale, -base)) : 1.0f;
        row.sum = rounded_product(row.sum, keep);
        FB_UNROLL
        for (uint32_t block = 0; block < blocks; ++block) {
            out[block].at[2 * half] *= keep;
            out[block].at[2 * half + 1] *= keep;
        }
        row.max = most;
    }
    FB_UNROLL
    for (uint32_t block = 0; block < columns; ++block) {
        FB_UNROLL
        for (uint32_t i = 0; i < 2; ++i) {
            float& logit = logits[block].at[2 * half + i];
            logit = exp2_fast(fmaf(logit, scale, -base));
            row.sum += logit;
        }
    }
}

// Two blocks of weights lie as the operand A of P * V wants them.
template <class Math>
FB_DEVICE FragmentA operand(const FragmentC& left, const FragmentC& right) {
    return {{pack_pair<Math>(left.at[0], left.at[1]), pack_pair<Math>(left.at[2], left.at[3]),
             pack_pair<Math>(right.at[0], right.at[1]), pack_pair<Math>(right.at[2], right.at[3])}};
}

}  // namespace flyball
