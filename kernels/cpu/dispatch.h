// Which instruction set to use: the best that this processor has, or a lower one that FASTGAN_ISA names.
#pragma once
#include <string>
#include <vector>

#include "kernels.h"

namespace fastgan {

// Names of the instruction sets that this build holds and this processor runs, best first.
std::vector<std::string> usable_isas();

// Who made this processor: "amd", "intel" or "other". It tells which code other libraries run on it.
const char* maker();

// An instruction set that the processor has and the system refuses this process, and why: "amx: ..."; or nothing.
std::string refused_isa();

// Throws std::invalid_argument, naming what would be accepted, if FASTGAN_ISA asks for one that is not usable.
const Kernels& choose_kernels();

}  // namespace fastgan
