// The two places where a row's logits are looked through: the whole row in global memory, and the list of its
// candidates in shared memory.
#pragma once

#include "../core/order.h"
#include "../warp/warp.h"

namespace flyball {

constexpr uint32_t kSampleThreads = 1024;

// Four neighbouring logits, the first of a token that four divides. What lies past the vocabulary is NaN.
using Quad = Pack<float, 4>;

// NaN counts for nothing, and is what comes out where there is nothing else.
FB_DEVICE float largest(Quad x) { return fmaxf(fmaxf(x.at[0], x.at[1]), fmaxf(x.at[2], x.at[3])); }

struct Logits {
    Global<float> logits;
    int64_t base;
    uint32_t vocab;

    FB_DEVICE Quad quad(uint32_t token) const {
        Quad x = logits.load<4>(base + token);
        if (token + 4 > vocab) {
            FB_UNROLL
            for (uint32_t i = 1; i < 4; ++i) {
                if (token + i >= vocab) x.at[i] = NAN;
            }
        }
        return x;
    }

    FB_DEVICE uint32_t quad_count() const { return (vocab + 3) / 4; }

    // What the threads of a cta read at once, `deep` loads each, is a block.
    template <uint32_t deep = 4>
    FB_DEVICE uint32_t block_count() const {
        return (quad_count() + deep * kSampleThreads - 1) / (deep * kSampleThreads);
    }

    // Calls visit(token, quad) for this thread's share of a block, tokens rising.
    template <uint32_t deep = 4, class Visit>
    FB_DEVICE void block(uint32_t index, Visit visit) const {
        const uint32_t first = index * deep * kSampleThreads + thread_index(), count = quad_count();
        Quad x[deep];
        FB_UNROLL
        for (uint32_t d = 0; d < deep; ++d) {
            const uint32_t at = first + d * kSampleThreads;
            if (at < count) x[d] = quad(4 * at);
        }
        FB_UNROLL
        for (uint32_t d = 0; d < deep; ++d) {
            const uint32_t at = first + d * kSampleThreads;
            if (at < count) visit(4 * at, x[d]);
        }
    }

    // The whole row, from its end: what was read last is what a second level cache still holds.
    template <uint32_t deep = 4, class Visit>
    FB_DEVICE void backwards(Visit visit) const {
        FB_ROLL
        for (uint32_t index = block_count<deep>(); index-- > 0;) block<deep>(index, visit);
    }

    template <class Visit>
    FB_DEVICE void each(Visit visit) const {
        backwards([&](uint32_t token, Quad x) {
            FB_UNROLL
            for (uint32_t i = 0; i < 4; ++i) visit(token + i, x.at[i], order_key(x.at[i]));
        });
    }
};

// Tokens with their logits, in no order.
struct Candidates {
    static constexpr uint32_t kRoom = 5120;

    Shared<uint64_t> ranks;
    uint32_t count;

    template <class Visit>
    FB_DEVICE void each(Visit visit) const {
        FB_ROLL
        for (uint32_t at = thread_index(); at < count; at += kSampleThreads) {
            const uint64_t rank = ranks[at];
            visit(ranked_index(rank), order_value(ranked_key(rank)), ranked_key(rank));
        }
    }
};

}  // namespace flyball
