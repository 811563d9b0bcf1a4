// How an operand of wgmma lies in shared memory, as the hardware is told (PTX ISA, "Matrix descriptor"): a plain
// 64-bit word, here for rows of 128 bytes with the 128-byte swizzle.
#pragma once

#include <cstdint>

#include "../core/host_device.h"

namespace flyball {

// A sub-tile has rows of 128 bytes; 8 of them, 1024 bytes at a multiple of 1024, are the unit of the swizzle.
constexpr uint32_t kSwizzleRow = 128;
constexpr uint32_t kSwizzleUnit = 8 * kSwizzleRow;

// Where byte `byte` of a sub-tile lies: its 16-byte piece is exchanged with another of the same row.
FB_HD constexpr uint32_t swizzled(uint32_t byte) { return byte ^ (byte / kSwizzleRow % 8) * 16; }

// `start` is a shared address at a multiple of 16, `leading` and `stride` are distances in bytes:
// - k innermost: units of 8 rows are `stride` apart; `leading` is not used.
// - m or n innermost: of 64 elements' units, the next 64 are `leading` apart, the next 8 of k are `stride` apart.
FB_HD constexpr uint64_t descriptor(uint32_t start, uint32_t leading, uint32_t stride) {
    return uint64_t(start >> 4 & 0x3fffu) | uint64_t(leading >> 4 & 0x3fffu) << 16 |
           uint64_t(stride >> 4 & 0x3fffu) << 32 | uint64_t(1) << 62;
}

// The same operand, begun `bytes` later. Sums stay inside the field: shared memory ends below 2^18.
FB_HD constexpr uint64_t advance(uint64_t descriptor, uint32_t bytes) { return descriptor + (bytes >> 4); }

// What a descriptor says, for who reads it instead of the hardware.
struct Operand {
    uint32_t start;
    uint32_t leading;
    uint32_t stride;
};
FB_HD constexpr Operand operand(uint64_t descriptor) {
    return {uint32_t(descriptor & 0x3fffu) << 4, uint32_t(descriptor >> 16 & 0x3fffu) << 4,
            uint32_t(descriptor >> 32 & 0x3fffu) << 4};
}

// Where element (row, k) lies, k innermost.
FB_HD constexpr uint32_t element_k(Operand at, uint32_t row, uint32_t k) {
    return swizzled(at.start + row / 8 * at.stride + row % 8 * kSwizzleRow + 2 * k);
}
// Where element (k, n) lies, n innermost.
FB_HD constexpr uint32_t element_n(Operand at, uint32_t k, uint32_t n) {
    return swizzled(at.start + n / 64 * at.leading + k / 8 * at.stride + k % 8 * kSwizzleRow + n % 64 * 2);
}

// By hand: 0x40 at bit 32 is 1024 >> 4, bit 62 the swizzle of 128 bytes.
static_assert(descriptor(0x8400, 16, 1024) == 0x4000004000010840u, "");
static_assert(operand(advance(descriptor(0x8400, 16384, 1024), 32)).start == 0x8420, "");
static_assert(operand(descriptor(0, 16384, 1024)).leading == 16384, "");
static_assert(swizzled(0x0080) == 0x0090 && swizzled(0x03f0) == 0x0380 && swizzled(0x0470) == 0x0470, "");

}  // namespace flyball
