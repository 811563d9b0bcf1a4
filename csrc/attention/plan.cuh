// decode_plan: cuts the rows into chunks: how many lie before each row, chunk_from [rows + 1], and what each is,
// chunks [chunks_max, 4]; with lists_max, also which follow each other in a list; all from lengths [rows]. Zeroes
// `arrived`.
// One cta of 256 threads, a tile of 256 rows after the other: once per step, for all layers. If the chunks exceed
// chunks_max, the step has no chunk at all and `overflow` is set: nothing is overrun, and the host learns of it.
#pragma once

#include "../core/chunks.h"
#include "../params.h"
#include "../warp/scan.h"

namespace flyball {

struct DecodePlan {
    using Params = fb_decode;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = kThreads / kLanes * sizeof(uint64_t);

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        DecodePlan(p).cut();
        const uint32_t counters = p.arrived ? p.rows * p.pool.heads_kv : 0;
        for (uint32_t at = thread_index(); at < counters; at += kThreads) Global<uint32_t>(p.arrived).set(at, 0);
    }

private:
    const Params& p;
    const Global<uint32_t> lengths, from, chunks, lists;
    uint32_t share = 0;  // blocks per list, where there are lists

    FB_DEVICE explicit DecodePlan(const Params& p)
        : p(p), lengths(p.lengths), from(p.chunk_from), chunks(p.chunks), lists(p.lists) {}

    static FB_DEVICE Shared<uint64_t> scan_space() { return Shared<uint64_t>(0); }

    FB_DEVICE void cut() {
        uint32_t listed = 0;
        if (p.lists_max) {
            const auto blocks = [&](uint32_t row) { return block_count(lengths[row]); };
            const uint64_t total = cta_offsets<kThreads>(p.rows, scan_space(), blocks, [](uint32_t, uint64_t) {});
            share = share_blocks(uint32_t(total), p.lists_max, p.chunk);
            listed = (uint32_t(total) + share - 1) / share;
        }
        const uint32_t count = list_rows();
        const bool overflow = count > p.chunks_max;
        if (thread_index() == 0) {
            from.set(p.rows, overflow ? 0 : count);
            if (listed > 0) lists.set(int64_t(listed - 1) * 8 + 1, count);
            Global<uint32_t>(p.overflow).set(0, overflow);
        }
        sync_cta();  // what follows writes over what was written
        for (uint32_t row = thread_index(); overflow && row < p.rows; row += kThreads) from.set(row, 0);
        for (uint32_t at = thread_index(); at < p.lists_max; at += kThreads) {
            if (!overflow && at < listed) continue;
            for (uint32_t half = 0; half < 8; half += 4) lists.store(int64_t(at) * 8 + half, Pack<uint32_t, 4>{});
        }
    }

    // Numbers and lists the chunks of every row; how many they are.
    FB_DEVICE uint32_t list_rows() const {
        uint64_t blocks = 0, chunks = 0;
        for (uint32_t base = 0; base < p.rows; base += kThreads) {
            const uint32_t row = base + thread_index();
            const uint32_t length = row < p.rows ? lengths[row] : 0;
            const uint64_t mine = row < p.rows && p.lists_max ? block_count(length) : 0;
            uint64_t total;
            const uint32_t before = uint32_t(blocks + cta_scan<kThreads>(mine, scan_space(), total) - mine);
            blocks += total;
            const uint32_t count = row < p.rows ? chunks_of(length, before) : 0;
            const uint64_t first = chunks + cta_scan<kThreads>(count, scan_space(), total) - count;
            chunks += total;
            if (row < p.rows) list_row(row, length, before, uint32_t(first), count);
        }
        return uint32_t(chunks < UINT32_MAX ? chunks : UINT32_MAX);
    }

    // Of a row that begins at block `before`.
    FB_DEVICE uint32_t chunks_of(uint32_t length, uint32_t before) const {
        if (!p.lists_max) return chunk_count(length, tokens(length));
        return (before + block_count(length) - 1) / share - before / share + 1;
    }

    FB_DEVICE uint32_t tokens(uint32_t length) const { return chunk_tokens(length, p.chunk, p.row_chunks_max); }

    FB_DEVICE void list_row(uint32_t row, uint32_t length, uint32_t before, uint32_t first, uint32_t count) const {
        from.set(row, first);
        for (uint32_t i = 0; i < count && first + i < p.chunks_max; ++i) {
            const uint32_t list = p.lists_max ? before / share + i : 0;
            const Span span = p.lists_max ? share_span(list, share, before, length)
                                          : chunk_span(i, length, tokens(length));
            const Pack<uint32_t, 4> entry = {{row, span.begin, span.end, count}};
            chunks.store(int64_t(first + i) * 4, entry);
            if (!p.lists_max || before + span.begin / kBlock != list * share) continue;
            // The first of its list ends the one before.
            lists.set(int64_t(list) * 8, first + i);
            lists.store(int64_t(list) * 8 + 4, entry);
            if (list > 0) lists.set(int64_t(list - 1) * 8 + 1, first + i);
        }
    }
};

}  // namespace flyball
