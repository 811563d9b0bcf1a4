// append: norms Q and K by head (where the model does), rotates them, hands out Q, and writes K and V into the
// pages, as bf16 or as saturated e4m3.
//   qkv [tokens, qkv_stride]: heads_q + 2 * heads_kv heads;  q [tokens, heads_q, head_dim] bf16
//   pages [pages, page_stride], each [K|V][heads_kv][page_size][head_dim]
// One warp per head of a token, 4 warps per cta, grid-stride. A lane holds head_dim / 32 neighbours, so the
// other half of a NeoX pair is 16 lanes away. Moves every element once each way: bound by memory; not measured yet.
#pragma once

#include "../core/mutant.h"
#include "../core/paging.h"
#include "../core/rope.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

template <class Stored, uint32_t head_dim>
struct Append {
    using Params = fb_append;
    static constexpr uint32_t kThreads = 128;
    static constexpr uint32_t kShared = 0;
    static constexpr uint32_t kWidth = head_dim / kLanes;
    static_assert(head_dim % kLanes == 0 && kWidth % 2 == 0, "neighbours of a pair share a lane");

    static FB_DEVICE void run(const Params& p) {
        const uint32_t heads = p.heads_q + 2 * p.pool.heads_kv;
        const uint64_t items = uint64_t(p.tokens) * heads;
        constexpr uint64_t kWarps = kThreads / kLanes;
        for (uint64_t item = cta_index() * kWarps + warp_index(); item < items; item += cta_count() * kWarps) {
            const uint32_t token = uint32_t(item / heads), head = uint32_t(item % heads);
            float x[kWidth];
            const auto in = Global<Bf16>(p.qkv).template load<kWidth>(
                token * p.qkv_stride + int64_t(head) * head_dim + first());
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; ++i) x[i] = to_float(in.at[i]);
            if (head < p.heads_q) {
                norm_and_rotate(x, p, p.q_weight, token);
                store_query(x, p, token, head);
            } else if (head < p.heads_q + p.pool.heads_kv) {
                norm_and_rotate(x, p, p.k_weight, token);
                store_cached(x, p, token, head - p.heads_q, 0);
            } else {
                store_cached(x, p, token, head - p.heads_q - p.pool.heads_kv, p.pool.heads_kv);
            }
        }
    }

private:
    // The first element of this lane.
    static FB_DEVICE uint32_t first() { return lane_index() * kWidth; }

    static FB_DEVICE void norm_and_rotate(float (&x)[kWidth], const Params& p, uint64_t weight, uint32_t token) {
        if (weight) norm(x, Global<Bf16>(weight), p.epsilon);
        const uint32_t position = Global<uint32_t>(p.positions)[token];
        const Global<uint64_t> turns(p.turns);
        if (p.interleaved) {
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; i += 2) {
                const Rotation turn = rotation(turns[(first() + i) / 2], position);
                const float even = x[i], odd = x[i + 1];
                x[i] = even * turn.cosine - odd * turn.sine;
                x[i + 1] = odd * turn.cosine + even * turn.sine;
            }
        } else {
            const bool upper = lane_index() >= kLanes / 2;
            const bool subtract = mutated(Mutant::wrong_pair) ? upper : !upper;
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; ++i) {
                const Rotation turn = rotation(turns[(first() + i) % (head_dim / 2)], position);
                const float other = shuffle_xor(x[i], kLanes / 2);
                x[i] = x[i] * turn.cosine + (subtract ? -other : other) * turn.sine;
            }
        }
    }

    static FB_DEVICE void norm(float (&x)[kWidth], Global<Bf16> weight, float epsilon) {
        float squares = 0.0f;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) squares += x[i] * x[i];
        const float inverse = 1.0f / sqrtf(warp_sum(squares) / head_dim + epsilon);
        const auto w = weight.load<kWidth>(first());
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) x[i] *= inverse * to_float(w.at[i]);
    }

    static FB_DEVICE void store_query(const float (&x)[kWidth], const Params& p, uint32_t token, uint32_t head) {
        Pack<Bf16, kWidth> out;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) out.at[i] = from_float<Bf16>(x[i]);
        Global<Bf16>(p.q).store((int64_t(token) * p.heads_q + head) * head_dim + first(), out);
    }

    // `part` is where the head's K (0) or V (heads_kv) begins in a page.
    static FB_DEVICE void store_cached(const float (&x)[kWidth], const Params& p, uint32_t token, uint32_t head,
                                       uint32_t part) {
        int64_t slot = Global<int64_t>(p.slots)[token];
        if (slot < 0) {
            if (!mutated(Mutant::padding_written)) return;
            slot = 0;
        }
        const uint64_t scales = part ? p.pool.v_scale : p.pool.k_scale;
        const float scale = scales ? Global<float>(scales)[head] : 1.0f;
        Pack<Stored, kWidth> out;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) out.at[i] = stored(x[i] / scale);
        const Paging paging = {p.pool.page_stride, p.pool.page_shift, p.pool.heads_kv, head_dim};
        const int64_t page = slot >> p.pool.page_shift;
        const uint32_t offset = paging.offset(uint32_t(slot));
        const int64_t at = paging.key(page, part + head, offset);
        Global<Stored>(p.pool.pages).store(at + first(), out);
    }

    static FB_DEVICE Stored stored(float x) {
        if (mutated(Mutant::unsaturated) && x > kE4m3Max) x = NAN;
        return from_float<Stored>(x);
    }
};

}  // namespace flyball
