// copy: pages to pages, by a list of pairs: a fork's last page, a defragmentation, a swap through mapped memory.
//   source, target: pools of pages of page_bytes;  pairs [count, 2]: from, to
// 256 threads, grid-stride over 16-byte pieces of all pairs. Reads and writes page_bytes per pair: bound by
// memory; not measured yet.
#pragma once

#include "../core/mutant.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

struct CopyPages {
    using Params = fb_copy;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = 0;

    static FB_DEVICE void run(const Params& p) {
        using Piece = Pack<uint32_t, 4>;
        const Global<uint32_t> pairs(p.pairs), source(p.source), target(p.target);
        uint64_t pieces = p.page_bytes / sizeof(Piece);
        if (mutated(Mutant::tail_uncopied)) pieces -= pieces % kThreads;
        const uint64_t stride = uint64_t(cta_count()) * kThreads;
        for (uint64_t at = uint64_t(cta_index()) * kThreads + thread_index(); at < pieces * p.count; at += stride) {
            const auto pair = pairs.load<2>(int64_t(at / pieces) * 2);
            // In words of 4 bytes, 64 bits wide: a pool is larger than 4 GiB.
            const uint64_t piece = at % pieces * 4, page = p.page_bytes / sizeof(uint32_t);
            target.store(int64_t(pair.at[1] * page + piece), source.load<4>(int64_t(pair.at[0] * page + piece)));
        }
    }
};

}  // namespace flyball
