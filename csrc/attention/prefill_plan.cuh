// prefill_plan: lists the tiles of all rows and of the padding, those with most keys first, so that what is left
// for the end is small ("longest processing time first", Graham, 1969).
//   q_from [rows + 1], lengths [rows] -> tile_from [rows + 2], tiles [tiles_max, 4], tile_count
// One cta of 256 threads: once per step, for all layers. Tiles are sorted by classes of work; inside a class their
// order is any, and changes no result. More tiles than tiles_max: none is listed and `overflow` is set.
#pragma once

#include "../core/chunks.h"
#include "../core/tiles.h"
#include "../params.h"
#include "../warp/scan.h"

namespace flyball {

struct PrefillPlan {
    using Params = fb_prefill;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kScanBytes = kThreads / kLanes * sizeof(uint64_t);
    static constexpr uint32_t kShared = kScanBytes + kWorkClasses * sizeof(uint32_t);
    static_assert(kThreads == kWorkClasses, "a thread has one class");

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        const Global<uint32_t> from(p.tile_from);
        const uint64_t total = cta_offsets<kThreads>(
            p.rows + 1, scan_space(), [&](uint32_t row) { return queries(p, row).tiles(p.tile); },
            [&](uint32_t row, uint64_t before) { from.set(row, uint32_t(before)); });
        const bool overflow = total > p.tiles_max;
        const uint32_t count = overflow ? 0 : uint32_t(total);
        if (thread_index() == 0) {
            from.set(p.rows + 1, count);
            Global<uint32_t>(p.tile_count).set(0, count);
            Global<uint32_t>(p.overflow).set(0, overflow);
        }
        for (uint32_t row = thread_index(); overflow && row <= p.rows; row += kThreads) from.set(row, 0);
        list_tiles(p, count);
    }

private:
    static FB_DEVICE Shared<uint64_t> scan_space() { return Shared<uint64_t>(0); }

    // Row `rows` is the padding: it has no keys.
    static FB_DEVICE Queries queries(const Params& p, uint32_t row) {
        const Global<uint32_t> from(p.q_from);
        const uint32_t group = p.heads_q / p.pool.heads_kv;
        if (row == p.rows) return {p.tokens - from[row], 0, group};
        return {from[row + 1] - from[row], Global<uint32_t>(p.lengths)[row], group};
    }

    static FB_DEVICE void list_tiles(const Params& p, uint32_t count) {
        const Shared<uint32_t> next(kScanBytes);  // [kWorkClasses]: where the class's next tile goes
        next.set(thread_index(), 0);
        sync_cta();
        for_tiles(p, count, [&](uint32_t work, Pack<uint32_t, 4>) { atomic_add(next, work, 1u); });
        sync_cta();
        const uint32_t work = kWorkClasses - 1 - thread_index(), mine = next[work];
        uint64_t total;
        next.set(work, uint32_t(cta_scan<kThreads>(mine, scan_space(), total)) - mine);
        sync_cta();
        const Global<uint32_t> tiles(p.tiles);
        for_tiles(p, count, [&](uint32_t work, Pack<uint32_t, 4> tile) {
            tiles.store(int64_t(atomic_add(next, work, 1u)) * 4, tile);
        });
    }

    // Calls `visit` with the class and the entry of every tile.
    template <class Visit>
    static FB_DEVICE void for_tiles(const Params& p, uint32_t count, Visit visit) {
        const Global<uint32_t> from(p.tile_from);
        for (uint32_t tile = thread_index(); tile < count; tile += kThreads) {
            const uint32_t row = row_of(tile, p.rows + 1, [&](uint32_t row) { return from[row]; });
            const uint32_t index = tile - from[row];
            const Queries row_queries = queries(p, row);
            visit(work_class(row_queries.keys(index, p.tile)),
                  Pack<uint32_t, 4>{{row, index, Global<uint32_t>(p.q_from)[row], row_queries.tokens}});
        }
    }
};

}  // namespace flyball
