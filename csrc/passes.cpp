#include "passes.h"

#include "pixels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace memrecon {
namespace {

using std::int8_t;

// Of what is multiplied by entries of V, or added up, at once.
constexpr int64_t ENTRIES_AT_ONCE = 2048;

#define TARGET
#define NAME baseline
#define WIDTH 2
#define VECTORS 2
#define ROWS 4
#define MULTIPLY_ADD(a, b, c) ((c) + (a) * (b))
#define SPREAD(x) (Vector{} + (x))
#include "passes_body.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#define NAME avx2
#define WIDTH 4
#define VECTORS 2
#define ROWS 4
#define MULTIPLY_ADD(a, b, c) (Vector) _mm256_fmadd_pd(a, b, c)
#define SPREAD(x) (Vector) _mm256_set1_pd(x)
#include "passes_body.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define NAME avx512
#define WIDTH 8
#define VECTORS 3
#define ROWS 8
#define MULTIPLY_ADD(a, b, c) (Vector) _mm512_fmadd_pd(a, b, c)
#define SPREAD(x) (Vector) _mm512_set1_pd(x)
#include "passes_body.h"
#endif

}  // namespace

const PassKernels passes_baseline = baseline::kernels;
#if defined(__x86_64__)
const PassKernels passes_avx2 = avx2::kernels;
const PassKernels passes_avx512 = avx512::kernels;
#endif

}  // namespace memrecon
