// Tiles of 16 tokens of one head in shared memory, and their tensor core fragments, by the type that the cache
// stores. What differs between 16-bit floats and e4m3 is here, and nowhere else.
#pragma once

#include "../warp/warp.h"

namespace flyball {

// A tile is [16 tokens][head_dim], its 16-byte pieces swizzled so that the eight rows that ldmatrix reads at
// once lie in different banks.
template <class Stored, uint32_t head_dim>
struct Tile {
    static constexpr uint32_t kTokens = 16;
    static constexpr uint32_t kRow = head_dim * sizeof(Stored);
    static constexpr uint32_t kBytes = kTokens * kRow;
    static constexpr uint32_t kPieces = kRow / 16;  // per row
    static_assert(kRow % 16 == 0, "rows are whole pieces");

    // Byte of piece `piece` of row `token`. Rows that are an odd number of pieces long need no swizzle; others
    // exchange pieces inside groups as large as the power of two that divides their length, 8 at most.
    static FB_DEVICE uint32_t byte(uint32_t token, uint32_t piece) {
        return token * kRow + (piece * 16 ^ turned(token));
    }

    // Of the piece that is `base + lane` in the order of rows; the lanes agree on `base`, a multiple of their number.
    static FB_DEVICE uint32_t byte_of_lane(uint32_t base) {
        const uint32_t lane = lane_index(), rows = base / kPieces;
        if constexpr (!kBitwise || kPieces > kLanes) return byte((base + lane) / kPieces, (base + lane) % kPieces);
        return (byte(lane / kPieces, lane % kPieces) ^ turned(rows)) + rows * kRow;
    }

    // Fragments of the rows that the lanes name, from piece `low + high` on: `low` is 0 or 1, `high` even and the same
    // for all. Behind the last piece that one is read once more, for ldmatrix takes two.
    template <bool transposed>
    static FB_DEVICE FragmentPair fragments(Shared<uint8_t> tile, uint32_t token, uint32_t low, uint32_t high) {
        if constexpr (kBitwise) return load_fragments<transposed>(tile, byte(token, low), high * 16);
        const uint32_t piece = low + high < kPieces ? low + high : kPieces - 1;
        return load_fragments<transposed>(tile, byte(token, piece));
    }

private:
    static constexpr uint32_t kPower = kPieces & (~kPieces + 1), kGroup = kPower < 8 ? kPower : 8;
    // Nothing carries from a piece into its row: one that is further on differs by bits that are known beforehand, and
    // an address serves many.
    static constexpr bool kBitwise = kPower == kPieces;

    static FB_DEVICE uint32_t turned(uint32_t token) { return token / (8 / kGroup) % kGroup * 16; }
};

// The fragments of 32 of head_dim at a time: `keys` gives the B fragments of two steps of Q * K (k is head_dim, n
// are tokens 0 to 7 and 8 to 15), `values` those of four blocks of P * V (k are tokens, n is head_dim). Where
// head_dim is an odd multiple of 16, the second half of the last 32 is undefined. `keys_of_step` gives one step for
// two tiles that follow each other.
//
// Which element of head_dim a lane holds is free as long as Q agrees with K, and the output with V. `query_dim` says
// it for A fragments of Q. Blocks 2i and 2i + 1 of the output hold, in each row, two pairs of neighbours per lane:
// `pair_dim` and `pair_value` say which.
template <class Compute, class Stored, uint32_t head_dim>
struct Cached : Tile<Stored, head_dim> {
    using Math = Compute;

    static FB_DEVICE uint32_t query_dim(uint32_t step, uint32_t word) {
        return 16 * step + lane_index() % 4 * 2 + word / 2 * 8;
    }
    static FB_DEVICE uint32_t pair_dim(uint32_t index, uint32_t which) {
        return 16 * index + 8 * which + lane_index() % 4 * 2;
    }
    static FB_DEVICE float pair_value(const FragmentC* blocks, uint32_t half, uint32_t which, uint32_t i) {
        return blocks[which].at[2 * half + i];
    }

    static FB_DEVICE void keys(FragmentB (&steps)[2][2], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix / 2 * 8;
        FB_UNROLL
        for (uint32_t step = 0; step < 2; ++step) {
            if (4 * index + 2 * step >= Cached::kPieces) break;
            const FragmentPair pair = Cached::template fragments<false>(tile, row, matrix % 2, 4 * index + 2 * step);
            steps[step][0] = pair.at[0];
            steps[step][1] = pair.at[1];
        }
    }

    static FB_DEVICE void keys_of_step(FragmentB (&tiles)[2][2], Shared<uint8_t> tile, uint32_t step) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix / 2 * 8;
        FB_UNROLL
        for (uint32_t i = 0; i < 2; ++i) {
            const uint32_t at = i * Cached::kBytes + Cached::byte(row, 2 * step + matrix % 2);
            const FragmentPair pair = load_fragments<false>(tile, at);
            tiles[i][0] = pair.at[0];
            tiles[i][1] = pair.at[1];
        }
    }

    static FB_DEVICE void values(FragmentB (&blocks)[4], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix % 2 * 8;
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            if (4 * index + 2 * half >= Cached::kPieces) break;
            const uint32_t piece = 4 * index + 2 * half + matrix / 2;
            const FragmentPair pair = load_fragments<true>(tile, Cached::byte(row, piece));
            blocks[2 * half] = pair.at[0];
            blocks[2 * half + 1] = pair.at[1];
        }
    }
};

// e4m3 is exact in f16, whatever the type of Q. The NaN code may become 480 (sm_80): the writer saturates and never
// makes one.
template <class Compute, uint32_t head_dim>
struct Cached<Compute, E4m3, head_dim> : Tile<E4m3, head_dim> {
    using Math = F16;

    // A 32-bit word of K holds four neighbours of head_dim: they serve as k = 2t, 2t+1, 2t+8, 2t+9.
    static FB_DEVICE uint32_t query_dim(uint32_t step, uint32_t word) {
        return 16 * step + lane_index() % 4 * 4 + word / 2 * 2;
    }
    // A 32-bit word of V holds two neighbours of two tokens: the even ones are one block, the odd ones the next.
    static FB_DEVICE uint32_t pair_dim(uint32_t index, uint32_t which) {
        return 16 * index + lane_index() % 4 * 4 + 2 * which;
    }
    static FB_DEVICE float pair_value(const FragmentC* blocks, uint32_t half, uint32_t which, uint32_t i) {
        return blocks[i].at[2 * half + which];
    }

    static FB_DEVICE void keys(FragmentB (&steps)[2][2], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix / 2 * 8;
        const FragmentPair pair = Cached::template fragments<false>(tile, row, matrix % 2, 2 * index);
        FB_UNROLL
        for (uint32_t step = 0; step < 2; ++step) {
            FB_UNROLL
            for (uint32_t block = 0; block < 2; ++block) {
                const uint32_t word = pair.at[block].word[step];
                steps[step][block] = {{halves_of_e4m3<0>(word), halves_of_e4m3<1>(word)}};
            }
        }
    }

    static FB_DEVICE void keys_of_step(FragmentB (&tiles)[2][2], Shared<uint8_t> tile, uint32_t step) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix % 2 * 8;
        const FragmentPair pair = load_fragments<false>(tile, matrix / 2 * Cached::kBytes + Cached::byte(row, step));
        FB_UNROLL
        for (uint32_t i = 0; i < 2; ++i) {
            FB_UNROLL
            for (uint32_t block = 0; block < 2; ++block) {
                const uint32_t word = pair.at[i].word[block];
                tiles[i][block] = {{halves_of_e4m3<0>(word), halves_of_e4m3<1>(word)}};
            }
        }
    }

    static FB_DEVICE void values(FragmentB (&blocks)[4], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix % 2 * 8;
        const FragmentPair pair = load_fragments<true>(tile, Cached::byte(row, piece_of(2 * index + matrix / 2)));
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            FB_UNROLL
            for (uint32_t word = 0; word < 2; ++word) {
                const uint32_t even_then_odd = permute_bytes(pair.at[half].word[word], 0x3120);
                blocks[2 * half].word[word] = halves_of_e4m3<0>(even_then_odd);
                blocks[2 * half + 1].word[word] = halves_of_e4m3<1>(even_then_odd);
            }
        }
    }

private:
    // Beyond the last piece it is read once more: ldmatrix takes two.
    static FB_DEVICE uint32_t piece_of(uint32_t piece) {
        return Cached::kPieces % 2 == 0 || piece < Cached::kPieces ? piece : Cached::kPieces - 1;
    }
};

}  // namespace flyball
