#include "kangaroo/embedding.h"

#include <cstring>

#include "check.h"
#include "stages.h"

kangaroo_status kangaroo_embedding(const kangaroo_embedding_params* params) {
  using namespace kangaroo;
  return entry("embedding", params, [](const kangaroo_embedding_params& p) {
    Check c("embedding");
    c.cpu_dtype("weight", p.weight.dtype);
    c.matrix("weight", p.weight, p.weight.rows, p.weight.width, p.weight.dtype);
    c.states("out", p.out, p.out, p.weight.width, p.weight.dtype);
    c.array("tokens", p.tokens, p.out.batch, p.out.nodes, sizeof(int64_t));
    const int64_t num_rows = c.ok() ? p.out.batch * p.out.nodes : 0;
    for (int64_t row = 0; row < num_rows; ++row) {
      c.within("tokens", p.tokens[row], 0, p.weight.rows - 1);
    }
    if (!c.ok()) return c.status();
    const int64_t row_bytes = p.weight.width * size_of(p.weight.dtype);
    for (int64_t row = 0; row < num_rows; ++row) {
      const auto* from = static_cast<const char*>(p.weight.data) +
                         p.tokens[row] * p.weight.row_stride * size_of(p.weight.dtype);
      std::memcpy(rows_of(p.out).at(row), from, static_cast<std::size_t>(row_bytes));
    }
    return KANGAROO_OK;
  });
}
