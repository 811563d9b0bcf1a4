// The devices of this driver: what they are, their memory, and what becomes of them.
//
// Device 0 is as an sm_90 and runs work as late as it may; device 1 is as an sm_80 and runs it in any order that its
// streams allow, threads of a cta backwards; device 2 is as an sm_86, which gives a cta less shared memory. Memory that
// was just taken is poison: a NaN in every format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "../kernels.h"
#include "queue.h"
#include "status.h"

namespace simt::driver {

class Device {
public:
    struct Traits {
        const char* name;
        uint32_t capability;
        uint32_t shared_max;  // bytes of a cta
        Pace pace;
        Order order;
    };
    static constexpr uint32_t kMultiprocessors = 3;
    static constexpr uint64_t kMemory = 4ull << 30;
    static constexpr uint32_t kThreadsMax = 2048;

    explicit Device(const Traits& traits) : traits(traits), queue(traits.pace) {}

    // As if the context were new.
    void reset();

    Status allocate(uint64_t& address, uint64_t bytes);
    Status free(uint64_t address);
    uint64_t free_bytes() const;
    // Whether all of it lies in one allocation.
    bool holds(uint64_t address, uint64_t bytes) const;

    // Copies and fills, unless the device was lost before their time.
    Status copy(Stream& stream, uint64_t to, uint64_t from, uint64_t bytes);
    Status fill(Stream& stream, uint64_t to, unsigned char byte, uint64_t bytes);
    // `early`: it may begin before the kernel ahead of it in the stream has ended.
    Status run(Stream& stream, const Kernel& kernel, uint32_t ctas, const void* params, bool early);

    // Sticky codes lose it.
    Status note(Status status);

    const Traits traits;
    Queue queue;
    Status lost = Status::success;
    uint32_t retained = 0;
    std::set<Stream*> streams;

private:
    void launch(const Kernel& kernel, uint32_t ctas, const void* params, const Writes* ahead, Writes* writes);

    std::map<uint64_t, uint64_t> allocations_;
};

std::vector<Device>& devices();

}  // namespace simt::driver
