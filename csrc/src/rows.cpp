#include "rows.h"

#include "parallel.h"

namespace kangaroo {
namespace {

// A multiple of every tile width, so that only the last chunk has a narrow end.
constexpr int64_t kOutputStep = 12;
// A row of a norm costs about this many times as much as a multiply-add per element.
constexpr int64_t kNormWork = 4;

}  // namespace

void normalize(const float* x, const float* weight, float eps, int64_t num_rows, int64_t width,
               float* out, int32_t num_threads) {
  const Kernels& k = kernels();
  const int64_t grain = grain_for(num_rows, kNormWork * width, 1, num_threads);
  parallel_for(num_rows, grain, num_threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      k.rms_norm(x + row * width, weight, eps, width, out + row * width);
    }
  });
}

const float* normalized(const float* x, const float* weight, float eps, int64_t num_rows,
                        int64_t width, int32_t num_threads) {
  float* rows = scratch<float>(Scratch::kRows, num_rows * width);
  normalize(x, weight, eps, num_rows, width, rows, num_threads);
  return rows;
}

void parallel_gemm(const Gemm& gemm, int32_t num_threads) {
  if (gemm.num_rows == 0) return;
  const Kernels& k = kernels();
  const int64_t work = gemm.num_rows * gemm.width;
  const int64_t grain = grain_for(gemm.out_width, work, kOutputStep, num_threads);
  parallel_for(gemm.out_width, grain, num_threads,
               [&](int64_t begin, int64_t end) { k.gemm(gemm.columns(begin, end)); });
}

}  // namespace kangaroo
