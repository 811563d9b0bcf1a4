#include "fiber.h"

#include <cstdint>

#ifdef SIMT_ASSEMBLY
// What the System V ABI lets a callee keep goes to the old stack, and comes back from the new one.
extern "C" void simt_switch(void** old_stack, void* new_stack);
asm(R"(
    .text
    .hidden simt_switch
    .globl simt_switch
    .type simt_switch, @function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size simt_switch, .-simt_switch
)");
#endif

namespace simt {

void Fiber::start(unsigned char* stack, void (*entry)()) {
    stack_ = stack;
#if defined(__SANITIZE_ADDRESS__)
    // A fiber that waited for ever left its frames there, and with them what they may not touch.
    __asan_unpoison_memory_region(stack, kStackBytes);
#endif
#ifdef SIMT_ASSEMBLY
    // Six registers, the address to return to, and one word so that the stack is aligned as after a call.
    auto* words = reinterpret_cast<uintptr_t*>(stack + kStackBytes) - 8;
    for (int word = 0; word < 8; ++word) words[word] = 0;
    words[6] = reinterpret_cast<uintptr_t>(entry);
    own_ = words;
#else
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack;
    own_.uc_stack.ss_size = kStackBytes;
    own_.uc_link = nullptr;
    makecontext(&own_, entry, 0);
#endif
}

void Fiber::enter() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake_, stack_, kStackBytes);
#endif
#ifdef SIMT_ASSEMBLY
    simt_switch(&scheduler_, own_);
#else
    swapcontext(&scheduler_, &own_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake_, nullptr, nullptr);
#endif
}

void Fiber::leave([[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &own_fake_, scheduler_stack_, scheduler_bytes_);
#endif
#ifdef SIMT_ASSEMBLY
    simt_switch(&own_, scheduler_);
#else
    swapcontext(&own_, &scheduler_);
#endif
    arrived();
}

void Fiber::arrived() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own_fake_, &scheduler_stack_, &scheduler_bytes_);
#endif
}

}  // namespace simt
