// The small floats as bits, and their conversions: round to nearest, ties to even, the same on every machine.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace flyball {

struct Bf16 {
    uint16_t bits;
};
struct F16 {
    uint16_t bits;
};
// 4 exponent and 3 mantissa bits, no infinity, NaN is 0x7f and 0xff, the largest value 448
// (Micikevicius et al., "FP8 formats for deep learning", 2022).
struct E4m3 {
    uint8_t bits;
};

constexpr float kE4m3Max = 448.0f;

FB_HD uint32_t bits_of(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(value);
#else
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

FB_HD float float_of(uint32_t bits) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

// The product alone, rounded: never one multiply-add with the sum that follows, which a compiler may make of it in one
// copy of a loop and not in another, so that a row's bits would depend on which of them it took.
FB_HD float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

FB_HD bool is_nan(uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

// `value >> shift`, rounded to nearest, ties to even. `shift` is in 1..=31.
FB_HD uint32_t shift_right_rounded(uint32_t value, uint32_t shift) {
    const uint32_t odd = value >> shift & 1u;
    return (value + (1u << (shift - 1)) - 1u + odd) >> shift;
}

FB_HD float to_float(Bf16 x) { return float_of(uint32_t(x.bits) << 16); }

FB_HD float to_float(F16 x) {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
    return value;
#else
    const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    // The bits of a half, taken as those of a float, are too small by 2^112: exact for subnormals too.
    return float_of(sign | bits_of(float_of(magnitude << 13) * float_of(0x77800000u)));
#endif
}

FB_HD float to_float(E4m3 x) {
    const uint32_t sign = uint32_t(x.bits & 0x80u) << 24, magnitude = x.bits & 0x7fu;
    if (magnitude == 0x7fu) return float_of(sign | 0x7fc00000u);
    // As a half's, by 2^120.
    return float_of(sign | bits_of(float_of(magnitude << 20) * float_of(0x7b800000u)));
}

template <class T>
FB_HD T from_float(float value);

template <>
FB_HD float from_float<float>(float value) {
    return value;
}

template <>
FB_HD Bf16 from_float<Bf16>(float value) {
    const uint32_t bits = bits_of(value);
    if (is_nan(bits)) return {uint16_t(bits >> 16 | 0x40u)};
    // The carry of the rounding walks into the exponent, and from the largest value to infinity.
    return {uint16_t((uint64_t(bits) + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

// Rounds a magnitude to a format with `mantissa` bits whose smallest normal exponent is `exponent_min`;
// the result is in that format's bits and may exceed its largest value.
FB_HD uint32_t round_magnitude(uint32_t magnitude, uint32_t mantissa, int exponent_min) {
    const int exponent = int(magnitude >> 23) - 127;
    if (exponent >= exponent_min) {
        const uint32_t rebased = magnitude - (uint32_t(exponent_min - 1 + 127) << 23);
        return shift_right_rounded(rebased, 23 - mantissa);
    }
    // A subnormal there: the significand in units of 2^(exponent_min - mantissa).
    const int shift = int(23 - mantissa) + exponent_min - exponent;
    if (exponent == -127 || shift > 24) return 0;
    return shift_right_rounded((magnitude & 0x7fffffu) | 0x800000u, uint32_t(shift));
}

template <>
FB_HD F16 from_float<F16>(float value) {
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u;
    if (is_nan(bits)) return {uint16_t(sign | 0x7e00u)};
    const uint32_t half = round_magnitude(bits & 0x7fffffffu, 10, -14);
    return {uint16_t(sign | (half > 0x7c00u ? 0x7c00u : half))};
}

// Saturates: what is larger than 448, infinity included, becomes 448; NaN stays NaN.
template <>
FB_HD E4m3 from_float<E4m3>(float value) {
    const uint32_t bits = bits_of(value), sign = bits >> 24 & 0x80u;
    if (is_nan(bits)) return {uint8_t(sign | 0x7fu)};
    const uint32_t small = round_magnitude(bits & 0x7fffffffu, 3, -6);
    return {uint8_t(sign | (small > 0x7eu ? 0x7eu : small))};
}

}  // namespace flyball
