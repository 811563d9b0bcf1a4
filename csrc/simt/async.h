// The asynchronous units of sm_90a on the CPU: barriers that count bytes, tensor copies, products of a warpgroup and
// named barriers, behind csrc/hopper/ptx.h.
//
// Nothing comes sooner than it must: copies arrive, and products that a warpgroup waits for are done, when nothing
// else can run (or, in shuffled orders, some time before). Until then a box is poison, and a product reads its
// operands and writes its sums at that time alone: a stage that is filled or freed too early, and a register that is
// used too early, change the result. What products read must be neither in
// flight nor written without a proxy fence. The hardware's own reading of a descriptor is taken from the PTX ISA; that
// it is read so can only be seen on a device.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

// What a tensor map says, in this emulator's own layout; coordinates are innermost first, and the rows of a box are
// 128 bytes of 2-byte elements, swizzled.
struct TensorMap {
    uint64_t base;
    uint64_t stride[3];  // bytes, from the second coordinate on
    uint64_t size[4];    // elements
    uint64_t box[4];
    uint64_t unused[4];
};

void barrier_init(uint32_t byte, uint32_t arrivals);
void barrier_arrive(uint32_t byte, uint32_t expected_bytes);
void barrier_wait(uint32_t byte, uint32_t parity);

// Whether `threads` have come; only who is to wait does so.
void named_barrier(uint32_t id, uint32_t threads, bool wait);

void fence_async_proxy();

// Shared memory without a shadow: the barriers above order it.
void ordered_write(uint32_t byte, const void* from, size_t bytes);

// Four coordinates; `map` holds a TensorMap.
void copy_box(uint32_t byte, const void* map, uint32_t barrier, uint32_t x, uint32_t y, uint32_t z, uint32_t w);

// sums (+)= a * b for 64 rows, `columns` columns and 16 of k, by 128 threads. `a` is four words of a fragment per
// thread, or null where `a_shared` describes it; `b_shared` then has k innermost, otherwise n.
struct Product {
    float* sums;
    uint32_t columns;
    const uint32_t* a;
    uint64_t a_shared;
    uint64_t b_shared;
    bool add;
    float (*value)(uint16_t bits);  // of an element of a or b
};
void product(const Product& product);
void products_commit();
void products_wait(uint32_t groups_left);

// For the machine: around a cta, whenever its threads have had their turn, and after writes of shared memory.
namespace async {
void begin(uint32_t threads, uint32_t shared_bytes);
// Whether something arrived or was done. `choice` is random, or 0: only when `idle`, products first.
bool deliver(bool idle, uint64_t choice);
void end();
void wrote(size_t offset, size_t bytes);
}  // namespace async

}  // namespace simt
