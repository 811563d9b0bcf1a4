// Gumbel-max over a row: the token of the largest score, logit plus noise, is a draw.
#pragma once

#include "../core/mutant.h"
#include "../core/philox.h"
#include "../core/softmax.h"
#include "logits.cuh"

namespace flyball {

// A row's logits under its temperature, in log2 units below the largest.
struct Tempered {
    // The mass of the largest logit: 2^18 tokens as likely still add up within 64 bits.
    static constexpr float kUnitMass = 0x1p40f;

    float max;
    float scale;  // from logits to log2 units

    FB_DEVICE float distance(float logit) const { return rounded_product(logit - max, scale); }

    // The weight of a logit that may be chosen, in units of kUnitMass; never nothing, so that a sum that is
    // reached is reached by a token.
    static FB_DEVICE uint64_t mass_of(float weight) { return uint64_t(weight * kUnitMass) + 1; }
    FB_DEVICE uint64_t mass(float logit) const { return mass_of(exp2_fast(distance(logit))); }
};

struct Dice {
    uint64_t seed;
    uint32_t position;

    FB_DEVICE Random4 roll(uint32_t token) const {
        // Else the keys of all ten rounds would be kept.
        const uint32_t low = kept_in_loop(uint32_t(seed)), high = kept_in_loop(uint32_t(seed >> 32));
        return philox({{position, token / 4, 0, 0}}, low, high);
    }
};

// Gumbel noise in log2 units, as distances are. All of it lies between the two bounds.
FB_DEVICE float noise(uint32_t word) { return -log2f(-log2f(uniform(word))); }
constexpr float kNoiseMin = -4.6f, kNoiseMax = 23.5f;

// Scores tokens of a row. Random numbers take far longer than to see that a token needs none, and a warp takes as long
// for one lane as for all: quads that need some wait in a queue, each warp's own, until there is one for every lane.
class Scores {
public:
    // Less than one for every lane, and what a block adds.
    static constexpr uint32_t kRoom = kLanes - 1 + Logits::kDeep * kLanes;
    static constexpr uint32_t kBytes = kSampleThreads / kLanes * kRoom * sizeof(uint32_t);

    uint64_t best = 0;  // of this thread's scores, with its token
    uint64_t mass = 0;  // of this thread's tokens

    // Of the tokens from `lowest` on: if any, the largest logit is one of them.
    FB_DEVICE Scores(const Logits& row, const Tempered& tempered, const Dice& dice, float lowest, uint32_t queue_at)
        : row(row), tempered(tempered), dice(dice), lowest(lowest),
          queue(queue_at + warp_index() * kRoom * sizeof(uint32_t)) {}

    // All quads for which wants(token, quad) is true. From the row's end, if that was read last.
    template <class Wants>
    FB_DEVICE void all(bool backwards, Wants wants) {
        const uint32_t count = row.block_count();
        FB_ROLL
        for (uint32_t done = 1; done <= count; ++done) {
            const uint32_t index = backwards ? count - done : done - 1;
            row.block(index, [&](uint32_t token, Quad x) { push(token, wants(token, x)); });
            drain(done < count ? kLanes : 1);
        }
    }

    // Whether luck could lift a token of the quad to the best so far.
    FB_DEVICE bool may_win(Quad x) const {
        const float top = largest(x);
        return top >= lowest && tempered.distance(top) + kNoiseMax >= least;
    }

private:
    const Logits& row;
    const Tempered tempered;
    const Dice dice;
    const float lowest;
    const Shared<uint32_t> queue;
    uint32_t waiting = 0;     // in the warp's queue
    float least = kNoiseMin;  // The best score is not below, for the largest logit's is not.

    FB_DEVICE void push(uint32_t token, bool wanted) {
        const uint32_t lanes = warp_ballot(wanted);
        if (wanted) queue.set(waiting + bit_count(lanes & ((1u << lane_index()) - 1)), token);
        waiting += bit_count(lanes);
    }

    // Until there are fewer than `enough`.
    FB_DEVICE void drain(uint32_t enough) {
        if (!mutated(Mutant::queue_unsynced)) sync_warp();
        FB_ROLL
        while (waiting >= enough) {
            const uint32_t count = waiting < kLanes ? waiting : kLanes;
            waiting -= count;
            if (lane_index() < count) score(queue[waiting + lane_index()]);
            least = warp_max(least);
        }
        sync_warp();
    }

    FB_DEVICE void score(uint32_t token) {
        const Quad x = row.quad(token);
        const Random4 random = dice.roll(token);
        // To score `least`, -log2(u) may be 2^(distance - least) at most, and it is no less than (1 - u) log2(e), which
        // spares nearly all tokens their logarithms. A thousandth is for what was rounded.
        const float beaten = exp2_fast(least) * (kLog2E * 0.999f);
        FB_UNROLL
        for (uint32_t i = 0; i < 4; ++i) {
            if (!(x.at[i] >= lowest)) continue;
            const float distance = tempered.distance(x.at[i]), weight = exp2_fast(distance);
            mass += Tempered::mass_of(weight);
            if (uniform(~random.word[i]) * beaten > weight) continue;
            const float mine = distance + noise(random.word[i]);
            const uint64_t rank = ranked(order_key(mine), token + i);
            best = rank > best ? rank : best;
            least = fmaxf(least, mine);
        }
    }
};

}  // namespace flyball
