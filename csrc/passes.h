// The passes of memrecon_fast/reconstruction/passes/plain.py for CPUs: one table of kernels for each instruction set.
//
// One thread, contiguous memory. Every row of V is read once, and while it is in the cache, multiplied twice: by the
// unknowns, and by what follows from these products. Matrices have their columns padded with zeros to a multiple of
// COLUMNS. A sum is added up in an order that depends on no register's width, each product and sum in it rounded once
// (fused multiply-add), but for the baseline, which rounds twice.
#pragma once

#include <algorithm>
#include <cstdint>

namespace memrecon {

constexpr std::int64_t COLUMNS = 8;

// The model that is linearised, theta_k = sum over columns of c * f(g_k w), f(t) = |t| or relu(t); its rows g are those
// of V, times scale.
struct Model {
    const double* left;     // w [d, columns]
    const double* factors;  // c [columns]
    std::int64_t d, columns;
    double scale;
    std::int64_t linear;  // the column with f(t) = t; -1: there is none
    bool rectified;       // f = relu
};

struct PassKernels {
    // residual <- theta - model; sides <- f' [rows, columns]; gradient [d, columns] += the sum of residual * c f' v.
    void (*linearise)(const Model& model, const double* rows, std::int64_t count, const double* theta, double* residual,
                      std::int8_t* sides, double* gradient, double* products);

    // found [d, columns] += the sum of (c f' . left v) * c f' v, with sides for f'.
    void (*product)(const Model& model, const double* rows, std::int64_t count, const std::int8_t* sides, double* found,
                    double* products);

    // The same for slopes [rows, numbers] in place of c f', numbers <= columns.
    void (*product_of_slopes)(const Model& model, const double* rows, std::int64_t count, const double* slopes,
                              std::int64_t numbers, double* found, double* products);

    void (*widen)(const float* from, double* to, std::int64_t n);
};

// Rows that are worked on at once: they, and their products, stay in the L2 cache. `products` has room for those of
// one row more.
inline std::int64_t rows_at_once(std::int64_t d, std::int64_t columns) {
    return std::clamp<std::int64_t>(std::min(65536 / d, 16384 / columns) / 8 * 8, 8, 64);
}

extern const PassKernels passes_baseline;
#if defined(__x86_64__)
extern const PassKernels passes_avx2;
extern const PassKernels passes_avx512;
#endif

}  // namespace memrecon
