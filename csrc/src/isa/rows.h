// Row-wise kernels: norm, SwiGLU, rotation, softmax statistics.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

void rms_norm(const float* x, const float* weight, float eps, int64_t width, float* out);
void silu_mul(float* gate, const float* up, int64_t count);
void rotate(const float* x, const float* cos, const float* sin, int64_t half, float* out);
SoftmaxPart softmax_part(const float* logits, int64_t count);
float exp_one(float x);

}  // namespace kangaroo::KANGAROO_ISA
