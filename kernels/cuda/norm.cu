// y = LayerNorm(x) * (1 + scale[seq]) + shift[seq]
//
// x, y [rows, c]; shift, scale [sequences, c]; seq_of_row [rows].
// One block a row. A row is read three times, from the cache after the first; written once.
// The mean comes first and the variance from what is left, as a mean far from zero needs.
#include "common.cuh"

template <typename T>
__device__ void layer_norm_modulate(const T* x, const T* shift, const T* scale,
                                    const uint32_t* seq_of_row, uint32_t sequences, uint32_t c,
                                    float eps, T* y) {
    const size_t row = blockIdx.x;
    // Whoever launches this cannot see the numbers: none may lead out of the arrays.
    const uint32_t named = seq_of_row[row];
    const size_t sequence = named < sequences ? named : sequences - 1;
    x += row * c;
    y += row * c;
    shift += sequence * c;
    scale += sequence * c;

    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < c; i += THREADS) {
        sum += widen(x[i]);
    }
    const float mean = block_sum(sum) / float(c);
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < c; i += THREADS) {
        const float d = widen(x[i]) - mean;
        squares = fmaf(d, d, squares);
    }
    const float inverse = 1.0f / sqrtf(block_sum(squares) / float(c) + eps);
    for (uint32_t i = threadIdx.x; i < c; i += THREADS) {
        const float normed = (widen(x[i]) - mean) * inverse;
        round_to(&y[i], fmaf(normed, 1.0f + widen(scale[i]), widen(shift[i])));
    }
}

#define DEFINE(name, T)                                                                     \
    extern "C" __global__ void layer_norm_modulate_##name(                                  \
        const T* x, const T* shift, const T* scale, const uint32_t* seq_of_row,             \
        uint32_t sequences, uint32_t c, float eps, T* y) {                                  \
        layer_norm_modulate(x, shift, scale, seq_of_row, sequences, c, eps, y);             \
    }
FOR_EACH_TYPE(DEFINE)
#undef DEFINE
