// What only sm_90a has, each under one name for a device and for the CPU: barriers that count bytes (mbarrier),
// tensor copies (TMA), matrix products of a warpgroup (wgmma), named barriers, and registers that roles trade.
// Source of all semantics: PTX ISA 8.x, "Parallel synchronization", "Asynchronous data movement" and "Asynchronous
// warpgroup level matrix instructions". csrc/simt/async.h emulates them, late arrivals included.
#pragma once

#include "../warp/warp.h"
#include "descriptor.h"

#ifndef __CUDACC__
#include "../simt/async.h"
#endif

namespace flyball {

#ifdef __CUDACC__
// The address of a byte of the cta's dynamic shared memory, as asynchronous units and descriptors take it.
FB_DEVICE uint32_t shared_address(uint32_t byte) {
    return uint32_t(__cvta_generic_to_shared(fb_shared_memory)) + byte;
}
#else
FB_DEVICE uint32_t shared_address(uint32_t byte) { return byte; }
#endif

// Clears 16 bytes of shared memory; the order is kept by the barriers below, which the shadow memory does not know.
FB_DEVICE void clear_ordered(uint32_t byte) {
    const Pack<uint32_t, 4> zeros = {};
#ifdef __CUDACC__
    *reinterpret_cast<Pack<uint32_t, 4>*>(fb_shared_memory + byte) = zeros;
#else
    simt::ordered_write(byte, &zeros, sizeof zeros);
#endif
}

// ---- mbarrier: a phase ends when as many as expected have arrived and as many bytes as announced have come.

struct Barrier {
    uint32_t byte;  // in shared memory, a multiple of 8

    FB_DEVICE void init(uint32_t arrivals) const {
#ifdef __CUDACC__
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(byte)), "r"(arrivals) : "memory");
#else
        simt::barrier_init(byte, arrivals);
#endif
    }

    // What this thread wrote or read before is done, for whoever waits.
    FB_DEVICE void arrive() const {
#ifdef __CUDACC__
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(byte)) : "memory");
#else
        simt::barrier_arrive(byte, 0);
#endif
    }

    // Arrives, and announces bytes of tensor copies.
    FB_DEVICE void arrive_expecting(uint32_t bytes) const {
#ifdef __CUDACC__
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(byte)), "r"(bytes)
                     : "memory");
#else
        simt::barrier_arrive(byte, bytes);
#endif
    }

    // Until a phase of this parity has ended. The phase before the first counts as ended, with parity 1.
    FB_DEVICE void wait(uint32_t parity) const {
#ifdef __CUDACC__
        asm volatile(
            "{\n"
            ".reg .pred done;\n"
            "again:\n"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
            "@!done bra again;\n"
            "}\n" ::"r"(shared_address(byte)),
            "r"(parity)
            : "memory");
#else
        simt::barrier_wait(byte, parity);
#endif
    }
};

// Makes fresh barriers known to asynchronous units; a barrier of the cta must follow.
FB_DEVICE void publish_barriers() {
#ifdef __CUDACC__
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// What this thread wrote to shared memory becomes visible to wgmma and to tensor copies; a barrier must follow.
FB_DEVICE void fence_async_proxy() {
#ifdef __CUDACC__
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
    simt::fence_async_proxy();
#endif
}

// ---- Named barriers, 1 to 15: `threads` of the cta, whole warps, come by either way; only `sync` waits.

FB_DEVICE void sync_named(uint32_t id, uint32_t threads) {
#ifdef __CUDACC__
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    simt::named_barrier(id, threads, true);
#endif
}

FB_DEVICE void arrive_named(uint32_t id, uint32_t threads) {
#ifdef __CUDACC__
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    simt::named_barrier(id, threads, false);
#endif
}

// ---- Registers per thread, for whole warpgroups: a multiple of 8.

template <uint32_t count>
FB_DEVICE void shrink_registers() {
#ifdef __CUDACC__
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
#endif
}

template <uint32_t count>
FB_DEVICE void grow_registers() {
#ifdef __CUDACC__
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
#endif
}

// The value of lane 0, for the compiler to know that all lanes have the same.
FB_DEVICE uint32_t same_in_warp(uint32_t value) {
#ifdef __CUDACC__
    return __shfl_sync(0xffffffffu, value, 0);
#else
    return value;
#endif
}

// ---- Tensor copies: a box of a tensor, by coordinates, innermost first; what is outside comes as zeros.

// A map is 128 bytes of a parameter block, at a multiple of 64.
using TensorMap = uint64_t[16];

FB_DEVICE void prefetch_map(const TensorMap& map) {
#ifdef __CUDACC__
    asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
#else
    (void)map;
#endif
}

// By one thread. Its bytes arrive at `barrier`.
FB_DEVICE void copy_box(uint32_t byte, const TensorMap& map, Barrier barrier, uint32_t x, uint32_t y, uint32_t z,
                        uint32_t w) {
#ifdef __CUDACC__
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(byte)),
        "l"(reinterpret_cast<uint64_t>(map)), "r"(shared_address(barrier.byte)), "r"(x), "r"(y), "r"(z), "r"(w)
        : "memory");
#else
    simt::copy_box(byte, map, barrier.byte, x, y, z, w);
#endif
}

// ---- wgmma: products of a warpgroup's 64 rows, bf16 or f16 to float, in flight until they are waited for.

// Of 64 rows and n columns. Warp w has rows 16w to 16w + 15; with g = lane / 4 and t = lane % 4, of columns 8b to
// 8b + 7 a thread has in 4b and 4b + 1 those of row g, columns 2t and 2t + 1, in 4b + 2 and 4b + 3 those of g + 8.
template <uint32_t n>
struct Accumulator {
    static constexpr uint32_t kWords = n / 2;
    float at[kWords];
};

// Before the first product, and whenever registers that products use were touched since.
FB_DEVICE void products_begin() {
#ifdef __CUDACC__
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Ends a group of products.
FB_DEVICE void products_commit() {
#ifdef __CUDACC__
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
    simt::products_commit();
#endif
}

// Until at most `left` groups are in flight; `sums` are of the others, and may now be used.
template <uint32_t left, uint32_t n>
FB_DEVICE void products_wait(Accumulator<n>& sums) {
#ifdef __CUDACC__
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
    // Keeps the compiler from moving uses of the registers to before the wait.
    FB_UNROLL
    for (uint32_t i = 0; i < n / 2; ++i) asm volatile("" : "+f"(sums.at[i])::"memory");
#else
    (void)sums;
    simt::products_wait(left);
#endif
}

// Has what `value` is computed from done before what follows: the assembler moves a wait for products up, over
// arithmetic that is meant to hide them, but not over a branch. No weight is negative; the branch is never taken.
FB_DEVICE void pin_before(float value) {
#ifdef __CUDACC__
    if (warp_any(value < 0.0f)) __trap();
#else
    (void)value;
#endif
}

// sums (+)= a * b over 16 of k, T is Bf16 or F16; both lie in shared memory, k innermost, as the descriptors say.
template <class T, uint32_t n>
FB_DEVICE void product_shared(Accumulator<n>& sums, uint64_t a, uint64_t b, bool add);

// sums += a * b over 16 of k; `b` lies in shared memory with n innermost.
template <class T, uint32_t n>
FB_DEVICE void product_registers(Accumulator<n>& sums, const FragmentA& a, uint64_t b);

#ifdef __CUDACC__

// The sums of 64 and 128 columns as operands, from 0 on.
#define FB_TEXT_64 \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24," \
    "%25,%26,%27,%28,%29,%30,%31"
#define FB_TEXT_128 \
    FB_TEXT_64 "," \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
    "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define FB_SUMS_64(s) \
    "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]), \
    "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]), "+f"(s[15]), \
    "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]), "+f"(s[20]), "+f"(s[21]), "+f"(s[22]), \
    "+f"(s[23]), "+f"(s[24]), "+f"(s[25]), "+f"(s[26]), "+f"(s[27]), "+f"(s[28]), "+f"(s[29]), \
    "+f"(s[30]), "+f"(s[31])
#define FB_SUMS_128(s) \
    FB_SUMS_64(s), \
    "+f"(s[32]), "+f"(s[33]), "+f"(s[34]), "+f"(s[35]), "+f"(s[36]), "+f"(s[37]), "+f"(s[38]), \
    "+f"(s[39]), "+f"(s[40]), "+f"(s[41]), "+f"(s[42]), "+f"(s[43]), "+f"(s[44]), "+f"(s[45]), \
    "+f"(s[46]), "+f"(s[47]), "+f"(s[48]), "+f"(s[49]), "+f"(s[50]), "+f"(s[51]), "+f"(s[52]), \
    "+f"(s[53]), "+f"(s[54]), "+f"(s[55]), "+f"(s[56]), "+f"(s[57]), "+f"(s[58]), "+f"(s[59]), \
    "+f"(s[60]), "+f"(s[61]), "+f"(s[62]), "+f"(s[63])

// The operands behind the sums are numbered from n / 2 on: o0 to o4.
#define FB_PRODUCTS(T, type, n, o0, o1, o2, o3, o4)                                                             \
    template <>                                                                                                 \
    FB_DEVICE void product_shared<T, n>(Accumulator<n> & sums, uint64_t a, uint64_t b, bool add) {              \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " o2 ", 0;\n"                                        \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" FB_TEXT_##n "}, "      \
                     o0 ", " o1 ", add, 1, 1, 0, 0;\n}\n"                                                       \
                     : FB_SUMS_##n(sums.at)                                                                     \
                     : "l"(a), "l"(b), "r"(int(add)));                                                          \
    }                                                                                                           \
    template <>                                                                                                 \
    FB_DEVICE void product_registers<T, n>(Accumulator<n> & sums, const FragmentA& a, uint64_t b) {             \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" FB_TEXT_##n "}, {"     \
                     o0 ", " o1 ", " o2 ", " o3 "}, " o4 ", 1, 1, 1, 1;\n"                                      \
                     : FB_SUMS_##n(sums.at)                                                                     \
                     : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "l"(b));                 \
    }
FB_PRODUCTS(Bf16, "bf16", 64, "%32", "%33", "%34", "%35", "%36")
FB_PRODUCTS(Bf16, "bf16", 128, "%64", "%65", "%66", "%67", "%68")
FB_PRODUCTS(F16, "f16", 64, "%32", "%33", "%34", "%35", "%36")
FB_PRODUCTS(F16, "f16", 128, "%64", "%65", "%66", "%67", "%68")
#undef FB_PRODUCTS
#undef FB_SUMS_128
#undef FB_SUMS_64
#undef FB_TEXT_128
#undef FB_TEXT_64

#else

namespace host {

template <class T>
float widened(uint16_t bits) {
    return to_float(T{bits});
}

}  // namespace host

template <class T, uint32_t n>
FB_DEVICE void product_shared(Accumulator<n>& sums, uint64_t a, uint64_t b, bool add) {
    simt::product({sums.at, n, nullptr, a, b, add, host::widened<T>});
}

template <class T, uint32_t n>
FB_DEVICE void product_registers(Accumulator<n>& sums, const FragmentA& a, uint64_t b) {
    simt::product({sums.at, n, a.word, 0, b, true, host::widened<T>});
}

#endif

}  // namespace flyball
