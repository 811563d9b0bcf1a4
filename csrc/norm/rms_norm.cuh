// rms_norm: adds a residual, divides by the root mean square, multiplies by a weight.
//   input, residual, output [rows, hidden]; the residual, if any, becomes the sum.
// One cta per row, grid-stride, the row in registers, two vectors of 16 bytes per thread; all its loads, the weight's
// too, are in flight before the first is used. Shared: a sum per warp.
// Moves 4 * hidden * 2 bytes per row (2 without residual): bound by memory; 86 % of a copy at 4096 x 4096 on an H200
// (benches/results). The order of the sum depends on `hidden` alone. Method: Zhang and Sennrich, 2019.
#pragma once

#include "../core/mutant.h"
#include "../params.h"
#include "../warp/convert.h"

namespace flyball {

// Rows of up to 16 * `threads` elements.
template <class T, uint32_t threads>
struct RmsNorm {
    using Params = fb_norm;
    static constexpr uint32_t kThreads = threads;
    static constexpr uint32_t kCtasPerSm = 1024 / threads;
    static constexpr uint32_t kShared = kThreads / kLanes * sizeof(float);
    static constexpr uint32_t kWidth = 8, kVectors = 2;
    using Vector = Pack<T, kWidth>;

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        for (uint32_t row = cta_index(); row < p.rows; row += cta_count()) {
            if (p.residual) {
                norm<true>(p, int64_t(row) * p.hidden);
            } else {
                norm<false>(p, int64_t(row) * p.hidden);
            }
        }
    }

private:
    static FB_DEVICE uint32_t element(uint32_t vector) {
        return (vector * kThreads + thread_index()) * kWidth;
    }

    static FB_DEVICE void load(Vector (&to)[kVectors], uint64_t address, int64_t base, uint32_t hidden) {
        FB_UNROLL
        for (uint32_t v = 0; v < kVectors; ++v) {
            if (element(v) < hidden) to[v] = Global<T>(address).template load<kWidth>(base + element(v));
        }
    }

    // What is normed is the sum before it is rounded.
    template <bool with_residual>
    static FB_DEVICE void norm(const Params& p, int64_t base) {
        Vector in[kVectors], rest[kVectors], weight[kVectors];
        load(in, p.input, base, p.hidden);
        if (with_residual) load(rest, p.residual, base, p.hidden);
        load(weight, p.weight, 0, p.hidden);
        float x[kVectors][kWidth];
        float squares = 0.0f;
        FB_UNROLL
        for (uint32_t v = 0; v < kVectors; ++v) {
            if (element(v) >= p.hidden) continue;
            widen(x[v], in[v]);
            if (with_residual) {
                float y[kWidth];
                widen(y, rest[v]);
                FB_UNROLL
                for (uint32_t i = 0; i < kWidth; ++i) x[v][i] += y[i];
                Global<T>(p.residual).store(base + element(v), narrow<T>(x[v]));
            }
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; ++i) squares += x[v][i] * x[v][i];
        }
        const float inverse = 1.0f / sqrtf(cta_sum(squares) / float(p.hidden) + p.epsilon);
        FB_UNROLL
        for (uint32_t v = 0; v < kVectors; ++v) {
            if (element(v) >= p.hidden) continue;
            float w[kWidth];
            widen(w, weight[v]);
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; ++i) w[i] *= x[v][i] * inverse;
            Global<T>(p.output).store(base + element(v), narrow<T>(w));
        }
    }

    // The warps' sums, added by every warp in the same order.
    static FB_DEVICE float cta_sum(float value) {
        constexpr uint32_t kWarps = kThreads / kLanes;
        const Shared<float> sums(0);
        value = warp_sum(value);
        if (lane_index() == 0) sums.set(warp_index(), value);
        if (!mutated(Mutant::sum_unsynced)) sync_cta();
        const float total = warp_sum(lane_index() < kWarps ? sums[lane_index()] : 0.0f);
        sync_cta();  // before the next row's sums come
        return total;
    }
};

}  // namespace flyball
