#include "shadow.h"

namespace simt {

void Shadow::reset(size_t bytes) { granules_.assign((bytes + kGranule - 1) / kGranule, Granule()); }

// Whether the last write happened before `now`.
bool Shadow::ordered(const Granule& granule, Moment now) {
    const Moment& writer = granule.writer;
    if (writer.thread == kNever || writer.thread == now.thread) return true;
    if (writer.cta_epoch != now.cta_epoch) return true;
    return writer.warp() == now.warp() && writer.warp_epoch < now.warp_epoch;
}

// What stands against a write at `now`, which may be `beside_writer`, unordered with the last one.
const char* Shadow::conflict(const Granule& granule, Moment now, bool beside_writer) {
    if (granule.in_flight) return "write of shared memory that a copy in flight will overwrite";
    if (!beside_writer && !ordered(granule, now)) return "two writes of shared memory without a barrier between them";
    if (granule.reader == kNever || granule.reader_cta_epoch != now.cta_epoch) return nullptr;
    const bool same_warp = granule.reader_warp == now.warp();
    const bool before = granule.reader == now.thread || granule.reader_warp_epoch < now.warp_epoch;
    return same_warp && before ? nullptr : "write of shared memory that another thread reads, without a barrier";
}

void Shadow::note_reader(Granule& granule, Moment now) {
    const bool fresh = granule.reader == kNever || granule.reader_cta_epoch != now.cta_epoch;
    if (fresh || (granule.reader_warp == now.warp() && granule.reader_warp_epoch < now.warp_epoch)) {
        // Earlier readers of the same warp passed the same barrier: who comes after us comes after them.
        granule.reader = now.thread;
        granule.reader_warp = now.warp();
    } else if (granule.reader_warp != now.warp()) {
        granule.reader = granule.reader_warp = kMany;
    } else if (granule.reader != now.thread) {
        granule.reader = kMany;
    }
    granule.reader_cta_epoch = now.cta_epoch;
    granule.reader_warp_epoch = now.warp_epoch;
}

const char* Shadow::read(size_t offset, size_t bytes, Moment now) {
    for (size_t at = offset / kGranule; at < (offset + bytes + kGranule - 1) / kGranule; ++at) {
        Granule& granule = granules_[at];
        if (granule.in_flight) return "read of shared memory whose copy was not waited for";
        if (granule.writer.thread == kNever) return "read of shared memory that nobody wrote";
        if (!ordered(granule, now)) return "read of shared memory that another thread writes, without a barrier";
        note_reader(granule, now);
    }
    return nullptr;
}

const char* Shadow::write(size_t offset, size_t bytes, Moment now) {
    for (size_t at = offset / kGranule; at < (offset + bytes + kGranule - 1) / kGranule; ++at) {
        if (const char* wrong = conflict(granules_[at], now, false)) return wrong;
        granules_[at].writer = now;
        granules_[at].atomic = false;
    }
    return nullptr;
}

const char* Shadow::atomic(size_t offset, size_t bytes, Moment now) {
    for (size_t at = offset / kGranule; at < (offset + bytes + kGranule - 1) / kGranule; ++at) {
        Granule& granule = granules_[at];
        if (granule.writer.thread == kNever) return "atomic operation on shared memory that nobody wrote";
        const bool beside = granule.atomic && granule.writer.cta_epoch == now.cta_epoch;
        if (const char* wrong = conflict(granule, now, beside)) return wrong;
        const bool several = beside && granule.writer.thread != now.thread;
        granule.writer = now;
        // Whoever reads must be ordered after all of them, not after the last.
        if (several) granule.writer.thread = kMany;
        granule.atomic = true;
    }
    return nullptr;
}

const char* Shadow::begin_copy(size_t offset, size_t bytes, Moment now) {
    const char* wrong = write(offset, bytes, now);
    for (size_t at = offset / kGranule; !wrong && at < (offset + bytes) / kGranule; ++at) {
        granules_[at].in_flight = true;
    }
    return wrong;
}

void Shadow::end_copy(size_t offset, size_t bytes, Moment now) {
    for (size_t at = offset / kGranule; at < (offset + bytes) / kGranule; ++at) {
        granules_[at].in_flight = false;
        granules_[at].writer = now;
    }
}

}  // namespace simt
