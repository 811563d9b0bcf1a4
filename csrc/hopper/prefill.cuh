// prefill for sm_90a: attention of new tokens over the paged cache, by warpgroup products fed by tensor copies.
//   q [tokens, q_stride] and output [tokens, heads_q, head_dim] bf16 or f16;  pages as in core/paging.h, of that type
// Launch: prefill_plan with `tile` = kRows, then this on one cta per multiprocessor. A work item is a tile of packed
// rows for one KV head; ctas take the plan's items back and forth, so that each gets long and short ones.
// 384 threads in three warpgroups:
// - a producer: a warp each copies K and V into rings of 128 keys, by one box per page and 64 of head_dim; the other
//   two copy Q of the item after this one;
// - two consumers of 64 rows each. P * V of a tile is under way while the softmax of the next is computed, and they
//   take turns at the tensor cores, so that one's products cover the other's softmax.
// Keys are walked from the last tile, which is masked, to the first, in tiles at absolute multiples of 128, and what
// a row adds up depends on that row alone. Rows that see nothing, and padding, yield zeros.
//
// Methods: FlashAttention-3 (Shah et al., 2024) for the roles and both overlaps; rescaling only where a maximum has
// risen by much is FlashAttention-4's (2025). Bound by the tensor cores: on an H200, causal, 32 query heads of 128 on
// 8 KV heads, 8192 tokens, 16-token pages, bf16: 649 TFLOP/s, half of the square counted (benches/results).
#pragma once

#include "../attention/scales.cuh"
#include "../core/mask.h"
#include "../core/mutant.h"
#include "../core/softmax.h"
#include "../params.h"
#include "ptx.h"
#include "work.h"

namespace flyball {

template <class Element, uint32_t head_dim>
struct HopperPrefill {
    using Params = fb_prefill_tensor;

    static constexpr uint32_t kRows = 128;
    static constexpr uint32_t kKeys = 128;
    static constexpr uint32_t kConsumers = 2;
    static constexpr uint32_t kGroupThreads = 128;
    static constexpr uint32_t kThreads = (1 + kConsumers) * kGroupThreads;
    static constexpr uint32_t kCtasPerSm = 1;
    // Sums are brought under a new maximum of their row when it has risen by this much, in log2 units: weights may be
    // as large as 2^8, which costs no type a bit, and most tiles leave the sums as they are.
    static constexpr float kRise = 8.0f;
    static constexpr uint32_t kConsumerWarps = kConsumers * kGroupThreads / kLanes;
    static constexpr uint32_t kQueryThreads = kGroupThreads - 2 * kLanes;

    // Shared memory: queries of two items, rings of K and V, then barriers. All tiles are sub-tiles of 64 of head_dim,
    // [head_dim / 64][128 rows][128 bytes, swizzled].
    static constexpr uint32_t kStages = 2;
    static constexpr uint32_t kHalves = head_dim / 64;
    static constexpr uint32_t kHalfBytes = kKeys * kSwizzleRow;
    static constexpr uint32_t kTileBytes = kHalves * kHalfBytes;
    static constexpr uint32_t kKeysAt = kStages * kTileBytes;
    static constexpr uint32_t kValuesAt = 2 * kStages * kTileBytes;
    static constexpr uint32_t kBarriersAt = 3 * kStages * kTileBytes;
    static constexpr uint32_t kRings = 3;  // of queries, keys, values
    static constexpr uint32_t kShared = kBarriersAt + kRings * kStages * 16;
    static_assert(kRows == kKeys && head_dim % 64 == 0 && kShared <= 227 * 1024, "");

    // Names of barriers; 0 is the whole cta's.
    static constexpr uint32_t kTurn = 1;  // and the one after, one per consumer
    static constexpr uint32_t kCleared = 3;

    static FB_DEVICE void run(const Params& p) {
        if (thread_index() == 0) {
            FB_UNROLL
            for (uint32_t stage = 0; stage < kStages; ++stage) {
                queries(stage).full.init(kQueryThreads);
                keys(stage).full.init(1);
                values(stage).full.init(1);
                queries(stage).empty.init(kConsumerWarps);
                keys(stage).empty.init(kConsumerWarps);
                values(stage).empty.init(kConsumerWarps);
            }
            publish_barriers();
            prefetch_map(p.map);
        }
        follow_previous_grid();
        sync_cta();
        const uint32_t role = same_in_warp(thread_index() / kGroupThreads);
        if (role == 0) {
            shrink_registers<40>();
            const uint32_t warp = same_in_warp(warp_index());
            if (warp == 0) {
                produce(p, 0, [](uint32_t n) { return keys(n); });
            } else if (warp == 1) {
                produce(p, p.prefill.pool.heads_kv, [](uint32_t n) { return values(n); });
            } else {
                produce_queries(p.prefill);
            }
        } else {
            grow_registers<232>();
            Consumer(p.prefill, role - 1).run();
        }
    }

private:
    // ---- Rings: what is produced `n`-th lies in stage n % kStages, and is the (n / kStages)-th there.

    struct Stage {
        uint32_t byte;
        Barrier full, empty;

        FB_DEVICE void wait_full(uint32_t n) const { full.wait(n / kStages % 2); }
        FB_DEVICE void wait_empty(uint32_t n) const { empty.wait(n / kStages % 2 ^ 1); }
        // By every warp that read it, when all its lanes have.
        FB_DEVICE void release() const {
            if (lane_index() == 0) empty.arrive();
        }
    };

    static FB_DEVICE Stage stage_of(uint32_t ring, uint32_t n) {
        const uint32_t index = ring * kStages + n % kStages, barriers = kBarriersAt + index * 16;
        return {index * kTileBytes, {barriers}, {barriers + 8}};
    }
    static FB_DEVICE Stage queries(uint32_t n) { return stage_of(0, n); }
    static FB_DEVICE Stage keys(uint32_t n) { return stage_of(1, n); }
    static FB_DEVICE Stage values(uint32_t n) { return stage_of(2, n); }

    // ---- The producer.

    // All lanes of one warp, for K or for V: a lane has a page of the tile, and one half of head_dim. The table is
    // read a tile ahead.
    template <class StageOf>
    static FB_DEVICE void produce(const Params& p, uint32_t part, StageOf stage_of) {
        const uint32_t shift = p.prefill.pool.page_shift, pages = kKeys >> shift;
        const uint32_t place = lane_index() & (pages - 1), half = lane_index() >> (7 - shift);
        const uint32_t byte = half * kHalfBytes + (place << shift) * kSwizzleRow;
        const PrefillWork work(p.prefill);
        uint32_t n = 0;
        for (uint32_t turn = 0; work.has(turn); ++turn) {
            const PrefillItem item = work.item(turn, kRows);
            const Global<uint32_t> table(
                Global<uint32_t>(p.prefill.tables).address_of(item.row * p.prefill.table_stride));
            // Behind the end is a page that does not exist, which yields zeros.
            const auto page_of = [&](uint32_t tile) {
                const uint32_t index = tile * pages + place;
                return index << shift < item.length ? table[index] : p.page_count;
            };
            uint32_t tile = item.tiles(kKeys), page = tile > 0 ? page_of(tile - 1) : 0;
            for (; tile > 0; --tile, ++n) {
                const Stage stage = stage_of(n);
                const uint32_t next = tile > 1 ? page_of(tile - 2) : 0;
                stage.wait_empty(n);
                if (lane_index() == 0) stage.full.arrive_expecting(kTileBytes);
                sync_warp();
                if (half < kHalves) {
                    copy_box(stage.byte + byte, p.map, stage.full, half * 64, 0, part + item.head, page);
                }
                page = next;
            }
        }
    }

    // Threads 64 to 127: into a buffer of its own, so that an item's queries are there before its turn.
    static FB_DEVICE void produce_queries(const fb_prefill& p) {
        constexpr uint32_t kPieces = head_dim / 8;  // of 16 bytes, per row
        const PrefillWork work(p);
        const Global<Element> q(p.q);
        const uint32_t first = thread_index() - 2 * kLanes;
        for (uint32_t turn = 0; work.has(turn); ++turn) {
            const PrefillItem item = work.item(turn, kRows);
            const Stage stage = queries(turn);
            stage.wait_empty(turn);
            for (uint32_t at = first; at < kRows * kPieces; at += kQueryThreads) {
                const uint32_t row = at / kPieces, piece = at % kPieces;
                const PackedRow packed = item.row_of(row);
                const int64_t from = packed.token * p.q_stride + packed.head * head_dim + piece * 8;
                const uint32_t byte = piece / 8 * kHalfBytes + swizzled(row * kSwizzleRow + piece % 8 * 16);
                copy_async(Shared<uint8_t>(stage.byte), byte, q.address_of(from), packed.valid);
            }
            copy_async_commit();
            copy_async_wait<0>();
            if (!mutated(Mutant::query_unfenced)) fence_async_proxy();
            stage.full.arrive();
        }
    }

    // ---- A consumer: 64 rows. A thread has two of them, lane / 4 and lane / 4 + 8 of its warp's 16.

    struct Consumer {
        static constexpr uint32_t kGroupRows = kRows / kConsumers;
        static constexpr uint32_t kSteps = kKeys / 16;

        const fb_prefill& p;
        const uint32_t index;
        const PrefillWork work;
        uint32_t turn = 0;
        PrefillItem item, next;
        float scale;  // from a product to log2 units
        uint32_t visible[2];
        float max[2];  // of products, before `scale`
        float sum[2];  // this thread's share
        uint32_t n = 0;  // tiles of keys that went before
        Accumulator<kKeys> logits;
        FragmentA weights[kSteps];
        Accumulator<head_dim> out;

        FB_DEVICE Consumer(const fb_prefill& p, uint32_t index) : p(p), index(index), work(p) {}

        FB_DEVICE void run() {
            if (index == 0) arrive_named(kTurn, kConsumers * kGroupThreads);
            look_ahead(0);
            for (; work.has(turn); ++turn) {
                item = next;
                begin();
                queries(turn).wait_full(turn);
                const uint32_t tiles = item.tiles(kKeys);
                if (tiles > 0) {
                    attend(queries(turn), tiles);
                } else {
                    look_ahead(turn + 1);
                    sync_warp();  // no lane may fall behind by two turns: elsewhere, products wait for all
                    queries(turn).release();
                }
                finish();
            }
        }

        FB_DEVICE void look_ahead(uint32_t turn) {
            if (work.has(turn)) next = work.item(turn, kRows);
        }

        FB_DEVICE uint32_t row(uint32_t half) const {
            return index * kGroupRows + warp_index() % 4 * 16 + lane_index() / 4 + half * 8;
        }

        FB_DEVICE void begin() {
            scale = logit_scale(p, item.head);
            FB_UNROLL
            for (uint32_t half = 0; half < 2; ++half) {
                visible[half] = item.visible(row(half)) + (mutated(Mutant::causal_edge) ? 1 : 0);
                max[half] = minus_infinity();
                sum[half] = 0.0f;
            }
            FB_UNROLL
            for (uint32_t i = 0; i < out.kWords; ++i) out.at[i] = 0.0f;
        }

        FB_DEVICE void attend(Stage query, uint32_t tiles) {
            // Every row of this warpgroup sees the keys of tiles below.
            const uint32_t unmasked = item.visible(index * kGroupRows) / kKeys;
            uint32_t tile = tiles - 1;
            keys(n).wait_full(n);
            start_logits(query, keys(n));
            look_ahead(turn + 1);  // beside the products
            products_wait<0>(logits);
            keys(n).release();
            weigh<true>(tile);
            take_weights();
            clear_tail(tile);
            for (; tile > unmasked; --tile) step<true>(query, tile - 1);
            for (; tile > 0; --tile) step<false>(query, tile - 1);
            query.release();
            values(n).wait_full(n);
            start_out(values(n));
            products_wait<0>(out);
            values(n).release();
            n += 1;
        }

        // Begins the logits of `tile`, adds the values of the one before, then weighs the logits.
        template <bool masked>
        FB_DEVICE void step(Stage query, uint32_t tile) {
            const Stage key = keys(n + 1), value = values(n);
            key.wait_full(n + 1);
            sync_named(kTurn + index, kConsumers * kGroupThreads);
            start_logits(query, key);
            value.wait_full(n);
            start_out(value);
            if (!mutated(Mutant::turn_forgotten)) {
                arrive_named(kTurn + (index ^ 1), kConsumers * kGroupThreads);
            }
            if (mutated(Mutant::key_freed_early)) key.release();
            products_wait<1>(logits);
            if (!mutated(Mutant::key_freed_early)) key.release();
            float keep[2];
            const bool rescaled = weigh<masked>(tile, keep);
            pin_before(sum[0] + sum[1]);
            products_wait<0>(out);
            value.release();
            take_weights();
            if (rescaled) {
                FB_UNROLL
                for (uint32_t i = 0; i < out.kWords; ++i) out.at[i] *= keep[i / 2 % 2];
            }
            n += 1;
        }

        FB_DEVICE void start_logits(Stage query, Stage key) {
            const uint32_t rows = query.byte + index * kGroupRows * kSwizzleRow;
            const uint64_t a = descriptor(shared_address(rows), 16, kSwizzleUnit);
            const uint64_t b = descriptor(shared_address(key.byte), 16, kSwizzleUnit);
            products_begin();
            FB_UNROLL
            for (uint32_t step = 0; step < head_dim / 16; ++step) {
                const uint32_t bytes = step / 4 * kHalfBytes + step % 4 * 32;
                product_shared<Element>(logits, advance(a, bytes), advance(b, bytes), step > 0);
            }
            products_commit();
        }

        FB_DEVICE void start_out(Stage value) {
            const uint64_t b = descriptor(shared_address(value.byte), kHalfBytes, kSwizzleUnit);
            products_begin();
            FB_UNROLL
            for (uint32_t step = 0; step < kSteps; ++step) {
                product_registers<Element>(out, weights[step], advance(b, step * 2 * kSwizzleUnit));
            }
            products_commit();
        }

        // What of the last page lies behind the row's end may hold NaN, and 0 * NaN is not 0: both consumers clear V
        // there before either uses it. (A logit of such a key is masked, whatever it is.)
        FB_DEVICE void clear_tail(uint32_t tile) {
            const uint32_t page_size = 1u << p.pool.page_shift, page_mask = page_size - 1;
            const bool clean = (item.length & page_mask) == 0 || (tile + 1) * kKeys <= item.length;
            if (mutated(Mutant::tail_uncleared) || clean) return;
            constexpr uint32_t kPieces = head_dim / 8;
            const uint32_t begin = item.length - tile * kKeys, end = (begin | page_mask) + 1;
            values(n).wait_full(n);
            const uint32_t thread = thread_index() - kGroupThreads;
            for (uint32_t at = begin * kPieces + thread; at < end * kPieces; at += kConsumers * kGroupThreads) {
                const uint32_t key = at / kPieces, piece = at % kPieces;
                const uint32_t byte = piece / 8 * kHalfBytes + key * kSwizzleRow + piece % 8 * 16;
                clear_ordered(values(n).byte + byte);
            }
            fence_async_proxy();
            sync_named(kCleared, kConsumers * kGroupThreads);
        }

        // Turns logits into weights; `keep` is what the sums so far are to be multiplied by, and the result whether
        // any row of the warp has one other than 1. Chains of two rows times two keep the pipelines full.
        template <bool masked>
        FB_DEVICE bool weigh(uint32_t tile, float (&keep)[2]) {
            float top[2][2], total[2][2] = {}, offset[2];
            FB_UNROLL
            for (uint32_t i = 0; i < logits.kWords; ++i) {
                const uint32_t half = i / 2 % 2;
                if (masked) {
                    const uint32_t key = tile * kKeys + i / 4 * 8 + lane_index() % 4 * 2 + i % 2;
                    logits.at[i] = key < visible[half] ? logits.at[i] : minus_infinity();
                }
                top[half][i % 2] = i < 4 ? logits.at[i] : fmaxf(top[half][i % 2], logits.at[i]);
            }
            FB_UNROLL
            for (uint32_t half = 0; half < 2; ++half) {
                const float highest = fmaxf(max[half], warp_max<4>(fmaxf(top[half][0], top[half][1])));
                // From nothing, the rise is infinite; from nothing to nothing it is NaN, and nothing changes.
                const float base = (highest - max[half]) * scale > kRise ? highest : max[half];
                const float finite = base == minus_infinity() ? 0.0f : base;
                keep[half] = exp2_fast((max[half] - finite) * scale);
                offset[half] = finite * scale;
                max[half] = base;
            }
            FB_UNROLL
            for (uint32_t i = 0; i < logits.kWords; ++i) {
                const uint32_t half = i / 2 % 2;
                logits.at[i] = exp2_fast(fmaf(logits.at[i], scale, -offset[half]));
                total[half][i % 2] += logits.at[i];
            }
            FB_UNROLL
            for (uint32_t half = 0; half < 2; ++half) {
                sum[half] = fmaf(sum[half], keep[half], total[half][0] + total[half][1]);
            }
            return warp_any(keep[0] != 1.0f || keep[1] != 1.0f);
        }

        template <bool masked>
        FB_DEVICE void weigh(uint32_t tile) {
            float keep[2];
            weigh<masked>(tile, keep);
        }

        // The accumulator of Q * K lies as the operand A of P * V wants it.
        FB_DEVICE void take_weights() {
            FB_UNROLL
            for (uint32_t step = 0; step < kSteps; ++step) {
                FB_UNROLL
                for (uint32_t word = 0; word < 4; ++word) {
                    const float* pair = logits.at + step * 8 + word * 2;
                    weights[step].word[word] = pack_pair<Element>(pair[0], pair[1]);
                }
            }
        }

        // Normalises and writes both rows, 16 bytes at once: the four threads of a row exchange their words.
        FB_DEVICE void finish() {
            const float unit = scale_of(p.pool.v_scale, item.head);
            FB_UNROLL
            for (uint32_t half = 0; half < 2; ++half) {
                const Softmax softmax = {max[half] * scale, warp_sum<4>(sum[half])};
                const PackedRow packed = item.row_of(row(half));
                const float factor = softmax.normalizer() * unit;
                const int64_t head = int64_t(packed.token) * p.heads_q + packed.head;
                FB_UNROLL
                for (uint32_t block = 0; block < head_dim / 8; block += 4) {
                    Pack<uint32_t, 4> words;
                    FB_UNROLL
                    for (uint32_t i = 0; i < 4; ++i) {
                        const float* pair = out.at + (block + i) * 4 + half * 2;
                        words.at[i] = pack_pair<Element>(pair[0] * factor, pair[1] * factor);
                    }
                    transpose(words);
                    const int64_t to = head * head_dim + (block + lane_index() % 4) * 8;
                    if (packed.valid) Global<uint32_t>(p.output).store(to / 2, words);
                }
                if (packed.valid && p.lse && lane_index() % 4 == 0) Global<float>(p.lse).set(head, softmax.lse());
            }
        }

        // Of four neighbouring lanes, lane t gets word t of each, in the lanes' order.
        static FB_DEVICE void transpose(Pack<uint32_t, 4>& words) {
            const uint32_t lane = lane_index() % 4;
            FB_UNROLL
            for (uint32_t i = 0; i < 4; i += 2) exchange(words.at[i], words.at[i + 1], lane % 2, 1);
            FB_UNROLL
            for (uint32_t i = 0; i < 2; ++i) exchange(words.at[i], words.at[i + 2], lane / 2, 2);
        }

        // The lane with `high` unset gets the partner's `a` as its `b`, the other the partner's `b` as its `a`.
        static FB_DEVICE void exchange(uint32_t& a, uint32_t& b, uint32_t high, uint32_t mask) {
            const uint32_t other = bits_of(shuffle_xor(float_of(high ? a : b), mask));
            (high ? a : b) = other;
        }
    };
};

}  // namespace flyball
