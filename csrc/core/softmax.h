// Online softmax (Milakov and Gimelshein, 2018): what is known of a row after some of its logits.
//
// Logits are in log2 units, that is, already times log2(e), so that a weight is one exp2.
#pragma once

#include <cmath>

#include "host_device.h"

namespace flyball {

constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;

FB_HD float minus_infinity() { return -INFINITY; }

// One MUFU on a device; on the host, correctly rounded or nearly so.
FB_HD float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// The weight of what was summed under `from`, now that the maximum is `to`, which is not below it. Where
// nothing was summed both may be minus infinity, and their difference would be NaN.
FB_HD float rescale(float from, float to) { return from == minus_infinity() ? 0.0f : exp2_fast(from - to); }

struct Softmax {
    float max = minus_infinity();
    float sum = 0.0f;  // of exp2(logit - max)

    FB_HD bool empty() const { return sum == 0.0f; }

    // What the weighted sum of values is divided by: nothing seen is an output of zeros, not 0 / 0.
    FB_HD float normalizer() const { return empty() ? 0.0f : 1.0f / sum; }

    // The natural logarithm of the sum of exponentials.
    FB_HD float lse() const { return empty() ? minus_infinity() : (max + log2f(sum)) * kLn2; }
};

}  // namespace flyball
