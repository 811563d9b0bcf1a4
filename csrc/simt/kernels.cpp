// The kernels of one family for the CPU, by the same table; a build with FB_MUTANT has that bug, and its own names.
#include "kernels.h"

// Seeded bugs need no more than one kernel of each kind.
#ifdef FB_MUTANT
#define FB_MORE(...)
#define FB_VARIANT FB_MUTANT
#else
#define FB_VARIANT none
#endif
#include "../families.h"

namespace flyball {
namespace {

template <class Kernel>
void body(const void* params) {
    Kernel::run(*static_cast<const typename Kernel::Params*>(params));
}

#define FB_KERNEL(name, ...) \
    {#name, __VA_ARGS__::kThreads, __VA_ARGS__::kShared, sizeof(__VA_ARGS__::Params), body<__VA_ARGS__>},
#define FB_KERNEL_SM90A FB_KERNEL
constexpr simt::Kernel kKernels[] = {
#include "../table.h"
};

}  // namespace
}  // namespace flyball

#define FB_JOIN(a, b, c, d) a##b##c##d
#define FB_LIST(variant, family) FB_JOIN(simt_kernels_, variant, _, family)
extern "C" simt::Kernels FB_LIST(FB_VARIANT, FB_FAMILY_NAME)() {
    return {flyball::kKernels, sizeof flyball::kKernels / sizeof flyball::kKernels[0]};
}
