// The per-pixel mathematics of memrecon_fast/ops/admm/plain.py for CPUs: one table of kernels per instruction set.
//
// A kernel runs on one thread over contiguous memory, touches every byte once, and gives the same bits as plain.py
// whatever the instruction set: products and sums are rounded one by one, in the same order.
#pragma once

#include <cstdint>

namespace memrecon {

// What `close` says of a row.
struct Closed {
    float residual;  // mean((xi - x)^2)
    bool settled;    // the mask is what it was: always, where it is not estimated
    bool recurs;     // the mask is what the anchor is: never, where it is not estimated
};

struct AndersonKernels;

struct Kernels {
    const char* name;

    // n pixels: s <- mask ? y * weight : 0
    void (*start)(float* s, const float* y, const std::uint8_t* mask, std::int64_t n, float weight);

    // n pixels: s <- mask ? (y + s + c * v) * weight : v, with c = g - 1
    void (*step)(float* s, const float* v, const float* y, const std::uint8_t* mask, std::int64_t n, float c,
                 float weight);

    // One row of d pixels: the output, the mask rule where it is estimated, and the restart. Where it is estimated and
    // `renew`, the anchor becomes the mask as it was before.
    Closed (*close)(float* s, const float* v, const float* y, std::uint8_t* mask, std::uint8_t* anchor, float* x,
                    std::int64_t d, bool renew, float g, float weight);
    Closed (*close_estimating_mask)(float* s, const float* v, const float* y, std::uint8_t* mask, std::uint8_t* anchor,
                                    float* x, std::int64_t d, bool renew, float g, float weight);

    // One row of d pixels: x <- v. Returns mean((v - x)^2).
    float (*advance)(float* x, const float* v, std::int64_t d);

    const AndersonKernels* anderson;  // those of the accelerated solver, for the same instruction set
};

constexpr int MAX_INSTRUCTION_SETS = 3;

// The instruction sets that this processor has, the narrowest first; writes at most MAX_INSTRUCTION_SETS pointers.
int available_kernels(const Kernels* tables[MAX_INSTRUCTION_SETS]);

}  // namespace memrecon
