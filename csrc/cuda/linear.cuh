// A product with what is added to it, for every op that ends in one.
#pragma once

#include "gemm.cuh"

namespace kangaroo {

struct Behind {
  const void* bias;  // or NULL
  Rows residual;     // of no address: absent
  Rows out;
  bool unrounded;  // out is float32
};

// out <- the product + bias + residual, in linear.cu for every type of the GPU.
template <class T>
cudaError_t run_product(const Product& p, const Behind& behind, cudaStream_t stream);

}  // namespace kangaroo
