#include "kangaroo/rms_norm.h"

#include "error.h"
#include "rows.h"

kangaroo_status kangaroo_rms_norm(const kangaroo_rms_norm_params* params) {
  using namespace kangaroo;
  const kangaroo_rms_norm_params& p = *params;
  const kangaroo_status status = check("rms_norm", {{"num_rows", p.num_rows}, {"width", p.width}},
                                       {{"x", p.x, p.num_rows * p.width},
                                        {"weight", p.weight, p.width},
                                        {"out", p.out, p.num_rows * p.width}});
  if (status != KANGAROO_OK) return status;
  normalize(p.x, p.weight, p.eps, p.num_rows, p.width, p.out, p.num_threads);
  return KANGAROO_OK;
}
