// memrecon_fast._C: the kernels under Python, with threads.
//
// Pointers come in as integers and are trusted: memrecon_fast/ops/admm/cpp.py has checked them. Nothing here knows torch.
//
// torch brings its own libgomp.so.1, and this module asks for the same name: torch is always imported first, so the
// process holds one OpenMP runtime, and one team of threads serves both.

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "bindings.h"

namespace py = pybind11;

namespace memrecon {
namespace {

const Kernels* available[MAX_INSTRUCTION_SETS];
const int available_count = available_kernels(available);

}  // namespace

const Kernels* kernels = available[available_count - 1];

namespace {

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
    memrecon::bind_anderson(module);
    module.def("instruction_sets", &memrecon::instruction_sets, "Those of this processor that there are kernels for.");
    module.def("instruction_set", [] { return memrecon::kernels->name; }, "The one in use: the widest, unless changed.");
    module.def("use_instruction_set", &memrecon::use_instruction_set, "For tests; not while a kernel runs.");
}
