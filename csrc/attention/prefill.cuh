// prefill: causal attention of each row's new tokens over the paged cache, by tensor cores of sm_80 and up.
//   q [tokens, q_stride], output [tokens, heads_q, head_dim] bf16 or f16;  pages as in core/paging.h, of q's type or
//   e4m3;  tiles as prefill_plan lists them
// A work item is a tile of 128 packed rows for one KV head; ctas take items grid-stride. Shared: Q, and a ring of
// slots that hold K and V of 64 tokens in turn.
//
// Each warp has its own rows and sees all keys: S = Q K in registers, weights in the accumulator's place, then P V.
// Keys come from the last to the first, so that only the first steps of an item need a mask. At 4 * head_dim
// operations per query, key and head it is bound by the tensor cores; 285 TFLOP/s at 8k on an H200 (benches/results).
//
// A row's sums are cut at absolute multiples of 64 keys, whatever its tile and its batch: its result depends on
// itself alone, and not on the chunk in which it comes. Without keys: zeros. Methods: FlashAttention-2 (Dao, 2023),
// online softmax (Milakov and Gimelshein, 2018).
#pragma once

#include "../core/mutant.h"
#include "../core/paging.h"
#include "../core/tiles.h"
#include "../params.h"
#include "online.cuh"
#include "queries.cuh"
#include "scales.cuh"

namespace flyball {

template <class Compute, class Stored, uint32_t head_dim>
struct Prefill {
    using Params = fb_prefill;
    using Cache = Cached<Compute, Stored, head_dim>;
    using Math = typename Cache::Math;
    using Query = QueryTiles<Compute, Stored, head_dim>;

    static constexpr uint32_t kRows = 128;                            // packed rows, at most
    static constexpr uint32_t kBands = head_dim <= 128 ? 2 : 1;       // of 16 rows per warp
    static constexpr uint32_t kWarps = kRows / (16 * kBands);
    static constexpr uint32_t kThreads = kWarps * kLanes;
    static constexpr uint32_t kKeys = 64;
    static constexpr uint32_t kSlotBytes = kKeys / Cache::kTokens * Cache::kBytes;
    static constexpr uint32_t kSlots = kSlotBytes > 16384 ? 3 : 4;
    static constexpr uint32_t kQueryBytes = kRows / Query::Rows::kTokens * Query::Rows::kBytes;
    static constexpr uint32_t kShared = kQueryBytes + kSlots * kSlotBytes;
    static constexpr uint32_t kCtasPerSm = head_dim <= 128 ? 2 : 1;
    static constexpr uint32_t kSteps = head_dim / 16;   // of Q * K
    static constexpr uint32_t kBlocks = head_dim / 8;   // of P * V
    static constexpr uint32_t kSubtiles = kKeys / Cache::kTokens;
    static_assert(head_dim % 16 == 0 && kShared <= 163 << 10, "an sm_80 has 163 KiB");

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        const uint32_t items = Global<uint32_t>(p.tile_count)[0] * p.pool.heads_kv;
        for (uint32_t item = cta_index(); item < items; item += cta_count()) {
            const auto tile = Global<uint32_t>(p.tiles).template load<4>(int64_t(item / p.pool.heads_kv) * 4);
            Prefill(p, tile, item % p.pool.heads_kv).attend();
        }
    }

private:
    const Params& p;
    const uint32_t head;     // of KV
    const uint32_t row;      // of the batch
    const uint32_t first;    // packed row of the tile, inside the row
    const uint32_t token;    // the row's first
    const Queries queries;
    uint32_t keys = 0;       // that some token of the tile sees
    uint32_t steps = 0;      // two per 64 keys: K, then V
    uint32_t pages = 0;      // lane i % 4 has the page of 16 tokens i of what is fetched next
    FragmentC out[kBands][kBlocks] = {};
    FragmentA weights[kBands][kSubtiles];
    OnlineRow rows[kBands][2];  // lane / 4 and lane / 4 + 8 of each band

    FB_DEVICE Prefill(const Params& p, Pack<uint32_t, 4> tile, uint32_t head)
        : p(p), head(head), row(tile.at[0]), first(tile.at[1] * p.tile), token(tile.at[2]),
          queries({tile.at[3], row < p.rows ? Global<uint32_t>(p.lengths)[row] : 0, p.heads_q / p.pool.heads_kv}) {
        keys = queries.keys(tile.at[1], p.tile);
        steps = (keys + kKeys - 1) / kKeys * 2;
    }

    FB_DEVICE void attend() {
        if (steps) find_pages(0);
        FB_UNROLL
        for (uint32_t step = 0; step + 1 < kSlots; ++step) fetch(step);
        load_queries();
        const float scale = logit_scale(p, head);
        for (uint32_t step = 0; step < steps; step += 2) {
            await(step);
            add_keys(step, scale);
            await(step + 1);
            add_values(step + 1);
        }
        copy_async_wait<0>();
        write(scale);
        sync_cta();  // before the next item's copies come
    }

    // The copy of a step has arrived for all, and the slot that was read last takes the next one.
    FB_DEVICE void await(uint32_t step) {
        copy_async_wait<mutated(Mutant::copy_not_awaited) ? kSlots - 1 : kSlots - 2>();
        if (!mutated(Mutant::stage_unsynced)) sync_cta();
        fetch(step + kSlots - 1);
    }

    // The first token of a step's keys: from the last to the first.
    FB_DEVICE uint32_t first_key(uint32_t step) const { return (steps / 2 - 1 - step / 2) * kKeys; }

    static FB_DEVICE uint32_t slot_byte(uint32_t step) { return kQueryBytes + step % kSlots * kSlotBytes; }

    // 16 tokens begin at a multiple of 16 and a page holds a multiple of 16: one page has them all.
    FB_DEVICE void find_pages(uint32_t step) {
        const uint32_t key = first_key(step) + lane_index() % kSubtiles * Cache::kTokens;
        const uint32_t at = key + (mutated(Mutant::page_off_by_one) ? Cache::kTokens : 0);
        if (key < keys) pages = Global<uint32_t>(p.tables)[row * p.table_stride + (at >> p.pool.page_shift)];
    }

    // Starts this thread's share of the copy of a step's K or V, and ends the group; tokens past the end are zeros,
    // for an unused slot may hold NaN, and 0 * NaN is not 0. The table is read a step ahead.
    FB_DEVICE void fetch(uint32_t step) {
        if (step < steps) {
            const Paging paging(p.pool, head_dim);
            const Global<Stored> cached(p.pool.pages);
            const uint32_t key = first_key(step), part = head + (step % 2 ? p.pool.heads_kv : 0);
            const Shared<uint8_t> slot(slot_byte(step));
            constexpr uint32_t kPieces = kKeys * Cache::kPieces;
            FB_UNROLL
            for (uint32_t base = 0; base < kPieces; base += kThreads) {
                const uint32_t index = base + thread_index();
                if (kPieces % kThreads != 0 && index >= kPieces) break;
                const uint32_t at = index / Cache::kPieces, piece = index % Cache::kPieces;
                const uint32_t subtile = at / Cache::kTokens, in_tile = at % Cache::kTokens;
                // A warp may straddle subtiles where rows are not a power of two of pieces.
                const uint32_t page = shuffle(pages, subtile);
                const uint64_t source =
                    cached.address_of(paging.element(page, part, key + at) + piece * (16 / sizeof(Stored)));
                const bool valid = key + at < keys || (mutated(Mutant::tail_unzeroed) && key + at / 16 * 16 < keys);
                copy_async(slot, subtile * Cache::kBytes + Cache::byte(in_tile, piece), source, valid);
            }
            if (step % 2 && step + 1 < steps) find_pages(step + 1);
        }
        copy_async_commit();
    }

    // Q of the tile's rows into shared memory, in the order in which K's elements serve; rows past the end are zeros.
    FB_DEVICE void load_queries() {
        const Global<Compute> q(p.q);
        for (uint32_t index = thread_index(); index < kRows * Query::kPieces; index += kThreads) {
            const uint32_t at = index / Query::kPieces, piece = index % Query::kPieces;
            Pack<Compute, 8> in = {};
            if (holds(at)) {
                in = q.template load<8>(query(at) * p.q_stride + query_head(at) * head_dim + piece * 8);
            }
            Query::store(Shared<uint32_t>(0), at, piece, in);
        }
    }

    // Of the tile's packed rows: whether there is such a row, its token in the batch, and its query head.
    FB_DEVICE bool holds(uint32_t at) const { return at < p.tile && first + at < queries.packed(); }
    FB_DEVICE int64_t query(uint32_t at) const { return token + (first + at) / queries.group; }
    FB_DEVICE uint32_t query_head(uint32_t at) const {
        return head * queries.group + (first + at) % queries.group;
    }

    // The packed row of a lane's accumulators.
    static FB_DEVICE uint32_t row_at(uint32_t band, uint32_t half) {
        return (warp_index() * kBands + band) * 16 + half * 8 + lane_index() / 4;
    }

    // Q * K of a step's keys, turned into weights; what was summed so far comes under the new maximum.
    FB_DEVICE void add_keys(uint32_t step, float scale) {
        FragmentC logits[kBands][2 * kSubtiles] = {};
        FB_UNROLL
        for (uint32_t part = 0; part < kSteps; ++part) {
            FragmentA q[kBands];
            FB_UNROLL
            for (uint32_t band = 0; band < kBands; ++band) {
                q[band] = Query::fragment(Shared<uint8_t>(0), (warp_index() * kBands + band) * 16, part);
            }
            FB_UNROLL
            for (uint32_t subtile = 0; subtile < kSubtiles; subtile += 2) {
                FragmentB k[2][2];
                Cache::keys_of_step(k, Shared<uint8_t>(slot_byte(step) + subtile * Cache::kBytes), part);
                FB_UNROLL
                for (uint32_t i = 0; i < 4; ++i) {
                    FB_UNROLL
                    for (uint32_t band = 0; band < kBands; ++band) {
                        mma<Math>(logits[band][2 * subtile + i], q[band], k[i / 2][i % 2]);
                    }
                }
            }
        }
        const uint32_t key = first_key(step);
        const bool masked = key + kKeys > queries.visible(first);
        FB_UNROLL
        for (uint32_t band = 0; band < kBands; ++band) {
            FB_UNROLL
            for (uint32_t half = 0; half < 2; ++half) {
                if (masked) hide(logits[band], half, key, visible(band, half));
                weigh(logits[band], out[band], half, scale, rows[band][half]);
            }
            FB_UNROLL
            for (uint32_t subtile = 0; subtile < kSubtiles; ++subtile) {
                weights[band][subtile] = operand<Math>(logits[band][2 * subtile], logits[band][2 * subtile + 1]);
            }
        }
    }

    FB_DEVICE uint32_t visible(uint32_t band, uint32_t half) const {
        return queries.visible(first + row_at(band, half)) + (mutated(Mutant::mask_edge) ? 1 : 0);
    }

    FB_DEVICE void add_values(uint32_t step) {
        FB_UNROLL
        for (uint32_t subtile = 0; subtile < kSubtiles; ++subtile) {
            const Shared<uint8_t> tile(slot_byte(step) + subtile * Cache::kBytes);
            FB_UNROLL
            for (uint32_t index = 0; index < (kBlocks + 3) / 4; ++index) {
                FragmentB v[4];
                Cache::values(v, tile, index);
                FB_UNROLL
                for (uint32_t block = 0; block < 4 && 4 * index + block < kBlocks; ++block) {
                    FB_UNROLL
                    for (uint32_t band = 0; band < kBands; ++band) {
                        mma<Math>(out[band][4 * index + block], weights[band][subtile], v[block]);
                    }
                }
            }
        }
    }

    FB_DEVICE void write(float scale) {
        const float unit = scale_of(p.pool.v_scale, head);
        FB_UNROLL
        for (uint32_t band = 0; band < kBands; ++band) {
            FB_UNROLL
            for (uint32_t half = 0; half < 2; ++half) {
                // All lanes: the sum takes whole warps.
                const Softmax whole = rows[band][half].whole(scale);
                const uint32_t at = row_at(band, half);
                if (!holds(at)) continue;
                const int64_t to = query(at) * p.heads_q + query_head(at);
                const float factor = whole.normalizer() * unit;
                FB_UNROLL
                for (uint32_t pair = 0; pair < kBlocks; ++pair) {
                    const FragmentC* blocks = out[band] + pair / 2 * 2;
                    const float left = Cache::pair_value(blocks, half, pair % 2, 0) * factor;
                    const float right = Cache::pair_value(blocks, half, pair % 2, 1) * factor;
                    const int64_t element = to * head_dim + Cache::pair_dim(pair / 2, pair % 2);
                    Global<uint32_t>(p.output).set(element / 2, pack_pair<Compute>(left, right));
                }
                if (p.lse && lane_index() % 4 == 0) Global<float>(p.lse).set(to, whole.lse());
            }
        }
    }
};

}  // namespace flyball
