// The kernels of passes.cpp for one instruction set; included there once for each of them.
//
// TARGET     the attribute that names the instructions
// NAME       what the set is called
// WIDTH      numbers of a vector
// VECTORS    of a row of a tile
// ROWS       of a tile: ROWS * VECTORS sums stay in registers, and hide the latency of additions
// MULTIPLY_ADD(a, b, c), SPREAD(x)

namespace NAME {

typedef double Vector __attribute__((vector_size(8 * WIDTH), aligned(8), may_alias));

TARGET INLINE Vector load(const double* at) { return *reinterpret_cast<const Vector*>(at); }
TARGET INLINE void store(double* at, Vector vector) { *reinterpret_cast<Vector*>(at) = vector; }

// products [R, T vectors] += rows [R, n] * left [n, T vectors]
template <int R, int T>
TARGET INLINE void multiply_tile(const double* rows, int64_t d, const double* left, double* products, int64_t columns,
                                 int64_t n) {
    Vector sums[R][T];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) sums[r][t] = load(products + r * columns + t * WIDTH);
    for (int64_t i = 0; i < n; ++i) {
        Vector of_left[T];
        for (int t = 0; t < T; ++t) of_left[t] = load(left + i * columns + t * WIDTH);
        for (int r = 0; r < R; ++r) {
            const Vector entry = SPREAD(rows[r * d + i]);
            for (int t = 0; t < T; ++t) sums[r][t] = MULTIPLY_ADD(entry, of_left[t], sums[r][t]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) store(products + r * columns + t * WIDTH, sums[r][t]);
}

// found [n, T vectors] += rows' [n, R] * values [R, T vectors]
template <int R, int T>
TARGET INLINE void add_tile(const double* rows, int64_t d, const double* values, double* found, int64_t columns,
                            int64_t n) {
    Vector of_row[R][T];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) of_row[r][t] = load(values + r * columns + t * WIDTH);
    for (int64_t i = 0; i < n; ++i) {
        Vector sums[T];
        for (int t = 0; t < T; ++t) sums[t] = load(found + i * columns + t * WIDTH);
        for (int r = 0; r < R; ++r) {
            const Vector entry = SPREAD(rows[r * d + i]);
            for (int t = 0; t < T; ++t) sums[t] = MULTIPLY_ADD(entry, of_row[r][t], sums[t]);
        }
        for (int t = 0; t < T; ++t) store(found + i * columns + t * WIDTH, sums[t]);
    }
}

// All columns, by the widest tiles that fit.
template <bool multiplies, int R, int T>
TARGET INLINE void tiles(const double* rows, int64_t d, const double* left, double* products, double* found,
                         int64_t columns, int64_t n, int64_t column) {
    for (; column + T * WIDTH <= columns; column += T * WIDTH) {
        if (multiplies)
            multiply_tile<R, T>(rows, d, left + column, products + column, columns, n);
        else
            add_tile<R, T>(rows, d, products + column, found + column, columns, n);
    }
    if constexpr (T > 1) tiles<multiplies, R, T - 1>(rows, d, left, products, found, columns, n, column);
}

// All rows, and all of their entries: by as many of these as leave room in the L1 cache.
template <bool multiplies>
TARGET void all_tiles(const double* rows, int64_t count, int64_t d, const double* left, double* products, double* found,
                      int64_t columns) {
    const int64_t pieces = (d * columns + ENTRIES_AT_ONCE - 1) / ENTRIES_AT_ONCE;
    const int64_t most = (d + pieces - 1) / pieces;
    for (int64_t i = 0; i < d; i += most) {
        const int64_t n = std::min(d - i, most);
        int64_t row = 0;
        for (; row + ROWS <= count; row += ROWS)
            tiles<multiplies, ROWS, VECTORS>(rows + row * d + i, d, left + i * columns, products + row * columns,
                                             found + i * columns, columns, n, 0);
        for (; row < count; ++row)
            tiles<multiplies, 1, VECTORS>(rows + row * d + i, d, left + i * columns, products + row * columns,
                                          found + i * columns, columns, n, 0);
    }
}

TARGET INLINE void multiply(const Model& model, const double* rows, int64_t count, double* products) {
    std::fill_n(products, count * model.columns, 0.0);
    all_tiles<true>(rows, count, model.d, model.left, products, nullptr, model.columns);
}

TARGET INLINE void add(const Model& model, const double* rows, int64_t count, double* products, double* found) {
    all_tiles<false>(rows, count, model.d, nullptr, products, found, model.columns);
}

// The loops over the columns of a row are in pieces of COLUMNS: the compiler makes vectors of these, but of no shorter
// rests of longer loops.

// Returns the sum of slopes * products.
TARGET INLINE double along(const double* __restrict slopes, const double* __restrict products, int64_t columns) {
    double lanes[COLUMNS] = {};
    for (int64_t q = 0; q < columns; q += COLUMNS)
        for (int j = 0; j < COLUMNS; ++j) lanes[j] += slopes[q + j] * products[q + j];
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

TARGET INLINE void slopes_of(const double* __restrict factors, const int8_t* __restrict sides,
                             double* __restrict slopes, int64_t columns) {
    for (int64_t q = 0; q < columns; q += COLUMNS)
        for (int j = 0; j < COLUMNS; ++j) slopes[q + j] = factors[q + j] * sides[q + j];
}

TARGET INLINE void scale_row(const double* __restrict slopes, double by, double* __restrict products, int64_t columns) {
    for (int64_t q = 0; q < columns; q += COLUMNS)
        for (int j = 0; j < COLUMNS; ++j) products[q + j] = by * slopes[q + j];
}

TARGET INLINE void sides_of(const Model& model, const double* __restrict products, int8_t* __restrict sides) {
    const int8_t below = model.rectified ? 0 : -1;
    for (int64_t q = 0; q < model.columns; q += COLUMNS)
        for (int j = 0; j < COLUMNS; ++j)
            sides[q + j] = (products[q + j] > 0.0) + below * (products[q + j] < 0.0);
    if (model.linear >= 0) sides[model.linear] = 1;
}

TARGET void linearise(const Model& model, const double* rows, int64_t count, const double* theta, double* residual,
                      int8_t* sides, double* gradient, double* products) {
    const int64_t columns = model.columns;
    double* slopes = products + rows_at_once(model.d, columns) * columns;
    multiply(model, rows, count, products);
    for (int64_t row = 0; row < count; ++row) {
        double* of_row = products + row * columns;
        sides_of(model, of_row, sides + row * columns);
        slopes_of(model.factors, sides + row * columns, slopes, columns);
        residual[row] = theta[row] - model.scale * along(slopes, of_row, columns);
        scale_row(slopes, model.scale * residual[row], of_row, columns);
    }
    add(model, rows, count, products, gradient);
}

TARGET void product(const Model& model, const double* rows, int64_t count, const int8_t* sides, double* found,
                    double* products) {
    const int64_t columns = model.columns;
    const double square = model.scale * model.scale;
    double* slopes = products + rows_at_once(model.d, columns) * columns;
    multiply(model, rows, count, products);
    for (int64_t row = 0; row < count; ++row) {
        double* of_row = products + row * columns;
        slopes_of(model.factors, sides + row * columns, slopes, columns);
        scale_row(slopes, square * along(slopes, of_row, columns), of_row, columns);
    }
    add(model, rows, count, products, found);
}

TARGET void product_of_slopes(const Model& model, const double* rows, int64_t count, const double* slopes,
                              int64_t numbers, double* found, double* products) {
    const int64_t columns = model.columns;
    const double square = model.scale * model.scale;
    double* wide = products + rows_at_once(model.d, columns) * columns;
    std::fill_n(wide, columns, 0.0);
    multiply(model, rows, count, products);
    for (int64_t row = 0; row < count; ++row) {
        double* of_row = products + row * columns;
        std::copy_n(slopes + row * numbers, numbers, wide);
        scale_row(wide, square * along(wide, of_row, columns), of_row, columns);
    }
    add(model, rows, count, products, found);
}

TARGET void widen(const float* from, double* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<double>(from[i]);
}

constexpr PassKernels kernels = {linearise, product, product_of_slopes, widen};

}  // namespace NAME

#undef TARGET
#undef NAME
#undef WIDTH
#undef VECTORS
#undef ROWS
#undef MULTIPLY_ADD
#undef SPREAD
