// Loops over pixels that more than one kernel is made of.
//
// Everything here is inlined into the kernels, and compiled for the instruction set of each; see DEFINE_KERNELS there.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#error "the kernels need GCC or Clang"
#endif

namespace memrecon {

using std::int64_t;
using std::uint8_t;

// Sums of products are kept in LANES partial sums, pixel i in lane i mod LANES, whatever the width of the registers:
// that is what makes the result independent of the instruction set.
constexpr int LANES = 16;

// A row is worked on by blocks that stay in the L1 cache from one loop to the next: several simple loops become better
// vector code than one. A multiple of LANES.
constexpr int64_t BLOCK = 512;

INLINE void add_squares(double* __restrict lanes, const float* __restrict difference, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; ++j) lanes[j] += static_cast<double>(difference[i + j]) * difference[i + j];
    for (int j = 0; i + j < n; ++j) lanes[j] += static_cast<double>(difference[i + j]) * difference[i + j];
}

INLINE double sum(double* lanes) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    return lanes[0];
}

INLINE float mean(double* lanes, int64_t d) { return static_cast<float>(sum(lanes) / static_cast<double>(d)); }

// In all loops both branches of a choice are loaded before it, so that the compiler may turn it into a blend.

// Equation (20): whether the pixel is kept, by its estimate x and the degraded image y; its mirror image where y < 0.
// The comparisons are false for NaN: such a pixel counts as kept.
INLINE bool estimate_mask(float x, float y) {
    const float twice = 2.0f * y;
    const float high = twice < 0.0f ? 0.0f : twice;
    const float low = twice > 0.0f ? 0.0f : twice;
    return !((x > high) | (x < low));
}

// x <- the output, which is ξ of (17); difference <- by how much that changed it, estimate <- the mask of the output.
template <bool estimates_mask>
INLINE void output_block(const float* __restrict s, const float* __restrict v, const float* __restrict y,
                         const uint8_t* __restrict mask, float* __restrict x, float* __restrict difference,
                         uint8_t* __restrict estimate, int64_t n, float g, float weight) {
    for (int64_t i = 0; i < n; ++i) {
        const float y_i = y[i];
        const float erased = 2.0f * v[i] - s[i];
        const float kept = (y_i + g * erased) * weight;
        const float xi = mask[i] ? kept : erased;
        difference[i] = xi - x[i];
        x[i] = xi;
        if (estimates_mask) estimate[i] = estimate_mask(xi, y_i);
    }
}

// mask <- estimate. Returns 0 where that changed nothing.
INLINE uint8_t replace_mask(uint8_t* __restrict mask, const uint8_t* __restrict estimate, int64_t n) {
    uint8_t changed = 0;
    for (int64_t i = 0; i < n; ++i) {
        changed |= (mask[i] != 0) ^ estimate[i];
        mask[i] = estimate[i];
    }
    return changed;
}

}  // namespace memrecon
