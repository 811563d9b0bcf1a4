// A cta on the CPU: one fiber per thread, run in a chosen order, with every access to memory checked.
//
// This is what the host versions of csrc/warp call. One launch runs on one host thread; its ctas run one after
// the other, each on fresh shared memory. A thread runs until it waits at a barrier or in a collective, so an
// order of threads is also an interleaving, and a barrier too few changes what is read. Beyond that, shared
// memory has a shadow that knows who wrote and read each pair of bytes since which barrier: two accesses that
// no barrier orders are reported whatever the interleaving was. Global memory is what the launch names: any
// other access is reported and not made, so that a wrong kernel cannot harm the process that tests it. So is a write
// before the wait for the grid ahead, and a read of what that one wrote.
#pragma once

#include <cstddef>
#include <cstdint>

#include "writes.h"

namespace simt {

// Memory that a launch may touch.
struct Region {
    unsigned char* base;
    uint64_t bytes;
    uint32_t writable;
    uint32_t reserved;
};

enum class Order : uint32_t { forward, reverse, shuffled };

struct Launch {
    const char* kernel;
    uint32_t ctas;
    uint32_t threads;  // a multiple of 32
    uint32_t shared_bytes;
    Order order;
    uint32_t races;  // 1: shared memory has a shadow
    uint64_t seed;   // of shuffled orders
    const Region* regions;
    size_t region_count;
    char* faults;  // what was found wrong, one line each, ended by 0
    size_t faults_bytes;
    const Writes* ahead;  // of the grid that may still run when this one begins, or null
    Writes* writes;       // of this one, or null
};

// Runs `body(argument)` as every thread of every cta; how many faults there were.
uint64_t launch(const Launch& launch, void (*body)(const void*), const void* argument);

// What a thread may ask while it runs.
uint32_t thread();
uint32_t cta();
uint32_t ctas();

// Shared memory of the cta, at 128-byte alignment.
unsigned char* shared_memory();
// Whether the access is within bounds; it is recorded, and a race with another is reported.
bool shared_read(const void* at, size_t bytes);
bool shared_write(const void* at, size_t bytes);
// The same, on behalf of lanes of the warp that did not name the address.
bool shared_read_for_warp(const void* at, size_t bytes);
bool shared_atomic(const void* at, size_t bytes);
// The memory behind a global address, or null, reported, where the launch may not touch it.
const void* global_read(uint64_t address, size_t bytes);
void* global_write(uint64_t address, size_t bytes);

// The grid ahead is done; the next may begin.
void wait_for_previous_grid();
void allow_next_grid();

void sync_cta();
// How many threads of the cta came with `mine`.
uint32_t sync_cta_count(bool mine);
void sync_warp();

// 16 bytes to shared memory, the first `bytes` of them from `source`, the others zero. As on a device they
// arrive at no known time before their group is waited for: here, at the last moment.
void copy_async(void* target, uint64_t source, uint32_t bytes);
void copy_async_commit();
void copy_async_wait(uint32_t groups_left);

// What a lane hands to a collective, and what it gets back.
struct alignas(16) Slot {
    unsigned char in[48];
    unsigned char out[16];
};

// Waits for all 32 lanes of the warp, has `apply` turn what they gave into what they get, once, and returns
// this lane's slot. All lanes must bring the same `apply`.
const Slot& collective(const Slot& mine, void (*apply)(Slot* lanes));

// The value of shared memory that nobody wrote, and of copies still in flight: a NaN in every format.
constexpr unsigned char kPoison = 0xff;

}  // namespace simt
