#include "isa/kernels.h"
#include "kangaroo/status.h"

namespace kangaroo {

const Kernels& kernels() {
#ifdef KANGAROO_HAS_AVX2
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2) return avx2::kKernels;
#endif
  return portable::kKernels;
}

}  // namespace kangaroo

const char* kangaroo_isa(void) { return kangaroo::kernels().isa; }

const char* kangaroo_compiled_isas(void) {
#ifdef KANGAROO_HAS_AVX2
  return "avx2,portable";
#else
  return "portable";
#endif
}
