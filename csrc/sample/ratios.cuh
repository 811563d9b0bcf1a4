// A histogram of a row by mass: its bins are equal ratios of it, from the largest logit down.
#pragma once

#include "kth.cuh"
#include "scores.cuh"

namespace flyball {

// It counts tokens, whose bin tells their mass within a hundredth or so: to add up masses of 64 bits would take several
// atomic operations each, one after the other where tokens are alike. What lies below all bins is bin 0, uncounted.
class Ratios {
public:
    // The bins reach down to where a token weighs `tail`, the largest logit weighing 1.
    FB_DEVICE Ratios(const Tempered& tempered, float tail, const Histogram& histogram)
        : tempered(tempered), histogram(histogram), rate(kTop / fminf(fmaxf(-log2f(tail), 1.0f), 40.0f)) {}

    FB_DEVICE void count(float distance) const {
        const float at = place(distance);
        if (at >= kBegin + 1.0f) histogram.count(bits_of(at) - bits_of(kBegin));
    }

    // The bin in which a mass from the top is reached at the earliest.
    FB_DEVICE uint32_t earliest(uint64_t mass) const { return reached(mass, kBeside); }
    // And at the latest.
    FB_DEVICE uint32_t latest(uint64_t mass) const { return reached(mass, -kBeside); }

    // The least key in a bin or above it: each thread tries another one, 10 bits of it at a time.
    FB_DEVICE uint32_t begin_of(uint32_t bin) const {
        const float begin = bin == 0 ? minus_infinity() : kBegin + float(bin);
        const uint32_t high = order_key(tempered.max);
        uint32_t below = 0;
        FB_ROLL
        for (int32_t shift = 22; shift > -10; shift -= 10) {
            const uint32_t low = shift < 0 ? 0 : uint32_t(shift), more = below + (thread_index() << low);
            const bool lies_below = more < kLeastKey || place(tempered.distance(order_value(more))) < begin;
            below += sync_cta_count(thread_index() > 0 && more <= high && lies_below) << low;
        }
        return below + 1;
    }

private:
    // From here on floats are whole numbers, so that rounding finds the bin, and its bits are those of the float.
    static constexpr float kBegin = 0x1p23f, kTop = float(Histogram::kBins - 1);
    // How far a bin's edges may lie from its middle, in bins: half, and an eighth for what was rounded.
    static constexpr float kBeside = 0.625f;

    const Tempered tempered;
    const Histogram histogram;
    const float rate;  // bins in a log2 unit

    FB_DEVICE float place(float distance) const { return fmaf(distance, rate, kBegin + kTop); }

    FB_DEVICE uint32_t reached(uint64_t mass, float beside) const {
        return histogram.reached(mass, [&](uint32_t bin, uint32_t count) {
            // Whatever is looked for and was not above is there.
            if (bin == 0) return uint64_t(1) << 62;
            const float distance = fminf((float(bin) - kTop + beside) / rate, 0.0f);
            return count * Tempered::mass_of(exp2_fast(distance));
        });
    }
};

}  // namespace flyball
