// The single-threaded inner kernels, one table per instruction set. Every row has its own, fixed
// order of operations: its bits do not depend on the rows beside it.
#pragma once

#include <cstdint>

namespace kangaroo {

// out[m, n] = residual[m, n] + (x[m] . weight[n] + bias[n]); absent parts are null.
struct Gemm {
  const float* x;  // [num_rows, width], rows x_stride apart
  int64_t x_stride;
  const float* weight;    // [out_width, width]
  const float* bias;      // [out_width]
  const float* residual;  // [num_rows, out_width], rows out_stride apart
  float* out;             // [num_rows, out_width], rows out_stride apart
  int64_t out_stride;
  int64_t num_rows;
  int64_t width;
  int64_t out_width;

  // The same product for outputs [begin, end) alone.
  Gemm columns(int64_t begin, int64_t end) const {
    Gemm part = *this;
    part.weight += begin * width;
    part.bias = bias ? bias + begin : nullptr;
    part.residual = residual ? residual + begin : nullptr;
    part.out += begin;
    part.out_width = end - begin;
    return part;
  }
};

// One query row of one head; it sees slots [0, prefix_len) and, where bit j of `tree` is set, slot
// prefix_len + j.
struct AttentionRow {
  const float* q;  // [head_dim]
  float* out;      // [head_dim]
  int64_t prefix_len;
  uint64_t tree;
};

constexpr int kMaxAttentionRows = 12;

// Keys and values of one head: [num_slots, head_dim] each.
struct AttentionTile {
  AttentionRow rows[kMaxAttentionRows];
  int num_rows;
  const float* k;
  const float* v;
  int64_t head_dim;
  float scale;
};

// Of a stretch of logits: the largest, its first place, and the sum of exp(logit - largest).
struct SoftmaxPart {
  float largest;
  float sum;
  int64_t place;
};

struct Kernels {
  const char* isa;
  void (*gemm)(const Gemm& gemm);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t width, float* out);
  // gate <- silu(gate) * up
  void (*silu_mul)(float* gate, const float* up, int64_t count);
  // Rotates halves; out may be x.
  void (*rotate)(const float* x, const float* cos, const float* sin, int64_t half, float* out);
  SoftmaxPart (*softmax_part)(const float* logits, int64_t count);
  void (*attend)(const AttentionTile& tile);
  float (*exp)(float x);
};

namespace portable {
extern const Kernels kKernels;
}
#ifdef KANGAROO_HAS_AVX2
namespace avx2 {
extern const Kernels kKernels;
}
#endif

// The table of the best instruction set that this machine has.
const Kernels& kernels();

}  // namespace kangaroo
