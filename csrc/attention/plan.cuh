// decode_plan: how many chunks lie before each row: chunk_from [rows + 1], from lengths [rows].
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
        const Global<uint32_t> from(p.chunk_from), lengths(p.lengths);
        uint64_t before = 0;
        for (uint32_t base = 0; base < p.rows; base += kThreads) {
            const uint32_t row = base + thread_index();
            const uint32_t mine = row < p.rows ? chunk_count(lengths[row], p.chunk) : 0;
            uint64_t total;
            const uint64_t through = before + cta_scan<kThreads>(mine, Shared<uint64_t>(0), total);
            before += total;
            if (row < p.rows) from.set(row, uint32_t(through - mine));
        }
        const bool overflow = before > p.chunks_max;
        if (thread_index() == 0) {
            from.set(p.rows, overflow ? 0 : uint32_t(before));
            Global<uint32_t>(p.overflow).set(0, overflow);
        }
        for (uint32_t row = thread_index(); overflow && row < p.rows; row += kThreads) from.set(row, 0);
    }
};

}  // namespace flyball
