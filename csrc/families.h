// All kernel families.
#pragma once

#include "attention/decode.cuh"
#include "attention/merge.cuh"
#include "attention/plan.cuh"
#include "kv/append.cuh"
#include "kv/copy.cuh"
#include "norm/rms_norm.cuh"
#include "sample/sample.cuh"
