// y = decode(blocks) * scale: weights as they lie in a file, to f32, f16 or bf16.
//
// blocks: n / WEIGHTS blocks of BYTES bytes each, at any address. scale: none, one, or one for each
// row of k weights (step 0 or 1). One thread a weight: neighbours read one block and write side by
// side, and what bounds it is the writing.
// The arithmetic is that of gguf-py's `gguf.quants`, step by step, so f32 has the same bits.
#include "common.cuh"

__device__ inline float half_at(const uint8_t* p) {
    return half_bits_to_float(uint16_t(p[0] | p[1] << 8));
}

__device__ inline uint32_t word_at(const uint8_t* p) {
    return p[0] | p[1] << 8 | p[2] << 16 | uint32_t(p[3]) << 24;
}

// Two bits of a K block of 64 bytes: 4 planes in each half of 128 weights.
__device__ inline int two_bits(const uint8_t* p, uint32_t j) {
    return p[j / 128 * 32 + j % 32] >> (j % 128 / 32 * 2) & 3;
}

// The low or high half of a byte: weights of even and odd groups of 32 share bytes.
__device__ inline int four_bits(const uint8_t* p, uint32_t j) {
    return p[j / 64 * 32 + j % 32] >> (j % 64 / 32 * 4) & 15;
}

struct F32 {
    static constexpr uint32_t WEIGHTS = 1, BYTES = 4;
    static __device__ float decode(const uint8_t* p, uint32_t) { return bits_to_float(word_at(p)); }
};

struct F16 {
    static constexpr uint32_t WEIGHTS = 1, BYTES = 2;
    static __device__ float decode(const uint8_t* p, uint32_t) { return half_at(p); }
};

struct BF16 {
    static constexpr uint32_t WEIGHTS = 1, BYTES = 2;
    static __device__ float decode(const uint8_t* p, uint32_t) {
        return bits_to_float(uint32_t(p[0]) << 16 | uint32_t(p[1]) << 24);
    }
};

// Sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinity, and NaN where all are set.
struct F8_E4M3 {
    static constexpr uint32_t WEIGHTS = 1, BYTES = 1;
    static __device__ float decode(const uint8_t* p, uint32_t) {
        const uint32_t sign = uint32_t(*p & 0x80) << 24, rest = *p & 0x7f;
        if (rest == 0x7f) {
            return bits_to_float(sign | 0x7fc00000);
        }
        if (rest < 8) { // subnormal: exact
            const float x = float(rest) / 512.0f;
            return sign ? -x : x;
        }
        return bits_to_float(sign | ((rest << 20) + (120u << 23)));
    }
};

// The upper byte of an f16.
struct F8_E5M2 {
    static constexpr uint32_t WEIGHTS = 1, BYTES = 1;
    static __device__ float decode(const uint8_t* p, uint32_t) {
        return half_bits_to_float(uint16_t(*p << 8));
    }
};

struct Q8_0 {
    static constexpr uint32_t WEIGHTS = 32, BYTES = 34;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        return half_at(p) * float(int8_t(p[2 + j]));
    }
};

struct Q4_0 {
    static constexpr uint32_t WEIGHTS = 32, BYTES = 18;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        return half_at(p) * float((p[2 + j % 16] >> j / 16 * 4 & 15) - 8);
    }
};

struct Q4_1 {
    static constexpr uint32_t WEIGHTS = 32, BYTES = 20;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        return half_at(p) * float(p[4 + j % 16] >> j / 16 * 4 & 15) + half_at(p + 2);
    }
};

struct Q5_0 {
    static constexpr uint32_t WEIGHTS = 32, BYTES = 22;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        const int high = int(word_at(p + 2) >> j & 1) << 4;
        return half_at(p) * float(((p[6 + j % 16] >> j / 16 * 4 & 15) | high) - 16);
    }
};

struct Q5_1 {
    static constexpr uint32_t WEIGHTS = 32, BYTES = 24;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        const int high = int(word_at(p + 4) >> j & 1) << 4;
        const int q = (p[8 + j % 16] >> j / 16 * 4 & 15) | high;
        return half_at(p) * float(q) + half_at(p + 2);
    }
};

struct Q2_K {
    static constexpr uint32_t WEIGHTS = 256, BYTES = 84;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        const int scale = p[j / 16];
        const float d = half_at(p + 80) * float(scale & 15), m = half_at(p + 82) * float(scale >> 4);
        return d * float(two_bits(p + 16, j)) - m;
    }
};

struct Q3_K {
    static constexpr uint32_t WEIGHTS = 256, BYTES = 110;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        const uint8_t* scales = p + 96;
        const uint32_t s = j / 16;
        const int low = scales[s % 8] >> s / 8 * 4 & 15, high = scales[8 + s % 4] >> s / 4 * 2 & 3;
        const float d = half_at(p + 108) * float((low | high << 4) - 32);
        const int lowered = (p[j % 32] >> j / 32 & 1) ? 0 : 4;
        return d * float(two_bits(p + 32, j) - lowered);
    }
};

// Scale and minimum of the group of 32 weights that j is in, 6 bits each, as Q4_K and Q5_K have it.
__device__ inline void scale_and_minimum(const uint8_t* p, uint32_t j, float* d, float* m) {
    const uint8_t* s = p + 4;
    const uint32_t g = j / 32;
    int scale, minimum;
    if (g < 4) {
        scale = s[g] & 63;
        minimum = s[g + 4] & 63;
    } else {
        scale = (s[g + 4] & 15) | (s[g - 4] >> 6 << 4);
        minimum = s[g + 4] >> 4 | (s[g] >> 6 << 4);
    }
    *d = half_at(p) * float(scale);
    *m = half_at(p + 2) * float(minimum);
}

struct Q4_K {
    static constexpr uint32_t WEIGHTS = 256, BYTES = 144;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        float d, m;
        scale_and_minimum(p, j, &d, &m);
        return d * float(four_bits(p + 16, j)) - m;
    }
};

struct Q5_K {
    static constexpr uint32_t WEIGHTS = 256, BYTES = 176;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        float d, m;
        scale_and_minimum(p, j, &d, &m);
        const int high = (p[16 + j % 32] >> j / 32 & 1) << 4;
        return d * float(four_bits(p + 48, j) | high) - m;
    }
};

struct Q6_K {
    static constexpr uint32_t WEIGHTS = 256, BYTES = 210;
    static __device__ float decode(const uint8_t* p, uint32_t j) {
        const int low = p[j / 128 * 64 + j % 64] >> (j % 128 / 64 * 4) & 15;
        const float d = half_at(p + 208) * float(int8_t(p[192 + j / 16]));
        return d * float((low | two_bits(p + 128, j) << 4) - 32);
    }
};

template <typename Format, typename T>
__device__ void dequantise(const uint8_t* blocks, const float* scale, uint32_t step, uint64_t k,
                           uint64_t n, T* y) {
    const uint64_t i = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n) {
        return;
    }
    const uint8_t* block = blocks + i / Format::WEIGHTS * Format::BYTES;
    float x = Format::decode(block, i % Format::WEIGHTS);
    if (scale != nullptr) {
        x *= scale[i / k * step];
    }
    round_to(&y[i], x);
}

#define DEFINE(format, name, T)                                                             \
    extern "C" __global__ void dequantise_##format##_##name(                                \
        const uint8_t* blocks, const float* scale, uint32_t step, uint64_t k, uint64_t n,   \
        T* y) {                                                                             \
        dequantise<format>(blocks, scale, step, k, n, y);                                   \
    }
#define FOR_EACH_FORMAT(define, ...)                                                          \
    define(F32, __VA_ARGS__) define(F16, __VA_ARGS__) define(BF16, __VA_ARGS__)               \
    define(F8_E4M3, __VA_ARGS__) define(F8_E5M2, __VA_ARGS__) define(Q8_0, __VA_ARGS__)         \
    define(Q6_K, __VA_ARGS__) define(Q5_K, __VA_ARGS__) define(Q5_0, __VA_ARGS__)               \
    define(Q5_1, __VA_ARGS__) define(Q4_K, __VA_ARGS__) define(Q4_0, __VA_ARGS__)              \
    define(Q4_1, __VA_ARGS__) define(Q3_K, __VA_ARGS__) define(Q2_K, __VA_ARGS__)
FOR_EACH_FORMAT(DEFINE, f32, float)
FOR_EACH_FORMAT(DEFINE, f16, f16)
FOR_EACH_FORMAT(DEFINE, bf16, bf16)
#undef DEFINE
