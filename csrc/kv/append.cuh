// append: norms Q and K by head (where the model does), rotates them, hands out Q, and writes K and V into the
// pages, in the compute type or as saturated e4m3.
//   qkv [tokens, qkv_stride]: heads_q + 2 * heads_kv heads;  q [tokens, heads_q, head_dim]
//   pages [pages, page_stride], each [K|V][heads_kv][page_size][head_dim]
// One warp, of 4 in a cta, per item: a token and four rounds of neighbouring heads, grid-stride. A lane holds eight
// elements of a head's lower half and the same eight of its upper half, so NeoX pairs need no shuffle, and the angles
// that a lane needs are those of its token in every round: they are computed once. All loads of an item are in
// flight before the first is used. A head whose lanes are no power of two leaves some idle.
// Moves every element once each way: bound by memory; 77 % of a copy at 4096 tokens on an H200 (benches/results).
#pragma once

#include "../core/mutant.h"
#include "../core/paging.h"
#include "../core/rope.h"
#include "../params.h"
#include "../warp/convert.h"

namespace flyball {

template <class T, class Stored, uint32_t head_dim>
struct Append {
    using Params = fb_append;
    static constexpr uint32_t kThreads = 128;
    static constexpr uint32_t kShared = 0;
    static constexpr uint32_t kHalf = head_dim / 2, kWidth = 8, kRounds = 4;
    static constexpr uint32_t kActive = kHalf / kWidth;  // lanes that hold a head
    static constexpr uint32_t kGroup = kActive <= 4 ? 4 : kActive <= 8 ? 8 : 16;
    static constexpr uint32_t kHeadsPerRound = kLanes / kGroup;
    static constexpr uint32_t kHeads = kRounds * kHeadsPerRound;  // of an item
    static_assert(kHalf % kWidth == 0 && kActive <= kGroup, "a lane's share of a half is one access");
    using Piece = Pack<T, kWidth>;

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        const uint32_t heads = p.heads_q + 2 * p.pool.heads_kv;
        const uint32_t parts = mutated(Mutant::head_skipped) ? heads / kHeads : (heads + kHeads - 1) / kHeads;
        constexpr uint32_t kWarps = kThreads / kLanes;
        const uint32_t items = p.tokens * parts;
        for (uint32_t item = cta_index() * kWarps + warp_index(); item < items; item += cta_count() * kWarps) {
            Append(p, item / parts, item % parts * kHeads).move();
        }
    }

private:
    const Params& p;
    const uint32_t token;
    const uint32_t first;  // head of the item

    // Of a head, what a lane holds.
    struct Halves {
        float low[kWidth];
        float high[kWidth];
    };
    // Of its pairs: NeoX pairs low[i] with high[i]; else the first four are those within `low`.
    struct Angles {
        Rotation at[kWidth];
    };

    FB_DEVICE Append(const Params& p, uint32_t token, uint32_t first) : p(p), token(token), first(first) {}

    static FB_DEVICE uint32_t lane_in_head() { return lane_index() % kGroup; }
    static FB_DEVICE uint32_t element() { return lane_in_head() * kWidth; }

    FB_DEVICE uint32_t head(uint32_t round) const { return first + round * kHeadsPerRound + lane_index() / kGroup; }
    FB_DEVICE uint32_t turned_heads() const { return p.heads_q + p.pool.heads_kv; }
    FB_DEVICE bool holds(uint32_t round) const {
        return lane_in_head() < kActive && head(round) < turned_heads() + p.pool.heads_kv;
    }

    FB_DEVICE void move() const {
        Piece low[kRounds], high[kRounds];
        FB_UNROLL
        for (uint32_t r = 0; r < kRounds; ++r) {
            low[r] = high[r] = Piece{};
            if (!holds(r)) continue;
            const int64_t at = token * p.qkv_stride + int64_t(head(r)) * head_dim + element();
            low[r] = Global<T>(p.qkv).template load<kWidth>(at);
            high[r] = Global<T>(p.qkv).template load<kWidth>(at + kHalf);
        }
        const Angles angles = first < turned_heads() ? this->angles() : Angles{};
        FB_UNROLL
        for (uint32_t r = 0; r < kRounds; ++r) {
            Halves x;
            widen(x.low, low[r]);
            widen(x.high, high[r]);
            if (p.q_weight || p.k_weight) norm(x, head(r));
            if (!holds(r)) continue;
            if (head(r) < turned_heads()) turn(x, angles);
            store(x, head(r));
        }
    }

    FB_DEVICE Angles angles() const {
        Angles angles{};
        if (lane_in_head() >= kActive) return angles;
        const uint32_t position = Global<uint32_t>(p.positions)[token];
        const Global<uint64_t> turns(p.turns);
        // Eight neighbours, or four in each half.
        const uint32_t low = p.interleaved ? element() / 2 : element();
        const uint32_t high = p.interleaved ? kHalf / 2 + low : low + kWidth / 2;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; i += 2) {
            const auto pair = turns.load<2>((i < kWidth / 2 ? low : high - kWidth / 2) + i);
            angles.at[i] = rotation(pair.at[0], position);
            angles.at[i + 1] = rotation(pair.at[1], position);
        }
        return angles;
    }

    FB_DEVICE void turn(Halves& x, const Angles& angles) const {
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) {
            if (!p.interleaved) {
                rotate(x.low[i], x.high[i], angles.at[i]);
            } else if (i < kWidth / 2) {
                rotate(x.low[2 * i], x.low[2 * i + 1], angles.at[i]);
            } else {
                rotate(x.high[2 * i - kWidth], x.high[2 * i + 1 - kWidth], angles.at[i]);
            }
        }
    }

    static FB_DEVICE void rotate(float& a, float& b, Rotation by) {
        const float sine = mutated(Mutant::wrong_pair) ? -by.sine : by.sine;
        const float turned = a * by.cosine - b * sine;
        b = b * by.cosine + a * sine;
        a = turned;
    }

    // For all lanes, also those that hold nothing.
    FB_DEVICE void norm(Halves& x, uint32_t head) const {
        float squares = 0.0f;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) squares += x.low[i] * x.low[i] + x.high[i] * x.high[i];
        const float inverse = 1.0f / sqrtf(warp_sum<kGroup>(squares) / head_dim + p.epsilon);
        const uint64_t weight = head < p.heads_q ? p.q_weight : head < turned_heads() ? p.k_weight : 0;
        if (!weight || lane_in_head() >= kActive) return;
        scale(x.low, Global<T>(weight).template load<kWidth>(element()), inverse);
        scale(x.high, Global<T>(weight).template load<kWidth>(element() + kHalf), inverse);
    }

    static FB_DEVICE void scale(float (&x)[kWidth], Piece weight, float inverse) {
        float w[kWidth];
        widen(w, weight);
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) x[i] *= inverse * w[i];
    }

    FB_DEVICE void store(Halves& x, uint32_t head) const {
        if (head < p.heads_q) {
            const Global<T> q(p.q);
            const int64_t at = (int64_t(token) * p.heads_q + head) * head_dim + element();
            q.store(at, narrow<T>(x.low));
            q.store(at + kHalf, narrow<T>(x.high));
        } else {
            store_cached(x, head - p.heads_q);
        }
    }

    // `part` counts the heads of K, then those of V, as a page does.
    FB_DEVICE void store_cached(Halves& x, uint32_t part) const {
        int64_t slot = Global<int64_t>(p.slots)[token];
        if (slot < 0) {
            if (!mutated(Mutant::padding_written)) return;
            slot = 0;
        }
        const bool key = part < p.pool.heads_kv;
        if (const uint64_t scales = key ? p.pool.k_scale : p.pool.v_scale) {
            const float scale = Global<float>(scales)[key ? part : part - p.pool.heads_kv];
            FB_UNROLL
            for (uint32_t i = 0; i < kWidth; ++i) {
                x.low[i] /= scale;
                x.high[i] /= scale;
            }
        }
        const Paging paging(p.pool, head_dim);
        const int64_t at = paging.element(slot >> p.pool.page_shift, part, uint32_t(slot)) + element();
        const Global<Stored> pages(p.pool.pages);
        pages.store(at, stored(x.low));
        pages.store(at + kHalf, stored(x.high));
    }

    static FB_DEVICE Pack<Stored, kWidth> stored(float (&x)[kWidth]) {
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) {
            if (mutated(Mutant::unsaturated) && x[i] > kE4m3Max) x[i] = NAN;
        }
        return narrow<Stored>(x);
    }
};

}  // namespace flyball
