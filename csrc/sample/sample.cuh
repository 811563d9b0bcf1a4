// sample: one token per row of logits.
//   logits [rows, stride] float -> tokens [rows], failed [rows]
// Rules in the order of vLLM's sampler (vllm/v1/sample/sampler.py): penalties (a kernel of their own), temperature,
// min-p, top-k, top-p over what these two left, and a draw.
//
// One cta of 1024 threads per row, grid-stride. Every thread keeps the largest of its own logits: the k-th largest of
// those is a bound that at least k logits reach, and not many more. That of the first 16,384 logits serves top-k
// while the rest of the row is read for the first and only time: what reaches it is listed in shared memory, and all
// else happens there. Where it is too low (k above 384, a row that rises) the bound of the whole row serves a second
// read, backwards, so that a part comes from the cache; top-p alone needs that read in any case, for the row's mass.
// Greedy rows are read once, rows with min-p alone or no rule twice.
//
// Where the list misses a part of the mass (a flat row), a histogram of the second read tells two bins between which
// the nucleus ends. A third read scores what lies above them and lists theirs. Only a list that overflows again
// (thousands of ties or nearly, k above 1000) sends the rules back to the row, one read per question.
//
// When top-p alone still took a read per question, 128 rows of 131,072 took an H200 32 us by top-k and top-p, and
// 211 us by top-p alone (benches/results); the three reads have yet to be measured.
//
// What top-p admits is not searched for: the draw's winner among all is the winner among the admitted ones if it is
// admitted, which the mass above it tells. If not, neither is anything up to it, and the draw is repeated above.
//
// Exact and the same in every batch: masses are integers, so their sums have no order; what ties with a threshold
// stays in; equal scores go to the lowest token. The draw is Gumbel-max, its Philox numbers keyed by the request's
// seed, the position and the token alone. NaN counts as minus infinity.
#pragma once

#include "../params.h"
#include "../warp/reduce.h"
#include "kth.cuh"
#include "ratios.cuh"
#include "scores.cuh"

namespace flyball {

struct SampleTokens {
    using Params = fb_sample;
    static constexpr uint32_t kThreads = kSampleThreads;
    // Where things lie in shared memory: the list; then a histogram, and in its place, once it was read, the queue.
    static constexpr uint32_t kQueueAt = Candidates::kRoom * sizeof(uint64_t);
    static constexpr uint32_t kWarpsAt = kQueueAt + Scores::kBytes;
    static constexpr uint32_t kCountAt = kWarpsAt + kThreads / kLanes * sizeof(uint64_t);
    static constexpr uint32_t kShared = kCountAt + sizeof(uint32_t);
    static_assert(Histogram::kBytes <= Scores::kBytes, "the queue takes the histogram's place");
    // The largest k for which the first block's bound is expected to fill the list by less than its room: with a
    // vocabulary of eight blocks and logits in random order it lets in 3,800.
    static constexpr uint32_t kEarly = 384;
    // How many candidates top-p alone hopes to do with.
    static constexpr uint32_t kNucleus = 512;

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        FB_ROLL
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
    const Logits logits;
    float best = minus_infinity();  // of this thread's logits
    uint32_t best_quad = 0;         // the first token of the first quad with it
    uint32_t bound = UINT32_MAX;    // the least key in the list
    Tempered tempered = {};
    uint32_t threshold = kLeastKey;  // the least key that may be chosen

    FB_DEVICE SampleTokens(const Params& p, uint32_t row)
        : p(p), row(row), logits{Global<float>(Global<float>(p.logits).address_of(row * p.stride)), p.vocab} {}

    static FB_DEVICE Shared<uint64_t> scratch() { return Shared<uint64_t>(kWarpsAt); }
    static FB_DEVICE Histogram histogram() { return {kQueueAt, scratch()}; }

    FB_DEVICE bool choose(uint32_t& token) {
        const float temperature = Global<float>(p.temperature)[row], top_p = Global<float>(p.top_p)[row];
        const uint32_t top_k = Global<uint32_t>(p.top_k)[row];
        const bool greedy = !(temperature > 0.0f), by_count = !greedy && top_k > 0 && top_k < p.vocab;
        const uint64_t first = survey(by_count ? top_k : 0);
        const float max = order_value(ranked_key(first));
        if (ranked_key(first) == 0 || max == INFINITY) return false;
        if (greedy) {
            token = first_of(ranked_index(first), ranked_key(first));
            return true;
        }
        // Finite, so that the largest logit stays at zero however cold it is.
        tempered = {max, fminf(kLog2E / temperature, 0x1p127f)};
        if (p.min_p) {
            const float min_p = fminf(Global<float>(p.min_p)[row], 1.0f);
            const uint32_t least = order_key(max + log2f(min_p) / tempered.scale);
            threshold = least > threshold ? least : threshold;
        }
        token = by_count ? draw_top_k(top_k, top_p) : top_p < 1.0f ? draw_top_p(top_p) : draw(logits, 0);
        return true;
    }

    // The largest key of the row, and the token that begins the first quad with it. Lists candidates for the largest
    // `early` logits on the way, if that is not zero and there are few enough.
    FB_DEVICE uint64_t survey(uint32_t early) {
        const bool lists = early > 0 && (early <= kEarly || p.vocab <= Candidates::kRoom);
        FB_ROLL
        for (uint32_t index = 0; index < logits.block_count(); ++index) {
            const bool now = lists && index > 0;
            logits.block(index, [&](uint32_t token, Quad x) {
                const float top = largest(x);
                if (top > best) {
                    best = top;
                    best_quad = token;
                }
                if (now) list(token, x);
            });
            if (!lists || index > 0) continue;
            begin_list(early, UINT32_MAX);
            logits.block(0, [this](uint32_t token, Quad x) { list(token, x); });
        }
        const uint32_t key = order_key(best);
        return cta_max<kThreads>(key == 0 ? 0 : ranked(key, best_quad), scratch());
    }

    FB_DEVICE uint32_t first_of(uint32_t token, uint32_t key) const {
        const Quad x = logits.quad(token);
        uint32_t at = 0;
        while (at < 3 && order_key(x.at[at]) != key) ++at;
        return token + at;
    }

    FB_DEVICE uint32_t draw_top_k(uint32_t top_k, float top_p) {
        Candidates listed = end_list();
        if (listed.count > Candidates::kRoom) {
            begin_list(top_k, order_key(tempered.max));
            logits.backwards([this](uint32_t token, Quad x) { list(token, x); });
            listed = end_list();
        }
        if (listed.count > Candidates::kRoom) {
            threshold = kth_of(logits, top_k, threshold, histogram());
            return draw_within(logits, top_p);
        }
        const uint32_t low = bound > threshold ? bound : threshold;
        threshold = kth_of(listed, top_k, low, order_key(tempered.max));
        return draw_within(listed, top_p);
    }

    template <class Source>
    FB_DEVICE uint32_t draw_within(const Source& source, float top_p) {
        return draw(source, top_p < 1.0f ? share(top_p, mass_from(source, threshold)) : 0);
    }

    // A weight below which a whole row is less than what top-p leaves out, so that the nucleus ends above; that of the
    // largest logit is 1. For the row's mass stands that of the largest logits of all threads, which is not more.
    FB_DEVICE float tail(float top_p) const {
        const uint64_t mine = best >= order_value(threshold) ? tempered.mass(best) : 0;
        const float sum = float(cta_sum<kThreads>(mine, scratch())) / Tempered::kUnitMass;
        return sum * (1.0f - fmaxf(top_p, 0.0f)) / float(p.vocab);
    }

    FB_DEVICE uint32_t draw_top_p(float top_p) {
        const Ratios ratios(tempered, tail(top_p), histogram());
        histogram().clear();
        begin_list(kNucleus, order_key(tempered.max));
        const float lowest = order_value(threshold);
        uint64_t sum = 0;
        logits.backwards([&](uint32_t token, Quad x) {
            FB_UNROLL
            for (uint32_t i = 0; i < 4; ++i) {
                const bool may = x.at[i] >= lowest;
                const float distance = may ? tempered.distance(x.at[i]) : minus_infinity();
                sum += may ? Tempered::mass_of(exp2_fast(distance)) : 0;
                ratios.count(distance);
            }
            list(token, x);
        });
        const Candidates listed = end_list();
        const uint64_t target = share(top_p, cta_sum<kThreads>(sum, scratch()));
        const bool enough = listed.count <= Candidates::kRoom &&
                            (mutated(Mutant::short_list) || mass_from(listed, threshold) >= target);
        return enough ? draw(listed, target) : draw_wide(ratios, target);
    }

    // Where the list misses a part of the nucleus: what lies above the bins in one of which it ends is scored, what
    // lies in them is listed.
    FB_DEVICE uint32_t draw_wide(const Ratios& ratios, uint64_t target) {
        const uint32_t first = ratios.earliest(target) + !mutated(Mutant::edge_unchecked);
        const uint32_t sure = ratios.begin_of(first), edge = ratios.begin_of(ratios.latest(target));
        const float within = order_value(sure > threshold ? sure : threshold);
        threshold = edge > threshold ? edge : threshold;
        begin_list(threshold);
        Scores scores(logits, tempered, dice(), within, kQueueAt);
        scores.all(false, [&](uint32_t token, Quad x) {
            list(token, x, within);
            return largest(x) >= within;
        });
        const Candidates listed = end_list();
        if (listed.count > Candidates::kRoom) return draw(logits, target);
        const uint64_t above = cta_sum<kThreads>(scores.mass, scratch());
        return draw(listed, target - above, cta_max<kThreads>(scores.best, scratch()));
    }

    // From now on, tokens are listed whose keys reach a bound.
    FB_DEVICE void begin_list(uint32_t least) {
        sync_cta();  // all have read the count of the list before
        if (thread_index() == 0) Shared<uint32_t>(kCountAt).set(0, 0);
        bound = least;
        sync_cta();
    }

    // A bound that the `k` largest of the row reach. `high` is at least the largest key.
    FB_DEVICE void begin_list(uint32_t k, uint32_t high) {
        uint32_t least = threshold;
        if (p.vocab > Candidates::kRoom && k <= kThreads) {
            // Eleven bits of the mantissa are lost, which lets a few more tokens in.
            const uint32_t kth = kth_of_threads(order_key(best), k, threshold, high, 11);
            least = kth > threshold ? kth : threshold;
        }
        begin_list(least);
    }

    // Those below `end`.
    FB_DEVICE void list(uint32_t token, Quad x, float end = INFINITY) const {
        const float least = order_value(bound);
        if (!(largest(x) >= least)) return;
        FB_UNROLL
        for (uint32_t i = 0; i < 4; ++i) {
            if (!(x.at[i] >= least && x.at[i] < end)) continue;
            const uint32_t at = atomic_add(Shared<uint32_t>(kCountAt), 0, 1);
            if (at < Candidates::kRoom) Shared<uint64_t>(0).set(at, ranked(order_key(x.at[i]), token + i));
        }
    }

    // A count above the list's room says that the list is of no use.
    FB_DEVICE Candidates end_list() const {
        if (bound == UINT32_MAX) return {Shared<uint64_t>(0), UINT32_MAX};
        if (!mutated(Mutant::list_unsynced)) sync_cta();
        return {Shared<uint64_t>(0), Shared<uint32_t>(kCountAt)[0]};
    }

    // What must be reached of a total mass.
    static FB_DEVICE uint64_t share(float top_p, uint64_t total) {
        const uint64_t part = uint64_t(double(total) * double(fmaxf(top_p, 0.0f)));
        return part < 1 ? 1 : part > total ? total : part;
    }

    template <class Source>
    FB_DEVICE uint64_t mass_from(const Source& source, uint32_t least) const {
        uint64_t sum = 0;
        source.each([&](uint32_t, float logit, uint32_t key) { sum += key >= least ? tempered.mass(logit) : 0; });
        return cta_sum<kThreads>(sum, scratch());
    }

    // The token of the largest score among those at the threshold or above, and, unless `target` is 0, such that
    // what lies above it weighs less than `target`; or `rival`, the best of others.
    template <class Source>
    FB_DEVICE uint32_t draw(const Source& source, uint64_t target, uint64_t rival = 0) {
        FB_ROLL
        for (;;) {
            const uint64_t best = cta_max<kThreads>(best_score(source), scratch());
            if (best < rival) return ranked_index(rival);
            const uint32_t token = ranked_index(best);
            if (target == 0) return token;
            const uint32_t key = order_key(logits.row[token]);
            // Nothing lies above the largest, so this ends.
            if (mass_from(source, key + 1) < target) return token;
            threshold = key + 1;
        }
    }

    FB_DEVICE Dice dice() const {
        const uint32_t position = mutated(Mutant::keyed_by_row) ? row : Global<uint32_t>(p.positions)[row];
        return {Global<uint64_t>(p.seeds)[row], position};
    }

    FB_DEVICE uint64_t best_score(const Candidates& list) const {
        const Dice dice = this->dice();
        uint64_t best = 0;
        list.each([&](uint32_t token, float logit, uint32_t key) {
            if (key < threshold) return;
            const float score = tempered.distance(logit) + noise(dice.roll(token).pick(token % 4));
            const uint64_t rank = ranked(order_key(score), token);
            best = rank > best ? rank : best;
        });
        return best;
    }

    FB_DEVICE uint64_t best_score(const Logits& all) const {
        Scores scores(all, tempered, dice(), order_value(threshold), kQueueAt);
        scores.all(true, [&](uint32_t, Quad x) { return scores.may_win(x); });
        return scores.best;
    }
};

}  // namespace flyball
