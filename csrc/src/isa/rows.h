// Row-wise kernels: norm, SwiGLU, rotation, softmax statistics.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

template <class T>
void rms_norm(const void* x, const void* weight, float eps, int64_t width, void* out);
template <class T>
void rotate(const void* x, const float* cos, const float* sin, int64_t half, void* out);
template <class T>
void silu_mul(const float* gate, const float* up, int64_t count, void* out);
template <class T>
int64_t argmax(const void* values, int64_t count);
SoftmaxPart softmax_part(const float* logits, int64_t count);
float exp_one(float x);

}  // namespace kangaroo::KANGAROO_ISA
