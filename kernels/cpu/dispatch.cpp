#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
namespace avx512 { extern const fastgan::Kernels kernels; }
namespace avx2 { extern const fastgan::Kernels kernels; }
namespace baseline { extern const fastgan::Kernels kernels; }
#elif defined(__aarch64__)
namespace neon { extern const fastgan::Kernels kernels; }
#else
namespace baseline { extern const fastgan::Kernels kernels; }
#endif

namespace fastgan {

static std::vector<const Kernels*> usable() {
#if defined(__x86_64__)
  std::vector<const Kernels*> found;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&avx512::kernels);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::kernels);
  found.push_back(&baseline::kernels);
  return found;
#elif defined(__aarch64__)
  return {&neon::kernels};
#else
  return {&baseline::kernels};
#endif
}

std::vector<std::string> usable_isas() {
  std::vector<std::string> names;
  for (const Kernels* k : usable()) names.push_back(k->name);
  return names;
}

const char* maker() {
#if defined(__x86_64__)
  if (__builtin_cpu_is("amd")) return "amd";
  if (__builtin_cpu_is("intel")) return "intel";
#endif
  return "other";
}

const Kernels& choose_kernels() {
  const auto found = usable();
  const char* wanted = std::getenv("FASTGAN_ISA");
  if (!wanted || !*wanted) return *found.front();
  std::string names;
  for (const Kernels* k : found) {
    if (std::string(wanted) == k->name) return *k;
    names += (names.empty() ? "" : ", ") + std::string(k->name);
  }
  throw std::invalid_argument("FASTGAN_ISA: got '" + std::string(wanted) + "'; wanted one of " + names +
                              ", which this processor runs");
}

}  // namespace fastgan
