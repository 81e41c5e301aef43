#include "kangaroo/rms_norm.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_rms_norm(pybind11::module_& module) {
  module.def("rms_norm", [](Address x, Address weight, Address out, int64_t num_rows, int64_t width,
                            float eps, int32_t num_threads) {
    kangaroo_rms_norm_params p = {};
    p.x = at<float>(x);
    p.weight = at<float>(weight);
    p.out = at<float>(out);
    p.num_rows = num_rows;
    p.width = width;
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_rms_norm, p);
  });
}

}  // namespace kangaroo::bindings
