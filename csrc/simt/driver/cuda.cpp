// The functions of CUDA's driver API that the library calls, on emulated devices. Kernels are those of csrc/table.h,
// by their names: the code in an image is not looked at. Shapes, ranges and states are checked as the driver checks
// them. One call at a time.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "../async.h"
#include "device.h"

namespace simt::driver {
namespace {

#define SIMT_LIST(family) extern "C" Kernels simt_kernels_none_##family();
SIMT_FAMILIES
#undef SIMT_LIST

std::mutex one_at_a_time;
thread_local Device* current = nullptr;

// What a test wants: which call fails, and how; and which does nothing.
struct Failure {
    std::string call;
    uint64_t after;
    Status status;
};
std::optional<Failure> planned;
std::string ignored;

Status planned_failure(const char* call) {
    if (!planned || planned->call != call) return Status::success;
    if (planned->after > 0) {
        planned->after -= 1;
        return Status::success;
    }
    const Status status = planned->status;
    planned.reset();
    return status;
}

// A call that needs no context.
template <class Body>
Status plain(const char* name, Body body) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (const Status status = planned_failure(name); status != Status::success) return status;
    return body();
}

// A call of the current context.
template <class Body>
Status call(const char* name, Body body) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (!current) return Status::invalid_context;
    Device& device = *current;
    if (device.lost != Status::success) return device.lost;
    if (const Status status = planned_failure(name); status != Status::success) return device.note(status);
    const Status status = ignored == name ? Status::success : body(device);
    // What ran meanwhile may have faulted.
    return device.lost != Status::success ? device.lost : status;
}

const Kernel* find(const char* name) {
    const Kernels lists[] = {
#define SIMT_LIST(family) simt_kernels_none_##family(),
        SIMT_FAMILIES
#undef SIMT_LIST
    };
    for (const Kernels& list : lists) {
        for (size_t at = 0; at < list.count; ++at) {
            if (std::strcmp(list.first[at].name, name) == 0) return &list.first[at];
        }
    }
    return nullptr;
}

Device* device_of(int ordinal) {
    return ordinal >= 0 && size_t(ordinal) < devices().size() ? &devices()[size_t(ordinal)] : nullptr;
}

std::vector<Stream*> all(const std::set<Stream*>& streams) { return {streams.begin(), streams.end()}; }

}  // namespace

// For the library of matrix products: its work takes its turn in a stream, and writes from `output` on.
extern "C" Status simt_start(Stream* stream, void (*work)(const void*), const void* argument, size_t bytes,
                             const void* output, size_t output_bytes) {
    return call("simt_start", [&](Device& device) {
        const std::string copy(static_cast<const char*>(argument), bytes);
        stream->writes = std::make_shared<simt::Writes>();
        stream->writes->note(reinterpret_cast<uint64_t>(output), output_bytes);
        device.queue.add(*stream, [&device, work, copy] {
            if (device.lost == Status::success) work(copy.data());
        });
        return Status::success;
    });
}

// The call of this name that comes after `after` others of it fails so, once.
extern "C" void simt_fail(const char* name, uint64_t after, uint32_t status) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    planned = Failure{name, after, Status(status)};
}

// Calls of this name do nothing from now on; none is ignored where it is empty. For those that yield nothing.
extern "C" void simt_ignore(const char* name) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    ignored = name;
}

}  // namespace simt::driver

using namespace simt::driver;
using simt::Kernel;

extern "C" {

// ---- The driver and its devices.

Status cuInit(unsigned) { return plain("cuInit", [] { return Status::success; }); }

Status cuDriverGetVersion(int* version) {
    *version = 13000;
    return Status::success;
}

Status cuGetErrorName(Status status, const char** name) {
    *name = name_of(status);
    return *name ? Status::success : Status::invalid_value;
}

Status cuGetErrorString(Status status, const char** text) {
    *text = "as the emulator has it";
    return name_of(status) ? Status::success : Status::invalid_value;
}

Status cuDeviceGetCount(int* count) {
    *count = int(devices().size());
    return Status::success;
}

Status cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return device_of(ordinal) ? Status::success : Status::invalid_device;
}

Status cuDeviceGetName(char* name, int bytes, int ordinal) {
    Device* device = device_of(ordinal);
    if (!device) return Status::invalid_device;
    std::strncpy(name, device->traits.name, size_t(bytes) - 1);
    name[bytes - 1] = 0;
    return Status::success;
}

Status cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = Device::kMemory;
    return Status::success;
}

Status cuDeviceGetAttribute(int* value, int attribute, int ordinal) {
    Device* device = device_of(ordinal);
    if (!device) return Status::invalid_device;
    switch (attribute) {
        case 16: *value = Device::kMultiprocessors; break;
        case 38: *value = 4 << 20; break;  // bytes of L2
        case 75: *value = int(device->traits.capability / 10); break;
        case 76: *value = int(device->traits.capability % 10); break;
        case 97: *value = int(device->traits.shared_max); break;
        case 115: *value = 0; break;  // memory pools
        default: return Status::invalid_value;
    }
    return Status::success;
}

// ---- Contexts: a device is its own.

Status cuDevicePrimaryCtxRetain(Device** context, int ordinal) {
    return plain("cuDevicePrimaryCtxRetain", [&] {
        Device* device = *context = device_of(ordinal);
        if (!device) return Status::invalid_device;
        device->retained += 1;
        return Status::success;
    });
}

Status cuDevicePrimaryCtxRelease_v2(int ordinal) {
    return plain("cuDevicePrimaryCtxRelease", [&] {
        Device* device = device_of(ordinal);
        if (!device || device->retained == 0) return Status::invalid_device;
        if (--device->retained == 0) device->reset();
        return Status::success;
    });
}

Status cuCtxSetCurrent(Device* context) {
    current = context;
    return Status::success;
}

Status cuCtxGetCurrent(Device** context) {
    *context = current;
    return Status::success;
}

Status cuCtxSynchronize() {
    return call("cuCtxSynchronize", [](Device& device) { return device.queue.settle_all(); });
}

// ---- Memory.

Status cuMemGetInfo_v2(size_t* free, size_t* total) {
    return call("cuMemGetInfo", [&](Device& device) {
        *free = device.free_bytes();
        *total = Device::kMemory;
        return Status::success;
    });
}

Status cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    return call("cuMemAlloc", [&](Device& device) { return device.allocate(*address, bytes); });
}

Status cuMemFree_v2(uint64_t address) {
    return call("cuMemFree", [&](Device& device) { return device.free(address); });
}

Status cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    return call("cuMemHostAlloc", [&](Device&) {
        *memory = std::malloc(bytes);
        return *memory ? Status::success : Status::out_of_memory;
    });
}

Status cuMemFreeHost(void* memory) {
    return call("cuMemFreeHost", [&](Device&) {
        std::free(memory);
        return Status::success;
    });
}

Status cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    return call("cuMemcpyHtoDAsync", [&](Device& device) {
        if (!device.holds(to, bytes)) return Status::invalid_value;
        return device.copy(*stream, to, reinterpret_cast<uint64_t>(from), bytes);
    });
}

Status cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    return call("cuMemcpyDtoHAsync", [&](Device& device) {
        if (!device.holds(from, bytes)) return Status::invalid_value;
        return device.copy(*stream, reinterpret_cast<uint64_t>(to), from, bytes);
    });
}

Status cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    return call("cuMemcpyDtoDAsync", [&](Device& device) {
        if (!device.holds(from, bytes) || !device.holds(to, bytes)) return Status::invalid_value;
        return device.copy(*stream, to, from, bytes);
    });
}

Status cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, Stream* stream) {
    return call("cuMemsetD8Async", [&](Device& device) { return device.fill(*stream, to, byte, bytes); });
}

// ---- Streams and events.

Status cuStreamCreate(Stream** stream, unsigned) {
    return call("cuStreamCreate", [&](Device& device) {
        device.streams.insert(*stream = new Stream);
        return Status::success;
    });
}

Status cuStreamDestroy_v2(Stream* stream) {
    return call("cuStreamDestroy", [&](Device& device) {
        device.streams.erase(stream);
        delete stream;
        return Status::success;
    });
}

Status cuStreamSynchronize(Stream* stream) {
    return call("cuStreamSynchronize", [&](Device& device) { return device.queue.settle(stream->last); });
}

Status cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    return call("cuStreamWaitEvent", [&](Device& device) {
        device.queue.wait(*stream, *event);
        return Status::success;
    });
}

Status cuEventCreate(Event** event, unsigned) {
    return call("cuEventCreate", [&](Device&) {
        *event = new Event;
        return Status::success;
    });
}

Status cuEventDestroy_v2(Event* event) {
    return call("cuEventDestroy", [&](Device&) {
        delete event;
        return Status::success;
    });
}

Status cuEventRecord(Event* event, Stream* stream) {
    return call("cuEventRecord", [&](Device& device) {
        device.queue.record(*stream, *event);
        return Status::success;
    });
}

Status cuEventSynchronize(Event* event) {
    return call("cuEventSynchronize", [&](Device& device) { return device.queue.settle(event->operation); });
}

// Not yet, when first asked; then it is.
Status cuEventQuery(Event* event) {
    return call("cuEventQuery", [&](Device& device) {
        if (!event->operation || event->operation->done) return Status::success;
        const Status status = device.queue.settle(event->operation);
        return status == Status::success ? Status::not_ready : status;
    });
}

Status cuEventElapsedTime_v2(float* milliseconds, Event* from, Event* to) {
    return call("cuEventElapsedTime", [&](Device&) {
        for (Event* event : {from, to}) {
            if (!event->operation) return Status::invalid_value;
            if (!event->operation->done) return Status::not_ready;
        }
        *milliseconds = float((*to->reached - *from->reached) / 1000);
        return Status::success;
    });
}

// ---- Graphs.

Status cuStreamBeginCapture_v2(Stream* stream, int) {
    return call("cuStreamBeginCapture", [&](Device& device) {
        if (stream->capture) return Status::invalid_value;
        device.queue.begin_capture(*stream);
        return Status::success;
    });
}

Status cuStreamEndCapture(Stream* stream, std::shared_ptr<Graph>** graph) {
    *graph = nullptr;
    return call("cuStreamEndCapture", [&](Device& device) {
        Status status = Status::success;
        if (auto captured = device.queue.end_capture(*stream, all(device.streams), status)) {
            *graph = new std::shared_ptr<Graph>(captured);
        }
        return status;
    });
}

Status cuGraphInstantiateWithFlags(std::shared_ptr<Graph>** executable, std::shared_ptr<Graph>* graph, uint64_t) {
    return call("cuGraphInstantiate", [&](Device&) {
        *executable = new std::shared_ptr<Graph>(*graph);
        return Status::success;
    });
}

Status cuGraphUpload(std::shared_ptr<Graph>*, Stream*) {
    return call("cuGraphUpload", [](Device&) { return Status::success; });
}

Status cuGraphLaunch(std::shared_ptr<Graph>* executable, Stream* stream) {
    return call("cuGraphLaunch", [&](Device& device) {
        device.queue.launch(*stream, **executable);
        return Status::success;
    });
}

Status cuGraphDestroy(std::shared_ptr<Graph>* graph) {
    delete graph;
    return Status::success;
}

Status cuGraphExecDestroy(std::shared_ptr<Graph>* executable) {
    delete executable;
    return Status::success;
}

// ---- Kernels.

Status cuModuleLoadData(void** module, const void* image) {
    return call("cuModuleLoadData", [&](Device&) {
        *module = const_cast<void*>(image);
        return Status::success;
    });
}

Status cuModuleUnload(void*) {
    return call("cuModuleUnload", [](Device&) { return Status::success; });
}

Status cuModuleGetFunction(const Kernel** kernel, void*, const char* name) {
    return call("cuModuleGetFunction", [&](Device&) {
        *kernel = find(name);
        return *kernel ? Status::success : Status::not_found;
    });
}

Status cuFuncSetAttribute(const Kernel* kernel, int, int bytes) {
    return call("cuFuncSetAttribute", [&](Device& device) {
        const bool fits = uint32_t(bytes) == kernel->shared_bytes && uint32_t(bytes) <= device.traits.shared_max;
        return fits ? Status::success : Status::invalid_value;
    });
}

Status cuOccupancyMaxActiveBlocksPerMultiprocessor(int* ctas, const Kernel* kernel, int threads, size_t bytes) {
    return call("cuOccupancyMaxActiveBlocksPerMultiprocessor", [&](Device& device) {
        if (uint32_t(threads) != kernel->threads || bytes != kernel->shared_bytes) return Status::invalid_value;
        const uint32_t by_threads = Device::kThreadsMax / kernel->threads;
        const uint32_t by_memory = bytes ? uint32_t(device.traits.shared_max / bytes) : by_threads;
        *ctas = int(by_threads < by_memory ? by_threads : by_memory);
        return Status::success;
    });
}

struct LaunchConfig {
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t shared_bytes;
    Stream* stream;
    void* attributes;
    uint32_t attribute_count;
};

Status cuLaunchKernelEx(const LaunchConfig* config, const Kernel* kernel, void** params, void**) {
    return call("cuLaunchKernelEx", [&](Device& device) {
        const auto [x, y, z] = config->grid;
        const auto [threads, rows, planes] = config->block;
        const bool shaped = x > 0 && y == 1 && z == 1 && threads == kernel->threads && rows == 1 && planes == 1;
        if (!shaped || config->shared_bytes != kernel->shared_bytes) return Status::invalid_value;
        // The one attribute that the library sets lets it begin early.
        return device.run(*config->stream, *kernel, x, params[0], config->attribute_count > 0);
    });
}

// Of what the hardware takes, only what csrc/hopper uses: four dimensions of two bytes, swizzled by 128 bytes.
Status cuTensorMapEncodeTiled(simt::TensorMap* map, int element, uint32_t rank, uint64_t address, const uint64_t* sizes,
                              const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                              int swizzle, int, int) {
    constexpr int kF16 = 6, kBf16 = 9, kSwizzle128 = 3;
    if (rank != 4 || (element != kF16 && element != kBf16) || swizzle != kSwizzle128) return Status::not_supported;
    if (address % 16 != 0 || interleave != 0) return Status::invalid_value;
    *map = {};
    map->base = address;
    for (uint32_t at = 0; at < rank; ++at) {
        if (sizes[at] == 0 || box[at] == 0 || box[at] > 256 || steps[at] != 1) return Status::invalid_value;
        if (at > 0 && strides[at - 1] % 16 != 0) return Status::invalid_value;
        map->size[at] = sizes[at];
        map->box[at] = box[at];
        if (at > 0) map->stride[at - 1] = strides[at - 1];
    }
    return Status::success;
}

}  // extern "C"
