#include "kangaroo/linear.h"

#include "ops.h"
#include "stages.h"

namespace kangaroo {

void check(Check& c, const kangaroo_linear_params& p) {
  c.cpu_dtype("x", p.x.dtype);
  c.states("x", p.x);
  c.matrix("weight", p.weight, p.weight.rows, p.x.width, p.x.dtype);
  c.optional("bias", p.bias, p.weight.rows, p.x.dtype);
  c.optional("norm", p.norm, p.x.width, p.x.dtype);
  if (p.residual.data) c.states("residual", p.residual, p.x, p.weight.rows, p.x.dtype);
  const bool unrounded = p.out.dtype == KANGAROO_FLOAT32;
  c.states("out", p.out, p.x, p.weight.rows, unrounded ? KANGAROO_FLOAT32 : p.x.dtype);
  c.eps(p.eps);
  c.threads(p.num_threads);
}

void run(const kangaroo_linear_params& p) {
  Gemm gemm = {};
  gemm.panel = packed(p.x, p.norm.data, p.eps, p.num_threads);
  gemm.num_rows = p.x.batch * p.x.nodes;
  gemm.width = p.x.width;
  gemm.weight = p.weight.data;
  gemm.weight_stride = p.weight.row_stride;
  gemm.bias = p.bias.data;
  gemm.residual = p.residual.data ? rows_of(p.residual) : no_rows();
  gemm.out = rows_of(p.out);
  gemm.end = p.weight.rows;
  multiply(gemm, p.x.dtype, p.out.dtype == KANGAROO_FLOAT32, p.num_threads);
}

}  // namespace kangaroo

kangaroo_status kangaroo_linear(const kangaroo_linear_params* params) {
  return kangaroo::checked("linear", params);
}
