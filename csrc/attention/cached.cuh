// Tiles of 16 cached tokens of one head in shared memory, and their tensor core fragments, by the type that the
// cache stores. What differs between bf16 and e4m3 is here, and nowhere else.
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
    static_assert(kPieces >= 4 && (kPieces & (kPieces - 1)) == 0, "");

    // Byte of piece `piece` of row `token`. A row shorter than 128 bytes shares its banks with 128 / kRow others.
    static FB_DEVICE uint32_t byte(uint32_t token, uint32_t piece) {
        constexpr uint32_t kSpread = kPieces < 8 ? kPieces : 8;
        return token * kRow + (piece ^ token / (8 / kSpread) % kSpread) * 16;
    }
};

// Per 32 of head_dim: `keys` are the B fragments of two steps of K (k is head_dim, n are tokens 0 to 7 and 8 to
// 15), `values` those of four blocks of V (k are tokens, n is head_dim). Which element of head_dim a lane holds
// is free as long as Q agrees with K, and the output with V: `query_dim` and `output_dim` say.
template <class Stored, uint32_t head_dim>
struct Cached;

template <uint32_t head_dim>
struct Cached<Bf16, head_dim> : Tile<Bf16, head_dim> {
    using Math = Bf16;
    static constexpr float kUnit = 1.0f;  // of what the fragments hold

    static FB_DEVICE uint32_t query_dim(uint32_t step, uint32_t word) {
        return 16 * step + lane_index() % 4 * 2 + word / 2 * 8;
    }
    static FB_DEVICE uint32_t output_dim(uint32_t block, uint32_t column) {
        return 8 * block + lane_index() % 4 * 2 + column;
    }

    static FB_DEVICE void keys(FragmentB (&steps)[2][2], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix / 2 * 8;
        FB_UNROLL
        for (uint32_t step = 0; step < 2; ++step) {
            const uint32_t piece = 4 * index + 2 * step + matrix % 2;
            const FragmentPair pair = load_fragments<false>(tile, Cached::byte(row, piece));
            steps[step][0] = pair.at[0];
            steps[step][1] = pair.at[1];
        }
    }

    static FB_DEVICE void values(FragmentB (&blocks)[4], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix % 2 * 8;
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            const uint32_t piece = 4 * index + 2 * half + matrix / 2;
            const FragmentPair pair = load_fragments<true>(tile, Cached::byte(row, piece));
            blocks[2 * half] = pair.at[0];
            blocks[2 * half + 1] = pair.at[1];
        }
    }
};

// e4m3 is exact in f16: its bits, moved, are a half that is too small by 2^8, subnormals included, and that
// factor goes into the scales. The NaN code would become 480; the writer saturates and never makes one.
template <uint32_t head_dim>
struct Cached<E4m3, head_dim> : Tile<E4m3, head_dim> {
    using Math = F16;
    static constexpr float kUnit = 256.0f;

    // A 32-bit word of K holds four neighbours of head_dim: they serve as k = 2t, 2t+1, 2t+8, 2t+9.
    static FB_DEVICE uint32_t query_dim(uint32_t step, uint32_t word) {
        return 16 * step + lane_index() % 4 * 4 + word / 2 * 2;
    }
    // A 32-bit word of V holds two neighbours of two tokens: the even ones are one block, the odd ones the next.
    static FB_DEVICE uint32_t output_dim(uint32_t block, uint32_t column) {
        return block / 2 * 16 + lane_index() % 4 * 4 + column * 2 + block % 2;
    }

    static FB_DEVICE void keys(FragmentB (&steps)[2][2], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix / 2 * 8;
        const FragmentPair pair = load_fragments<false>(tile, Cached::byte(row, 2 * index + matrix % 2));
        FB_UNROLL
        for (uint32_t step = 0; step < 2; ++step) {
            FB_UNROLL
            for (uint32_t block = 0; block < 2; ++block) {
                const uint32_t word = pair.at[block].word[step];
                steps[step][block] = {{halves(word << 8, word << 16), halves(word >> 8, word)}};
            }
        }
    }

    static FB_DEVICE void values(FragmentB (&blocks)[4], Shared<uint8_t> tile, uint32_t index) {
        const uint32_t matrix = lane_index() / 8, row = lane_index() % 8 + matrix % 2 * 8;
        const FragmentPair pair = load_fragments<true>(tile, Cached::byte(row, 2 * index + matrix / 2));
        FB_UNROLL
        for (uint32_t half = 0; half < 2; ++half) {
            const FragmentB& tokens = pair.at[half];
            FB_UNROLL
            for (uint32_t word = 0; word < 2; ++word) {
                const uint32_t bytes = tokens.word[word];
                blocks[2 * half].word[word] = halves(bytes << 8, bytes << 8);
                blocks[2 * half + 1].word[word] = halves(bytes, bytes);
            }
        }
    }

private:
    // The byte in bits 8 to 15 of `low` and that in bits 24 to 31 of `high`, as two halves.
    static FB_DEVICE uint32_t halves(uint32_t low, uint32_t high) {
        const uint32_t both = (low & 0xff00u) | (high & 0xff000000u);
        return (both & 0x80008000u) | (both & 0x7f007f00u) >> 1;
    }
};

}  // namespace flyball
