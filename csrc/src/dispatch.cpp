#include <atomic>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "error.h"
#include "isa/kernels.h"

// Filled in by CMake: X(name) for every instruction set that is compiled in, the best first.
#include "compiled_isas.h"

namespace kangaroo {

#define X(isa)                   \
  namespace isa {                \
  extern const Kernels kKernels; \
  }
KANGAROO_ISAS(X)
#undef X

namespace {

// The processor has tiles, and the kernel lets this process use them.
bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kTiles = 1u << 24, kBf16 = 1u << 22;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if ((d & kTiles) == 0 || (d & kBf16) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool runs(const char* isa) {
#if defined(__x86_64__) || defined(__i386__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (std::strcmp(isa, "avx2") == 0) return avx2;
  if (std::strcmp(isa, "avx512") == 0) return avx512;
  const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (std::strcmp(isa, "avx512_bf16") == 0) return avx512_bf16;
  if (std::strcmp(isa, "amx") == 0) return avx512_bf16 && has_amx();
#endif
  return std::strcmp(isa, "portable") == 0;
}

const Kernels* const kTables[] = {
#define X(isa) &isa::kKernels,
    KANGAROO_ISAS(X)
#undef X
};

const Kernels* best() {
  for (const Kernels* table : kTables) {
    if (runs(table->isa)) return table;
  }
  return kTables[sizeof kTables / sizeof *kTables - 1];
}

std::atomic<const Kernels*>& chosen() {
  static std::atomic<const Kernels*> table{best()};
  return table;
}

}  // namespace

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

}  // namespace kangaroo

const char* kangaroo_isa(void) { return kangaroo::kernels().isa; }

const char* kangaroo_compiled_isas(void) {
#define X(isa) "," #isa
  return &KANGAROO_ISAS(X)[1];
#undef X
}

kangaroo_status kangaroo_select_isa(const char* isa) {
  using namespace kangaroo;
  if (!isa) return invalid("select_isa: isa: expected a name, got NULL");
  for (const Kernels* table : kTables) {
    if (std::strcmp(table->isa, isa) != 0) continue;
    if (!runs(isa)) {
      invalid("select_isa: this processor, or its system, has no %s", isa);
      return KANGAROO_UNSUPPORTED;
    }
    chosen().store(table, std::memory_order_relaxed);
    return KANGAROO_OK;
  }
  return invalid("select_isa: isa: expected one of %s, got %s", kangaroo_compiled_isas(), isa);
}

#define KANGAROO_STRING_OF(number) #number
#define KANGAROO_STRING(number) KANGAROO_STRING_OF(number)

const char* kangaroo_version(void) {
  return KANGAROO_STRING(KANGAROO_VERSION_MAJOR) "." KANGAROO_STRING(
      KANGAROO_VERSION_MINOR) "." KANGAROO_STRING(KANGAROO_VERSION_PATCH);
}
