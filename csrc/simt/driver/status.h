// What calls return: the codes of CUDA's driver API that this driver knows, and their names.
#pragma once

#include <cstdint>

namespace simt::driver {

enum class Status : uint32_t {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    invalid_device = 101,
    invalid_context = 201,
    ecc_uncorrectable = 214,
    not_found = 500,
    not_ready = 600,
    illegal_address = 700,
    launch_failed = 719,
    not_supported = 801,
    capture_unsupported = 900,
    capture_unjoined = 904,
};

inline const char* name_of(Status status) {
    switch (status) {
        case Status::success: return "CUDA_SUCCESS";
        case Status::invalid_value: return "CUDA_ERROR_INVALID_VALUE";
        case Status::out_of_memory: return "CUDA_ERROR_OUT_OF_MEMORY";
        case Status::invalid_device: return "CUDA_ERROR_INVALID_DEVICE";
        case Status::invalid_context: return "CUDA_ERROR_INVALID_CONTEXT";
        case Status::ecc_uncorrectable: return "CUDA_ERROR_ECC_UNCORRECTABLE";
        case Status::not_found: return "CUDA_ERROR_NOT_FOUND";
        case Status::not_ready: return "CUDA_ERROR_NOT_READY";
        case Status::illegal_address: return "CUDA_ERROR_ILLEGAL_ADDRESS";
        case Status::launch_failed: return "CUDA_ERROR_LAUNCH_FAILED";
        case Status::not_supported: return "CUDA_ERROR_NOT_SUPPORTED";
        case Status::capture_unsupported: return "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
        case Status::capture_unjoined: return "CUDA_ERROR_STREAM_CAPTURE_UNJOINED";
    }
    return nullptr;
}

// After these every call of the context fails.
inline bool is_sticky(Status status) {
    return status == Status::ecc_uncorrectable || status == Status::illegal_address ||
           status == Status::launch_failed;
}

}  // namespace simt::driver
