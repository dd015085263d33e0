// Rows and pixels shared among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "admm.h"

namespace memrecon {

using std::int64_t;

// A thread is worth having for at least this many pixels. Measured with two: no gain with half as many each, a fifth of
// the time saved with this many, half of it with sixteen times as many.
constexpr int64_t PIXELS_PER_THREAD = 32768;

// The shares of the threads begin at multiples of this many pixels: a cache line of the mask, so that no two threads
// write to one line of an aligned buffer.
constexpr int64_t LINE = 64;

inline int64_t useful_threads(int64_t pixels, int64_t threads) {
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

}  // namespace memrecon
