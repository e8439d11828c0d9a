// Chooses the kernels at run time: one library serves every CPU of its architecture.
#include "kernels.hpp"

#include <cstdlib>
#include <cstring>

namespace rksim {

namespace generic { extern const Kernels table; }
#if defined(__x86_64__)
namespace avx2 { extern const Kernels table; }
namespace avx512 { extern const Kernels table; }
#endif

namespace {

int collect(const Kernels** tables) {
  int count = 0;
  tables[count++] = &generic::table;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  if (has_avx2) tables[count++] = &avx2::table;
  if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni"))
    tables[count++] = &avx512::table;
#endif
  return count;
}

const Kernels& choose() {
  const Kernels* const* tables;
  const int count = available_kernels(&tables);
  const char* wanted = std::getenv("RK_GEMMA_SIM_ISA");
  for (int i = 0; wanted && i < count; i++)
    if (std::strcmp(tables[i]->name, wanted) == 0) return *tables[i];
  return *tables[count - 1];
}

}  // namespace

int available_kernels(const Kernels* const** out) {
  static const Kernels* tables[3];
  static const int count = collect(tables);
  *out = tables;
  return count;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace rksim
