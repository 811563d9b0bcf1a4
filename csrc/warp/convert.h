// Packs of small floats from and to floats: a device converts in pairs.
#pragma once

#include "warp.h"

namespace flyball {

template <class T, uint32_t N>
FB_DEVICE void widen(float (&x)[N], Pack<T, N> in) {
    FB_UNROLL
    for (uint32_t i = 0; i < N; ++i) x[i] = to_float(in.at[i]);
}

// By words: a device would else keep every half of one in a register of its own.
template <uint32_t N>
FB_DEVICE void widen(float (&x)[N], Pack<Bf16, N> in) {
    Pack<uint32_t, N / 2> words;
    memcpy(&words, &in, sizeof words);
    FB_UNROLL
    for (uint32_t i = 0; i < N / 2; ++i) {
        x[2 * i] = float_of(words.at[i] << 16);
        x[2 * i + 1] = float_of(words.at[i] & 0xffff0000u);
    }
}

#ifdef __CUDA_ARCH__
// Four values as a word of e4m3, the first in its low byte, saturated.
FB_DEVICE uint32_t pack_four(float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 890
    uint32_t word;
    asm("{ .reg .b16 low, high;\n"
        "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
        "mov.b32 %0, {low, high}; }"
        : "=r"(word)
        : "f"(a), "f"(b), "f"(c), "f"(d));
    return word;
#else
    return from_float<E4m3>(a).bits | uint32_t(from_float<E4m3>(b).bits) << 8 |
           uint32_t(from_float<E4m3>(c).bits) << 16 | uint32_t(from_float<E4m3>(d).bits) << 24;
#endif
}
#endif

// Rounds to nearest, ties to even; E4m3 saturates. The words that memory is to hold: of a pack of bytes a device would
// take them apart and put them together again.
template <class T, uint32_t N>
FB_DEVICE auto narrow_words(const float (&x)[N]) {
    static_assert(N * sizeof(T) % sizeof(uint32_t) == 0, "whole words");
    Pack<uint32_t, N * sizeof(T) / sizeof(uint32_t)> words;
#ifdef __CUDA_ARCH__
    FB_UNROLL
    for (uint32_t word = 0; word < sizeof words / sizeof(uint32_t); ++word) {
        if constexpr (sizeof(T) == 1) {
            words.at[word] = pack_four(x[4 * word], x[4 * word + 1], x[4 * word + 2], x[4 * word + 3]);
        } else {
            words.at[word] = pack_pair<T>(x[2 * word], x[2 * word + 1]);
        }
    }
#else
    Pack<T, N> out;
    for (uint32_t i = 0; i < N; ++i) out.at[i] = from_float<T>(x[i]);
    memcpy(&words, &out, sizeof words);
#endif
    return words;
}

template <class T, uint32_t N>
FB_DEVICE Pack<T, N> narrow(const float (&x)[N]) {
    Pack<T, N> out;
    const auto words = narrow_words<T>(x);
    memcpy(&out, &words, sizeof out);
    return out;
}

}  // namespace flyball
