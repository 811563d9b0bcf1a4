// The functions of cuBLASLt that the library calls: D = transposed(A) * B, summed in f32.
//
// How an algorithm adds up depends on the rows that it was chosen for, as it does on a device: it sums k in one, two or
// three parts, and these in the type of the output. Only where sums may not be split is it always one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../core/number.h"
#include "status.h"

namespace simt::driver {
namespace {

enum class BlasStatus : uint32_t { success = 0, invalid_value = 7, execution_failed = 13, not_supported = 15 };

enum Type : int { kF16 = 2, kBf16 = 14, kF32 = 0 };

struct Description {
    bool transposed = false;
};
struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t stride;
};
struct Preference {
    bool whole_sums = false;
};
struct Algorithm {
    uint64_t parts;
    uint64_t unused[7];
};
struct Found {
    Algorithm algorithm;
    size_t workspace;
    BlasStatus state;
    float waves;
    int reserved[4];
};

struct Product {
    const void *a, *b;
    void* d;
    Layout a_layout, b_layout, d_layout;
    uint64_t parts;
};

size_t bytes_of(int type) { return type == kF32 ? 4 : 2; }

float load(const void* from, int type, uint64_t at) {
    uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(from) + at * 2, 2);
    return type == kF16 ? flyball::to_float(flyball::F16{bits}) : flyball::to_float(flyball::Bf16{bits});
}

void store(void* to, int type, uint64_t at, float value) {
    char* place = static_cast<char*>(to) + at * bytes_of(type);
    if (type == kF32) {
        std::memcpy(place, &value, 4);
    } else if (type == kF16) {
        const auto narrow = flyball::from_float<flyball::F16>(value);
        std::memcpy(place, &narrow, 2);
    } else {
        const auto narrow = flyball::from_float<flyball::Bf16>(value);
        std::memcpy(place, &narrow, 2);
    }
}

float rounded(float value, int type) {
    if (type == kF16) return flyball::to_float(flyball::from_float<flyball::F16>(value));
    if (type == kBf16) return flyball::to_float(flyball::from_float<flyball::Bf16>(value));
    return value;
}

// A column of B at a time; the sums of all its outputs side by side, over a copy of A that is so too.
void multiply(const void* argument) {
    Product p;
    std::memcpy(&p, argument, sizeof p);
    const uint64_t k = p.a_layout.rows, rows = p.d_layout.rows;
    std::vector<float> a(k * rows), sums(rows), partial(rows);
    for (uint64_t row = 0; row < rows; ++row) {
        for (uint64_t at = 0; at < k; ++at) {
            a[at * rows + row] = load(p.a, p.a_layout.type, row * uint64_t(p.a_layout.stride) + at);
        }
    }
    for (uint64_t column = 0; column < p.d_layout.columns; ++column) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (uint64_t part = 0; part < p.parts; ++part) {
            std::fill(partial.begin(), partial.end(), 0.0f);
            for (uint64_t at = k * part / p.parts; at < k * (part + 1) / p.parts; ++at) {
                const float b = load(p.b, p.b_layout.type, column * uint64_t(p.b_layout.stride) + at);
                for (uint64_t row = 0; row < rows; ++row) partial[row] += a[at * rows + row] * b;
            }
            for (uint64_t row = 0; row < rows; ++row) {
                sums[row] += p.parts == 1 ? partial[row] : rounded(partial[row], p.d_layout.type);
            }
        }
        for (uint64_t row = 0; row < rows; ++row) {
            store(p.d, p.d_layout.type, column * uint64_t(p.d_layout.stride) + row, sums[row]);
        }
    }
}

bool fits(const Description& what, const Layout& a, const Layout& b, const Layout& d) {
    return what.transposed && a.rows == b.rows && a.columns == d.rows && b.columns == d.columns &&
           a.stride >= int64_t(a.rows) && b.stride >= int64_t(b.rows) && d.stride >= int64_t(d.rows) &&
           a.type == b.type && (a.type == kF16 || a.type == kBf16);
}

}  // namespace

struct Stream;
extern "C" Status simt_start(Stream* stream, void (*work)(const void*), const void* argument, size_t bytes,
                             const void* output, size_t output_bytes);

}  // namespace simt::driver

using namespace simt::driver;

extern "C" {

BlasStatus cublasLtCreate(void** handle) {
    *handle = new char;
    return BlasStatus::success;
}

BlasStatus cublasLtDestroy(void* handle) {
    delete static_cast<char*>(handle);
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulDescCreate(Description** what, int, int) {
    *what = new Description;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulDescDestroy(Description* what) {
    delete what;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulDescSetAttribute(Description* what, int attribute, const int* value, size_t) {
    if (attribute != 3) return BlasStatus::not_supported;
    what->transposed = *value == 1;
    return BlasStatus::success;
}

BlasStatus cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    *layout = new Layout{type, rows, columns, stride};
    return BlasStatus::success;
}

BlasStatus cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const uint32_t* value, size_t) {
    if (attribute == 3) preference->whole_sums = *value == 0;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulAlgoGetHeuristic(void*, Description* what, Layout* a, Layout* b, Layout*, Layout* d,
                                          Preference* preference, int, Found* found, int* count) {
    if (!fits(*what, *a, *b, *d)) return BlasStatus::not_supported;
    *found = {};
    found->algorithm.parts = preference->whole_sums ? 1 : 1 + d->columns % 3;
    *count = 1;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmulAlgoCheck(void*, Description* what, Layout* a, Layout* b, Layout*, Layout* d,
                                   const Algorithm* algorithm, Found* found) {
    if (!fits(*what, *a, *b, *d)) return BlasStatus::not_supported;
    *found = {};
    found->algorithm = *algorithm;
    return BlasStatus::success;
}

BlasStatus cublasLtMatmul(void*, Description* what, const float* alpha, const void* a, Layout* a_layout, const void* b,
                          Layout* b_layout, const float* beta, const void*, Layout*, void* d, Layout* d_layout,
                          const Algorithm* algorithm, void*, size_t, Stream* stream) {
    if (!fits(*what, *a_layout, *b_layout, *d_layout)) return BlasStatus::not_supported;
    if (*alpha != 1 || *beta != 0) return BlasStatus::invalid_value;
    const Product product = {a, b, d, *a_layout, *b_layout, *d_layout, algorithm->parts};
    const size_t output_bytes = d_layout->columns * uint64_t(d_layout->stride) * bytes_of(d_layout->type);
    const Status status = simt_start(stream, multiply, &product, sizeof product, d, output_bytes);
    return status == Status::success ? BlasStatus::success : BlasStatus::execution_failed;
}

}  // extern "C"
