// The primitives that kernels are written in: memory, warp and tensor core, each under one name for a device
// (sm_80 and up) and for the CPU (csrc/simt), which emulates it to the fragment's last lane. Nothing else in a
// kernel may touch memory that other threads see: what goes through here is checked there.
//
// Collectives (shuffles, ldmatrix, mma) are for whole warps: all 32 lanes, converged.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../core/number.h"

#ifdef __CUDACC__
#define FB_DEVICE __device__ __forceinline__
#define FB_UNROLL _Pragma("unroll")
// Where more than one turn at a time would take too many registers.
#define FB_ROLL _Pragma("unroll 1")
#else
#include "../simt/simt.h"
#define FB_DEVICE inline
#define FB_UNROLL
#define FB_ROLL
#endif

namespace flyball {

constexpr uint32_t kLanes = 32;

// N values that move as one access.
template <class T, uint32_t N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];
    static_assert(sizeof(T) * N <= 16 && (sizeof(T) * N & (sizeof(T) * N - 1)) == 0, "one access is 1 to 16 bytes");
};

// ---- Where a thread is. Ctas and threads have one dimension.

FB_DEVICE uint32_t thread_index() {
#ifdef __CUDACC__
    return threadIdx.x;
#else
    return simt::thread();
#endif
}

FB_DEVICE uint32_t cta_index() {
#ifdef __CUDACC__
    return blockIdx.x;
#else
    return simt::cta();
#endif
}

FB_DEVICE uint32_t cta_count() {
#ifdef __CUDACC__
    return gridDim.x;
#else
    return simt::ctas();
#endif
}

FB_DEVICE uint32_t lane_index() { return thread_index() % kLanes; }
FB_DEVICE uint32_t warp_index() { return thread_index() / kLanes; }

// ---- Global memory: an array at an address of a parameter block.

template <class T>
struct Global {
    uint64_t address;

    FB_DEVICE explicit Global(uint64_t address) : address(address) {}

    FB_DEVICE uint64_t address_of(int64_t index) const { return address + uint64_t(index) * sizeof(T); }

    // N elements from `index` on, at the alignment of all of them.
    template <uint32_t N>
    FB_DEVICE Pack<T, N> load(int64_t index) const {
#ifdef __CUDACC__
        return *reinterpret_cast<const Pack<T, N>*>(pointer(index));
#else
        Pack<T, N> pack{};
        if (const void* from = simt::global_read(address_of(index), sizeof pack)) {
            std::memcpy(&pack, from, sizeof pack);
        }
        return pack;
#endif
    }

    template <uint32_t N>
    FB_DEVICE void store(int64_t index, Pack<T, N> pack) const {
#ifdef __CUDACC__
        *reinterpret_cast<Pack<T, N>*>(pointer(index)) = pack;
#else
        if (void* to = simt::global_write(address_of(index), sizeof pack)) std::memcpy(to, &pack, sizeof pack);
#endif
    }

#ifdef __CUDACC__
    // Known to be global: else every access would ask at run time which memory is meant.
    FB_DEVICE void* pointer(int64_t index) const { return __cvta_global_to_generic(address_of(index)); }
#endif

    FB_DEVICE T operator[](int64_t index) const { return load<1>(index).at[0]; }
    FB_DEVICE void set(int64_t index, T value) const { store<1>(index, Pack<T, 1>{{value}}); }
};

// ---- Shared memory: an array at a byte offset of the cta's dynamic shared memory.

#ifdef __CUDACC__
// As the swizzle of tensor copies wants it.
extern __shared__ __align__(1024) unsigned char fb_shared_memory[];
#endif

template <class T>
struct Shared {
    T* data;

    FB_DEVICE explicit Shared(uint32_t byte_offset)
#ifdef __CUDACC__
        : data(reinterpret_cast<T*>(fb_shared_memory + byte_offset)) {
    }
#else
        : data(reinterpret_cast<T*>(simt::shared_memory() + byte_offset)) {
    }
#endif

    template <uint32_t N>
    FB_DEVICE Pack<T, N> load(uint32_t index) const {
#ifdef __CUDACC__
        return *reinterpret_cast<const Pack<T, N>*>(data + index);
#else
        Pack<T, N> pack{};
        if (simt::shared_read(data + index, sizeof pack)) std::memcpy(&pack, data + index, sizeof pack);
        return pack;
#endif
    }

    template <uint32_t N>
    FB_DEVICE void store(uint32_t index, Pack<T, N> pack) const {
#ifdef __CUDACC__
        *reinterpret_cast<Pack<T, N>*>(data + index) = pack;
#else
        if (simt::shared_write(data + index, sizeof pack)) std::memcpy(data + index, &pack, sizeof pack);
#endif
    }

    FB_DEVICE T operator[](uint32_t index) const { return load<1>(index).at[0]; }
    FB_DEVICE void set(uint32_t index, T value) const { store<1>(index, Pack<T, 1>{{value}}); }
};

// ---- Barriers. Each also orders memory: what was written before is seen after.

FB_DEVICE void sync_cta() {
#ifdef __CUDACC__
    __syncthreads();
#else
    simt::sync_cta();
#endif
}

// A barrier that also tells every thread for how many of them `mine` is true.
FB_DEVICE uint32_t sync_cta_count(bool mine) {
#ifdef __CUDACC__
    return uint32_t(__syncthreads_count(mine));
#else
    return simt::sync_cta_count(mine);
#endif
}

FB_DEVICE void sync_warp() {
#ifdef __CUDACC__
    __syncwarp();
#else
    simt::sync_warp();
#endif
}

// The same value, of which the compiler no longer knows that it does not change: what is computed from it in a loop
// stays there, and takes no registers outside.
FB_DEVICE uint32_t kept_in_loop(uint32_t value) {
#ifdef __CUDACC__
    asm volatile("" : "+r"(value));
#endif
    return value;
}

// ---- Shuffles, and reductions in a fixed order: every lane gets the same bits.

#ifndef __CUDACC__
namespace host {

struct ShuffleIn {
    uint64_t value;
    uint64_t source;  // the lane whose value is wanted
};

inline uint64_t shuffle(uint64_t value, uint64_t source) {
    simt::Slot slot{};
    const ShuffleIn in = {value, source};
    std::memcpy(slot.in, &in, sizeof in);
    const simt::Slot& mine = simt::collective(slot, [](simt::Slot* lanes) {
        for (uint32_t lane = 0; lane < kLanes; ++lane) {
            ShuffleIn in;
            std::memcpy(&in, lanes[lane].in, sizeof in);
            std::memcpy(lanes[lane].out, lanes[in.source].in, sizeof in.value);
        }
    });
    std::memcpy(&value, mine.out, sizeof value);
    return value;
}

inline uint32_t ballot(bool mine) {
    simt::Slot slot{};
    slot.in[0] = mine;
    const simt::Slot& all = simt::collective(slot, [](simt::Slot* lanes) {
        uint32_t bits = 0;
        for (uint32_t lane = 0; lane < kLanes; ++lane) bits |= uint32_t(lanes[lane].in[0]) << lane;
        for (uint32_t lane = 0; lane < kLanes; ++lane) std::memcpy(lanes[lane].out, &bits, sizeof bits);
    });
    uint32_t bits;
    std::memcpy(&bits, all.out, sizeof bits);
    return bits;
}

}  // namespace host
#endif

// The value of lane `lane ^ mask`.
FB_DEVICE float shuffle_xor(float value, uint32_t mask) {
#ifdef __CUDACC__
    return __shfl_xor_sync(0xffffffffu, value, int(mask));
#else
    return float_of(uint32_t(host::shuffle(bits_of(value), lane_index() ^ mask)));
#endif
}

FB_DEVICE uint64_t shuffle_xor(uint64_t value, uint32_t mask) {
#ifdef __CUDACC__
    return __shfl_xor_sync(0xffffffffu, value, int(mask));
#else
    return host::shuffle(value, lane_index() ^ mask);
#endif
}

// The value of lane `lane`.
FB_DEVICE uint32_t shuffle(uint32_t value, uint32_t lane) {
#ifdef __CUDACC__
    return __shfl_sync(0xffffffffu, value, int(lane));
#else
    return uint32_t(host::shuffle(value, lane));
#endif
}

FB_DEVICE float shuffle(float value, uint32_t lane) { return float_of(shuffle(bits_of(value), lane)); }

// The value of lane `lane - delta`; lanes below `delta` keep their own.
FB_DEVICE uint64_t shuffle_up(uint64_t value, uint32_t delta) {
#ifdef __CUDACC__
    return __shfl_up_sync(0xffffffffu, value, delta);
#else
    return host::shuffle(value, lane_index() < delta ? lane_index() : lane_index() - delta);
#endif
}

// Over groups of `width` neighbouring lanes, a power of two.
template <uint32_t width = kLanes>
FB_DEVICE float warp_sum(float value) {
    FB_UNROLL
    for (uint32_t mask = width / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

template <uint32_t width = kLanes>
FB_DEVICE float warp_max(float value) {
    FB_UNROLL
    for (uint32_t mask = width / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
    return value;
}

FB_DEVICE uint64_t warp_max(uint64_t value) {
#ifdef __CUDACC__
    const uint32_t high = uint32_t(value >> 32), highest = __reduce_max_sync(0xffffffffu, high);
    return uint64_t(highest) << 32 | __reduce_max_sync(0xffffffffu, high == highest ? uint32_t(value) : 0u);
#else
    for (uint32_t mask = kLanes / 2; mask > 0; mask /= 2) {
        const uint64_t other = shuffle_xor(value, mask);
        value = other > value ? other : value;
    }
    return value;
#endif
}

FB_DEVICE uint64_t warp_sum(uint64_t value) {
#ifdef __CUDACC__
    // In pieces of which 32 add up within 32 bits.
    const uint64_t low = __reduce_add_sync(0xffffffffu, uint32_t(value) & 0x7ffffffu);
    const uint64_t middle = __reduce_add_sync(0xffffffffu, uint32_t(value >> 27) & 0x7ffffffu);
    const uint64_t high = __reduce_add_sync(0xffffffffu, uint32_t(value >> 54));
    return low + (middle << 27) + (high << 54);
#else
    for (uint32_t mask = kLanes / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
#endif
}

// The lanes for which it is true, as bits.
FB_DEVICE uint32_t warp_ballot(bool mine) {
#ifdef __CUDACC__
    return __ballot_sync(0xffffffffu, mine);
#else
    return host::ballot(mine);
#endif
}

// Whether it is true for any lane.
FB_DEVICE bool warp_any(bool mine) {
#ifdef __CUDACC__
    return __any_sync(0xffffffffu, mine);
#else
    return host::ballot(mine) != 0;
#endif
}

FB_DEVICE uint32_t bit_count(uint32_t bits) {
#ifdef __CUDACC__
    return uint32_t(__popc(bits));
#else
    return uint32_t(__builtin_popcount(bits));
#endif
}

// ---- Atomic operations on shared memory: of integers, so that their order changes nothing.

// Returns what was there: the order of those who add decides who gets what.
FB_DEVICE uint32_t atomic_add(Shared<uint32_t> shared, uint32_t index, uint32_t value) {
#ifdef __CUDACC__
    return atomicAdd(shared.data + index, value);
#else
    if (!simt::shared_atomic(shared.data + index, sizeof value)) return 0;
    const uint32_t before = shared.data[index];
    shared.data[index] += value;
    return before;
#endif
}

// Of global memory; returns what was there.
FB_DEVICE uint32_t atomic_add(Global<uint32_t> global, int64_t index, uint32_t value) {
#ifdef __CUDACC__
    return atomicAdd(reinterpret_cast<uint32_t*>(global.pointer(index)), value);
#else
    void* at = simt::global_write(global.address_of(index), sizeof value);
    uint32_t before = 0;
    if (!at) return before;
    std::memcpy(&before, at, sizeof before);
    value += before;
    std::memcpy(at, &value, sizeof value);
    return before;
#endif
}

// What this thread, and all that it is ordered after, wrote before is seen by whoever sees what it writes after.
FB_DEVICE void fence() {
#ifdef __CUDACC__
    // As __threadfence(), which is sequentially consistent too, and slower.
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
#endif
}

// ---- Launches that overlap (PTX ISA, griddepcontrol): where the launch does not ask for it, these do nothing.

// Until the grid before this one is done and its writes are seen. Before any write, and any read of what that grid may
// have written.
FB_DEVICE void wait_for_previous_grid() {
#ifndef __CUDACC__
    simt::wait_for_previous_grid();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next grid may begin as soon as there is room, up to its own wait.
FB_DEVICE void allow_next_grid() {
#ifndef __CUDACC__
    simt::allow_next_grid();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Both at once, for a kernel that has nothing to do before.
FB_DEVICE void follow_previous_grid() {
    wait_for_previous_grid();
    allow_next_grid();
}

// ---- Asynchronous copies from global to shared memory, in groups (PTX ISA, cp.async).

// 16 bytes from `source`; zeros, and nothing read, if not `valid`.
template <class T>
FB_DEVICE void copy_async(Shared<T> target, uint32_t index, uint64_t source, bool valid) {
#ifdef __CUDACC__
    // Past the first-level cache: what is streamed once is not worth keeping there.
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     uint32_t(__cvta_generic_to_shared(target.data + index))),
                 "l"(source), "r"(valid ? 16 : 0)
                 : "memory");
#else
    simt::copy_async(target.data + index, source, valid ? 16 : 0);
#endif
}

// Ends a group, which may be empty.
FB_DEVICE void copy_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    simt::copy_async_commit();
#endif
}

// Until at most `left` of this thread's groups are in flight. Others see the data after a barrier.
template <uint32_t left>
FB_DEVICE void copy_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#else
    simt::copy_async_wait(left);
#endif
}

// ---- Tensor core fragments (PTX ISA, "Matrix fragments for mma.m16n8k16"). With g = lane / 4, t = lane % 4:
//   A 16x16: word 0 holds (g, 2t..2t+1), word 1 (g + 8, same), word 2 (g, 2t+8..2t+9), word 3 (g + 8, those)
//   B 16x8:  word 0 holds (2t..2t+1, g), word 1 (2t+8..2t+9, g)
//   C 16x8:  0, 1 are (g, 2t..2t+1), 2, 3 are (g + 8, same)

struct FragmentA {
    uint32_t word[4];
};
struct FragmentB {
    uint32_t word[2];
};
struct FragmentC {
    float at[4];
};

// Two values as one word, the first in its low half.
template <class T>
FB_DEVICE uint32_t pack_pair(float low, float high);

template <>
FB_DEVICE uint32_t pack_pair<Bf16>(float low, float high) {
#ifdef __CUDACC__
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return from_float<Bf16>(low).bits | uint32_t(from_float<Bf16>(high).bits) << 16;
#endif
}

template <>
FB_DEVICE uint32_t pack_pair<F16>(float low, float high) {
#ifdef __CUDACC__
    uint32_t word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return from_float<F16>(low).bits | uint32_t(from_float<F16>(high).bits) << 16;
#endif
}

// Byte i of the result is byte `selector >> 4 * i & 3` of the word.
FB_DEVICE uint32_t permute_bytes(uint32_t word, uint32_t selector) {
#ifdef __CUDACC__
    return __byte_perm(word, 0, selector);
#else
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; ++i) result |= (word >> 8 * (selector >> 4 * i & 3) & 0xff) << 8 * i;
    return result;
#endif
}

// The two e4m3 in half `high` of a word as two f16, exactly. The NaN code is NaN where there is an instruction (sm_89
// and up), else 480.
template <uint32_t high>
FB_DEVICE uint32_t halves_of_e4m3(uint32_t word) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint32_t halves;
    // Not by a shift: the conversion takes either half of a register.
    if constexpr (high) {
        asm("{ .reg .b16 a, b; mov.b32 {a, b}, %1; cvt.rn.f16x2.e4m3x2 %0, b; }" : "=r"(halves) : "r"(word));
    } else {
        asm("{ .reg .b16 a, b; mov.b32 {a, b}, %1; cvt.rn.f16x2.e4m3x2 %0, a; }" : "=r"(halves) : "r"(word));
    }
    return halves;
#elif defined(__CUDA_ARCH__)
    // The bits, moved, are a half that is too small by 2^8, subnormals included.
    const uint32_t both = __byte_perm(word >> 16 * high, 0, 0x1404);
    const uint32_t small = (both & 0x80008000u) | (both & 0x7f007f00u) >> 1;
    uint32_t halves;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(halves) : "r"(small), "r"(0x5c005c00u));
    return halves;
#else
    const auto half = [](uint32_t byte) { return from_float<F16>(to_float(E4m3{uint8_t(byte)})).bits; };
    word >>= 16 * high;
    return half(word & 0xff) | uint32_t(half(word >> 8 & 0xff)) << 16;
#endif
}

#ifndef __CUDACC__
namespace host {

template <class T>
float half_of(uint32_t word, uint32_t half) {
    return to_float(T{uint16_t(word >> 16 * half)});
}

struct MmaIn {
    FragmentA a;
    FragmentB b;
    FragmentC c;
};

// The sum of one element runs over k in order; a tensor core's order is not documented.
template <class T>
void mma(simt::Slot* lanes) {
    float a[16][16], b[16][8];
    MmaIn in[kLanes];
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        std::memcpy(&in[lane], lanes[lane].in, sizeof in[lane]);
        const uint32_t g = lane / 4, t = lane % 4;
        for (uint32_t word = 0; word < 4; ++word) {
            for (uint32_t half = 0; half < 2; ++half) {
                a[g + word % 2 * 8][2 * t + half + word / 2 * 8] = half_of<T>(in[lane].a.word[word], half);
                if (word < 2) b[2 * t + half + word * 8][g] = half_of<T>(in[lane].b.word[word], half);
            }
        }
    }
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        FragmentC c = in[lane].c;
        for (uint32_t at = 0; at < 4; ++at) {
            const uint32_t row = lane / 4 + at / 2 * 8, column = lane % 4 * 2 + at % 2;
            for (uint32_t k = 0; k < 16; ++k) c.at[at] += a[row][k] * b[k][column];
        }
        std::memcpy(lanes[lane].out, &c, sizeof c);
    }
}

template <class T>
void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) {
    simt::Slot slot{};
    const MmaIn in = {a, b, c};
    static_assert(sizeof in <= sizeof slot.in, "");
    std::memcpy(slot.in, &in, sizeof in);
    std::memcpy(&c, simt::collective(slot, mma<T>).out, sizeof c);
}

// Lane 8i + r brings row r of matrix i; lane gets of each matrix, row g, columns 2t and 2t + 1, or, where
// transposed, rows 2t and 2t + 1 of column g.
template <bool transposed>
void ldmatrix(simt::Slot* lanes) {
    uint16_t row[kLanes][8];
    for (uint32_t lane = 0; lane < kLanes; ++lane) std::memcpy(row[lane], lanes[lane].in, sizeof row[lane]);
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const uint32_t g = lane / 4, t = lane % 4;
        for (uint32_t matrix = 0; matrix < 4; ++matrix) {
            const uint16_t pair[2] = {transposed ? row[8 * matrix + 2 * t][g] : row[8 * matrix + g][2 * t],
                                      transposed ? row[8 * matrix + 2 * t + 1][g] : row[8 * matrix + g][2 * t + 1]};
            std::memcpy(lanes[lane].out + 4 * matrix, pair, sizeof pair);
        }
    }
}

}  // namespace host
#endif

// c += a * b, products exact, sums in float.
template <class T>
FB_DEVICE void mma(FragmentC& c, const FragmentA& a, const FragmentB& b);

#ifdef __CUDACC__
#define FB_MMA(T, type)                                                                                     \
    template <>                                                                                             \
    FB_DEVICE void mma<T>(FragmentC & c, const FragmentA& a, const FragmentB& b) {                          \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "    \
            "{%8,%9}, {%0,%1,%2,%3};"                                                                       \
            : "+f"(c.at[0]), "+f"(c.at[1]), "+f"(c.at[2]), "+f"(c.at[3])                                    \
            : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1])); \
    }
FB_MMA(Bf16, "bf16")
FB_MMA(F16, "f16")
#undef FB_MMA
#else
template <>
FB_DEVICE void mma<Bf16>(FragmentC& c, const FragmentA& a, const FragmentB& b) {
    host::mma<Bf16>(c, a, b);
}
template <>
FB_DEVICE void mma<F16>(FragmentC& c, const FragmentA& a, const FragmentB& b) {
    host::mma<F16>(c, a, b);
}
#endif

struct FragmentPair {
    FragmentB at[2];
};

// Four 8x8 matrices of 16-bit elements as two B fragments (PTX ISA, ldmatrix): lanes 8i to 8i + 7 name the rows
// of matrix i, 16 bytes each; matrices 0 and 1 are the words of the first fragment. `transposed` where shared
// memory holds B's rows (k), not its columns (n), contiguously. A row lies at `index` but for the bits of `flip`, which
// are turned over in its address.
template <bool transposed, class T>
FB_DEVICE FragmentPair load_fragments(Shared<T> tile, uint32_t index, uint32_t flip = 0) {
    FragmentPair pair;
#ifdef __CUDACC__
    const uint32_t row = uint32_t(__cvta_generic_to_shared(tile.data + index)) ^ flip;
    if constexpr (transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(pair.at[0].word[0]), "=r"(pair.at[0].word[1]), "=r"(pair.at[1].word[0]),
                       "=r"(pair.at[1].word[1])
                     : "r"(row)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(pair.at[0].word[0]), "=r"(pair.at[0].word[1]), "=r"(pair.at[1].word[0]),
                       "=r"(pair.at[1].word[1])
                     : "r"(row)
                     : "memory");
    }
#else
    simt::Slot slot{};
    const auto* named = reinterpret_cast<const unsigned char*>(tile.data + index);
    const unsigned char* row = simt::shared_memory() + (uint64_t(named - simt::shared_memory()) ^ flip);
    if (simt::shared_read_for_warp(row, 16)) std::memcpy(slot.in, row, 16);
    std::memcpy(&pair, simt::collective(slot, host::ldmatrix<transposed>).out, sizeof pair);
#endif
    return pair;
}

// A 16x16 block of 16-bit elements as an A fragment: lanes 0 to 7 and 8 to 15 name the rows of its left half, the
// others those of its right half.
template <class T>
FB_DEVICE FragmentA load_fragment_a(Shared<T> tile, uint32_t index) {
    const FragmentPair pair = load_fragments<false>(tile, index);
    return {{pair.at[0].word[0], pair.at[0].word[1], pair.at[1].word[0], pair.at[1].word[1]}};
}

}  // namespace flyball
