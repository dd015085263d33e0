// The accelerated solver's functions of memrecon_fast._C; see bindings.cpp.

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>

#include "anderson.h"
#include "bindings.h"

namespace py = pybind11;

namespace memrecon {
namespace {

using std::int32_t;

void measure(int64_t rows, int64_t d, int64_t places, int64_t threads, uintptr_t s_, uintptr_t v_, uintptr_t y_,
             uintptr_t mask_, uintptr_t steps_, uintptr_t residuals_, uintptr_t gram_, uintptr_t head_,
             uintptr_t filled_, uintptr_t status_, uintptr_t coefficients_) {
    const auto s = pointer<const float>(s_);
    const auto v = pointer<const float>(v_);
    const auto y = pointer<const float>(y_);
    const auto mask = pointer<const uint8_t>(mask_);
    const auto steps = pointer<float>(steps_);
    const auto residuals = pointer<float>(residuals_);
    const auto grams = pointer<double>(gram_);
    const auto head = pointer<const int32_t>(head_);
    const auto filled = pointer<const int32_t>(filled_);
    const auto status = pointer<const int8_t>(status_);
    const auto coefficients = pointer<const Coefficients>(coefficients_);
    share_rows(rows, d, threads, [=, measure = kernels->anderson->measure](int64_t row) {
        if (status[row] != RUNNING) return;
        const float* others[MAX_PLACES];
        double products[MAX_PLACES];
        const int64_t i = row * d;
        const int64_t first = row * places, here = head[row];
        const int64_t count = std::clamp<int64_t>(filled[row], 0, places - 1);
        const auto place = [=](int64_t age) { return (here + places - age) % places; };
        for (int64_t k = 0; k < count; ++k) others[k] = residuals + (first + place(1 + k)) * d;
        measure(s + i, v + i, y + i, mask + i, steps + (first + here) * d, residuals + (first + here) * d, others,
                static_cast<int>(count), products, d, coefficients[row].c, coefficients[row].weight);
        double* gram = grams + first * places;
        for (int64_t age = 0; age < places; ++age) {
            const double product = age <= count ? products[age] : 0.0;
            gram[here * places + place(age)] = product;
            gram[place(age) * places + here] = product;
        }
    });
}

void estimate(int64_t rows, int64_t d, bool estimate_mask, int64_t threads, uintptr_t s_, uintptr_t v_, uintptr_t y_,
              uintptr_t mask_, uintptr_t x_, uintptr_t best_, uintptr_t best_mask_, uintptr_t residual_,
              uintptr_t score_, uintptr_t best_score_, uintptr_t changed_, uintptr_t status_,
              uintptr_t coefficients_) {
    const auto s = pointer<const float>(s_);
    const auto v = pointer<const float>(v_);
    const auto y = pointer<const float>(y_);
    const auto mask = pointer<uint8_t>(mask_);
    const auto x = pointer<float>(x_);
    const auto best = pointer<float>(best_);
    const auto best_mask = pointer<uint8_t>(best_mask_);
    const auto residual = pointer<float>(residual_);
    const auto score = pointer<float>(score_);
    const auto best_score = pointer<float>(best_score_);
    const auto changed = pointer<bool>(changed_);
    const auto status = pointer<const int8_t>(status_);
    const auto coefficients = pointer<const Coefficients>(coefficients_);
    const auto estimate = estimate_mask ? kernels->anderson->estimate_mask : kernels->anderson->estimate;
    share_rows(rows, d, threads, [=](int64_t row) {
        if (status[row] != RUNNING) return;
        const int64_t i = row * d;
        const Coefficients& of_row = coefficients[row];
        const Estimated estimated = estimate(s + i, v + i, y + i, mask + i, x + i, d, of_row.g, of_row.weight);
        residual[row] = estimated.residual;
        score[row] = estimated.score;
        changed[row] = estimated.changed;
        if (!(estimated.score < best_score[row])) return;
        best_score[row] = estimated.score;
        std::memcpy(best + i, x + i, d * sizeof(float));
        std::memcpy(best_mask + i, mask + i, d);
    });
}

void weigh_rows(int64_t rows, int64_t places, int64_t settle, int64_t threads, uintptr_t gram_, uintptr_t head_,
                uintptr_t filled_, uintptr_t extrapolated_, uintptr_t base_, uintptr_t weights_, uintptr_t held_,
                uintptr_t accepted_, uintptr_t rejected_, uintptr_t status_) {
    const auto gram = pointer<const double>(gram_);
    const auto head = pointer<int32_t>(head_);
    const auto filled = pointer<int32_t>(filled_);
    const auto extrapolated = pointer<uint8_t>(extrapolated_);
    const auto base = pointer<int32_t>(base_);
    const auto weights = pointer<float>(weights_);
    const auto held = pointer<const int32_t>(held_);
    const auto accepted = pointer<int32_t>(accepted_);
    const auto rejected = pointer<int32_t>(rejected_);
    const auto status = pointer<const int8_t>(status_);
    // To solve a system takes about as long as some loop over as many pixels as there are products in it.
    share_rows(rows, places * places * places, threads, [=](int64_t row) {
        if (status[row] != RUNNING) return;
        weigh(gram + row * places * places, static_cast<int>(places), held[row] >= settle,
              {head[row], filled[row], extrapolated[row], base[row], accepted[row], rejected[row]},
              weights + row * places);
    });
}

void mix(int64_t rows, int64_t d, int64_t places, int64_t threads, uintptr_t s_, uintptr_t steps_, uintptr_t base_,
         uintptr_t weights_, uintptr_t status_) {
    const auto s = pointer<float>(s_);
    const auto steps = pointer<const float>(steps_);
    const auto base = pointer<const int32_t>(base_);
    const auto weights = pointer<const float>(weights_);
    const auto status = pointer<const int8_t>(status_);
    share_rows(rows, d, threads, [=, mix = kernels->anderson->mix](int64_t row) {
        if (status[row] != RUNNING) return;
        const float* weighted[MAX_PLACES];
        float nonzero[MAX_PLACES];
        int count = 0;
        const int64_t first = row * places;
        for (int64_t place = 0; place < places; ++place) {
            const float weight = weights[first + place];
            if (weight == 0.0f) continue;
            weighted[count] = steps + (first + place) * d;
            nonzero[count++] = weight;
        }
        mix(s + row * d, steps + (first + base[row]) * d, weighted, nonzero, count, d);
    });
}

}  // namespace

void bind_anderson(py::module_& module) {
    using release_gil = py::call_guard<py::gil_scoped_release>;
    module.def("measure", &measure, release_gil());
    module.def("estimate", &estimate, release_gil());
    module.def("weigh", &weigh_rows, release_gil());
    module.def("mix", &mix, release_gil());
}

}  // namespace memrecon
