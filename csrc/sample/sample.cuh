// sample: one token per row of logits: temperature, then top-k, then top-p over what top-k left, then a draw.
//   logits [rows, stride] float -> tokens [rows], failed [rows]
// One cta of 512 threads per row, grid-stride. Shared: a histogram. Reads the logits twice, and four
// times more for each of top-k and top-p, which find their thresholds by radix descent on order-preserving keys:
// the first read is from memory, the others mostly from the cache. Not measured yet.
//
// Exact and the same in every batch: masses are integers, so their sums have no order; what ties with a threshold
// stays in; equal scores go to the lowest token. The draw is Gumbel-max, its Philox numbers keyed by the request's
// seed, the position and the token alone. NaN counts as minus infinity.
#pragma once

#include "../core/mutant.h"
#include "../core/order.h"
#include "../core/philox.h"
#include "../core/softmax.h"
#include "../params.h"
#include "../warp/scan.h"

namespace flyball {

struct SampleTokens {
    using Params = fb_sample;
    static constexpr uint32_t kThreads = 512;
    static constexpr uint32_t kDigits = 256;
    static constexpr uint32_t kShared = (kDigits + 2 + kThreads / kLanes) * sizeof(uint64_t);
    // The mass of the largest logit: 2^18 tokens as likely still add up within 64 bits.
    static constexpr float kUnitMass = 0x1p40f;

    static FB_DEVICE void run(const Params& p) {
        for (uint32_t row = cta_index(); row < p.rows; row += cta_count()) {
            uint32_t token = 0;
            const bool found = SampleTokens(p, row).choose(token);
            if (thread_index() == 0) {
                Global<uint32_t>(p.tokens).set(row, token);
                Global<uint32_t>(p.failed).set(row, !found);
            }
        }
    }

private:
    const Params& p;
    const uint32_t row;
    const int64_t base;
    float max = 0.0f;
    float scale = 0.0f;      // from logits to log2 units
    uint32_t threshold = 1;  // the least key that may be chosen: 0 never is

    FB_DEVICE SampleTokens(const Params& p, uint32_t row) : p(p), row(row), base(row * p.stride) {}

    FB_DEVICE bool choose(uint32_t& token) {
        const uint64_t first = best([](uint32_t, float logit) { return logit; });
        max = order_value(ranked_key(first));
        if (ranked_key(first) == 0 || max == INFINITY) return false;
        token = ranked_index(first);
        const float temperature = Global<float>(p.temperature)[row];
        if (temperature == 0.0f) return true;
        scale = kLog2E / temperature;
        const uint32_t top_k = Global<uint32_t>(p.top_k)[row];
        const float top_p = Global<float>(p.top_p)[row];
        if (top_k > 0 && top_k < p.vocab) {
            descend([](float) { return uint64_t(1); }, [=](uint64_t) { return uint64_t(top_k); });
        }
        if (top_p < 1.0f) {
            descend([this](float logit) { return mass(logit); },
                    [=](uint64_t total) { return uint64_t(double(total) * double(top_p)); });
        }
        token = ranked_index(draw());
        return true;
    }

    // The weight of a logit that may be chosen, in units of kUnitMass; never nothing, so that a sum that is
    // reached is reached by a token.
    FB_DEVICE uint64_t mass(float logit) const {
        return uint64_t(exp2_fast((logit - max) * scale) * kUnitMass) + 1;
    }

    // The token with the largest score among those that may be chosen, and its score.
    template <class Score>
    FB_DEVICE uint64_t best(Score score) {
        const Global<float> logits(p.logits);
        uint64_t rank = 0;
        for (uint32_t token = thread_index(); token < p.vocab; token += kThreads) {
            const float logit = logits[base + token];
            if (order_key(logit) < threshold) continue;
            const uint64_t mine = ranked(order_key(score(token, logit)), token);
            rank = mine > rank ? mine : rank;
        }
        return cta_max(rank);
    }

    FB_DEVICE uint64_t draw() {
        const uint64_t seed = Global<uint64_t>(p.seeds)[row];
        const uint32_t position = mutated(Mutant::keyed_by_row) ? row : Global<uint32_t>(p.positions)[row];
        return best([=](uint32_t token, float logit) {
            const Random4 random = philox({{position, token / 4, 0, 0}}, uint32_t(seed), uint32_t(seed >> 32));
            // Gumbel noise in log2 units, as the logits are: their distances are what counts.
            return (logit - max) * scale - log2f(-log2f(uniform(random.pick(token % 4))));
        });
    }

    // Raises the threshold to the largest key such that what is at or above it weighs at least `target(total)`:
    // eight bits of the key at a time, from the top.
    template <class Weight, class Target>
    FB_DEVICE void descend(Weight weight, Target target) {
        const Global<float> logits(p.logits);
        const Shared<uint64_t> sums(0);
        uint32_t prefix = 0;
        uint64_t left = 0;  // what the digits below must still weigh
        for (int32_t shift = 24; shift >= 0; shift -= 8) {
            if (thread_index() < kDigits) sums.set(thread_index(), 0);
            sync_cta();
            for (uint32_t token = thread_index(); token < p.vocab; token += kThreads) {
                const float logit = logits[base + token];
                const uint32_t key = order_key(logit);
                // Shifted by 32 in the first pass, where all keys go.
                if (key < threshold || uint64_t(key) >> (shift + 8) != prefix) continue;
                atomic_add(sums, key >> shift & (kDigits - 1), weight(logit));
            }
            if (!mutated(Mutant::histogram_unsynced)) sync_cta();
            prefix = prefix << 8 | find_digit(left, shift == 24, target);
        }
        threshold = prefix;
    }

    // The digit in which the sum from the top reaches `left`, from which it takes what lies above. `left` begins as
    // the target.
    template <class Target>
    static FB_DEVICE uint32_t find_digit(uint64_t& left, bool begins, Target target) {
        const Shared<uint64_t> sums(0), found(kDigits * sizeof(uint64_t)), warps((kDigits + 2) * sizeof(uint64_t));
        const uint32_t digit = kDigits - 1 - thread_index();
        const uint64_t mine = thread_index() < kDigits ? sums[digit] : 0;
        uint64_t total;
        const uint64_t through = cta_scan<kThreads>(mine, warps, total);
        if (begins) {
            left = target(total);
            left = left < 1 ? 1 : left > total ? total : left;
        }
        // True of one thread alone.
        if (through - mine < left && left <= through) {
            found.set(0, digit);
            found.set(1, through - mine);
        }
        sync_cta();
        left -= found[1];
        return uint32_t(found[0]);
    }

    static FB_DEVICE uint64_t cta_max(uint64_t value) {
        const Shared<uint64_t> maxima(0);
        value = warp_max(value);
        if (lane_index() == 0) maxima.set(warp_index(), value);
        sync_cta();
        FB_UNROLL
        for (uint32_t warp = 0; warp < kThreads / kLanes; ++warp) {
            const uint64_t other = maxima[warp];
            value = other > value ? other : value;
        }
        sync_cta();  // before the next use
        return value;
    }
};

}  // namespace flyball
