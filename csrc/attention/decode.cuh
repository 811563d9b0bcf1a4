// decode: attention of one query token per row over the paged cache, split over KV.
//   q [rows, q_stride], output [rows, heads_q, head_dim] bf16;  pages as in core/paging.h, bf16 or e4m3
// A work item is a chunk of a row for one KV head; ctas take items grid-stride. A row of one chunk is written at
// once, others leave partials for decode_merge. 128 threads. Shared: a ring of 3 stages per warp.
//
// The query heads of a group are the 16 rows of mma.m16n8k16. Each warp takes 16 of every 64 tokens, copies them
// itself and keeps its own softmax, so warps meet once, at the end of an item. Padding the group to 16 is free:
// K and V are read once, and their reading is what it costs, 4 * length * heads_kv * head_dim bytes in bf16.
// Bound by memory; not measured yet.
//
// Batch invariance: chunks begin at absolute multiples, each starts from an empty softmax, and the order of every
// sum depends on the row alone. Empty row: zeros. Methods: Flash-Decoding (Dao et al., 2023), GQA packing and
// register-level P as in FlashAttention-2 (Dao, 2023).
#pragma once

#include "../core/chunks.h"
#include "../core/mask.h"
#include "../core/mutant.h"
#include "../core/paging.h"
#include "../core/softmax.h"
#include "../params.h"
#include "cached.cuh"

namespace flyball {

template <class Stored, uint32_t head_dim>
struct Decode {
    using Params = fb_decode;
    using Cache = Cached<Stored, head_dim>;
    using Math = typename Cache::Math;

    static constexpr uint32_t kThreads = 128;
    static constexpr uint32_t kWarps = kThreads / kLanes;
    static constexpr uint32_t kStages = 3;
    static constexpr uint32_t kGroup = 16;                          // query heads per KV head, at most
    static constexpr uint32_t kStride = kWarps * Cache::kTokens;    // tokens of all warps' tiles
    static constexpr uint32_t kStageBytes = 2 * Cache::kBytes;      // K and V
    static constexpr uint32_t kRingBytes = kWarps * kStages * kStageBytes;
    static constexpr uint32_t kMergeBytes = kWarps * kGroup * (head_dim + 2) * sizeof(float);
    static constexpr uint32_t kShared = kRingBytes > kMergeBytes ? kRingBytes : kMergeBytes;
    static constexpr uint32_t kSteps = head_dim / 16;   // of Q * K
    static constexpr uint32_t kBlocks = head_dim / 8;   // of P * V
    static_assert(head_dim % 32 == 0, "fragments come 32 elements at a time");

    // A chunk of a row for one KV head.
    struct Item {
        uint32_t row;
        uint32_t head;
        Span span;
        uint32_t partial;  // its slot
        bool only;         // the row has no other chunk
    };

    static FB_DEVICE void run(const Params& p) {
        const Global<uint32_t> chunks(p.chunks);
        const uint32_t items = Global<uint32_t>(p.chunk_from)[p.rows] * p.pool.heads_kv;
        for (uint32_t item = cta_index(); item < items; item += cta_count()) {
            Item work;
            // Neighbouring ctas share a chunk's table entries, not its head.
            work.partial = item / p.pool.heads_kv;
            work.head = item % p.pool.heads_kv;
            const auto chunk = chunks.load<4>(int64_t(work.partial) * 4);
            work.row = chunk.at[0];
            work.span = {chunk.at[1], chunk.at[2]};
            work.only = chunk.at[3] == 1;
            Decode(p, work).attend();
        }
    }

private:
    const Params& p;
    const Item item;
    const uint32_t group;  // query heads per KV head
    FragmentA query[kSteps];
    FragmentC out[kBlocks] = {};
    Softmax softmax[2];  // of rows lane / 4 and lane / 4 + 8; the sum is this lane's share
    uint32_t page = 0;   // of the tile to be fetched next

    FB_DEVICE Decode(const Params& p, Item item) : p(p), item(item), group(p.heads_q / p.pool.heads_kv) {}

    FB_DEVICE void attend() {
        load_query();
        const uint32_t tiles = (item.span.end - item.span.begin + kStride - 1) / kStride;
        find_page(0);
        FB_UNROLL
        for (uint32_t tile = 0; tile + 1 < kStages; ++tile) fetch(tile);
        for (uint32_t tile = 0; tile < tiles; ++tile) {
            copy_async_wait<mutated(Mutant::copy_not_awaited) ? kStages - 1 : kStages - 2>();
            if (!mutated(Mutant::warp_unsynced)) sync_warp();
            // Into the stage that was read last: every lane is past it.
            fetch(tile + kStages - 1);
            attend_tile(tile);
        }
        copy_async_wait<0>();
        merge_warps();
    }

    // The first token of this warp's tile.
    FB_DEVICE uint32_t first_token(uint32_t tile) const {
        return item.span.begin + tile * kStride + warp_index() * Cache::kTokens;
    }

    FB_DEVICE void load_query() {
        const Global<Bf16> q(p.q);
        const int64_t base = item.row * p.q_stride + int64_t(item.head * group) * head_dim;
        FB_UNROLL
        for (uint32_t step = 0; step < kSteps; ++step) {
            FB_UNROLL
            for (uint32_t word = 0; word < 4; ++word) {
                const uint32_t head = lane_index() / 4 + word % 2 * 8;
                query[step].word[word] = 0;
                if (head < group) {
                    const auto pair = q.load<2>(base + head * head_dim + Cache::query_dim(step, word));
                    query[step].word[word] = pack_pair<Math>(to_float(pair.at[0]), to_float(pair.at[1]));
                }
            }
        }
    }

    // A tile begins at a multiple of 16 tokens and a page holds a multiple of 16: one page has it all. The table
    // is read a tile ahead, so that the copies need not wait for it.
    FB_DEVICE void find_page(uint32_t tile) {
        const uint32_t token = first_token(tile) + (mutated(Mutant::page_off_by_one) ? Cache::kTokens : 0);
        if (first_token(tile) < item.span.end) {
            page = Global<uint32_t>(p.tables)[item.row * p.table_stride + (token >> p.pool.page_shift)];
        }
    }

    // Starts this lane's share of the copy of a tile's K and V, and ends the group; tokens past the end are zeros,
    // for an unused slot may hold NaN, and 0 * NaN is not 0.
    FB_DEVICE void fetch(uint32_t tile) {
        const Paging paging = {p.pool.page_stride, p.pool.page_shift, p.pool.heads_kv, head_dim};
        const Global<Stored> pages(p.pool.pages);
        const uint32_t token = first_token(tile), offset = paging.offset(token);
        const Shared<uint8_t> stage(stage_byte(tile));
        FB_UNROLL
        for (uint32_t at = 0; at < Cache::kBytes / 16 / kLanes; ++at) {
            const uint32_t index = at * kLanes + lane_index();
            const uint32_t row = index / Cache::kPieces, piece = index % Cache::kPieces;
            const bool valid = token + row < item.span.end;
            const uint32_t element = piece * (16 / sizeof(Stored));
            const uint64_t key = pages.address_of(paging.key(page, item.head, offset + row) + element);
            const uint64_t value = pages.address_of(paging.value(page, item.head, offset + row) + element);
            copy_async(stage, Cache::byte(row, piece), key, valid);
            copy_async(stage, Cache::kBytes + Cache::byte(row, piece), value, valid);
        }
        copy_async_commit();
        find_page(tile + 1);
    }

    // Where the tile's stage is: K, then V.
    static FB_DEVICE uint32_t stage_byte(uint32_t tile) {
        return (warp_index() * kStages + tile % kStages) * kStageBytes;
    }

    FB_DEVICE void attend_tile(uint32_t tile) {
        const Shared<uint8_t> keys(stage_byte(tile));
        FragmentC logits[2] = {};
        FB_UNROLL
        for (uint32_t index = 0; index < kSteps / 2; ++index) {
            FragmentB steps[2][2];
            Cache::keys(steps, keys, index);
            FB_UNROLL
            for (uint32_t step = 0; step < 2; ++step) {
                mma<Math>(logits[0], query[2 * index + step], steps[step][0]);
                mma<Math>(logits[1], query[2 * index + step], steps[step][1]);
            }
        }
        weigh(logits, first_token(tile));
        // The accumulator of Q * K lies as the operand A of P * V wants it.
        FragmentA weights;
        FB_UNROLL
        for (uint32_t word = 0; word < 4; ++word) {
            const float* pair = logits[word / 2].at + word % 2 * 2;
            weights.word[word] = pack_pair<Math>(pair[0], pair[1]);
        }
        const Shared<uint8_t> values(stage_byte(tile) + Cache::kBytes);
        FB_UNROLL
        for (uint32_t index = 0; index < kBlocks / 4; ++index) {
            FragmentB blocks[4];
            Cache::values(blocks, values, index);
            FB_UNROLL
            for (uint32_t block = 0; block < 4; ++block) mma<Math>(out[4 * index + block], weights, blocks[block]);
        }
    }

    // Turns logits into weights, and brings what was summed so far under the new maximum.
    FB_DEVICE void weigh(FragmentC (&logits)[2], uint32_t token) {
        const float scale = logit_scale();
        const uint32_t end = visible_keys(0, 1, item.span.end) + (mutated(Mutant::mask_edge) ? 1 : 0);
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            float max = minus_infinity();
            FB_UNROLL
            for (uint32_t at = 0; at < 4; ++at) {
                float& logit = logits[at / 2].at[2 * half + at % 2];
                const uint32_t key = token + at / 2 * 8 + lane_index() % 4 * 2 + at % 2;
                logit = key < end ? logit * scale : minus_infinity();
                max = fmaxf(max, logit);
            }
            Softmax& row = softmax[half];
            max = fmaxf(row.max, warp_max<4>(max));
            const float keep = rescale(row.max, max);
            row.sum *= keep;
            row.max = max;
            FB_UNROLL
            for (uint32_t block = 0; block < kBlocks; ++block) {
                out[block].at[2 * half] *= keep;
                out[block].at[2 * half + 1] *= keep;
            }
            FB_UNROLL
            for (uint32_t at = 0; at < 4; ++at) {
                float& logit = logits[at / 2].at[2 * half + at % 2];
                logit = rescale(logit, max);
                row.sum += logit;
            }
        }
    }

    // Folds what the warps summed, in their order, and writes the item's result.
    FB_DEVICE void merge_warps() {
        const Shared<float> outs(0);  // [kWarps][kGroup][head_dim]; the ring is no longer needed
        const Shared<float> maxima(kWarps * kGroup * head_dim * sizeof(float)), sums(maxima_end());
        sync_cta();
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            const float sum = warp_sum<4>(softmax[half].sum);
            const uint32_t head = lane_index() / 4 + half * 8, row = warp_index() * kGroup + head;
            if (head >= group) continue;
            if (lane_index() % 4 == 0) {
                maxima.set(row, softmax[half].max);
                sums.set(row, sum);
            }
            FB_UNROLL
            for (uint32_t block = 0; block < kBlocks; ++block) {
                FB_UNROLL
                for (uint32_t column = 0; column < 2; ++column) {
                    outs.set(row * head_dim + Cache::output_dim(block, column), out[block].at[2 * half + column]);
                }
            }
        }
        if (!mutated(Mutant::merge_unsynced)) sync_cta();
        for (uint32_t at = thread_index() * 2; at < group * head_dim; at += kThreads * 2) {
            Softmax whole;
            float sum[2] = {};
            FB_UNROLL
            for (uint32_t warp = 0; warp < kWarps; ++warp) {
                const uint32_t row = warp * kGroup + at / head_dim;
                const Merged merged = merge(whole, {maxima[row], sums[row]});
                const auto part = outs.load<2>(warp * kGroup * head_dim + at);
                whole = merged.both;
                for (uint32_t i = 0; i < 2; ++i) sum[i] = sum[i] * merged.left + part.at[i] * merged.right;
            }
            write(at / head_dim, at % head_dim, whole, sum);
        }
        sync_cta();  // before the next item's copies come
    }

    static constexpr FB_DEVICE uint32_t maxima_end() {
        return kWarps * kGroup * (head_dim + 1) * sizeof(float);
    }

    // Two elements of a head's output: final, or this chunk's part of it.
    FB_DEVICE void write(uint32_t head, uint32_t dim, Softmax whole, const float (&sum)[2]) {
        const float unit = (p.pool.v_scale ? Global<float>(p.pool.v_scale)[item.head] : 1.0f) * Cache::kUnit;
        head += item.head * group;
        const int64_t row = int64_t(item.only ? item.row : item.partial) * p.heads_q + head;
        if (item.only) {
            const float factor = whole.normalizer() * unit;
            Global<Bf16>(p.output).store(
                row * head_dim + dim,
                Pack<Bf16, 2>{{from_float<Bf16>(sum[0] * factor), from_float<Bf16>(sum[1] * factor)}});
            if (dim == 0 && p.lse) Global<float>(p.lse).set(row, whole.lse());
        } else {
            Global<float>(p.partial).store(row * head_dim + dim, Pack<float, 2>{{sum[0] * unit, sum[1] * unit}});
            if (dim == 0) {
                Global<float>(p.partial_max).set(row, whole.max);
                Global<float>(p.partial_sum).set(row, whole.sum);
            }
        }
    }

    // From a product of fragments to a logit in log2 units.
    FB_DEVICE float logit_scale() const {
        const float stored = p.pool.k_scale ? Global<float>(p.pool.k_scale)[item.head] : 1.0f;
        return p.scale * kLog2E * (stored * Cache::kUnit);
    }
};

}  // namespace flyball
