// What the parts of the emulator may ask of the machine that runs the cta.
#pragma once

#include <cstdint>

namespace simt {

// The current thread waits until it is woken.
void park();
void wake(uint32_t thread);
// Reports something wrong, in the name of the current thread.
void fault(const char* what);

}  // namespace simt
