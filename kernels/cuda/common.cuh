// What the kernels share: number types, and sums over a block or a warp.
//
// The same sources are compiled by nvcc for a GPU and by any C++ compiler for the tests (host.hpp).
// All arithmetic is in f32 and correctly rounded (nvcc --fmad=false, no fast math), and every sum has
// an order that depends on its own row alone, so both give the same bits, alone or in a batch.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef __half f16;
typedef __nv_bfloat16 bf16;

__device__ inline float widen(f16 x) { return __half2float(x); }
__device__ inline float widen(bf16 x) { return __bfloat162float(x); }
__device__ inline void round_to(f16* y, float x) { *y = __float2half_rn(x); }
__device__ inline void round_to(bf16* y, float x) { *y = __float2bfloat16_rn(x); }
__device__ inline float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
__device__ inline float half_bits_to_float(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}
#else
#include "host.hpp"
#endif

__device__ inline float widen(float x) { return x; }
__device__ inline void round_to(float* y, float x) { *y = x; }

// Threads of every block; the launches in ../src/cuda.rs say the same.
constexpr uint32_t THREADS = 256;
constexpr uint32_t WARP = 32;

// The sum of all lanes' numbers, in every lane of the warp. All threads of the block take part.
__device__ inline float warp_sum(float x) {
    for (uint32_t step = WARP / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}

// The sum of all threads' numbers, in every thread of the block.
__device__ inline float block_sum(float x) {
    __shared__ float sums[THREADS / WARP];
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) {
        sums[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    float sum = 0.0f;
    for (uint32_t warp = 0; warp < THREADS / WARP; ++warp) {
        sum += sums[warp];
    }
    __syncthreads(); // or the next sum would overwrite what a slower thread still reads
    return sum;
}

// Defines the kernel NAME for the three types of numbers, each as `NAME_TYPE(parameters)`.
#define FOR_EACH_TYPE(define) define(f32, float) define(f16, f16) define(bf16, bf16)
