// append: norms Q and K by head (where the model does), rotates them, hands out Q, and writes K and V into the
// pages, in the compute type or as saturated e4m3.
//   qkv [tokens, qkv_stride]: heads_q + 2 * heads_kv heads;  q [tokens, heads_q, head_dim]
//   pages [pages, page_stride], each [K|V][heads_kv][page_size][head_dim]
// One warp, of 4 in a cta, per item: a token and four rounds of neighbouring heads, grid-stride. A lane holds eight
// elements of a head's lower half and the same eight of its upper half, so NeoX pairs need no shuffle. All heads of a
// token turn by the same angles: those of a round share out computing them, once for all rounds. A head whose lanes are
// no power of two leaves some idle.
// A round is copied into shared memory as soon as the same one of the item before has been moved: a warp has four in
// flight at all times, and registers for one. Each lane reads only what it copied. Where the next item goes and how far
// it turns is loaded an item ahead too.
// Moves every element once each way: bound by memory; not measured yet.
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
    static constexpr uint32_t kWarps = kThreads / kLanes;
    static constexpr uint32_t kHalf = head_dim / 2, kWidth = 8, kRounds = 4;
    static constexpr uint32_t kActive = kHalf / kWidth;  // lanes that hold a head
    static constexpr uint32_t kGroup = kActive <= 4 ? 4 : kActive <= 8 ? 8 : 16;
    static constexpr uint32_t kHeadsPerRound = kLanes / kGroup;
    static constexpr uint32_t kHeads = kRounds * kHeadsPerRound;  // of an item
    static constexpr uint32_t kSide = kLanes * kWidth;            // elements of a round's lower halves, as of its upper
    static constexpr uint32_t kShared = kWarps * kRounds * 2 * kSide * sizeof(T);
    static constexpr uint32_t kCtasPerSm = 6;
    static_assert(kHalf % kWidth == 0 && kActive <= kGroup, "a lane's share of a half is one access");
    using Piece = Pack<T, kWidth>;

    static FB_DEVICE void run(const Params& p) {
        if (p.interleaved) {
            Append(p).walk<true>();
        } else {
            Append(p).walk<false>();
        }
    }

private:
    // Some heads of a token, and what must be known of it.
    struct Item {
        uint32_t token;
        uint32_t part;
        uint32_t held;  // rounds in which the lane has a head
        uint32_t position;
        int64_t slot;
    };
    // Of a head, what a lane holds.
    struct Halves {
        float low[kWidth];
        float high[kWidth];
    };
    // Of its pairs: NeoX pairs low[i] with high[i]; else the first four are those within `low`.
    struct Angles {
        Rotation at[kWidth];
    };

    const Params& p;
    const Shared<T> rounds;  // of the warp: what was loaded ahead

    FB_DEVICE explicit Append(const Params& p) : p(p), rounds(warp_index() * kRounds * 2 * kSide * sizeof(T)) {}

    template <bool interleaved>
    FB_DEVICE void walk() const {
        const uint32_t parts = (heads() + kHeads - 1) / kHeads, warps = cta_count() * kWarps;
        const uint32_t tokens_on = warps / parts, parts_on = warps % parts;
        const uint32_t warp = cta_index() * kWarps + warp_index();
        Item item = found(warp / parts, warp % parts);
        // Positions and slots are older than the grid ahead.
        follow_previous_grid();
        FB_UNROLL
        for (uint32_t r = 0; r < kRounds; ++r) load(item, source(item), r);
        while (item.token < p.tokens) {
            const uint32_t part = item.part + parts_on;
            const bool wraps = part >= parts;
            const Item next = found(item.token + tokens_on + wraps, wraps ? part - parts : part);
            move<interleaved>(item, next);
            item = next;
        }
        copy_async_wait<0>();
    }

    FB_DEVICE Item found(uint32_t token, uint32_t part) const {
        Item item = {token, part, 0, 0, 0};
        if (token >= p.tokens) return item;
        item.position = Global<uint32_t>(p.positions)[token];
        item.slot = Global<int64_t>(p.slots)[token];
        if (mutated(Mutant::padding_written) && item.slot < 0) item.slot = 0;
        const uint32_t first = head(item, 0), up = mutated(Mutant::head_skipped) ? 0 : kHeadsPerRound - 1;
        if (lane_in_head() < kActive && first < heads()) item.held = (heads() - first + up) / kHeadsPerRound;
        return item;
    }

    FB_DEVICE uint32_t turned_heads() const { return p.heads_q + p.pool.heads_kv; }
    FB_DEVICE uint32_t heads() const { return turned_heads() + p.pool.heads_kv; }

    static FB_DEVICE uint32_t lane_in_head() { return lane_index() % kGroup; }
    static FB_DEVICE uint32_t element() { return lane_in_head() * kWidth; }
    static FB_DEVICE uint32_t head(const Item& item, uint32_t round) {
        return (item.part * kRounds + round) * kHeadsPerRound + lane_index() / kGroup;
    }
    // Where what the lane holds of a round waits.
    static FB_DEVICE uint32_t place(uint32_t round) { return round * 2 * kSide + lane_index() * kWidth; }

    FB_DEVICE uint64_t source(const Item& item) const {
        return Global<T>(p.qkv).address_of(item.token * p.qkv_stride + int64_t(head(item, 0)) * head_dim + element());
    }

    FB_DEVICE void load(const Item& item, uint64_t source, uint32_t round) const {
        const uint64_t from = source + round * (kHeadsPerRound * head_dim * sizeof(T));
        copy_async(rounds, place(round), from, round < item.held);
        copy_async(rounds, place(round) + kSide, from + kHalf * sizeof(T), round < item.held);
        copy_async_commit();
    }

    // Once a round has been moved, that of the next item is loaded in its place.
    template <bool interleaved>
    FB_DEVICE void move(const Item& item, const Item& next) const {
        const Angles angles = this->angles<interleaved>(item.position);
        const uint64_t further = source(next);
        FB_ROLL
        for (uint32_t r = 0; r < kRounds; ++r) {
            copy_async_wait<mutated(Mutant::copy_not_awaited) ? kRounds : kRounds - 1>();
            Halves x;
            widen(x.low, rounds.template load<kWidth>(place(r)));
            widen(x.high, rounds.template load<kWidth>(place(r) + kSide));
            if (p.q_weight || p.k_weight) norm(x, head(item, r));
            if (r < item.held) {
                if (head(item, r) < turned_heads()) turn<interleaved>(x, angles);
                store(x, head(item, r), item);
            }
            load(next, further, r);
        }
    }

    template <bool interleaved>
    FB_DEVICE Angles angles(uint32_t position) const {
        constexpr uint32_t kShare = kWidth / kHeadsPerRound;
        Rotation mine[kShare];
        FB_UNROLL
        for (uint32_t s = 0; s < kShare; ++s) {
            mine[s] = rotation(turns<interleaved>(lane_index() / kGroup * kShare + s), position);
        }
        Angles angles;
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) {
            const uint32_t lane = i / kShare * kGroup + lane_in_head();
            angles.at[i].cosine = shuffle(mine[i % kShare].cosine, lane);
            angles.at[i].sine = shuffle(mine[i % kShare].sine, lane);
        }
        return angles;
    }

    // Per position, of pair `i` of those that a lane turns: eight neighbours, or four in each half.
    template <bool interleaved>
    FB_DEVICE uint64_t turns(uint32_t i) const {
        if (lane_in_head() >= kActive) return 0;
        const uint32_t half = i / (kWidth / 2) * (kHalf / 2 - kWidth / 2);
        return Global<uint64_t>(p.turns)[interleaved ? half + element() / 2 + i : element() + i];
    }

    template <bool interleaved>
    static FB_DEVICE void turn(Halves& x, const Angles& angles) {
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) {
            if (!interleaved) {
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

    FB_DEVICE void store(Halves& x, uint32_t head, const Item& item) const {
        if (head < p.heads_q) {
            const Global<T> q(p.q);
            const int64_t at = (int64_t(item.token) * p.heads_q + head) * head_dim + element();
            q.store(at, narrow<T>(x.low));
            q.store(at + kHalf, narrow<T>(x.high));
        } else if (item.slot >= 0) {
            store_cached(x, head - p.heads_q, item.slot);
        }
    }

    // `part` counts the heads of K, then those of V, as a page does.
    FB_DEVICE void store_cached(Halves& x, uint32_t part, int64_t slot) const {
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
        Global<uint32_t>(pages.address_of(at)).store(0, stored(x.low));
        Global<uint32_t>(pages.address_of(at + kHalf)).store(0, stored(x.high));
    }

    static FB_DEVICE auto stored(float (&x)[kWidth]) {
        FB_UNROLL
        for (uint32_t i = 0; i < kWidth; ++i) {
            if (mutated(Mutant::unsaturated) && x[i] > kE4m3Max) x[i] = NAN;
        }
        return narrow_words<Stored>(x);
    }
};

}  // namespace flyball
