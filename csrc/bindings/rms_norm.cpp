#include "kangaroo/rms_norm.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_rms_norm(pybind11::module_& module) {
  module.def("rms_norm", [](int dtype, Address x, Address weight, Address out, int64_t num_rows,
                            int64_t width, float eps, int32_t num_threads) {
    kangaroo_rms_norm_params p = {};
    p.x = states(x, dtype, 1, num_rows, width);
    p.weight = vector(weight, dtype, width);
    p.out = states(out, dtype, 1, num_rows, width);
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_rms_norm, p);
  });
}

}  // namespace kangaroo::bindings
