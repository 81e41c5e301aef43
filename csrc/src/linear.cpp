#include "kangaroo/linear.h"

#include "error.h"
#include "rows.h"

kangaroo_status kangaroo_linear(const kangaroo_linear_params* params) {
  using namespace kangaroo;
  return guarded([&] {
    const kangaroo_linear_params& p = *params;
    const kangaroo_status status =
        check("linear", {{"num_rows", p.num_rows}, {"width", p.width}, {"out_width", p.out_width}},
              {{"x", p.x, p.num_rows * p.width},
               {"weight", p.weight, p.out_width * p.width},
               {"out", p.out, p.num_rows * p.out_width}});
    if (status != KANGAROO_OK) return status;
    Gemm gemm = {};
    gemm.x = p.norm_weight
                 ? normalized(p.x, p.norm_weight, p.eps, p.num_rows, p.width, p.num_threads)
                 : p.x;
    gemm.x_stride = p.width;
    gemm.weight = p.weight;
    gemm.bias = p.bias;
    gemm.residual = p.residual;
    gemm.out = p.out;
    gemm.out_stride = p.out_width;
    gemm.num_rows = p.num_rows;
    gemm.width = p.width;
    gemm.out_width = p.out_width;
    parallel_gemm(gemm, p.num_threads);
    return KANGAROO_OK;
  });
}
