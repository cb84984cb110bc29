#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
namespace amx { extern const fastgan::Kernels kernels; }
namespace avx512 { extern const fastgan::Kernels kernels; }
namespace avx2 { extern const fastgan::Kernels kernels; }
namespace baseline { extern const fastgan::Kernels kernels; }
#elif defined(__aarch64__)
namespace neon { extern const fastgan::Kernels kernels; }
#else
namespace baseline { extern const fastgan::Kernels kernels; }
#endif

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#endif

namespace fastgan {

namespace {

#if defined(__x86_64__)

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

bool has_tiles() {
  constexpr unsigned tile = 1u << 24, bf16 = 1u << 22;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tile) && (d & bf16);
}

// Tiles are 8 KiB of state that the system saves for a thread: a process asks for them, once and for all its threads
// and children. Why it may not have them, or nothing.
std::string ask_for_tiles() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  if (syscall(SYS_arch_prctl, request_permission, tile_data) == 0) return "";
  return std::string("the system gives this process no tiles (") + std::strerror(errno) + ")";
#else
  return "only Linux is known to give a process its tiles";
#endif
}

const std::string& tiles_refused() {
  static const std::string reason = ask_for_tiles();
  return reason;
}

#endif

std::vector<const Kernels*> find_usable() {
#if defined(__x86_64__)
  std::vector<const Kernels*> found;
  if (has_avx512() && has_tiles() && tiles_refused().empty()) found.push_back(&amx::kernels);
  if (has_avx512()) found.push_back(&avx512::kernels);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::kernels);
  found.push_back(&baseline::kernels);
  return found;
#elif defined(__aarch64__)
  return {&neon::kernels};
#else
  return {&baseline::kernels};
#endif
}

// Found once: in a virtual machine a cpuid takes microseconds, and every op asks.
const std::vector<const Kernels*>& usable() {
  static const std::vector<const Kernels*> found = find_usable();
  return found;
}

}  // namespace

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

std::string refused_isa() {
#if defined(__x86_64__)
  if (has_avx512() && has_tiles() && !tiles_refused().empty()) return "amx: " + tiles_refused();
#endif
  return "";
}

const Kernels& choose_kernels() {
  const auto& found = usable();
  const char* wanted = std::getenv("FASTGAN_ISA");
  if (!wanted || !*wanted) return *found.front();
  std::string names;
  for (const Kernels* k : found) {
    if (std::string(wanted) == k->name) return *k;
    names += (names.empty() ? "" : ", ") + std::string(k->name);
  }
  const std::string refused = refused_isa();
  throw std::invalid_argument("FASTGAN_ISA: got '" + std::string(wanted) + "'; wanted one of " + names +
                              ", which this processor runs" + (refused.empty() ? "" : " (not " + refused + ")"));
}

}  // namespace fastgan
