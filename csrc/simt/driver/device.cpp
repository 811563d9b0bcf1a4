#include "device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace simt::driver {
namespace {

constexpr uint64_t kAlignment = 512;

// A parameter block lies at the alignment of its type, at most this.
constexpr size_t kParamsAlignment = 64;

std::shared_ptr<void> copy_of(const void* params, size_t bytes) {
    const size_t rounded = (bytes + kParamsAlignment - 1) / kParamsAlignment * kParamsAlignment;
    void* copy = std::aligned_alloc(kParamsAlignment, rounded);
    std::memcpy(copy, params, bytes);
    return std::shared_ptr<void>(copy, std::free);
}

}  // namespace

std::vector<Device>& devices() {
    static std::vector<Device> all = {
        Device({"an emulated sm_90, as late as it may", 90, 227 << 10, Pace::late, Order::forward}),
        Device({"an emulated sm_80, in any order", 80, 163 << 10, Pace::any, Order::reverse}),
        Device({"an emulated sm_86", 86, 99 << 10, Pace::late, Order::forward}),
    };
    return all;
}

void Device::reset() {
    queue.abandon();
    lost = Status::success;
    for (const auto& allocation : allocations_) std::free(reinterpret_cast<void*>(allocation.first));
    allocations_.clear();
    for (Stream* stream : streams) delete stream;
    streams.clear();
}

Status Device::note(Status status) {
    if (is_sticky(status)) lost = status;
    return status;
}

uint64_t Device::free_bytes() const {
    uint64_t free = kMemory;
    for (const auto& allocation : allocations_) free -= allocation.second;
    return free;
}

Status Device::allocate(uint64_t& address, uint64_t bytes) {
    if (bytes == 0) return Status::invalid_value;
    const uint64_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (rounded > free_bytes()) return Status::out_of_memory;
    void* memory = std::aligned_alloc(kAlignment, rounded);
    if (!memory) return Status::out_of_memory;
    std::memset(memory, kPoison, rounded);
    address = reinterpret_cast<uint64_t>(memory);
    allocations_[address] = bytes;
    return Status::success;
}

Status Device::free(uint64_t address) {
    // As the hardware's driver does: what was started may still use it.
    if (const Status status = queue.settle_all(); status != Status::success) return status;
    if (allocations_.erase(address) == 0) return Status::invalid_value;
    std::free(reinterpret_cast<void*>(address));
    return Status::success;
}

bool Device::holds(uint64_t address, uint64_t bytes) const {
    auto after = allocations_.upper_bound(address);
    if (after == allocations_.begin()) return false;
    const auto& [base, size] = *--after;
    return address - base <= size && bytes <= size - (address - base);
}

Status Device::copy(Stream& stream, uint64_t to, uint64_t from, uint64_t bytes) {
    stream.writes = nullptr;
    queue.add(stream, [=] {
        if (lost == Status::success) std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    });
    return Status::success;
}

Status Device::fill(Stream& stream, uint64_t to, unsigned char byte, uint64_t bytes) {
    if (!holds(to, bytes)) return Status::invalid_value;
    stream.writes = nullptr;
    queue.add(stream, [=] {
        if (lost == Status::success) std::memset(reinterpret_cast<void*>(to), byte, bytes);
    });
    return Status::success;
}

Status Device::run(Stream& stream, const Kernel& kernel, uint32_t ctas, const void* params, bool early) {
    const std::shared_ptr<void> copy = copy_of(params, kernel.params_bytes);
    const std::shared_ptr<Writes> ahead = early ? stream.writes : nullptr, writes = std::make_shared<Writes>();
    queue.add(stream, [=, &kernel] {
        if (lost == Status::success) launch(kernel, ctas, copy.get(), ahead.get(), writes.get());
    });
    stream.writes = writes;
    return Status::success;
}

void Device::launch(const Kernel& kernel, uint32_t ctas, const void* params, const Writes* ahead, Writes* writes) {
    writes->clear();
    std::vector<Region> regions;
    for (const auto& [base, bytes] : allocations_) {
        regions.push_back({reinterpret_cast<unsigned char*>(base), bytes, true, 0});
    }
    char faults[4096];
    const Launch launch = {kernel.name, ctas, kernel.threads, kernel.shared_bytes, traits.order, false, 0,
                           regions.data(), regions.size(), faults, sizeof faults, ahead, writes};
    const uint64_t count = simt::launch(launch, kernel.body, params);
    if (count == 0) return;
    std::fprintf(stderr, "%.*s (and %llu more)\n", int(std::strcspn(faults, "\n")), faults,
                 static_cast<unsigned long long>(count - 1));
    note(Status::illegal_address);
}

}  // namespace simt::driver
