// Q in shared memory, 16 rows to a tile, its elements in the order in which those of K serve.
#pragma once

#include "cached.cuh"

namespace flyball {

template <class Compute, class Stored, uint32_t head_dim>
struct QueryTiles {
    using Math = typename Cached<Compute, Stored, head_dim>::Math;
    using Rows = Tile<Math, head_dim>;
    static constexpr uint32_t kPieces = head_dim / 8;  // of eight elements per row

    static FB_DEVICE uint32_t byte(uint32_t row, uint32_t piece) {
        return row / Rows::kTokens * Rows::kBytes + Rows::byte(row % Rows::kTokens, piece);
    }

    static FB_DEVICE void store(Shared<uint32_t> tiles, uint32_t row, uint32_t piece, Pack<Compute, 8> in) {
        if constexpr (sizeof(Stored) == sizeof(Math)) {
            tiles.store(byte(row, piece) / 4, Pack<uint32_t, 4>{{word(in, 0), word(in, 2), word(in, 4), word(in, 6)}});
        } else {
            // Elements 4t and 4t + 1 of 16 serve as k = 2t, 2t + 1, the next two as 2t + 8, 2t + 9.
            const uint32_t half = piece % 2 * 2, pair = piece - piece % 2;
            tiles.store(byte(row, pair) / 4 + half, Pack<uint32_t, 2>{{word(in, 0), word(in, 4)}});
            tiles.store(byte(row, pair + 1) / 4 + half, Pack<uint32_t, 2>{{word(in, 2), word(in, 6)}});
        }
    }

    // Of the 16 rows from `row` on, for one step of Q * K.
    static FB_DEVICE FragmentA fragment(Shared<uint8_t> tiles, uint32_t row, uint32_t step) {
        const uint32_t lane = lane_index();
        return load_fragment_a(tiles, byte(row + lane % 16, 2 * step + lane / 16));
    }

private:
    static FB_DEVICE uint32_t word(const Pack<Compute, 8>& in, uint32_t at) {
        return pack_pair<Math>(to_float(in.at[at]), to_float(in.at[at + 1]));
    }
};

}  // namespace flyball
