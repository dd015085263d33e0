// The per-pixel mathematics of memrecon_fast/ops/admm/plain.py for CPUs: one table of kernels for each instruction set.
//
// A kernel runs on one thread over contiguous memory, touches every byte once, and gives the same bits as plain.py
// whatever the instruction set: products and sums are rounded one by one, in the same order.
#pragma once

#include <cstdint>

namespace memrecon {

// The status of a row that is worked on: compared with that of memrecon_fast/results.py on import.
constexpr std::int8_t RUNNING = -1;

// A row of the coefficients, see memrecon_fast/ops/admm/plain.py.
struct Coefficients {
    float g, c, weight;
};
static_assert(sizeof(Coefficients) == 3 * sizeof(float));

// What `close` says of a row.
struct Closed {
    float residual;  // mean((xi - x)^2)
    bool settled;    // the mask is what it was: always, where it is not estimated
    bool recurs;     // the mask is what the anchor is: never, where it is not estimated
};

struct AdmmKernels {
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

    // One row of d pixels: mean((a - b)^2), summed as in `advance`.
    float (*mean_squares)(const float* a, const float* b, std::int64_t d);
};

extern const AdmmKernels admm_baseline;
#if defined(__x86_64__)
extern const AdmmKernels admm_avx2;
extern const AdmmKernels admm_avx512;
#endif

}  // namespace memrecon
