// The launcher under a C name.
#include "simt.h"

extern "C" uint64_t simt_launch(const simt::Launch* launch, void (*body)(const void*), const void* params) {
    return simt::launch(*launch, body, params);
}
