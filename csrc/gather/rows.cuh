// gather_rows: rows by index: the embedding of token ids, or the last tokens of prompts before the vocabulary's
// projection.
//   target[i] = source[ids[i]], rows of row_bytes bytes of any type
// An id with its top bit set is the place, in the tokens of the step before, of the id: so a step can be launched
// before the host knows what the last one drew. An id past the last row yields zeros, and says so in `failed`.
// 256 threads; a cta takes pieces of 4 KiB of one row, grid-stride. Moves 2 * row_bytes per row: bound by memory; not
// measured yet.
#pragma once

#include "../core/mutant.h"
#include "../params.h"
#include "../warp/warp.h"

namespace flyball {

struct GatherRows {
    using Params = fb_gather;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kShared = 0;
    using Piece = Pack<uint32_t, 4>;
    static constexpr uint32_t kPieceBytes = kThreads * sizeof(Piece);

    static FB_DEVICE void run(const Params& p) {
        follow_previous_grid();
        const Global<uint32_t> source(p.source), target(p.target);
        const uint32_t pieces = (p.row_bytes + kPieceBytes - 1) / kPieceBytes;
        const int64_t words = p.row_bytes / sizeof(uint32_t);
        for (uint32_t item = cta_index(); item < p.count * pieces; item += cta_count()) {
            const uint32_t at = item / pieces, byte = item % pieces * kPieceBytes + thread_index() * sizeof(Piece);
            if (byte >= p.row_bytes) continue;
            const uint32_t id = resolve(p, at), word = byte / sizeof(uint32_t);
            Piece piece = {{0, 0, 0, 0}};
            if (id < p.rows || mutated(Mutant::id_unchecked)) {
                piece = source.load<4>(id * words + word);
            } else {
                Global<uint32_t>(p.failed).set(0, 1);
            }
            target.store(at * words + word, piece);
        }
    }

private:
    static FB_DEVICE uint32_t resolve(const Params& p, uint32_t at) {
        const uint32_t id = Global<uint32_t>(p.ids)[at];
        return id & FB_FROM_STEP ? Global<uint32_t>(p.sampled)[id & ~FB_FROM_STEP] : id;
    }
};

}  // namespace flyball
