#include "stages.h"

#include <new>

#include "parallel.h"
#include "scratch.h"

namespace kangaroo {
namespace {

// Laying out an element, or a norm of it, costs about this many multiply-adds.
constexpr int64_t kPackWork = 4;

char* panel(const Layout& layout, int64_t num_rows, int64_t width) {
  constexpr int64_t kRounding = 64;  // more than any panel adds to rows or width
  int64_t bytes = 0;
  if (__builtin_mul_overflow(num_rows + kRounding, (width + kRounding), &bytes) ||
      bytes > INT64_MAX / int64_t{sizeof(float)}) {
    throw std::bad_alloc();
  }
  return static_cast<char*>(scratch_bytes(Scratch::kPanel, layout.panel_bytes(num_rows, width)));
}

}  // namespace

const char* packed(const kangaroo_states& x, const Layout& layout, const void* norm, float eps,
                   int32_t num_threads) {
  const int64_t num_rows = x.batch * x.nodes;
  const Packing rows = {rows_of(x), norm, eps, num_rows, x.width, panel(layout, num_rows, x.width)};
  const int64_t together = layout.rows_together(num_rows);
  const int64_t grain = grain_for(num_rows, kPackWork * x.width, together, num_threads);
  parallel_for(num_rows, grain, num_threads,
               [&](int64_t begin, int64_t end) { layout.pack(rows, begin, end); });
  return rows.panel;
}

void multiply(const Gemm& gemm, kangaroo_dtype dtype, bool to_float, int32_t num_threads) {
  if (gemm.num_rows == 0) return;
  const TypedKernels& k = kernels(dtype);
  const auto product = to_float ? k.gemm_to_float : k.gemm;
  const int64_t work = gemm.num_rows * gemm.width;
  const int64_t count = gemm.end - gemm.begin;
  const int64_t grain = grain_for(count, work, k.outputs_together, num_threads);
  parallel_for(count, grain, num_threads, [&](int64_t begin, int64_t end) {
    product(gemm.columns(gemm.begin + begin, gemm.begin + end));
  });
}

}  // namespace kangaroo
