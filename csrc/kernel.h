// FB_KERNEL for a GPU: the entry point of a line of table.h, its parameters as one block in constant memory, and the
// shape that it is launched with, which build.rs reads from the compiled file.
//
// Any may be launched before the grid ahead has ended (programmatic dependent launch): run() waits for that one before
// it writes anything or reads what that one wrote, and the emulator sees to it.
//
// A kernel type has kThreads, kShared (bytes of dynamic shared memory) and Params. It may have kCtasPerSm: how many
// ctas must fit on a multiprocessor at once, which bounds its registers.
#pragma once

#include <cstdint>

namespace flyball {

template <class...>
using Void = void;

template <class Kernel, class = void>
struct Occupancy {
    static constexpr uint32_t kCtas = 1;
};
template <class Kernel>
struct Occupancy<Kernel, Void<decltype(Kernel::kCtasPerSm)>> {
    static constexpr uint32_t kCtas = Kernel::kCtasPerSm;
};

}  // namespace flyball

#define FB_KERNEL(name, ...)                                                                       \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::kThreads, Occupancy<__VA_ARGS__>::kCtas) \
        name(const __grid_constant__ __VA_ARGS__::Params params) {                                 \
        __VA_ARGS__::run(params);                                                                  \
    }                                                                                              \
    extern "C" __device__ const uint32_t shape_##name[4] = {                                       \
        __VA_ARGS__::kThreads, __VA_ARGS__::kShared, uint32_t(sizeof(__VA_ARGS__::Params)),        \
        Occupancy<__VA_ARGS__>::kCtas};
