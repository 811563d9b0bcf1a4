// decode_plan: how many chunks lie before each row, chunk_from [rows + 1], and what each chunk is, from lengths
// [rows]; zeroes `arrived`.
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
        wait_for_previous_grid();
        allow_next_grid();
        const Global<uint32_t> from(p.chunk_from), lengths(p.lengths);
        const uint64_t total = cta_offsets<kThreads>(
            p.rows, Shared<uint64_t>(0), [&](uint32_t row) { return chunk_count(lengths[row], tokens(p, lengths[row])); },
            [&](uint32_t row, uint64_t before) { from.set(row, uint32_t(before)); });
        const bool overflow = total > p.chunks_max;
        if (thread_index() == 0) {
            from.set(p.rows, overflow ? 0 : uint32_t(total));
            Global<uint32_t>(p.overflow).set(0, overflow);
        }
        for (uint32_t row = thread_index(); overflow && row < p.rows; row += kThreads) from.set(row, 0);
        if (!overflow) list_chunks(p, uint32_t(total));
        const uint32_t counters = p.arrived ? p.rows * p.pool.heads_kv : 0;
        for (uint32_t at = thread_index(); at < counters; at += kThreads) Global<uint32_t>(p.arrived).set(at, 0);
    }

private:
    static FB_DEVICE uint32_t tokens(const Params& p, uint32_t length) {
        return chunk_tokens(length, p.chunk, p.row_chunks_max);
    }

    static FB_DEVICE void list_chunks(const Params& p, uint32_t total) {
        const Global<uint32_t> from(p.chunk_from), lengths(p.lengths), chunks(p.chunks);
        sync_cta();
        for (uint32_t chunk = thread_index(); chunk < total; chunk += kThreads) {
            const uint32_t row = row_of(chunk, p.rows, [&](uint32_t row) { return from[row]; });
            const uint32_t length = lengths[row];
            const Span span = chunk_span(chunk - from[row], length, tokens(p, length));
            chunks.store(int64_t(chunk) * 4,
                         Pack<uint32_t, 4>{{row, span.begin, span.end, chunk_count(length, tokens(p, length))}});
        }
    }
};

}  // namespace flyball
