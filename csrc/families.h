// The kernel families, and which of them a unit compiles: all, or the one that FB_FAMILY names.
#pragma once

#define FB_NORM 1
#define FB_APPEND 2
#define FB_COPY 3
#define FB_DECODE 4
#define FB_PREFILL 5
#define FB_SAMPLE 6
#define FB_HOPPER 7
#define FB_ACTIVATION 8
#define FB_GATHER 9

#ifdef FB_FAMILY
#define FB_WANTS(family) (FB_FAMILY == family)
#else
#define FB_WANTS(family) 1
#endif

#if FB_WANTS(FB_NORM)
#include "norm/rms_norm.cuh"
#endif
#if FB_WANTS(FB_APPEND)
#include "kv/append.cuh"
#endif
#if FB_WANTS(FB_COPY)
#include "kv/copy.cuh"
#include "kv/scatter.cuh"
#endif
#if FB_WANTS(FB_DECODE)
#include "attention/decode.cuh"
#include "attention/merge.cuh"
#include "attention/plan.cuh"
#endif
#if FB_WANTS(FB_PREFILL)
#include "attention/prefill.cuh"
#include "attention/prefill_plan.cuh"
#endif
#if FB_WANTS(FB_HOPPER)
#include "hopper/prefill.cuh"
#endif
#if FB_WANTS(FB_SAMPLE)
#include "sample/penalize.cuh"
#include "sample/sample.cuh"
#endif
#if FB_WANTS(FB_ACTIVATION)
#include "activation/silu_mul.cuh"
#endif
#if FB_WANTS(FB_GATHER)
#include "gather/rows.cuh"
#endif
