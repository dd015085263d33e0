#include "admm.h"

#include "pixels.h"

namespace memrecon {
namespace {

INLINE void start_body(float* __restrict s, const float* __restrict y, const uint8_t* __restrict mask, int64_t n,
                       float weight) {
    for (int64_t i = 0; i < n; ++i) {
        const float kept = y[i] * weight;
        s[i] = mask[i] ? kept : 0.0f;
    }
}

// One ADMM iteration, (17), (16) and (14), in the form with a single state.
INLINE void step_body(float* __restrict s, const float* __restrict v, const float* __restrict y,
                      const uint8_t* __restrict mask, int64_t n, float c, float weight) {
    for (int64_t i = 0; i < n; ++i) {
        const float erased = v[i];
        const float kept = ((y[i] + s[i]) + c * erased) * weight;
        s[i] = mask[i] ? kept : erased;
    }
}

// anchor <- mask, in zeros and ones.
INLINE void renew_anchor(uint8_t* __restrict anchor, const uint8_t* __restrict mask, int64_t n) {
    for (int64_t i = 0; i < n; ++i) anchor[i] = mask[i] != 0;
}

// Returns 0 where the estimate is what the anchor is.
INLINE uint8_t compare_anchor(const uint8_t* __restrict anchor, const uint8_t* __restrict estimate, int64_t n) {
    uint8_t different = 0;
    for (int64_t i = 0; i < n; ++i) different |= (anchor[i] != 0) ^ estimate[i];
    return different;
}

template <bool estimates_mask>
INLINE Closed close_body(float* s, const float* v, const float* y, uint8_t* mask, uint8_t* anchor, float* x, int64_t d,
                         bool renew, float g, float weight) {
    double lanes[LANES] = {};
    float difference[BLOCK];
    uint8_t estimate[BLOCK];
    uint8_t changed = 0, different = 0;
    for (int64_t i = 0; i < d; i += BLOCK) {
        const int64_t n = d - i < BLOCK ? d - i : BLOCK;
        output_block<estimates_mask>(s + i, v + i, y + i, mask + i, x + i, difference, estimate, n, g, weight);
        if (estimates_mask) {
            if (renew) renew_anchor(anchor + i, mask + i, n);
            different |= compare_anchor(anchor + i, estimate, n);
            changed |= replace_mask(mask + i, estimate, n);
        }
        start_body(s + i, y + i, mask + i, n, weight);
        add_squares(lanes, difference, n);
    }
    return {mean(lanes, d), changed == 0, estimates_mask && different == 0};
}

INLINE void advance_block(float* __restrict x, const float* __restrict v, float* __restrict difference, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        difference[i] = v[i] - x[i];
        x[i] = v[i];
    }
}

INLINE float advance_body(float* x, const float* v, int64_t d) {
    double lanes[LANES] = {};
    float difference[BLOCK];
    for (int64_t i = 0; i < d; i += BLOCK) {
        const int64_t n = d - i < BLOCK ? d - i : BLOCK;
        advance_block(x + i, v + i, difference, n);
        add_squares(lanes, difference, n);
    }
    return mean(lanes, d);
}

INLINE void difference_block(const float* __restrict a, const float* __restrict b, float* __restrict difference,
                             int64_t n) {
    for (int64_t i = 0; i < n; ++i) difference[i] = a[i] - b[i];
}

INLINE float mean_squares_body(const float* a, const float* b, int64_t d) {
    double lanes[LANES] = {};
    float difference[BLOCK];
    for (int64_t i = 0; i < d; i += BLOCK) {
        const int64_t n = d - i < BLOCK ? d - i : BLOCK;
        difference_block(a + i, b + i, difference, n);
        add_squares(lanes, difference, n);
    }
    return mean(lanes, d);
}

}  // namespace

// The same bodies, compiled for one instruction set each. Only these wrappers carry the target attribute, and all of
// them have internal linkage: no code for a wide instruction set can be merged into code that a narrow one runs.
#define DEFINE_KERNELS(NAME, TARGET)                                                                                \
    namespace {                                                                                                     \
    TARGET void start_##NAME(float* s, const float* y, const uint8_t* mask, int64_t n, float weight) {              \
        start_body(s, y, mask, n, weight);                                                                          \
    }                                                                                                               \
    TARGET void step_##NAME(float* s, const float* v, const float* y, const uint8_t* mask, int64_t n, float c,      \
                            float weight) {                                                                         \
        step_body(s, v, y, mask, n, c, weight);                                                                     \
    }                                                                                                               \
    TARGET Closed close_##NAME(float* s, const float* v, const float* y, uint8_t* mask, uint8_t* anchor, float* x,  \
                               int64_t d, bool renew, float g, float weight) {                                      \
        return close_body<false>(s, v, y, mask, anchor, x, d, renew, g, weight);                                    \
    }                                                                                                               \
    TARGET Closed close_estimating_mask_##NAME(float* s, const float* v, const float* y, uint8_t* mask,             \
                                               uint8_t* anchor, float* x, int64_t d, bool renew, float g,           \
                                               float weight) {                                                      \
        return close_body<true>(s, v, y, mask, anchor, x, d, renew, g, weight);                                     \
    }                                                                                                               \
    TARGET float advance_##NAME(float* x, const float* v, int64_t d) { return advance_body(x, v, d); }              \
    TARGET float mean_squares_##NAME(const float* a, const float* b, int64_t d) {                                   \
        return mean_squares_body(a, b, d);                                                                          \
    }                                                                                                               \
    }                                                                                                               \
    const AdmmKernels admm_##NAME = {start_##NAME,                 step_##NAME,    close_##NAME,                    \
                                     close_estimating_mask_##NAME, advance_##NAME, mean_squares_##NAME};

DEFINE_KERNELS(baseline, )
#if defined(__x86_64__)
DEFINE_KERNELS(avx2, __attribute__((target("avx2"))))
DEFINE_KERNELS(avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

}  // namespace memrecon
