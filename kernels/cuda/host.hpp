// The part of CUDA that these kernels use, for a C++ compiler on a CPU.
//
// A block's threads are fibers on one system thread. One warp after another runs until all its threads
// wait for the block or have ended, in rising or in falling order: as far apart as warps can get, so a
// missing barrier gives the two orders different results. A thread that ends while others wait for it
// is an error.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __shared__ static // blocks run one after another

struct Index {
    uint32_t x;
};
static Index threadIdx, blockIdx;

class Block {
public:
    // Calls `kernel` as `threads` threads of each of `blocks` blocks.
    static void run(uint32_t blocks, uint32_t threads, bool falling, std::function<void()> kernel) {
        Block block(threads, falling, std::move(kernel));
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
            block.once();
        }
    }

    // Until every thread of the block is here.
    static void wait() { current->leave(AT_BARRIER); }

    // What thread `from` of the same warp gives.
    static float exchange(float mine, uint32_t from) {
        current->given[threadIdx.x] = mine;
        current->leave(READY); // the others of the warp give theirs
        const float theirs = current->given.at(from);
        current->leave(READY); // and take them before the next ones come
        return theirs;
    }

private:
    static constexpr size_t STACK = 64 << 10;
    static constexpr size_t WARP = 32;

    enum State { READY, AT_BARRIER, ENDED };

    struct Fiber {
        ucontext_t context;
        std::unique_ptr<char[]> stack{new char[STACK]};
        State state;
    };

    Block(uint32_t threads, bool falling, std::function<void()> kernel)
        : kernel(std::move(kernel)), falling(falling), fibers(threads), given(threads) {
        current = this;
    }

    void once() {
        for (Fiber& fiber : fibers) {
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.get();
            fiber.context.uc_stack.ss_size = STACK;
            fiber.context.uc_link = &scheduler;
            fiber.state = READY;
            makecontext(&fiber.context, enter, 0);
        }
        for (size_t ended = 0; ended < fibers.size();) {
            for (size_t first = 0; first < fibers.size(); first += WARP) {
                while (step(first)) {
                }
            }
            ended = 0;
            for (Fiber& fiber : fibers) {
                ended += fiber.state == ENDED;
                fiber.state = fiber.state == AT_BARRIER ? READY : fiber.state;
            }
            if (ended != 0 && ended != fibers.size()) {
                std::fprintf(stderr, "a thread ended while others wait for it\n");
                std::exit(1);
            }
        }
    }

    // Runs each thread of a warp that can run, to where it waits next; false if none could.
    bool step(size_t first) {
        bool any = false;
        for (size_t i = first; i < std::min(first + WARP, fibers.size()); ++i) {
            threadIdx.x = uint32_t(falling ? fibers.size() - 1 - i : i);
            Fiber& fiber = fibers[threadIdx.x];
            if (fiber.state == READY) {
                swapcontext(&scheduler, &fiber.context);
                any = true;
            }
        }
        return any;
    }

    void leave(State state) {
        Fiber& fiber = fibers[threadIdx.x];
        fiber.state = state;
        swapcontext(&fiber.context, &scheduler);
    }

    static void enter() {
        current->kernel();
        current->fibers[threadIdx.x].state = ENDED;
    }

    static Block* current;
    std::function<void()> kernel;
    bool falling;
    std::vector<Fiber> fibers;
    std::vector<float> given;
    ucontext_t scheduler;
};
inline Block* Block::current = nullptr;

inline void __syncthreads() { Block::wait(); }

inline float __shfl_xor_sync(uint32_t, float x, uint32_t mask) {
    return Block::exchange(x, threadIdx.x ^ mask);
}

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

inline float bits_to_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline uint32_t float_to_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float half_bits_to_float(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest < 0x400) { // subnormal: exact
        const float x = std::ldexp(float(rest), -24);
        return sign ? -x : x;
    }
    const uint32_t exponent = rest < 0x7c00 ? (127u - 15u) << 23 : (255u - 31u) << 23;
    return bits_to_float(sign | ((rest << 13) + exponent));
}

inline float widen(f16 x) { return half_bits_to_float(x.bits); }
inline float widen(bf16 x) { return bits_to_float(uint32_t(x.bits) << 16); }

// To the nearest, ties to even.
inline void round_to(f16* y, float x) {
    const uint32_t bits = float_to_bits(x), rest = bits & 0x7fffffff;
    uint16_t half;
    if (rest > 0x7f800000) {
        half = 0x7fff;
    } else if (rest >= 0x477ff000) { // 65520 and above
        half = 0x7c00;
    } else if (rest < 0x38800000) { // subnormal or 0
        half = uint16_t(std::nearbyint(std::ldexp(std::fabs(x), 24)));
    } else {
        half = uint16_t((rest - ((127u - 15u) << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
    }
    y->bits = uint16_t(half | (bits >> 16 & 0x8000));
}

inline void round_to(bf16* y, float x) {
    const uint32_t bits = float_to_bits(x);
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    y->bits = uint16_t(nan ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
