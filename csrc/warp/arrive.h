// The last of several ctas to finish their parts takes what is left: nobody waits.
#pragma once

#include "warp.h"

namespace flyball {

// For whole ctas: whether this one is the last of `expected` to come to `counters[index]`, which it then sets to 0
// again. If so, it sees what the others wrote to global memory before they came. `flag` is one word of its own.
FB_DEVICE bool last_to_arrive(Global<uint32_t> counters, int64_t index, uint32_t expected, Shared<uint32_t> flag) {
    sync_cta();
    if (thread_index() == 0) {
        fence();
        const bool last = atomic_add(counters, index, 1u) + 1 == expected;
        if (last) {
            counters.set(index, 0);
            fence();
        }
        flag.set(0, last);
    }
    sync_cta();
    return flag[0];
}

}  // namespace flyball
