// A stack of its own that can be left and entered again. swapcontext makes two system calls per switch, for
// signal masks that nobody changes: on x86-64 a dozen instructions do the same 25 times faster.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && !defined(FB_UCONTEXT)
#define SIMT_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

class Fiber {
public:
    static constexpr size_t kStackBytes = 64 << 10;

    // Sets it to begin at `entry`, which never returns: it leaves by `leave`.
    void start(unsigned char* stack, void (*entry)());

    // From the scheduler into the fiber, until it leaves.
    void enter();
    // From the fiber to the scheduler; `for_good` if it will not be entered again.
    void leave(bool for_good);
    // The first thing a fiber does.
    void arrived();

private:
    unsigned char* stack_ = nullptr;
#ifdef SIMT_ASSEMBLY
    void* own_ = nullptr;
    void* scheduler_ = nullptr;
#else
    ucontext_t own_;
    ucontext_t scheduler_;
#endif
#if defined(__SANITIZE_ADDRESS__)
    // What AddressSanitizer needs to know which stack is in use.
    void* own_fake_ = nullptr;
    void* scheduler_fake_ = nullptr;
    const void* scheduler_stack_ = nullptr;
    size_t scheduler_bytes_ = 0;
#endif
};

}  // namespace simt
