// Kernels that each do one forbidden thing, and one that does none: the emulator must tell them apart.
#include "../params.h"
#include "../warp/warp.h"
#include "kernels.h"

namespace flyball {
namespace {

struct Probe {
    fb_address buffer;  // [64] u32
};

constexpr uint32_t kThreads = 64;

uint32_t neighbour() { return (thread_index() + kLanes) % kThreads; }

void exchange(bool before, bool after) {
    const Shared<uint32_t> shared(0);
    shared.set(thread_index(), thread_index());
    if (before) sync_cta();
    const uint32_t other = shared[neighbour()];
    if (after) sync_cta();
    shared.set(thread_index(), other);
}

void sound(const Probe&) { exchange(true, true); }
void read_too_early(const Probe&) { exchange(false, true); }
void write_too_early(const Probe&) { exchange(true, false); }

// A barrier of the warp does not order its neighbour.
void warp_barrier_across_warps(const Probe&) {
    const Shared<uint32_t> shared(0);
    shared.set(thread_index(), thread_index());
    sync_warp();
    shared.set(thread_index(), shared[neighbour()]);
}

void unwritten(const Probe&) {
    const Shared<uint32_t> shared(0);
    if (thread_index() == 0) shared.set(1, shared[0]);
}

void shared_overrun(const Probe&) { Shared<uint32_t>(4).set(thread_index(), 0); }

void global_overrun(const Probe& p) {
    follow_previous_grid();
    Global<uint32_t>(p.buffer).set(thread_index() + 1, 0);
}

void global_misaligned(const Probe& p) { Global<uint32_t>(p.buffer).load<2>(1); }

void copy_overtaken(const Probe& p) {
    const Shared<uint32_t> shared(0);
    if (thread_index() < 16) copy_async(shared, thread_index() * 4, Global<uint32_t>(p.buffer).address, true);
    copy_async_commit();
    sync_cta();
    shared[thread_index()];
    copy_async_wait<0>();
}

void divergent_barrier(const Probe&) {
    if (thread_index() < kLanes) sync_cta();
}

void half_a_warp_shuffles(const Probe&) {
    if (lane_index() < 16) warp_sum(1.0f);
}

void written_before_its_turn(const Probe& p) { Global<uint32_t>(p.buffer).set(thread_index(), 0); }

void next_before_its_turn(const Probe&) { allow_next_grid(); }

#define FB_PROBE(name)                                    \
    {#name, kThreads, kThreads * 4, sizeof(Probe),        \
     [](const void* p) { name(*static_cast<const Probe*>(p)); }}
constexpr simt::Kernel kProbes[] = {
    FB_PROBE(sound),
    FB_PROBE(read_too_early),
    FB_PROBE(write_too_early),
    FB_PROBE(warp_barrier_across_warps),
    FB_PROBE(unwritten),
    FB_PROBE(shared_overrun),
    FB_PROBE(global_overrun),
    FB_PROBE(global_misaligned),
    FB_PROBE(copy_overtaken),
    FB_PROBE(divergent_barrier),
    FB_PROBE(half_a_warp_shuffles),
    FB_PROBE(written_before_its_turn),
    FB_PROBE(next_before_its_turn),
};

}  // namespace
}  // namespace flyball

extern "C" simt::Kernels simt_kernels_probes() {
    return {flyball::kProbes, sizeof flyball::kProbes / sizeof flyball::kProbes[0]};
}
