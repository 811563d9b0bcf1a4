// Rotary position embedding (Su et al., 2021): pair i of a head turns by position * frequency(i).
//
// A float cannot hold position * frequency: at position 100,000 its last bit is worth half a degree. So a
// frequency is kept in turns as a 64-bit fraction, and the product wraps by itself: what is lost is whole
// turns. Only the remainder becomes a float.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace flyball {

// Llama 3.1's stretching of low frequencies; `factor` 1 changes nothing.
struct RopeScaling {
    double factor = 1.0;
    double low_frequency_factor = 1.0;
    double high_frequency_factor = 4.0;
    double original_context = 8192.0;
};

// Turns per position of pair `pair`, in units of 2^-64. For the host: once per model.
inline uint64_t rope_turns(uint32_t pair, uint32_t head_dim, double theta, RopeScaling scaling) {
    constexpr double kTau = 6.283185307179586476925;
    double frequency = std::pow(theta, -2.0 * pair / head_dim) / kTau;
    if (scaling.factor != 1.0) {
        // Turns over the original context: few of them are stretched, many are not, between is a blend.
        const double turns = scaling.original_context * frequency;
        const double span = scaling.high_frequency_factor - scaling.low_frequency_factor;
        double blend = (turns - scaling.low_frequency_factor) / span;
        blend = blend < 0.0 ? 0.0 : blend > 1.0 ? 1.0 : blend;
        frequency *= blend + (1.0 - blend) / scaling.factor;
    }
    return uint64_t(std::ldexp(frequency, 64));
}

struct Rotation {
    float cosine;
    float sine;
};

FB_HD Rotation rotation(uint64_t turns, uint32_t position) {
    const int64_t phase = int64_t(turns * position);  // in [-1/2, 1/2) turns
#ifdef __CUDA_ARCH__
    Rotation rotation;
    sincospif(float(phase) * 0x1p-63f, &rotation.sine, &rotation.cosine);
    return rotation;
#else
    const double angle = double(float(phase)) * 0x1p-63 * 3.14159265358979323846;
    return {float(std::cos(angle)), float(std::sin(angle))};
#endif
}

}  // namespace flyball
