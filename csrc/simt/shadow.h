// Who touched shared memory since which barrier: finds two accesses that nothing orders.
//
// Two accesses by different threads, one of them a write, are ordered if a barrier of the cta lies between
// them, or, inside a warp, a barrier of the warp. Shuffles and mma.sync order nothing, on a device as here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt {

// A thread, and how many barriers of its cta and of its warp it has passed.
struct Moment {
    uint32_t thread;
    uint32_t cta_epoch;
    uint32_t warp_epoch;

    uint32_t warp() const { return thread / 32; }
};

class Shadow {
public:
    // The finest access: two bytes. Neighbouring threads may share no less.
    static constexpr size_t kGranule = 2;

    void reset(size_t bytes);

    // Each returns null, or what is wrong with the access.
    const char* read(size_t offset, size_t bytes, Moment now);
    const char* write(size_t offset, size_t bytes, Moment now);
    // A read and a write in one, which no other atomic operation conflicts with.
    const char* atomic(size_t offset, size_t bytes, Moment now);
    // A copy that will write at an unknown time, and its end, when it counts as written.
    const char* begin_copy(size_t offset, size_t bytes, Moment now);
    void end_copy(size_t offset, size_t bytes, Moment now);

private:
    static constexpr uint32_t kNever = UINT32_MAX;
    static constexpr uint32_t kMany = UINT32_MAX - 1;

    struct Granule {
        Moment writer = {kNever, 0, 0};
        // The readers since the last barrier of the cta: one thread, several of one warp, or several warps.
        uint32_t reader = kNever;
        uint32_t reader_warp = kNever;
        uint32_t reader_cta_epoch = 0;
        uint32_t reader_warp_epoch = 0;
        bool in_flight = false;
        bool atomic = false;  // whether the last write was
    };

    static bool ordered(const Granule& granule, Moment now);
    static void note_reader(Granule& granule, Moment now);
    static const char* conflict(const Granule& granule, Moment now, bool beside_writer);

    std::vector<Granule> granules_;
};

}  // namespace simt
