#include "async.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "../hopper/descriptor.h"
#include "machine.h"
#include "simt.h"

namespace simt {
namespace {

constexpr uint32_t kGroup = 128;  // threads of a warpgroup
constexpr uint32_t kGranule = 16;

struct Waiters {
    std::vector<uint32_t> threads;

    void wait() {
        threads.push_back(thread());
        park();
    }
    void wake_all() {
        for (uint32_t thread : threads) wake(thread);
        threads.clear();
    }
};

struct ByteBarrier {
    uint32_t expected = 0;
    uint32_t arrived = 0;
    int64_t bytes = 0;  // announced and not yet come
    uint32_t phase = 0;
    Waiters waiters;

    void check() {
        if (arrived > expected) fault("more arrive at a barrier than it expects");
        if (arrived != expected || bytes != 0) return;
        arrived = 0;
        phase += 1;
        waiters.wake_all();
    }
};

struct NamedBarrier {
    uint32_t threads = 0;
    uint32_t arrived = 0;
    Waiters waiters;
};

struct Box {
    uint32_t byte;
    TensorMap map;
    uint32_t barrier;
    uint32_t at[4];

    uint32_t rows() const { return uint32_t(map.box[1] * map.box[2] * map.box[3]); }
    uint32_t bytes() const { return rows() * flyball::kSwizzleRow; }
};

struct Queued {
    Product product;
    uint32_t group;  // of products
};

// A warpgroup's products: queued by each thread, done together.
struct Warpgroup {
    std::vector<Queued> queues[kGroup];
    uint32_t committed[kGroup] = {};
    uint32_t groups_left = 0;  // that those who wait leave under way
    Waiters waiters;

    bool ready() const { return waiters.threads.size() == kGroup; }
};

struct State {
    std::map<uint32_t, ByteBarrier> barriers;
    NamedBarrier named[16];
    std::vector<Box> boxes;
    std::vector<Warpgroup> groups;
    std::vector<bool> in_flight;      // by granule
    std::vector<uint32_t> unfenced;   // by granule: 1 + the thread that wrote it and has not fenced
    std::vector<std::vector<uint32_t>> written;  // by thread: such granules
    uint32_t shared_bytes = 0;
};

thread_local State state;

Warpgroup& warpgroup() { return state.groups[thread() / kGroup]; }

bool within(uint64_t byte, uint64_t bytes) {
    if (byte + bytes <= state.shared_bytes) return true;
    fault("an asynchronous unit is sent beyond shared memory");
    return false;
}

ByteBarrier* barrier_at(uint32_t byte) {
    const auto found = state.barriers.find(byte);
    if (found != state.barriers.end()) return &found->second;
    fault("no barrier was initialised there");
    return nullptr;
}

// ---- Copies.

// Calls `visit(row of the box, address or 0)`.
template <class Visit>
void for_rows(const Box& box, Visit visit) {
    const TensorMap& map = box.map;
    for (uint32_t row = 0; row < box.rows(); ++row) {
        const uint64_t at[3] = {uint64_t(box.at[1]) + row % map.box[1],
                                uint64_t(box.at[2]) + row / map.box[1] % map.box[2],
                                uint64_t(box.at[3]) + row / map.box[1] / map.box[2]};
        bool inside = box.at[0] + map.box[0] <= map.size[0];
        uint64_t address = map.base + uint64_t(box.at[0]) * 2;
        for (uint32_t i = 0; i < 3; ++i) {
            inside = inside && at[i] < map.size[i + 1];
            address += at[i] * map.stride[i];
        }
        visit(row, inside ? address : 0);
    }
}

void arrive(const Box& box) {
    for_rows(box, [&](uint32_t row, uint64_t address) {
        for (uint32_t piece = 0; piece < flyball::kSwizzleRow; piece += kGranule) {
            const uint32_t byte = flyball::swizzled(box.byte + row * flyball::kSwizzleRow + piece);
            const void* from = address ? global_read(address + piece, kGranule) : nullptr;
            unsigned char* to = shared_memory() + byte;
            if (from) {
                std::memcpy(to, from, kGranule);
            } else {
                std::memset(to, 0, kGranule);
            }
            state.in_flight[byte / kGranule] = false;
        }
    });
    if (ByteBarrier* barrier = barrier_at(box.barrier)) {
        barrier->bytes -= box.bytes();
        barrier->check();
    }
}

// ---- Products.

float value_at(uint32_t byte, float (*value)(uint16_t)) {
    if (!within(byte, 2)) return 0.0f;
    if (state.in_flight[byte / kGranule]) fault("a product reads what a tensor copy has yet to bring");
    if (state.unfenced[byte / kGranule]) fault("a product reads what was written without a proxy fence");
    uint16_t bits;
    std::memcpy(&bits, shared_memory() + byte, sizeof bits);
    return value(bits);
}

struct Matrices {
    float a[64][16];
    float b[16][256];
};

thread_local Matrices matrices;

// What the operands are when the product is done.
void load(const Warpgroup& group, size_t at) {
    const Product& any = group.queues[0][at].product;
    const flyball::Operand b = flyball::operand(any.b_shared), a = flyball::operand(any.a_shared);
    for (uint32_t k = 0; k < 16; ++k) {
        for (uint32_t n = 0; n < any.columns; ++n) {
            matrices.b[k][n] = value_at(any.a ? flyball::element_n(b, k, n) : flyball::element_k(b, n, k), any.value);
        }
    }
    for (uint32_t row = 0; row < 64; ++row) {
        for (uint32_t k = 0; k < 16; ++k) {
            if (!any.a) {
                matrices.a[row][k] = value_at(flyball::element_k(a, row, k), any.value);
                continue;
            }
            const uint32_t thread = row / 16 * 32 + row % 8 * 4 + k % 8 / 2, word = row / 8 % 2 + k / 8 * 2;
            const uint32_t bits = group.queues[thread][at].product.a[word];
            matrices.a[row][k] = any.value(uint16_t(bits >> k % 2 * 16));
        }
    }
}

void multiply(const Warpgroup& group, size_t at) {
    for (uint32_t thread = 0; thread < kGroup; ++thread) {
        const Product& mine = group.queues[thread][at].product;
        for (uint32_t i = 0; i < mine.columns / 2; ++i) {
            const uint32_t row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
            const uint32_t column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            float sum = mine.add ? mine.sums[i] : 0.0f;
            for (uint32_t k = 0; k < 16; ++k) sum += matrices.a[row][k] * matrices.b[k][column];
            mine.sums[i] = sum;
        }
    }
}

void do_products(Warpgroup& group, uint32_t groups_left) {
    for (uint32_t thread = 0; thread < kGroup; ++thread) {
        const bool same = group.queues[thread].size() == group.queues[0].size() &&
                          group.committed[thread] == group.committed[0];
        if (!same) return fault("threads of a warpgroup have different products");
    }
    size_t done = 0;
    for (; done < group.queues[0].size(); ++done) {
        const Queued& first = group.queues[0][done];
        if (first.group + groups_left >= group.committed[0]) break;
        for (const std::vector<Queued>& queue : group.queues) {
            const Product& other = queue[done].product;
            if (other.a_shared != first.product.a_shared || other.b_shared != first.product.b_shared) {
                return fault("threads of a warpgroup describe different operands");
            }
        }
        load(group, done);
        multiply(group, done);
    }
    for (std::vector<Queued>& queue : group.queues) queue.erase(queue.begin(), queue.begin() + long(done));
}

}  // namespace

void barrier_init(uint32_t byte, uint32_t arrivals) {
    if (!within(byte, 8)) return;
    state.barriers[byte] = ByteBarrier();
    state.barriers[byte].expected = arrivals;
}

void barrier_arrive(uint32_t byte, uint32_t expected_bytes) {
    ByteBarrier* barrier = barrier_at(byte);
    if (!barrier) return;
    barrier->bytes += expected_bytes;
    barrier->arrived += 1;
    barrier->check();
}

void barrier_wait(uint32_t byte, uint32_t parity) {
    ByteBarrier* barrier = barrier_at(byte);
    while (barrier && barrier->phase % 2 == parity) barrier->waiters.wait();
}

void named_barrier(uint32_t id, uint32_t threads, bool wait) {
    NamedBarrier& barrier = state.named[id % 16];
    if (barrier.arrived == 0) barrier.threads = threads;
    if (barrier.threads != threads) fault("threads expect different numbers at a named barrier");
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.waiters.wake_all();
    } else if (wait) {
        barrier.waiters.wait();
    }
}

void fence_async_proxy() {
    for (uint32_t granule : state.written[thread()]) {
        if (state.unfenced[granule] == thread() + 1) state.unfenced[granule] = 0;
    }
    state.written[thread()].clear();
}

void ordered_write(uint32_t byte, const void* from, size_t bytes) {
    if (!within(byte, bytes)) return;
    std::memcpy(shared_memory() + byte, from, bytes);
    async::wrote(byte, bytes);
}

void copy_box(uint32_t byte, const void* map, uint32_t barrier, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
    Box box = {byte, {}, barrier, {x, y, z, w}};
    std::memcpy(&box.map, map, sizeof box.map);
    if (box.map.box[0] * 2 != flyball::kSwizzleRow) return fault("a box's rows are not 128 bytes");
    if (byte % flyball::kSwizzleUnit != 0) fault("a box goes to where the swizzle does not begin");
    if (!within(byte, box.bytes())) return;
    for (uint32_t granule = byte / kGranule; granule < (byte + box.bytes()) / kGranule; ++granule) {
        if (state.in_flight[granule]) fault("two tensor copies go to one place");
        state.in_flight[granule] = true;
    }
    std::memset(shared_memory() + byte, kPoison, box.bytes());
    state.boxes.push_back(box);
}

void product(const Product& product) {
    Warpgroup& group = warpgroup();
    const uint32_t mine = thread() % kGroup;
    // What the sums are before they are waited for.
    if (!product.add) std::memset(product.sums, kPoison, product.columns / 2 * sizeof(float));
    group.queues[mine].push_back({product, group.committed[mine]});
}

void products_commit() { warpgroup().committed[thread() % kGroup] += 1; }

void products_wait(uint32_t groups_left) {
    Warpgroup& group = warpgroup();
    if (group.waiters.threads.empty()) group.groups_left = groups_left;
    if (group.groups_left != groups_left) fault("threads of a warpgroup wait for different products");
    group.waiters.wait();
}

namespace async {

void begin(uint32_t threads, uint32_t shared_bytes) {
    state = State();
    state.groups.resize((threads + kGroup - 1) / kGroup);
    const size_t granules = (shared_bytes + kGranule - 1) / kGranule;
    state.in_flight.assign(granules, false);
    state.unfenced.assign(granules, 0);
    state.written.resize(threads);
    state.shared_bytes = shared_bytes;
}

bool deliver(bool idle, uint64_t choice) {
    std::vector<Warpgroup*> ready;
    for (Warpgroup& group : state.groups) {
        if (group.ready()) ready.push_back(&group);
    }
    const size_t events = state.boxes.size() + ready.size();
    if (events == 0 || (!idle && choice % 4 != 3)) return false;
    const size_t chosen = choice / 4 % events;
    if (chosen < ready.size()) {
        do_products(*ready[chosen], ready[chosen]->groups_left);
        ready[chosen]->waiters.wake_all();
    } else {
        const auto box = state.boxes.begin() + long(chosen - ready.size());
        const Box copy = *box;
        state.boxes.erase(box);
        arrive(copy);
    }
    return true;
}

void end() {
    for (const Warpgroup& group : state.groups) {
        const bool queued = std::any_of(group.queues, group.queues + kGroup, [](const auto& q) { return !q.empty(); });
        if (queued) fault("a warpgroup leaves with products that it did not wait for");
    }
}

void wrote(size_t offset, size_t bytes) {
    if (state.barriers.empty()) return;
    for (size_t granule = offset / kGranule; granule <= (offset + bytes - 1) / kGranule; ++granule) {
        state.unfenced[granule] = thread() + 1;
        state.written[thread()].push_back(uint32_t(granule));
    }
}

}  // namespace async
}  // namespace simt
