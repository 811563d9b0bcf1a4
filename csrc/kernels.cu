// The kernels for a GPU: one entry per line of table.h, its parameters as one block in constant memory.
#include "families.h"

namespace flyball {

#define FB_KERNEL(name, ...)                                              \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::kThreads)   \
        name(const __grid_constant__ __VA_ARGS__::Params params) {        \
        __VA_ARGS__::run(params);                                         \
    }
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FB_KERNEL_SM90A FB_KERNEL
#endif
#include "table.h"

}  // namespace flyball
