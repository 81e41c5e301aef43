// Row-invariant skinny GEMM. For every (row, output) there is one chain of kLanes lanes over k,
// then one horizontal sum: tile shapes change what shares a register, never an order of additions.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

// How a step over k multiplies: what stands in memory, and how wide a step is.
struct FloatDot {  // float32 by float32
  using Weight = float;
  using Packed = float;
  static constexpr int64_t kStep = kLanes;
};

struct WideDot {  // bfloat16 weights by float32: elements 0, 2, 4, ... of a step, then 1, 3, 5, ...
  using Weight = Bf16;
  using Packed = float;
  static constexpr int64_t kStep = 2 * kLanes;
};

struct ByteDot {  // int8 by the rows of FloatDot
  using Weight = int8_t;
  using Packed = float;
  static constexpr int64_t kStep = kLanes;
};

struct WideByteDot {  // int8 by the rows of WideDot
  using Weight = int8_t;
  using Packed = float;
  static constexpr int64_t kStep = 2 * kLanes;
};

#ifdef __AVX512BF16__
struct PairDot {  // bfloat16 by bfloat16, two products an instruction
  using Weight = Bf16;
  using Packed = Bf16;
  static constexpr int64_t kStep = 2 * kLanes;
};
#else
using PairDot = WideDot;
#endif

constexpr int64_t kOutputsTogether = 12;  // a multiple of every number of outputs of a tile

// A row of a panel; with a norm it is normalised first.
struct PackedRow {
  const void* x;     // [width]
  const void* norm;  // [width], or null
  float eps;
  float factor;  // of every value, where there is no norm
  int64_t width;
};

template <class Dot>
std::size_t panel_bytes(int64_t num_rows, int64_t width);

template <class Dot>
void pack_row(const PackedRow& source, int64_t row, int64_t num_rows, char* panel);
template <class Dot>
void pack(const Packing& rows, int64_t begin, int64_t end);

template <class Dot, class Out>
void gemm(const Gemm& gemm);

}  // namespace kangaroo::KANGAROO_ISA
