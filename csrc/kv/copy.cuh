// copy: pages to pages, by a list of pairs: a fork's last page, a defragmentation, a swap through mapped memory.
//   source, target: pools of pages of page_bytes;  pairs [count, 2]: from, to
// 256 threads; a cta takes pieces of 16 KiB of one page, grid-stride, four loads of 16 bytes per thread in flight.
// Reads and writes page_bytes per pair: bound by memory; 88 % of the driver's copy on an H200 (benches/results).
//
// A page holds all layers, so a swap moves megabytes in one run and belongs on the copy engines: one asynchronous
// copy per run of pages that are neighbours on both sides. Where that cannot be (inside a captured graph whose pairs
// change), this kernel does it: one of the pools is then pinned host memory, mapped into the device's addresses, and
// 8 to 16 ctas keep the bus busy without taking the model's multiprocessors.
#pragma once

#include "../core/mutant.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

struct CopyPages {
    using Params = fb_copy;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = 0;
    static constexpr uint32_t kDeep = 4;
    using Piece = Pack<uint32_t, 4>;

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        // In words of 4 bytes, 64 bits wide: a pool is larger than 4 GiB.
        constexpr uint64_t kWords = 4, kItem = kDeep * kThreads * kWords;
        const Global<uint32_t> pairs(p.pairs), source(p.source), target(p.target);
        const uint64_t page = p.page_bytes / sizeof(uint32_t);
        const uint64_t copied = mutated(Mutant::tail_uncopied) ? page - page % (kThreads * kWords) : page;
        const uint32_t items = uint32_t((page + kItem - 1) / kItem);
        for (uint64_t item = cta_index(); item < uint64_t(p.count) * items; item += cta_count()) {
            const auto pair = pairs.load<2>(int64_t(item / items) * 2);
            const uint64_t first = item % items * kItem + thread_index() * kWords;
            Piece piece[kDeep];
            FB_UNROLL
            for (uint32_t d = 0; d < kDeep; ++d) {
                const uint64_t word = first + d * kThreads * kWords;
                if (word < copied) piece[d] = source.load<4>(int64_t(pair.at[0] * page + word));
            }
            FB_UNROLL
            for (uint32_t d = 0; d < kDeep; ++d) {
                const uint64_t word = first + d * kThreads * kWords;
                if (word < copied) target.store(int64_t(pair.at[1] * page + word), piece[d]);
            }
        }
    }
};

}  // namespace flyball
