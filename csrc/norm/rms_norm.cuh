// rms_norm: adds a residual, divides by the root mean square, multiplies by a weight.
//   input, residual, output [rows, hidden] bf16; the residual, if any, becomes the sum.
// One cta per row, 256 threads, the row in registers. Shared: a sum per warp.
// Moves 4 * hidden * 2 bytes per row (2 without residual): bound by memory; not measured yet.
// The order of the sum depends on `hidden` alone. Method: Zhang and Sennrich, 2019.
#pragma once

#include "../core/mutant.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

// Rows of up to 256 * 8 * `vectors` elements.
template <uint32_t vectors>
struct RmsNorm {
    using Params = fb_norm;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = kThreads / kLanes * sizeof(float);
    static constexpr uint32_t kWidth = 8;

    static FB_DEVICE void run(const Params& p) {
        const Global<Bf16> input(p.input), residual(p.residual), weight(p.weight), output(p.output);
        for (uint32_t row = cta_index(); row < p.rows; row += cta_count()) {
            const int64_t base = int64_t(row) * p.hidden;
            float x[vectors][kWidth];
            float squares = 0.0f;
            FB_UNROLL
            for (uint32_t v = 0; v < vectors; ++v) {
                const uint32_t at = element(v);
                if (at >= p.hidden) break;
                squares += read(x[v], input, residual, base + at);
            }
            const float mean = cta_sum(squares) / float(p.hidden);
            const float inverse = 1.0f / sqrtf(mean + p.epsilon);
            FB_UNROLL
            for (uint32_t v = 0; v < vectors; ++v) {
                const uint32_t at = element(v);
                if (at >= p.hidden) break;
                const auto w = weight.load<kWidth>(at);
                Pack<Bf16, kWidth> out;
                FB_UNROLL
                for (uint32_t i = 0; i < kWidth; ++i) {
                    out.at[i] = from_float<Bf16>(x[v][i] * inverse * to_float(w.at[i]));
                }
                output.store(base + at, out);
            }
        }
    }

private:
    static FB_DEVICE uint32_t element(uint32_t vector) {
        return (vector * kThreads + thread_index()) * kWidth;
    }

    // Fills `x` with the sums, which are also the new residual, and returns their squares' sum. What is normed
    // is the sum before it is rounded.
    static FB_DEVICE float read(float (&x)[kWidth], Global<Bf16> input, Global<Bf16> residual, int64_t at) {
        const auto in = input.load<kWidth>(at);
        float squares = 0.0f;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) x[i] = to_float(in.at[i]);
        if (residual.present()) {
            auto rest = residual.load<kWidth>(at);
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; ++i) {
                x[i] += to_float(rest.at[i]);
                rest.at[i] = from_float<Bf16>(x[i]);
            }
            residual.store(at, rest);
        }
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) squares += x[i] * x[i];
        return squares;
    }

    // The warps' sums, added by every thread in the same order.
    static FB_DEVICE float cta_sum(float value) {
        const Shared<float> sums(0);
        value = warp_sum(value);
        if (lane_index() == 0) sums.set(warp_index(), value);
        if (!mutated(Mutant::sum_unsynced)) sync_cta();
        float total = 0.0f;
        FB_UNROLL
        for (uint32_t warp = 0; warp < kThreads / kLanes; ++warp) total += sums[warp];
        sync_cta();  // before the next row's sums come
        return total;
    }
};

}  // namespace flyball
