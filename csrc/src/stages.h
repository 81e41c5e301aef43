// Steps that several ops share: rows laid out for a product, the product over all threads.
#pragma once

#include "isa/kernels.h"
#include "kangaroo/tensor.h"

namespace kangaroo {

inline Rows rows_of(void* data, int64_t nodes, int64_t batch_stride, int64_t node_stride,
                    kangaroo_dtype dtype) {
  const int64_t bytes = dtype == KANGAROO_FLOAT32 ? 4 : 2;
  return {static_cast<char*>(data), nodes > 0 ? nodes : 1, batch_stride * bytes,
          node_stride * bytes};
}

inline Rows rows_of(const kangaroo_states& s) {
  return rows_of(s.data, s.nodes, s.batch_stride, s.node_stride, s.dtype);
}

inline Rows no_rows() { return {nullptr, 1, 0, 0}; }

// Lays out rows [batch, nodes, width] for a product, normalised where there is a norm; in this
// thread's scratch, until the next call.
const char* packed(const kangaroo_states& x, const Layout& layout, const void* norm, float eps,
                   int32_t num_threads);

inline const char* packed(const kangaroo_states& x, const void* norm, float eps,
                          int32_t num_threads) {
  return packed(x, kernels(x.dtype).layout, norm, eps, num_threads);
}

// All outputs of the product, split between threads by output.
void multiply(const Gemm& gemm, kangaroo_dtype dtype, bool to_float, int32_t num_threads);

}  // namespace kangaroo
