#include "simt.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "async.h"
#include "fiber.h"
#include "machine.h"
#include "shadow.h"

namespace simt {
namespace {

constexpr uint32_t kLanes = 32;

struct Copy {
    unsigned char* target;
    uint64_t source;
    uint32_t bytes;
    uint32_t group;
};

struct Thread {
    Fiber fiber;
    bool waiting = false;
    bool done = false;
    bool follows = false;  // the grid ahead is done
    std::vector<Copy> copies;  // as they were started
    uint32_t groups = 0;  // committed
};

struct Warp {
    // Two sets of slots: a lane may begin the next collective while others still read this one's.
    Slot slots[2][kLanes];
    uint32_t parity = 0;
    uint32_t arrived = 0;
    void (*apply)(Slot*) = nullptr;
    uint32_t epoch = 0;
};

class Machine {
public:
    Machine(const Launch& launch, void (*body)(const void*), const void* argument);
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    void run_cta(uint32_t index);
    uint64_t faults() const { return faults_; }

    void main();
    void park() {
        current().waiting = true;
        current().fiber.leave(false);
    }
    void wake(uint32_t other) { threads_[other].waiting = false; }
    void fault(const char* what) { report("%s", what); }
    void wake_warp();
    void wait_for_previous_grid() { current().follows = true; }
    void allow_next_grid();
    void sync_cta();
    uint32_t sync_cta_count(bool mine);
    void sync_warp();
    const Slot& collective(const Slot& mine, void (*apply)(Slot*));
    bool check_shared(const void* at, size_t bytes, const char* (Shadow::*access)(size_t, size_t, Moment));
    unsigned char* check_global(uint64_t address, size_t bytes, bool write);
    void copy_async(void* target, uint64_t source, uint32_t bytes);
    void copy_async_commit() { current().groups += 1; }
    void copy_async_wait(uint32_t groups_left);

    uint32_t thread = 0;
    uint32_t cta = 0;
    const Launch& launch;
    unsigned char* shared = nullptr;

private:
    Thread& current() { return threads_[thread]; }
    Warp& warp() { return warps_[thread / kLanes]; }
    Moment now() { return {thread, cta_epoch_, warp().epoch}; }
    void report(const char* format, ...) __attribute__((format(printf, 2, 3)));
    void next_order();
    uint64_t random();
    bool check_order(uint64_t address, size_t bytes, bool write);

    void (*body_)(const void*);
    const void* argument_;
    std::vector<Thread> threads_;
    std::vector<Warp> warps_;
    std::vector<uint32_t> order_;
    std::unique_ptr<unsigned char[]> arena_;
    Shadow shadow_;
    uint32_t at_barrier_ = 0;
    uint32_t counting_ = 0;  // threads at the barrier that are to be counted
    uint32_t counted_ = 0;   // at the last one
    uint32_t cta_epoch_ = 0;
    uint64_t faults_ = 0;
    size_t written_ = 0;
    uint64_t random_;
};

thread_local Machine* machine = nullptr;

// Stacks for the threads of a cta, kept from launch to launch: fresh pages cost more than most launches. Neighbours
// are not whole pages apart, or else all would fall into the same few sets of the cache.
class Stacks {
public:
    static constexpr size_t kStride = Fiber::kStackBytes + 17 * 64;

    Stacks() = default;
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;
    ~Stacks() { drop(); }

    unsigned char* of(uint32_t thread) { return first_ + thread * kStride; }

    void grow(uint32_t threads) {
        if (threads * kStride <= bytes_) return;
        drop();
        bytes_ = threads * kStride;
        void* stacks = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stacks == MAP_FAILED) std::abort();
        first_ = static_cast<unsigned char*>(stacks);
    }

private:
    void drop() {
        if (first_) munmap(first_, bytes_);
    }

    unsigned char* first_ = nullptr;
    size_t bytes_ = 0;
};

thread_local Stacks stacks;

void fiber_main() { machine->main(); }

Machine::Machine(const Launch& launch, void (*body)(const void*), const void* argument)
    : launch(launch),
      body_(body),
      argument_(argument),
      threads_(launch.threads),
      warps_(launch.threads / kLanes),
      order_(launch.threads),
      random_(launch.seed) {
    stacks.grow(launch.threads);
    for (uint32_t thread = 0; thread < launch.threads; ++thread) {
        order_[thread] = launch.order == Order::reverse ? launch.threads - 1 - thread : thread;
    }
    if (launch.faults_bytes) launch.faults[0] = 0;
}

// SplitMix64 (Steele, Lea and Flood, 2014).
uint64_t Machine::random() {
    uint64_t z = random_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

void Machine::next_order() {
    if (launch.order != Order::shuffled) return;
    for (uint32_t left = uint32_t(order_.size()); left > 1; --left) {
        std::swap(order_[left - 1], order_[random() % left]);
    }
}

void Machine::report(const char* format, ...) {
    constexpr uint64_t kLines = 16;
    if (++faults_ > kLines) return;
    const size_t left = launch.faults_bytes - written_;
    int length = std::snprintf(launch.faults + written_, left, "%s, cta %u, thread %u: ", launch.kernel, cta, thread);
    written_ += size_t(length) < left ? size_t(length) : left;
    va_list arguments;
    va_start(arguments, format);
    length = std::vsnprintf(launch.faults + written_, launch.faults_bytes - written_, format, arguments);
    va_end(arguments);
    written_ += size_t(length);
    if (written_ + 2 > launch.faults_bytes) {
        written_ = launch.faults_bytes - 1;
        return;
    }
    std::memcpy(launch.faults + written_, "\n", 2);
    written_ += 1;
}

void Machine::run_cta(uint32_t index) {
    cta = index;
    // Exactly as large as asked for, and new: what the kernel overruns, a sanitizer sees too.
    arena_.reset(new unsigned char[launch.shared_bytes + 128]);
    shared = arena_.get() + (128 - reinterpret_cast<uintptr_t>(arena_.get()) % 128);
    std::memset(shared, kPoison, launch.shared_bytes);
    if (launch.races) shadow_.reset(launch.shared_bytes);
    for (Warp& warp : warps_) warp = Warp();
    for (thread = 0; thread < launch.threads; ++thread) {
        current() = Thread();
        current().fiber.start(stacks.of(thread), fiber_main);
    }
    at_barrier_ = cta_epoch_ = counting_ = 0;
    async::begin(launch.threads, launch.shared_bytes);
    for (bool moved = true; moved;) {
        moved = false;
        next_order();
        for (uint32_t next : order_) {
            if (threads_[next].waiting || threads_[next].done) continue;
            thread = next;
            moved = true;
            current().fiber.enter();
        }
        moved |= async::deliver(!moved, launch.order == Order::shuffled ? random() : 0);
    }
    async::end();
    for (thread = 0; thread < launch.threads; ++thread) {
        if (!current().done) {
            report("waits for threads that never come");
            break;
        }
        if (!current().copies.empty()) report("leaves with copies in flight");
    }
}

void Machine::main() {
    current().fiber.arrived();
    body_(argument_);
    current().done = true;
    current().fiber.leave(true);
}

void Machine::sync_cta() {
    if (++at_barrier_ < launch.threads) return park();
    at_barrier_ = 0;
    cta_epoch_ += 1;
    counted_ = std::exchange(counting_, 0);
    for (Thread& other : threads_) other.waiting = false;
}

uint32_t Machine::sync_cta_count(bool mine) {
    counting_ += mine;
    sync_cta();
    // Of this barrier still: nobody passes the next before this thread comes there.
    return counted_;
}

void Machine::wake_warp() {
    const uint32_t first = thread / kLanes * kLanes;
    for (uint32_t other = first; other < first + kLanes; ++other) threads_[other].waiting = false;
}

void Machine::sync_warp() {
    // The last lane to come ends the epoch for all.
    collective(Slot(), [](Slot*) { machine->warp().epoch += 1; });
}

const Slot& Machine::collective(const Slot& mine, void (*apply)(Slot*)) {
    Warp& warp = this->warp();
    Slot* slots = warp.slots[warp.parity];
    const uint32_t lane = thread % kLanes;
    if (warp.arrived == 0) warp.apply = apply;
    if (warp.apply != apply) report("lanes of a warp meet in different collectives");
    slots[lane] = mine;
    if (++warp.arrived < kLanes) {
        park();
    } else {
        apply(slots);
        warp.arrived = 0;
        warp.parity ^= 1;
        wake_warp();
    }
    return slots[lane];
}

bool Machine::check_shared(const void* at, size_t bytes,
                           const char* (Shadow::*access)(size_t, size_t, Moment)) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(shared);
    if (offset > launch.shared_bytes || bytes > launch.shared_bytes - offset) {
        report("shared memory: %zu bytes at %lld of %u", bytes, static_cast<long long>(offset), launch.shared_bytes);
        return false;
    }
    if (offset % bytes != 0) {
        report("shared memory: %zu bytes at %zu are not aligned", bytes, size_t(offset));
        return false;
    }
    const char* wrong = launch.races ? (shadow_.*access)(offset, bytes, now()) : nullptr;
    if (wrong) report("%s, at %zu", wrong, size_t(offset));
    if (access != &Shadow::read) async::wrote(offset, bytes);
    return true;
}

unsigned char* Machine::check_global(uint64_t address, size_t bytes, bool write) {
    for (size_t at = 0; at < launch.region_count; ++at) {
        const Region& region = launch.regions[at];
        const uint64_t offset = address - reinterpret_cast<uintptr_t>(region.base);
        if (offset >= region.bytes || bytes > region.bytes - offset) continue;
        if (address % bytes != 0) {
            report("global memory: %zu bytes at %llu of buffer %zu are not aligned", bytes,
                   static_cast<unsigned long long>(offset), at);
            return nullptr;
        }
        if (write && !region.writable) {
            report("global memory: write to buffer %zu, which is to be read only", at);
            return nullptr;
        }
        return check_order(address, bytes, write) ? region.base + offset : nullptr;
    }
    report("global memory: %s of %zu bytes outside of every buffer", write ? "write" : "read", bytes);
    return nullptr;
}

// Whether the access comes when it may, even if the grid ahead still runs when this one begins.
bool Machine::check_order(uint64_t address, size_t bytes, bool write) {
    if (write && launch.writes) launch.writes->note(address, bytes);
    if (current().follows) return true;
    if (write) {
        report("global memory: write before the grid ahead was waited for");
    } else if (launch.ahead && launch.ahead->touch(address, bytes)) {
        report("global memory: read of what the grid ahead writes, before it was waited for");
    } else {
        return true;
    }
    return false;
}

void Machine::allow_next_grid() {
    // Else that one would have to wait for two.
    if (!current().follows) report("lets the next grid begin before it has waited for the one ahead");
}

void Machine::copy_async(void* target, uint64_t source, uint32_t bytes) {
    constexpr size_t kPiece = 16;
    if (!check_shared(target, kPiece, &Shadow::begin_copy)) return;
    if (bytes && !check_global(source, kPiece, false)) bytes = 0;
    std::memset(target, kPoison, kPiece);
    current().copies.push_back({static_cast<unsigned char*>(target), source, bytes, current().groups});
}

void Machine::copy_async_wait(uint32_t groups_left) {
    Thread& self = current();
    const auto due = [&](const Copy& copy) { return copy.group + groups_left < self.groups; };
    const auto end = std::find_if_not(self.copies.begin(), self.copies.end(), due);
    for (auto copy = self.copies.begin(); copy != end; ++copy) {
        std::memset(copy->target, 0, 16);
        if (copy->bytes) std::memcpy(copy->target, check_global(copy->source, 16, false), copy->bytes);
        if (launch.races) shadow_.end_copy(size_t(copy->target - shared), 16, now());
        async::wrote(size_t(copy->target - shared), 16);
    }
    self.copies.erase(self.copies.begin(), end);
}

}  // namespace

uint64_t launch(const Launch& launch, void (*body)(const void*), const void* argument) {
    Machine here(launch, body, argument);
    machine = &here;
    for (uint32_t index = 0; index < launch.ctas; ++index) {
        here.run_cta(launch.order == Order::reverse ? launch.ctas - 1 - index : index);
    }
    machine = nullptr;
    return here.faults();
}

uint32_t thread() { return machine->thread; }
uint32_t cta() { return machine->cta; }
uint32_t ctas() { return machine->launch.ctas; }
unsigned char* shared_memory() { return machine->shared; }
bool shared_read(const void* at, size_t bytes) { return machine->check_shared(at, bytes, &Shadow::read); }
bool shared_write(const void* at, size_t bytes) { return machine->check_shared(at, bytes, &Shadow::write); }
bool shared_read_for_warp(const void* at, size_t bytes) {
    // Two readers stand for all: what one lane alone wrote, another reads.
    if (!shared_read(at, bytes)) return false;
    machine->thread ^= 1;
    const bool read = shared_read(at, bytes);
    machine->thread ^= 1;
    return read;
}
bool shared_atomic(const void* at, size_t bytes) { return machine->check_shared(at, bytes, &Shadow::atomic); }
const void* global_read(uint64_t address, size_t bytes) { return machine->check_global(address, bytes, false); }
void* global_write(uint64_t address, size_t bytes) { return machine->check_global(address, bytes, true); }
void wait_for_previous_grid() { machine->wait_for_previous_grid(); }
void allow_next_grid() { machine->allow_next_grid(); }
void sync_cta() { machine->sync_cta(); }
uint32_t sync_cta_count(bool mine) { return machine->sync_cta_count(mine); }
void sync_warp() { machine->sync_warp(); }
void copy_async(void* target, uint64_t source, uint32_t bytes) { machine->copy_async(target, source, bytes); }
void copy_async_commit() { machine->copy_async_commit(); }
void copy_async_wait(uint32_t groups_left) { machine->copy_async_wait(groups_left); }
const Slot& collective(const Slot& mine, void (*apply)(Slot*)) { return machine->collective(mine, apply); }
void park() { machine->park(); }
void wake(uint32_t thread) { machine->wake(thread); }
void fault(const char* what) { machine->fault(what); }

}  // namespace simt
