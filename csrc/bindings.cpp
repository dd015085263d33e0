// memrecon_fast._C: the kernels under Python, with threads.
//
// Addresses come in as integers and are trusted: memrecon_fast/ops/state.py has checked what is there. They are in the
// order of memrecon_fast/ops/admm/__init__.py and memrecon_fast/ops/anderson/__init__.py. No number in a buffer is
// trusted: a place of the ring is clamped to it. Nothing here knows torch.
//
// torch brings its own libgomp.so.1, and this module asks for the same name: torch is always imported first, so the
// process holds one OpenMP runtime, and one team of threads serves both.

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "dispatch.h"
#include "threads.h"

namespace py = pybind11;

namespace memrecon {
namespace {

using std::int32_t;
using std::int8_t;
using std::uint8_t;
using std::uintptr_t;

// The buffers of each operation.

struct Start {
    float* s;
    const float* y;
    const uint8_t* mask;
    const Coefficients* coefficients;
};

struct Step {
    float* s;
    const float *v, *y;
    const uint8_t* mask;
    const Coefficients* coefficients;
};

struct Close {
    float* s;
    const float *v, *y;
    uint8_t *mask, *anchor;
    float *x, *residual;
    bool *settled, *recurs;
    const uint8_t* renew;
    const int8_t* status;
    const Coefficients* coefficients;
};

struct Advance {
    float* x;
    const float* v;
    float* residual;
    const int8_t* status;
};

struct MeanSquares {
    const float *a, *b;
    float* out;
};

struct Measure {
    const float *s, *v, *y;
    const uint8_t* mask;
    float *steps, *residuals;
    double* gram;
    const int32_t *head, *filled;
    const int8_t* status;
    const Coefficients* coefficients;
};

struct Estimate {
    const float *s, *v, *y;
    uint8_t* mask;
    float *x, *best;
    uint8_t* best_mask;
    float *residual, *score, *best_score;
    bool* changed;
    const int8_t* status;
    const Coefficients* coefficients;
};

struct Weigh {
    const double* gram;
    int32_t *head, *filled;
    uint8_t* extrapolated;
    int32_t* base;
    float* weights;
    const int32_t* held;
    int32_t *accepted, *rejected;
    const int8_t* status;
};

struct Mix {
    float* s;
    const float* steps;
    const int32_t* base;
    const float* weights;
    const int8_t* status;
};

struct Linearise {
    const void* weights;
    const double *unknowns, *factors, *theta;
    double* residual;
    int8_t* sides;
    double* gradient;
};

struct Product {
    const void* weights;
    const double *step, *factors;
    const int8_t* sides;
    double* found;
};

struct ProductOfSlopes {
    const void* weights;
    const double *step, *slopes;
    double* found;
};

// Buffers as they come from Python: a tuple of their addresses.
template <typename Buffers>
struct Passed {
    Buffers buffers;
};

const InstructionSet* available[MAX_INSTRUCTION_SETS];
const int available_count = available_instruction_sets(available);
const InstructionSet* in_use = available[available_count - 1];

void start(int64_t rows, int64_t d, int64_t threads, const Passed<Start>& passed) {
    share_pixels(rows, d, threads, passed.buffers.coefficients,
                 [=, b = passed.buffers, start = in_use->admm->start](int64_t begin, int64_t end,
                                                                      const Coefficients& of_row) {
                     start(b.s + begin, b.y + begin, b.mask + begin, end - begin, of_row.weight);
                 });
}

void step(int64_t rows, int64_t d, int64_t threads, const Passed<Step>& passed) {
    share_pixels(rows, d, threads, passed.buffers.coefficients,
                 [=, b = passed.buffers, step = in_use->admm->step](int64_t begin, int64_t end,
                                                                    const Coefficients& of_row) {
                     step(b.s + begin, b.v + begin, b.y + begin, b.mask + begin, end - begin, of_row.c, of_row.weight);
                 });
}

void close(int64_t rows, int64_t d, int64_t threads, bool estimate_mask, const Passed<Close>& passed) {
    const auto close = estimate_mask ? in_use->admm->close_estimating_mask : in_use->admm->close;
    share_rows(rows, d, threads, [=, b = passed.buffers](int64_t row) {
        if (b.status[row] != RUNNING) return;
        const int64_t i = row * d;
        const Coefficients& of_row = b.coefficients[row];
        const Closed closed = close(b.s + i, b.v + i, b.y + i, b.mask + i, b.anchor + i, b.x + i, d, b.renew[row] != 0,
                                    of_row.g, of_row.weight);
        b.residual[row] = closed.residual;
        b.settled[row] = closed.settled;
        b.recurs[row] = closed.recurs;
    });
}

void advance(int64_t rows, int64_t d, int64_t threads, const Passed<Advance>& passed) {
    share_rows(rows, d, threads, [=, b = passed.buffers, advance = in_use->admm->advance](int64_t row) {
        if (b.status[row] == RUNNING) b.residual[row] = advance(b.x + row * d, b.v + row * d, d);
    });
}

void mean_squares(int64_t rows, int64_t d, int64_t threads, const Passed<MeanSquares>& passed) {
    share_rows(rows, d, threads, [=, b = passed.buffers, mean_squares = in_use->admm->mean_squares](int64_t row) {
        b.out[row] = mean_squares(b.a + row * d, b.b + row * d, d);
    });
}

void measure(int64_t rows, int64_t d, int64_t threads, int64_t places, const Passed<Measure>& passed) {
    share_rows(rows, d, threads, [=, b = passed.buffers, measure = in_use->anderson->measure](int64_t row) {
        if (b.status[row] != RUNNING) return;
        const float* others[MAX_PLACES];
        double products[MAX_PLACES];
        const int64_t i = row * d;
        const int64_t first = row * places, here = in_ring(b.head[row], places);
        const int64_t count = in_ring(b.filled[row], places);
        const auto place = [=](int64_t age) { return (here + places - age) % places; };
        for (int64_t k = 0; k < count; ++k) others[k] = b.residuals + (first + place(1 + k)) * d;
        measure(b.s + i, b.v + i, b.y + i, b.mask + i, b.steps + (first + here) * d, b.residuals + (first + here) * d,
                others, static_cast<int>(count), products, d, b.coefficients[row].c, b.coefficients[row].weight);
        double* gram = b.gram + first * places;
        for (int64_t age = 0; age < places; ++age) {
            const double product = age <= count ? products[age] : 0.0;
            gram[here * places + place(age)] = product;
            gram[place(age) * places + here] = product;
        }
    });
}

void estimate(int64_t rows, int64_t d, int64_t threads, bool estimate_mask, const Passed<Estimate>& passed) {
    const auto estimate = estimate_mask ? in_use->anderson->estimate_estimating_mask : in_use->anderson->estimate;
    share_rows(rows, d, threads, [=, b = passed.buffers](int64_t row) {
        if (b.status[row] != RUNNING) return;
        const int64_t i = row * d;
        const Coefficients& of_row = b.coefficients[row];
        const Estimated estimated =
            estimate(b.s + i, b.v + i, b.y + i, b.mask + i, b.x + i, d, of_row.g, of_row.weight);
        b.residual[row] = estimated.residual;
        b.score[row] = estimated.score;
        b.changed[row] = estimated.changed;
        if (!(estimated.score < b.best_score[row])) return;
        b.best_score[row] = estimated.score;
        std::copy_n(b.x + i, d, b.best + i);
        std::copy_n(b.mask + i, d, b.best_mask + i);
    });
}

void weigh_rows(int64_t rows, int64_t threads, int64_t places, int64_t settle, const Passed<Weigh>& passed) {
    // To solve a system takes about as long as some loop over as many pixels as there are products in it.
    share_rows(rows, places * places * places, threads, [=, b = passed.buffers](int64_t row) {
        if (b.status[row] != RUNNING) return;
        weigh(b.gram + row * places * places, static_cast<int>(places), b.held[row] >= settle,
              {b.head[row], b.filled[row], b.extrapolated[row], b.base[row], b.accepted[row], b.rejected[row]},
              b.weights + row * places);
    });
}

void mix(int64_t rows, int64_t d, int64_t threads, int64_t places, const Passed<Mix>& passed) {
    share_rows(rows, d, threads, [=, b = passed.buffers, mix = in_use->anderson->mix](int64_t row) {
        if (b.status[row] != RUNNING) return;
        const float* weighted[MAX_PLACES];
        float nonzero[MAX_PLACES];
        int count = 0;
        const int64_t first = row * places;
        for (int64_t place = 0; place < places; ++place) {
            const float weight = b.weights[first + place];
            if (weight == 0.0f) continue;
            weighted[count] = b.steps + (first + place) * d;
            nonzero[count++] = weight;
        }
        mix(b.s + row * d, b.steps + (first + in_ring(b.base[row], places)) * d, weighted, nonzero, count, d);
    });
}

// What a pass reads: rows of V, as float32 or float64, that are multiplied by `columns` columns.
struct Rows {
    int64_t count, d, columns;
    bool is_single;
    double scale;
};

int64_t padded(int64_t columns) { return (columns + COLUMNS - 1) / COLUMNS * COLUMNS; }

// The columns, with zeros for those that are missing.
std::vector<double> pad(const double* matrix, int64_t rows, int64_t columns) {
    std::vector<double> wide(rows * padded(columns));
    for (int64_t row = 0; row < rows; ++row)
        std::copy_n(matrix + row * columns, columns, wide.begin() + row * padded(columns));
    return wide;
}

// found [d, columns] += the sums of kernel(first row, rows, how many, sums, products) over blocks of rows. There are
// always the same shares of the rows, however many threads: so the sums are the same to the bit.
template <typename Kernel>
void pass_over(const Rows& rows, int64_t threads, const void* weights, double* found, const Kernel& kernel) {
    constexpr int64_t LEAST = 256, MOST_SHARES = 64;
    const int64_t shares = std::clamp<int64_t>(rows.count / LEAST, 1, MOST_SHARES);
    const int64_t d = rows.d, columns = padded(rows.columns), most = rows_at_once(d, columns);
    threads = std::min(useful_threads(rows.count * d, threads), shares);
    const int64_t room_for_products = (most + 1) * columns, room = room_for_products + (rows.is_single ? most * d : 0);
    std::vector<double> sums(shares * d * columns), rooms(threads * room);
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static) if (threads > 1)
    for (int64_t thread = 0; thread < threads; ++thread) {
        double* products = rooms.data() + thread * room;
        double* wide = products + room_for_products;
        for (int64_t share = thread; share < shares; share += threads) {
            const int64_t end = rows.count * (share + 1) / shares;
            for (int64_t row = rows.count * share / shares; row < end; row += most) {
                const int64_t count = std::min(most, end - row);
                if (rows.is_single) in_use->passes->widen(static_cast<const float*>(weights) + row * d, wide, count * d);
                const double* block = rows.is_single ? wide : static_cast<const double*>(weights) + row * d;
                kernel(row, block, count, sums.data() + share * d * columns, products);
            }
        }
    }
    for (int64_t share = 0; share < shares; ++share)
        for (int64_t i = 0; i < d; ++i)
            for (int64_t q = 0; q < rows.columns; ++q)
                found[i * rows.columns + q] += sums[(share * d + i) * columns + q];
}

void linearise(const Rows& rows, int64_t threads, bool rectified, bool last_is_linear, const Passed<Linearise>& passed) {
    const Linearise& b = passed.buffers;
    const int64_t columns = padded(rows.columns);
    const auto left = pad(b.unknowns, rows.d, rows.columns), factors = pad(b.factors, 1, rows.columns);
    const Model model = {left.data(), factors.data(), rows.d,   columns,
                         rows.scale,  last_is_linear ? rows.columns - 1 : -1, rectified};
    pass_over(rows, threads, b.weights, b.gradient,
              [&](int64_t row, const double* block, int64_t count, double* sums, double* products) {
                  in_use->passes->linearise(model, block, count, b.theta + row, b.residual + row,
                                            b.sides + row * columns, sums, products);
              });
}

void product(const Rows& rows, int64_t threads, const Passed<Product>& passed) {
    const Product& b = passed.buffers;
    const int64_t columns = padded(rows.columns);
    const auto left = pad(b.step, rows.d, rows.columns), factors = pad(b.factors, 1, rows.columns);
    const Model model = {left.data(), factors.data(), rows.d, columns, rows.scale, -1, false};
    pass_over(rows, threads, b.weights, b.found,
              [&](int64_t row, const double* block, int64_t count, double* sums, double* products) {
                  in_use->passes->product(model, block, count, b.sides + row * columns, sums, products);
              });
}

void product_of_slopes(const Rows& rows, int64_t threads, const Passed<ProductOfSlopes>& passed) {
    const ProductOfSlopes& b = passed.buffers;
    const auto left = pad(b.step, rows.d, rows.columns);
    const Model model = {left.data(), nullptr, rows.d, padded(rows.columns), rows.scale, -1, false};
    pass_over(rows, threads, b.weights, b.found,
              [&](int64_t row, const double* block, int64_t count, double* sums, double* products) {
                  in_use->passes->product_of_slopes(model, block, count, b.slopes + row * rows.columns, rows.columns,
                                                    sums, products);
              });
}

py::tuple instruction_sets() {
    py::tuple names(available_count);
    for (int i = 0; i < available_count; ++i) names[i] = available[i]->name;
    return names;
}

void use_instruction_set(const std::string& name) {
    for (int i = 0; i < available_count; ++i) {
        if (name == available[i]->name) {
            in_use = available[i];
            return;
        }
    }
    throw std::invalid_argument("this processor has no instruction set called '" + name + "'");
}

}  // namespace
}  // namespace memrecon

template <typename Buffers>
struct py::detail::type_caster<memrecon::Passed<Buffers>> {
    PYBIND11_TYPE_CASTER(memrecon::Passed<Buffers>, const_name("tuple[int, ...]"));

    bool load(handle source, bool) {
        constexpr Py_ssize_t count = sizeof(Buffers) / sizeof(std::uintptr_t);
        static_assert(std::is_trivially_copyable_v<Buffers> && sizeof(Buffers) == count * sizeof(std::uintptr_t));
        if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) != count) return false;
        std::uintptr_t addresses[count];
        for (Py_ssize_t i = 0; i < count; ++i) addresses[i] = PyLong_AsSize_t(PyTuple_GET_ITEM(source.ptr(), i));
        if (PyErr_Occurred()) {
            PyErr_Clear();
            return false;
        }
        std::memcpy(&value.buffers, addresses, sizeof(Buffers));
        return true;
    }
};

PYBIND11_MODULE(_C, module) {
    using release_gil = py::call_guard<py::gil_scoped_release>;
    module.def("start", &memrecon::start, release_gil());
    module.def("step", &memrecon::step, release_gil());
    module.def("close", &memrecon::close, release_gil());
    module.def("advance", &memrecon::advance, release_gil());
    module.def("mean_squares", &memrecon::mean_squares, release_gil());
    module.def("measure", &memrecon::measure, release_gil());
    module.def("estimate", &memrecon::estimate, release_gil());
    module.def("weigh", &memrecon::weigh_rows, release_gil());
    module.def("mix", &memrecon::mix, release_gil());
    py::class_<memrecon::Rows>(module, "Rows").def(py::init<int64_t, int64_t, int64_t, bool, double>());
    module.def("linearise", &memrecon::linearise, release_gil());
    module.def("product", &memrecon::product, release_gil());
    module.def("product_of_slopes", &memrecon::product_of_slopes, release_gil());
    module.def("instruction_sets", &memrecon::instruction_sets, "Those of this processor that there are kernels for.");
    module.def("instruction_set", [] { return memrecon::in_use->name; }, "The one in use: the widest, unless changed.");
    module.def("use_instruction_set", &memrecon::use_instruction_set, "For tests; not while a kernel runs.");
    module.attr("RUNNING") = static_cast<int>(memrecon::RUNNING);
    module.attr("MAX_PLACES") = memrecon::MAX_PLACES;
    module.attr("COLUMNS") = memrecon::COLUMNS;
    module.attr("RIDGE") = memrecon::RIDGE;
}
