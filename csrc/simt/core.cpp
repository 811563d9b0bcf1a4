// csrc/core for the tests, one plain function each.
#include "../core/chunks.h"
#include "../core/mask.h"
#include "../core/number.h"
#include "../core/philox.h"
#include "../core/rope.h"
#include "../core/softmax.h"
#include "simt.h"

using namespace flyball;

extern "C" {

uint16_t core_to_bf16(float value) { return from_float<Bf16>(value).bits; }
uint16_t core_to_f16(float value) { return from_float<F16>(value).bits; }
uint8_t core_to_e4m3(float value) { return from_float<E4m3>(value).bits; }
float core_from_bf16(uint16_t bits) { return to_float(Bf16{bits}); }
float core_from_f16(uint16_t bits) { return to_float(F16{bits}); }
float core_from_e4m3(uint8_t bits) { return to_float(E4m3{bits}); }

float core_lse(Softmax softmax) { return softmax.lse(); }
float core_normalizer(Softmax softmax) { return softmax.normalizer(); }

Random4 core_philox(Random4 counter, uint32_t key0, uint32_t key1) { return philox(counter, key0, key1); }
float core_uniform(uint32_t word) { return uniform(word); }

uint64_t core_rope_turns(uint32_t pair, uint32_t head_dim, double theta, RopeScaling scaling) {
    return rope_turns(pair, head_dim, theta, scaling);
}
Rotation core_rotation(uint64_t turns, uint32_t position) { return rotation(turns, position); }

uint32_t core_visible_keys(uint32_t query, uint32_t q_len, uint32_t kv_len) {
    return visible_keys(query, q_len, kv_len);
}

uint32_t core_chunk_tokens(uint32_t length, uint32_t chunk, uint32_t most) { return chunk_tokens(length, chunk, most); }
uint32_t core_chunk_count(uint32_t length, uint32_t chunk) { return chunk_count(length, chunk); }
Span core_chunk_span(uint32_t index, uint32_t length, uint32_t chunk) { return chunk_span(index, length, chunk); }
uint32_t core_row_of(uint32_t item, uint32_t rows, const uint32_t* from) {
    return row_of(item, rows, [=](uint32_t row) { return from[row]; });
}

}  // extern "C"
