// silu_mul: the gate of a feed-forward layer, x / (1 + exp(-x)), times what it gates (Shazeer, "GLU variants
// improve transformer", 2020).
//   input [rows, 2 * width]: gate, up;  output [rows, width]
// 256 threads, grid-stride over 16-byte pieces of the output, two per thread at a time: four loads are in flight.
// Moves 3 * width * 2 bytes per row: bound by memory; 85 % of a copy at 4096 x 14336 on an H200 (benches/results).
#pragma once

#include "../core/mutant.h"
#include "../core/softmax.h"
#include "../params.h"
#include "../warp/convert.h"

namespace flyball {

template <class T>
struct SiluMul {
    using Params = fb_activation;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = 0;
    static constexpr uint32_t kWidth = 8;
    static constexpr uint32_t kDeep = 2;

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        const Global<T> input(p.input), output(p.output);
        const uint32_t pieces = p.width / kWidth;
        const uint64_t count = uint64_t(p.rows) * pieces, stride = uint64_t(cta_count()) * kThreads;
        for (uint64_t at = uint64_t(cta_index()) * kThreads + thread_index(); at < count; at += kDeep * stride) {
            Pack<T, kWidth> gate[kDeep], up[kDeep];
            FB_UNROLL
            for (uint32_t d = 0; d < kDeep; ++d) {
                if (at + d * stride >= count) continue;
                const int64_t from = source(at + d * stride, pieces, p.width);
                const int64_t further = (mutated(Mutant::gate_from_next) ? 2 : 1) * int64_t(p.width);
                gate[d] = input.template load<kWidth>(from);
                up[d] = input.template load<kWidth>(from + further);
            }
            FB_UNROLL
            for (uint32_t d = 0; d < kDeep; ++d) {
                if (at + d * stride >= count) continue;
                output.store(int64_t(at + d * stride) * kWidth, gated(gate[d], up[d]));
            }
        }
    }

private:
    // Where the gate of an output's piece lies.
    static FB_DEVICE int64_t source(uint64_t piece, uint32_t pieces, uint32_t width) {
        // 32-bit division wherever it will do: the other is a loop.
        const uint64_t row = piece >> 32 ? piece / pieces : uint32_t(piece) / pieces;
        return int64_t(row * width + piece * kWidth);
    }

    static FB_DEVICE Pack<T, kWidth> gated(Pack<T, kWidth> gate, Pack<T, kWidth> up) {
        float x[kWidth], y[kWidth];
        widen(x, gate);
        widen(y, up);
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) x[i] = x[i] / (1.0f + exp2_fast(-kLog2E * x[i])) * y[i];
        return narrow<T>(x);
    }
};

}  // namespace flyball
