// What the templates of core/ are compiled as: for both sides by nvcc, for the host alone by anything else.
#pragma once

#ifdef __CUDACC__
#define FB_HD __host__ __device__ __forceinline__
#else
#define FB_HD inline
#endif
