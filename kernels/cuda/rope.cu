// RMSNorm of each head, times weight, then the rotation of interleaved pairs:
// (a, b) -> (a cos - b sin, a sin + b cos).
//
// x, y [rows, heads * dim], dim even; weight f32 [dim]; cos, sin f32 [rows, dim / 2].
// One warp a head, in f32 from the first number read to the last one written: angles in bf16, which
// holds whole numbers only up to 256, would move tokens about.
#include "common.cuh"

template <typename T>
__device__ void rms_norm_rope(const T* x, const float* weight, const float* cos, const float* sin,
                              uint64_t items, uint32_t heads, uint32_t dim, float eps, T* y) {
    const uint32_t lane = threadIdx.x % WARP;
    const size_t item = size_t(blockIdx.x) * (THREADS / WARP) + threadIdx.x / WARP; // a row's head
    const uint32_t pairs = item < items ? dim / 2 : 0; // a warp past the end only keeps step
    const size_t angles = item / heads * (dim / 2);
    x += item * dim;
    y += item * dim;

    float squares = 0.0f;
    for (uint32_t pair = lane; pair < pairs; pair += WARP) {
        const float a = widen(x[2 * pair]), b = widen(x[2 * pair + 1]);
        squares = fmaf(b, b, fmaf(a, a, squares));
    }
    const float inverse = 1.0f / sqrtf(warp_sum(squares) / float(dim) + eps);
    for (uint32_t pair = lane; pair < pairs; pair += WARP) {
        const float a = widen(x[2 * pair]) * inverse * weight[2 * pair];
        const float b = widen(x[2 * pair + 1]) * inverse * weight[2 * pair + 1];
        const float c = cos[angles + pair], s = sin[angles + pair];
        round_to(&y[2 * pair], a * c - b * s);
        round_to(&y[2 * pair + 1], a * s + b * c);
    }
}

#define DEFINE(name, T)                                                                        \
    extern "C" __global__ void rms_norm_rope_##name(                                           \
        const T* x, const float* weight, const float* cos, const float* sin, uint64_t items,   \
        uint32_t heads, uint32_t dim, float eps, T* y) {                                       \
        rms_norm_rope(x, weight, cos, sin, items, heads, dim, eps, y);                         \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
