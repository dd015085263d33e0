#include "dispatch.h"

namespace memrecon {
namespace {

constexpr InstructionSet baseline = {"baseline", &admm_baseline, &anderson_baseline, &passes_baseline};
#if defined(__x86_64__)
constexpr InstructionSet avx2 = {"avx2", &admm_avx2, &anderson_avx2, &passes_avx2};
constexpr InstructionSet avx512 = {"avx512", &admm_avx512, &anderson_avx512, &passes_avx512};
#endif

}  // namespace

int available_instruction_sets(const InstructionSet* sets[MAX_INSTRUCTION_SETS]) {
    int count = 0;
    sets[count++] = &baseline;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("fma")) return count;
    if (__builtin_cpu_supports("avx2")) sets[count++] = &avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        sets[count++] = &avx512;
#endif
    return count;
}

}  // namespace memrecon
