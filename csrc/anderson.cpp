#include "anderson.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pixels.h"

namespace memrecon {
namespace {

using std::int32_t;

// One ADMM iteration, as in admm.cpp, and by how much it changes s.
INLINE void step_block(const float* __restrict s, const float* __restrict v, const float* __restrict y,
                       const uint8_t* __restrict mask, float* __restrict step, float* __restrict residual, int64_t n,
                       float c, float weight) {
    for (int64_t i = 0; i < n; ++i) {
        const float erased = v[i];
        const float kept = ((y[i] + s[i]) + c * erased) * weight;
        const float next = mask[i] ? kept : erased;
        step[i] = next;
        residual[i] = next - s[i];
    }
}

INLINE void add_products(double* __restrict lanes, const float* __restrict a, const float* __restrict b, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; ++j) lanes[j] += static_cast<double>(a[i + j]) * b[i + j];
    for (int j = 0; i + j < n; ++j) lanes[j] += static_cast<double>(a[i + j]) * b[i + j];
}

INLINE void measure_body(const float* s, const float* v, const float* y, const uint8_t* mask, float* step,
                         float* residual, const float* const* others, int count, double* products, int64_t d, float c,
                         float weight) {
    double lanes[MAX_PLACES][LANES];
    std::memset(lanes, 0, (1 + count) * sizeof(lanes[0]));
    for (int64_t i = 0; i < d; i += BLOCK) {
        const int64_t n = d - i < BLOCK ? d - i : BLOCK;
        step_block(s + i, v + i, y + i, mask + i, step + i, residual + i, n, c, weight);
        add_squares(lanes[0], residual + i, n);
        for (int k = 0; k < count; ++k) add_products(lanes[1 + k], residual + i, others[k] + i, n);
    }
    for (int k = 0; k <= count; ++k) products[k] = sum(lanes[k]);
}

// How far v and the degraded image are from the estimate.
template <bool estimates_mask>
INLINE void misfit_block(const float* __restrict v, const float* __restrict y, const uint8_t* __restrict mask,
                         const float* __restrict x, float* __restrict primal, float* __restrict misfit, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float kept = y[i] - x[i];
        const float erased = estimates_mask ? y[i] : 0.0f;
        primal[i] = v[i] - x[i];
        misfit[i] = mask[i] ? kept : erased;
    }
}

INLINE void add_pairs_of_squares(double* __restrict lanes, const float* __restrict a, const float* __restrict b,
                                 int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; ++j)
            lanes[j] += static_cast<double>(a[i + j]) * a[i + j] + static_cast<double>(b[i + j]) * b[i + j];
    for (int j = 0; i + j < n; ++j)
        lanes[j] += static_cast<double>(a[i + j]) * a[i + j] + static_cast<double>(b[i + j]) * b[i + j];
}

template <bool estimates_mask>
INLINE Estimated estimate_body(const float* s, const float* v, const float* y, uint8_t* mask, float* x, int64_t d,
                               float g, float weight) {
    double squares[LANES] = {}, scores[LANES] = {};
    float difference[BLOCK], primal[BLOCK], misfit[BLOCK];
    uint8_t estimate[BLOCK];
    uint8_t changed = 0;
    for (int64_t i = 0; i < d; i += BLOCK) {
        const int64_t n = d - i < BLOCK ? d - i : BLOCK;
        output_block<estimates_mask>(s + i, v + i, y + i, mask + i, x + i, difference, estimate, n, g, weight);
        if (estimates_mask) changed |= replace_mask(mask + i, estimate, n);
        misfit_block<estimates_mask>(v + i, y + i, mask + i, x + i, primal, misfit, n);
        add_squares(squares, difference, n);
        add_pairs_of_squares(scores, primal, misfit, n);
    }
    return {mean(squares, d), mean(scores, d), changed != 0};
}

INLINE void add_difference(float* __restrict s, const float* __restrict base, const float* __restrict step, int64_t n,
                           float weight) {
    for (int64_t i = 0; i < n; ++i) s[i] += weight * (step[i] - base[i]);
}

INLINE void mix_body(float* s, const float* base, const float* const* steps, const float* weights, int count,
                     int64_t d) {
    if (count == 0) {
        std::copy_n(base, d, s);
        return;
    }
    for (int64_t i = 0; i < d; i += BLOCK) {
        const int64_t n = d - i < BLOCK ? d - i : BLOCK;
        std::copy_n(base + i, n, s + i);
        for (int k = 0; k < count; ++k) add_difference(s + i, base + i, steps[k] + i, n, weights[k]);
    }
}

// The normal equations of the n differences of the first n + 1 residuals, whose dot products are gram[order, order]:
// writes n alphas. Returns false where there is no solution.
bool solve(const double* gram, int places, const int* order, int n, double* alphas) {
    constexpr int MOST = MAX_PLACES - 1;
    double lower[MOST][MOST], scaled[MOST];  // Cholesky: L L^T = D + ridge, L z = b
    const auto product = [=](int i, int j) { return gram[order[i] * places + order[j]]; };
    const auto difference = [=](int i, int j) {
        return product(i, j) - product(i, j + 1) - product(i + 1, j) + product(i + 1, j + 1);
    };
    double ridge = 0.0;
    for (int i = 0; i < n; ++i) ridge += difference(i, i);
    ridge *= RIDGE;
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < i; ++j) {
            double entry = difference(i, j);
            for (int k = 0; k < j; ++k) entry -= lower[i][k] * lower[j][k];
            lower[i][j] = entry / lower[j][j];
        }
        double pivot = difference(i, i) + ridge;
        double part = product(0, i) - product(0, i + 1);
        for (int k = 0; k < i; ++k) {
            pivot -= lower[i][k] * lower[i][k];
            part -= lower[i][k] * scaled[k];
        }
        if (!(pivot > 0.0 && std::isfinite(pivot))) return false;
        lower[i][i] = std::sqrt(pivot);
        scaled[i] = part / lower[i][i];
    }
    bool finite = true;
    for (int i = n - 1; i >= 0; --i) {
        double value = scaled[i];
        for (int k = i + 1; k < n; ++k) value -= lower[k][i] * alphas[k];
        alphas[i] = value / lower[i][i];
        finite &= std::isfinite(alphas[i]);
    }
    return finite;
}

// One more, where it counts: as torch adds, which begins anew after the largest number.
int32_t plus(int32_t count, bool counts) {
    return static_cast<int32_t>(static_cast<std::uint32_t>(count) + static_cast<std::uint32_t>(counts));
}

}  // namespace

void weigh(const double* gram, int places, bool settled, const History& history, float* weights) {
    const auto square = [=](int place) { return gram[place * places + place]; };
    const int32_t newest = in_ring(history.head, places);
    const int32_t before = (newest + places - 1) % places;
    const bool extrapolated = history.extrapolated != 0;
    const bool grew = extrapolated && !(square(newest) <= square(before));
    int32_t count = 1;  // of the evaluations, this one among them, that are used
    if (grew)
        count = 0;
    else if (settled)
        count = in_ring(history.filled, places) + 1;

    for (int place = 0; place < places; ++place) weights[place] = 0.0f;
    double alphas[MAX_PLACES] = {};
    int order[MAX_PLACES];  // from the newest to the oldest
    for (int age = 0; age < places; ++age) order[age] = (newest + places - age) % places;
    const bool solved = count >= 2 && solve(gram, places, order, count - 1, alphas);
    // s = G_0 - sum of alpha_j (G_j - G_j+1), written with the differences to G_0
    for (int age = 1; solved && age < count; ++age)
        weights[order[age]] = static_cast<float>((0.0 - alphas[age]) + alphas[age - 1]);

    history.base = grew ? before : newest;
    history.rejected = plus(history.rejected, grew);
    history.accepted = plus(history.accepted, extrapolated && !grew);
    history.extrapolated = solved;
    history.filled = count < places ? count : places - 1;
    history.head = (newest + 1) % places;
}

// See admm.cpp.
#define DEFINE_KERNELS(NAME, TARGET)                                                                                \
    namespace {                                                                                                     \
    TARGET void measure_##NAME(const float* s, const float* v, const float* y, const uint8_t* mask, float* step,    \
                               float* residual, const float* const* others, int count, double* products, int64_t d, \
                               float c, float weight) {                                                             \
        measure_body(s, v, y, mask, step, residual, others, count, products, d, c, weight);                         \
    }                                                                                                               \
    TARGET Estimated estimate_##NAME(const float* s, const float* v, const float* y, uint8_t* mask, float* x,       \
                                     int64_t d, float g, float weight) {                                            \
        return estimate_body<false>(s, v, y, mask, x, d, g, weight);                                                \
    }                                                                                                               \
    TARGET Estimated estimate_estimating_mask_##NAME(const float* s, const float* v, const float* y, uint8_t* mask, \
                                                     float* x, int64_t d, float g, float weight) {                  \
        return estimate_body<true>(s, v, y, mask, x, d, g, weight);                                                 \
    }                                                                                                               \
    TARGET void mix_##NAME(float* s, const float* base, const float* const* steps, const float* weights, int count, \
                           int64_t d) {                                                                             \
        mix_body(s, base, steps, weights, count, d);                                                                \
    }                                                                                                               \
    }                                                                                                               \
    const AndersonKernels anderson_##NAME = {measure_##NAME, estimate_##NAME, estimate_estimating_mask_##NAME,      \
                                             mix_##NAME};

DEFINE_KERNELS(baseline, )
#if defined(__x86_64__)
DEFINE_KERNELS(avx2, __attribute__((target("avx2"))))
DEFINE_KERNELS(avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

}  // namespace memrecon
