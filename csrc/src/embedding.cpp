#include "kangaroo/embedding.h"

#include <algorithm>

#include "error.h"

kangaroo_status kangaroo_embedding(const kangaroo_embedding_params* params) {
  using namespace kangaroo;
  const kangaroo_embedding_params& p = *params;
  const kangaroo_status status =
      check("embedding", {{"num_rows", p.num_rows}, {"width", p.width}, {"vocab", p.vocab}},
            {{"tokens", p.tokens, p.num_rows},
             {"weight", p.weight, p.vocab * p.width},
             {"out", p.out, p.num_rows * p.width}});
  if (status != KANGAROO_OK) return status;
  for (int64_t row = 0; row < p.num_rows; ++row) {
    if (p.tokens[row] < 0 || p.tokens[row] >= p.vocab) {
      return invalid("embedding: tokens: expected values in [0, %lld), got %lld",
                     static_cast<long long>(p.vocab), static_cast<long long>(p.tokens[row]));
    }
  }
  for (int64_t row = 0; row < p.num_rows; ++row) {
    const float* from = p.weight + p.tokens[row] * p.width;
    std::copy(from, from + p.width, p.out + row * p.width);
  }
  return KANGAROO_OK;
}
