// The per-pixel mathematics of memrecon_fast/ops/anderson/plain.py for CPUs: one table of kernels for each
// instruction set.
//
// As in admm.h: one thread, contiguous memory, each product and sum rounded by itself in the order of plain.py. Sums
// over pixels alone are in another order than there: in one that is the same for all instruction sets.
#pragma once

#include <algorithm>
#include <cstdint>

namespace memrecon {

// Compared with those of memrecon_fast/ops on import: of the ring of evaluations, q, and relative to the trace of the
// Gram matrix of the differences.
constexpr int MAX_PLACES = 33;
constexpr double RIDGE = 1e-8;

// A place of the ring, or how many of them are filled: the nearest that there is. What is read from a buffer may be any
// number.
inline std::int32_t in_ring(std::int32_t number, std::int64_t places) {
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(number, 0, places - 1));
}

// What `estimate` says of a row.
struct Estimated {
    float residual;  // mean((xi - x)^2)
    float score;     // mean((v - xi)^2) + misfit
    bool changed;    // the mask is not what it was: never, where it is not estimated
};

struct AndersonKernels {
    // One row of d pixels: the step from s, and the residual, step - s. Writes the dot products of that with itself and
    // with `count` others, 1 + count of them.
    void (*measure)(const float* s, const float* v, const float* y, const std::uint8_t* mask, float* step,
                    float* residual, const float* const* others, int count, double* products, std::int64_t d, float c,
                    float weight);

    // One row of d pixels: x <- the output; mask <- the mask rule, where it is estimated.
    Estimated (*estimate)(const float* s, const float* v, const float* y, std::uint8_t* mask, float* x, std::int64_t d,
                          float g, float weight);
    Estimated (*estimate_estimating_mask)(const float* s, const float* v, const float* y, std::uint8_t* mask, float* x,
                                          std::int64_t d, float g, float weight);

    // One row of d pixels: s <- base + sum of weight * (step - base) over `count` steps, in their order.
    void (*mix)(float* s, const float* base, const float* const* steps, const float* weights, int count,
                std::int64_t d);
};

extern const AndersonKernels anderson_baseline;
#if defined(__x86_64__)
extern const AndersonKernels anderson_avx2;
extern const AndersonKernels anderson_avx512;
#endif

// What `weigh` decides upon in a row, and changes.
struct History {
    std::int32_t& head;
    std::int32_t& filled;
    std::uint8_t& extrapolated;
    std::int32_t& base;
    std::int32_t& accepted;
    std::int32_t& rejected;
};

// One row: how it goes on from the evaluation at `head`. gram is [places, places]; writes `places` weights.
void weigh(const double* gram, int places, bool settled, const History& history, float* weights);

}  // namespace memrecon
