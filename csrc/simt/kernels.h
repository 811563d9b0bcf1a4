// Lists of kernels that can be launched on the CPU.
#pragma once

#include "simt.h"

namespace simt {

struct Kernel {
    const char* name;
    uint32_t threads;
    uint32_t shared_bytes;
    uint64_t params_bytes;
    void (*body)(const void*);
};

struct Kernels {
    const Kernel* first;
    size_t count;
};

}  // namespace simt
