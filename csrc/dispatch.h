// The instruction sets of this processor, and the kernels for each of them.
#pragma once

#include "admm.h"
#include "anderson.h"
#include "passes.h"

namespace memrecon {

struct InstructionSet {
    const char* name;
    const AdmmKernels* admm;
    const AndersonKernels* anderson;
    const PassKernels* passes;
};

constexpr int MAX_INSTRUCTION_SETS = 3;

// Those that this processor has, the narrowest first; writes at most MAX_INSTRUCTION_SETS pointers, returns how many.
int available_instruction_sets(const InstructionSet* sets[MAX_INSTRUCTION_SETS]);

}  // namespace memrecon
