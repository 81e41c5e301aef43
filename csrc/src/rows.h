// Row-wise steps that several ops share: the norm in front, the GEMM over all threads.
#pragma once

#include "isa/kernels.h"
#include "scratch.h"

namespace kangaroo {

// out[m] = rms_norm(x[m]) for all rows, [num_rows, width].
void normalize(const float* x, const float* weight, float eps, int64_t num_rows, int64_t width,
               float* out, int32_t num_threads);

// The same into this thread's scratch.
const float* normalized(const float* x, const float* weight, float eps, int64_t num_rows,
                        int64_t width, int32_t num_threads);

// All outputs of the product, split between threads by output.
void parallel_gemm(const Gemm& gemm, int32_t num_threads);

}  // namespace kangaroo
