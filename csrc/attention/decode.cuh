// decode: attention of one query token per row over the paged cache, split over KV.
//   q [rows, q_stride], output [rows, heads_q, head_dim] bf16 or f16;  pages as in core/paging.h, of q's type or e4m3
// A work item is a chunk of a row for one KV head; ctas take items grid-stride, `kCtasPerSm` per SM. A row of one
// chunk is written at once; others leave partials, which the last to arrive merges, or decode_merge. 128 threads.
//
// The query heads of a group are the 16 rows of mma.m16n8k16. Each warp takes 16 of every 64 tokens, copies them
// itself into a ring of its own and keeps its own softmax, so warps meet once, at the end of an item, and what is
// copied runs ahead across the ends of items. Padding the group to 16 is free: K and V are read once, and their
// reading is what it costs, 4 * length * heads_kv * head_dim bytes in bf16. Bound by memory: 97 % of a copy at 32 rows
// of 4096 in equal shares, 80 % in fixed chunks, on an H200 (benches/results).
//
// Batch invariance, without lists: chunks begin at multiples that the row's own length sets, each starts from an empty
// softmax, and the order of every sum depends on the row alone. Empty row: zeros. Methods: Flash-Decoding (Dao et al.,
// 2023), GQA packing and register-level P as in FlashAttention-2 (Dao, 2023).
#pragma once

#include "../core/mutant.h"
#include "../params.h"
#include "../warp/arrive.h"
#include "merge.cuh"
#include "online.cuh"
#include "queries.cuh"
#include "scales.cuh"
#include "walk.cuh"

namespace flyball {

template <class Compute, class Stored, uint32_t head_dim>
struct Decode {
    using Params = fb_decode;
    using Cache = Cached<Compute, Stored, head_dim>;
    using Math = typename Cache::Math;

    static constexpr uint32_t kThreads = 128;
    static constexpr uint32_t kWarps = kThreads / kLanes;
    static constexpr uint32_t kStageBytes = 2 * Cache::kBytes;  // K and V of a tile
    static constexpr uint32_t kStages = kStageBytes > 8192 ? 2 : 3;
    static constexpr uint32_t kRingBytes = kWarps * kStages * kStageBytes;
    static constexpr uint32_t kRows = 8;                        // of the 16 that are merged at once
    static constexpr uint32_t kMergedAtOnce = 8;                // chunks; more would take too many registers
    static constexpr uint32_t kSteps = head_dim / 16;           // of Q * K
    static constexpr uint32_t kBlocks = head_dim / 8;           // of P * V
    static constexpr uint32_t kOuts = kRingBytes;               // [kWarps][kBlocks][kLanes][2] float
    static constexpr uint32_t kSums = kOuts + kWarps * kBlocks * kLanes * 2 * sizeof(float);  // [kWarps][kRows][2]
    static constexpr uint32_t kFlag = kSums + kWarps * kRows * 2 * sizeof(float);
    static constexpr uint32_t kShared = kFlag + 16;
    // 26 KB in flight per SM keep the memory of an H200 busy (4.3 TB/s for 0.8 us, over 132 SMs); beyond that, warps
    // enough to hide what each of them waits for. An sm_90 has 228 KiB, of which each cta takes one more.
    static constexpr uint32_t kFit = (228 << 10) / (kShared + 1024);
    static constexpr uint32_t kCtasPerSm = kFit < 3 ? kFit : 3;
    static_assert(head_dim % 16 == 0 && kShared <= 163 << 10, "an sm_80 has 163 KiB");

    // Wide heads leave Q no registers: it waits where the merge of the warps will be.
    static constexpr bool kSharedQuery = head_dim > 128;
    using Query = QueryTiles<Compute, Stored, head_dim>;
    static_assert(Query::Rows::kBytes <= kSums - kOuts, "");

    using Steps = Walk<Stored, head_dim, kWarps>;
    static_assert(Steps::kTokens == Cache::kTokens, "");

    static FB_DEVICE void run(const Params& p) {
        // Where the first tiles lie is read from the plan and the tables, which are older than the grid ahead: between
        // them and this one a kernel was launched that waited for all before it.
        Decode decode(p);
        follow_previous_grid();
        decode.attend();
    }

private:
    const Params& p;
    const uint32_t group;  // query heads per KV head
    Steps steps;           // of what is to be copied
    uint32_t copied = 0;   // the stage that the next copy goes to
    uint32_t read = 0;     // the stage that is read next
    FragmentA query[kSharedQuery ? 1 : kSteps];
    FragmentC out[kBlocks];
    OnlineRow rows[2];     // lane / 4 and lane / 4 + 8

    FB_DEVICE explicit Decode(const Params& p) : p(p), group(p.heads_q / p.pool.heads_kv), steps(p) {}

    FB_DEVICE void attend() {
        FB_UNROLL
        for (uint32_t stage = 0; stage + 1 < kStages; ++stage) fetch();
        for (Item item(p); item.exists(); item.next()) {
            const Chunk chunk = item.chunk();
            const uint32_t head = item.head();
            begin(chunk, head);
            const float scale = logit_scale(p, head);
            for (uint32_t tile = 0; tile < Steps::tiles(chunk); ++tile) {
                copy_async_wait<mutated(Mutant::copy_not_awaited) ? kStages - 1 : kStages - 2>();
                if (!mutated(Mutant::warp_unsynced)) sync_warp();
                // Into the stage that was read last: every lane is past it.
                fetch();
                const uint32_t token = Steps::token(chunk, tile);
                if (token < chunk.end) attend_tile(token, chunk.end, scale);
                read = following(read);
            }
            finish(chunk, item.index(), head, scale);
        }
        copy_async_wait<0>();
    }

    static FB_DEVICE uint32_t following(uint32_t stage) { return stage + 1 == kStages ? 0 : stage + 1; }

    static FB_DEVICE uint32_t stage_byte(uint32_t stage) { return (warp_index() * kStages + stage) * kStageBytes; }

    // Starts this lane's share of the copy of the next tile, and ends the group; tokens past the end are zeros, for
    // an unused slot may hold NaN, and 0 * NaN is not 0.
    FB_DEVICE void fetch() {
        typename Steps::Step step;
        if (steps.advance(step)) {
            const Shared<uint8_t> stage(stage_byte(copied));
            const uint64_t key = step.key + lane_index() * 16, value = step.value + lane_index() * 16;
            constexpr uint32_t kPieces = Cache::kTokens * Cache::kPieces;
            FB_UNROLL
            for (uint32_t base = 0; base < kPieces; base += kLanes) {
                const uint32_t index = base + lane_index();
                if (kPieces % kLanes != 0 && index >= kPieces) break;
                const uint32_t to = Cache::byte_of_lane(base);
                const bool valid = index / Cache::kPieces < step.tokens;
                // The tokens of a head are contiguous in a page.
                copy_async(stage, to, key + base * 16, valid);
                copy_async(stage, Cache::kBytes + to, value + base * 16, valid);
            }
            copied = following(copied);
        }
        copy_async_commit();
    }

    FB_DEVICE void begin(Chunk chunk, uint32_t head) {
        const int64_t base = chunk.row * p.q_stride + int64_t(head * group) * head_dim;
        if constexpr (kSharedQuery) {
            share_query(base);
        } else {
            load_query(base);
        }
        FB_UNROLL
        for (uint32_t block = 0; block < kBlocks; ++block) out[block] = {};
        rows[0] = rows[1] = {};
    }

    FB_DEVICE void load_query(int64_t base) {
        const Global<Compute> q(p.q);
        FB_UNROLL
        for (uint32_t step = 0; step < kSteps; ++step) {
            FB_UNROLL
            for (uint32_t word = 0; word < 4; ++word) {
                const uint32_t row = lane_index() / 4 + word % 2 * 8;
                query[step].word[word] = 0;
                if (row < group) {
                    const auto pair = q.template load<2>(base + row * head_dim + Cache::query_dim(step, word));
                    query[step].word[word] = pack_pair<Math>(to_float(pair.at[0]), to_float(pair.at[1]));
                }
            }
        }
    }

    FB_DEVICE void share_query(int64_t base) {
        sync_cta();  // all have read what the warps summed
        for (uint32_t index = thread_index(); index < 16 * Query::kPieces; index += kThreads) {
            const uint32_t row = index / Query::kPieces, piece = index % Query::kPieces;
            Pack<Compute, 8> in = {};
            if (row < group) in = Global<Compute>(p.q).template load<8>(base + row * head_dim + piece * 8);
            Query::store(Shared<uint32_t>(kOuts), row, piece, in);
        }
        sync_cta();
    }

    FB_DEVICE FragmentA query_of(uint32_t step) const {
        if constexpr (kSharedQuery) return Query::fragment(Shared<uint8_t>(kOuts), 0, step);
        return query[kSharedQuery ? 0 : step];
    }

    // Rows 8 to 15 are idle where a group has no more than 8 heads: their logits, weights and sums stay 0.
    FB_DEVICE bool busy(uint32_t half) const { return half == 0 || group > kRows; }

    FB_DEVICE void attend_tile(uint32_t token, uint32_t end, float scale) {
        const Shared<uint8_t> keys(stage_byte(read)), values(stage_byte(read) + Cache::kBytes);
        FragmentC logits[2] = {};
        FB_UNROLL
        for (uint32_t index = 0; index < (kSteps + 1) / 2; ++index) {
            FragmentB k[2][2];
            Cache::keys(k, keys, index);
            FB_UNROLL
            for (uint32_t step = 0; step < 2 && 2 * index + step < kSteps; ++step) {
                const FragmentA q = query_of(2 * index + step);
                mma<Math>(logits[0], q, k[step][0]);
                mma<Math>(logits[1], q, k[step][1]);
            }
        }
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            if (!busy(half)) continue;
            const uint32_t seen = end + (mutated(Mutant::mask_edge) ? 1 : 0);
            if (token + Cache::kTokens > end) hide(logits, half, token, seen);
            weigh(logits, out, half, scale, rows[half]);
        }
        const FragmentA weights = operand<Math>(logits[0], logits[1]);
        FB_UNROLL
        for (uint32_t index = 0; index < (kBlocks + 3) / 4; ++index) {
            FragmentB v[4];
            Cache::values(v, values, index);
            FB_UNROLL
            for (uint32_t block = 0; block < 4 && 4 * index + block < kBlocks; ++block) {
                mma<Math>(out[4 * index + block], weights, v[block]);
            }
        }
    }

    // Merges what the warps summed, in their order, and writes the item's result, eight rows at a time.
    FB_DEVICE void finish(Chunk chunk, uint32_t partial, uint32_t head, float scale) {
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            if (!busy(half)) continue;
            sync_cta();  // all have read what was here before
            hand_over(half, scale);
            if (!mutated(Mutant::merge_unsynced)) sync_cta();
            if (half * kRows + lane_index() / 4 < group) merge_warps(chunk, partial, head, half);
        }
        if (!p.arrived || chunk.siblings == 1) return;
        const int64_t counter = int64_t(chunk.row) * p.pool.heads_kv + head;
        if (last_to_arrive(Global<uint32_t>(p.arrived), counter, chunk.siblings, Shared<uint32_t>(kFlag))) {
            const Span chunks = row_chunks(p, chunk.row);
            for (uint32_t at = head * group + warp_index(); at < (head + 1) * group; at += kWarps) {
                MergeChunks<Compute, head_dim, kMergedAtOnce>(p, chunks, at)
                    .merge(int64_t(chunk.row) * p.heads_q + at);
            }
        }
    }

    FB_DEVICE void hand_over(uint32_t half, float scale) {
        const Shared<float> outs(kOuts), sums(kSums);
        FB_UNROLL
        for (uint32_t block = 0; block < kBlocks; ++block) {
            outs.store(((warp_index() * kBlocks + block) * kLanes + lane_index()) * 2,
                       Pack<float, 2>{{out[block].at[2 * half], out[block].at[2 * half + 1]}});
        }
        const Softmax mine = rows[half].whole(scale);
        if (lane_index() % 4 == 0) {
            sums.store((warp_index() * kRows + lane_index() / 4) * 2, Pack<float, 2>{{mine.max, mine.sum}});
        }
    }

    // Each warp takes every fourth pair of blocks, each lane the row that it has in accumulators.
    FB_DEVICE void merge_warps(Chunk chunk, uint32_t partial, uint32_t head, uint32_t half) {
        const Shared<float> outs(kOuts), sums(kSums);
        Softmax part[kWarps], whole;
        FB_UNROLL
        for (uint32_t warp = 0; warp < kWarps; ++warp) {
            const auto pair = sums.load<2>((warp * kRows + lane_index() / 4) * 2);
            part[warp] = {pair.at[0], pair.at[1]};
            whole.max = fmaxf(whole.max, part[warp].max);
        }
        float weight[kWarps];
        FB_UNROLL
        for (uint32_t warp = 0; warp < kWarps; ++warp) {
            weight[warp] = rescale(part[warp].max, whole.max);
            whole.sum += part[warp].sum * weight[warp];
        }
        const uint32_t query_head = head * group + half * kRows + lane_index() / 4;
        const bool only = chunk.siblings == 1;
        const int64_t row = int64_t(only ? chunk.row : partial) * p.heads_q + query_head;
        const float unit = scale_of(p.pool.v_scale, head);
        const float factor = only ? whole.normalizer() * unit : unit;
        FB_UNROLL
        for (uint32_t base = 0; base < kBlocks / 2; base += kWarps) {
            const uint32_t pair = base + warp_index();
            if (pair >= kBlocks / 2) break;
            FragmentC blocks[2] = {};
            FB_UNROLL
            for (uint32_t warp = 0; warp < kWarps; ++warp) {
                FB_UNROLL
                for (uint32_t i = 0; i < 2; ++i) {
                    const auto values =
                        outs.load<2>(((warp * kBlocks + 2 * pair + i) * kLanes + lane_index()) * 2);
                    blocks[i].at[0] += values.at[0] * weight[warp];
                    blocks[i].at[1] += values.at[1] * weight[warp];
                }
            }
            FB_UNROLL
            for (uint32_t which = 0; which < 2; ++which) {
                const int64_t to = row * head_dim + Cache::pair_dim(pair, which);
                write(to, Cache::pair_value(blocks, 0, which, 0) * factor,
                      Cache::pair_value(blocks, 0, which, 1) * factor, only);
            }
        }
        if (warp_index() == 0 && lane_index() % 4 == 0) write_sums(row, whole, only);
    }

    // Two elements of a head's output: final, or this chunk's part of it.
    FB_DEVICE void write(int64_t at, float left, float right, bool only) const {
        if (only) {
            Global<uint32_t>(p.output).set(at / 2, pack_pair<Compute>(left, right));
        } else {
            Global<float>(p.partial).store(at, Pack<float, 2>{{left, right}});
        }
    }

    FB_DEVICE void write_sums(int64_t row, Softmax whole, bool only) const {
        if (!only) {
            Global<float>(p.partial_of).store(row * 2, Pack<float, 2>{{whole.max, whole.sum}});
        } else if (p.lse) {
            Global<float>(p.lse).set(row, whole.lse());
        }
    }
};

}  // namespace flyball
