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
    Global<float> row;
    uint32_t vocab;

    FB_DEVICE Quad quad(uint32_t token) const { return cut(token, row.load<4>(token)); }

    // What the threads of a cta read at once, four loads each, is a block.
    static constexpr uint32_t kDeep = 4, kApart = 4 * kSampleThreads, kBlock = kDeep * kApart;

    FB_DEVICE uint32_t block_count() const { return (vocab + kBlock - 1) / kBlock; }

    // Calls visit(token, quad) for this thread's share of a block, tokens rising; as often in every thread, so past the
    // vocabulary as well.
    template <class Visit>
    FB_DEVICE void block(uint32_t index, Visit visit) const {
        const uint32_t first = index * kBlock + 4 * thread_index();
        const Global<float> mine(row.address_of(first));
        Quad x[kDeep];
        // Either way all loads are under way before one is waited for.
        if ((index + 1) * kBlock <= vocab) {
            FB_UNROLL
            for (uint32_t d = 0; d < kDeep; ++d) x[d] = mine.load<4>(kApart * d);
        } else {
            FB_UNROLL
            for (uint32_t d = 0; d < kDeep; ++d) {
                const uint32_t token = first + kApart * d;
                x[d] = row.load<4>(token < vocab ? token : 0);
            }
            FB_UNROLL
            for (uint32_t d = 0; d < kDeep; ++d) x[d] = cut(first + kApart * d, x[d]);
        }
        FB_UNROLL
        for (uint32_t d = 0; d < kDeep; ++d) visit(first + kApart * d, x[d]);
    }

    // The whole row, from its end: what was read last is what a second level cache still holds.
    template <class Visit>
    FB_DEVICE void backwards(Visit visit) const {
        FB_ROLL
        for (uint32_t index = block_count(); index-- > 0;) block(index, visit);
    }

    template <class Visit>
    FB_DEVICE void each(Visit visit) const {
        backwards([&](uint32_t token, Quad x) {
            FB_UNROLL
            for (uint32_t i = 0; i < 4; ++i) visit(token + i, x.at[i], order_key(x.at[i]));
        });
    }

private:
    FB_DEVICE Quad cut(uint32_t token, Quad x) const {
        FB_UNROLL
        for (uint32_t i = 0; i < 4; ++i) x.at[i] = token + i < vocab ? x.at[i] : NAN;
        return x;
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
