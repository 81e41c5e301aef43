// The single-threaded inner kernels, one table per instruction set. Every row has its own, fixed
// order of operations: its bits do not depend on the rows beside it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kangaroo/tensor.h"

namespace kangaroo {

// Rows of [batch, nodes, width], counted through; strides in bytes.
struct Rows {
  char* data;
  int64_t nodes;
  int64_t batch_stride;
  int64_t node_stride;

  char* at(int64_t row) const {
    return data + row / nodes * batch_stride + row % nodes * node_stride;
  }
};

// out[m, n] = residual[m, n] + (x[m] . weight[n] + bias[n]) for n in [begin, end); absent parts are
// null. Where there are ids, weight[ids[n]] and scale[ids[n]] serve output n. The rows of x were
// laid out by `pack` of the kernel's layout. Of int8 weights it is out[m, n] = (x[m] . weight[n])
// scale[n].
struct Gemm {
  const char* panel;
  int64_t num_rows;
  int64_t width;
  const void* weight;     // rows of [width]
  int64_t weight_stride;  // elements
  const int32_t* ids;
  const void* bias;
  const float* scale;
  Rows residual;
  Rows out;
  int64_t begin;
  int64_t end;

  int64_t weight_row(int64_t output) const { return ids ? ids[output] : output; }

  Gemm columns(int64_t from, int64_t to) const {
    Gemm part = *this;
    part.begin = from;
    part.end = to;
    return part;
  }
};

// The rows of a panel; with a norm they are normalised first.
struct Packing {
  Rows x;            // [width] each
  const void* norm;  // [width], or null
  float eps;
  int64_t num_rows;
  int64_t width;
  char* panel;
};

// One query row of one head; it sees slots [0, prefix_len) and, where bit j of `tree` is set, slot
// prefix_len + j. Rows of a tile that has trees have one prefix_len.
struct AttentionRow {
  const void* q;  // [head_dim]
  void* out;      // [head_dim]
  int64_t prefix_len;
  uint64_t tree;
};

constexpr int kMaxAttentionRows = 16;

// Keys and values of one head: rows of [head_dim], slot_stride elements apart.
struct AttentionTile {
  AttentionRow rows[kMaxAttentionRows];
  int num_rows;
  const void* k;
  const void* v;
  int64_t slot_stride;
  int64_t head_dim;
  float scale;
};

// Of a stretch of logits: the largest, its first place, and the sum of exp(logit - largest).
struct SoftmaxPart {
  float largest;
  float sum;
  int64_t place;
};

// So many tokens run at once.
constexpr int64_t kRunners = 256;

// What the random numbers of a race belong to: three words of their counter, the token being the
// fourth, and the key.
struct RaceKey {
  uint32_t counter[3];
  uint64_t seed;
};

// How rows lie in a panel: the bytes of so many, and rows [begin, end) of it. Both are multiples of
// rows_together, or the end: so many are laid out at once.
struct Layout {
  int64_t (*rows_together)(int64_t num_rows);
  std::size_t (*panel_bytes)(int64_t num_rows, int64_t width);
  void (*pack)(const Packing& rows, int64_t begin, int64_t end);
};

// Kernels of one type of elements; all of them add in float32.
struct TypedKernels {
  int64_t outputs_together;  // a multiple of every tile's: chunks of so many have no narrow end
  Layout layout;
  void (*gemm)(const Gemm& gemm);           // out of the same type
  void (*gemm_to_float)(const Gemm& gemm);  // out in float32
  Layout int8_layout;
  void (*int8_gemm)(const Gemm& gemm);  // of int8 weights, out in float32
  void (*rms_norm)(const void* x, const void* weight, float eps, int64_t width, void* out);
  // Rotates halves; out may be x.
  void (*rotate)(const void* x, const float* cos, const float* sin, int64_t half, void* out);
  // out <- silu(gate) * up
  void (*silu_mul)(const float* gate, const float* up, int64_t count, void* out);
  void (*attend)(const AttentionTile& tile);
  // Place of the largest; ties go to the first, NaN is the largest. -1 where it is not finite.
  int64_t (*argmax)(const void* values, int64_t count);
};

struct Kernels {
  const char* isa;
  TypedKernels of_float32;
  TypedKernels of_bfloat16;
  SoftmaxPart (*softmax_part)(const float* logits, int64_t count);
  float (*exp)(float x);
  // weights <- exp((logit - largest) / temperature), in double
  void (*weigh)(const float* logits, int64_t count, double largest, double temperature,
                double* weights);
  // times <- -log u, with the number u in (0, 1) of each token; in arrays of kRunners
  void (*start_times)(const RaceKey& key, const uint64_t* tokens, int64_t count, double* times);

  const TypedKernels& of(kangaroo_dtype dtype) const {
    return dtype == KANGAROO_FLOAT32 ? of_float32 : of_bfloat16;
  }
};

// The table that serves this process: see kangaroo_select_isa.
const Kernels& kernels();

inline const TypedKernels& kernels(kangaroo_dtype dtype) { return kernels().of(dtype); }

}  // namespace kangaroo
