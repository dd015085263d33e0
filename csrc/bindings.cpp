// memrecon_fast._C: the kernels under Python, with threads.
//
// Pointers come in as integers and are trusted: memrecon_fast/ops/cpu.py has checked them. Nothing here knows torch.
//
// torch brings its own libgomp.so.1, and this module asks for the same name: torch is always imported first, so the
// process holds one OpenMP runtime, and one team of threads serves both.

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace py = pybind11;
using std::int64_t;
using std::int8_t;
using std::uint8_t;
using std::uintptr_t;

namespace memrecon {
namespace {

// A thread is worth having for at least this many pixels. Measured with two: no gain with half as many each, a fifth of
// the time saved with this many, half of it with sixteen times as many.
constexpr int64_t PIXELS_PER_THREAD = 32768;

// The shares of the threads begin at multiples of this many pixels: a cache line of the mask, so that no two threads
// write to one line of an aligned buffer.
constexpr int64_t LINE = 64;

// The status of a row that is worked on, of memrecon_fast/settings.py.
constexpr int8_t RUNNING = -1;

// A row of the coefficients, of memrecon_fast/ops/plain.py.
struct Coefficients {
    float g, c, weight;
};
static_assert(sizeof(Coefficients) == 3 * sizeof(float));

const Kernels* available[MAX_INSTRUCTION_SETS];
const int available_count = available_kernels(available);
const Kernels* kernels = available[available_count - 1];

template <typename T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

int64_t useful_threads(int64_t pixels, int64_t threads) {
    return std::max<int64_t>(1, std::min(threads, pixels / PIXELS_PER_THREAD));
}

// work(begin, end) over shares of [0, n), one share per thread.
template <typename Work>
void share(int64_t n, int64_t threads, const Work& work) {
    threads = useful_threads(n, threads);
    if (threads == 1) return work(0, n);
    const int64_t lines = (n + LINE - 1) / LINE;
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static)
    for (int64_t t = 0; t < threads; ++t) {
        const int64_t begin = lines * t / threads * LINE;
        const int64_t end = std::min(n, lines * (t + 1) / threads * LINE);
        work(begin, end);
    }
}

// work(begin, end, coefficients) over shares of all pixels. Rows that follow one another with the same coefficients, to
// the bit, are worked on as one: most often that is all of them, and then even short rows make long loops.
template <typename Work>
void share_pixels(int64_t rows, int64_t d, int64_t threads, const Coefficients* coefficients, const Work& work) {
    share(rows * d, threads, [=](int64_t begin, int64_t end) {
        while (begin < end) {
            const Coefficients* of_row = coefficients + begin / d;
            const Coefficients* next = of_row + 1;
            int64_t stop = (begin / d + 1) * d;
            while (stop < end && std::memcmp(next, of_row, sizeof(Coefficients)) == 0) {
                ++next;
                stop += d;
            }
            stop = std::min(stop, end);
            work(begin, stop, *of_row);
            begin = stop;
        }
    });
}

// work(row) for all rows, each row by one thread.
template <typename Work>
void share_rows(int64_t rows, int64_t d, int64_t threads, const Work& work) {
    threads = std::min(useful_threads(rows * d, threads), rows);
    if (threads <= 1) {
        for (int64_t row = 0; row < rows; ++row) work(row);
        return;
    }
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static)
    for (int64_t row = 0; row < rows; ++row) work(row);
}

void start(int64_t rows, int64_t d, int64_t threads, uintptr_t s_, uintptr_t y_, uintptr_t mask_,
           uintptr_t coefficients_) {
    const auto s = pointer<float>(s_);
    const auto y = pointer<const float>(y_);
    const auto mask = pointer<const uint8_t>(mask_);
    share_pixels(rows, d, threads, pointer<const Coefficients>(coefficients_),
                 [=, start = kernels->start](int64_t begin, int64_t end, const Coefficients& of_row) {
                     start(s + begin, y + begin, mask + begin, end - begin, of_row.weight);
                 });
}

void step(int64_t rows, int64_t d, int64_t threads, uintptr_t s_, uintptr_t v_, uintptr_t y_, uintptr_t mask_,
          uintptr_t coefficients_) {
    const auto s = pointer<float>(s_);
    const auto v = pointer<const float>(v_);
    const auto y = pointer<const float>(y_);
    const auto mask = pointer<const uint8_t>(mask_);
    share_pixels(rows, d, threads, pointer<const Coefficients>(coefficients_),
                 [=, step = kernels->step](int64_t begin, int64_t end, const Coefficients& of_row) {
                     step(s + begin, v + begin, y + begin, mask + begin, end - begin, of_row.c, of_row.weight);
                 });
}

void close(int64_t rows, int64_t d, bool estimate_mask, int64_t threads, uintptr_t s_, uintptr_t v_, uintptr_t y_,
           uintptr_t mask_, uintptr_t anchor_, uintptr_t x_, uintptr_t residual_, uintptr_t settled_, uintptr_t recurs_,
           uintptr_t renew_, uintptr_t status_, uintptr_t coefficients_) {
    const auto s = pointer<float>(s_);
    const auto v = pointer<const float>(v_);
    const auto y = pointer<const float>(y_);
    const auto mask = pointer<uint8_t>(mask_);
    const auto anchor = pointer<uint8_t>(anchor_);
    const auto x = pointer<float>(x_);
    const auto residual = pointer<float>(residual_);
    const auto settled = pointer<bool>(settled_);
    const auto recurs = pointer<bool>(recurs_);
    const auto renew = pointer<const uint8_t>(renew_);
    const auto status = pointer<const int8_t>(status_);
    const auto coefficients = pointer<const Coefficients>(coefficients_);
    const auto close = estimate_mask ? kernels->close_estimating_mask : kernels->close;
    share_rows(rows, d, threads, [=](int64_t row) {
        if (status[row] != RUNNING) return;
        const int64_t i = row * d;
        const Coefficients& of_row = coefficients[row];
        const Closed closed = close(s + i, v + i, y + i, mask + i, anchor + i, x + i, d, renew[row] != 0, of_row.g,
                                    of_row.weight);
        residual[row] = closed.residual;
        settled[row] = closed.settled;
        recurs[row] = closed.recurs;
    });
}

void advance(int64_t rows, int64_t d, int64_t threads, uintptr_t x_, uintptr_t v_, uintptr_t residual_,
             uintptr_t status_) {
    const auto x = pointer<float>(x_);
    const auto v = pointer<const float>(v_);
    const auto residual = pointer<float>(residual_);
    const auto status = pointer<const int8_t>(status_);
    share_rows(rows, d, threads, [=, advance = kernels->advance](int64_t row) {
        if (status[row] == RUNNING) residual[row] = advance(x + row * d, v + row * d, d);
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
            kernels = available[i];
            return;
        }
    }
    throw std::invalid_argument("this processor has no instruction set called '" + name + "'");
}

}  // namespace
}  // namespace memrecon

PYBIND11_MODULE(_C, module) {
    using release_gil = py::call_guard<py::gil_scoped_release>;
    module.def("start", &memrecon::start, release_gil());
    module.def("step", &memrecon::step, release_gil());
    module.def("close", &memrecon::close, release_gil());
    module.def("advance", &memrecon::advance, release_gil());
    module.def("instruction_sets", &memrecon::instruction_sets, "Those of this processor that there are kernels for.");
    module.def("instruction_set", [] { return memrecon::kernels->name; }, "The one in use: the widest, unless changed.");
    module.def("use_instruction_set", &memrecon::use_instruction_set, "For tests; not while a kernel runs.");
}
