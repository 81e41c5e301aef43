#include "kangaroo/linear.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_linear(pybind11::module_& module) {
  module.def("linear", [](Address x, Address weight, Address bias, Address norm_weight,
                          Address residual, Address out, int64_t num_rows, int64_t width,
                          int64_t out_width, float eps, int32_t num_threads) {
    kangaroo_linear_params p = {};
    p.x = at<float>(x);
    p.weight = at<float>(weight);
    p.bias = at<float>(bias);
    p.norm_weight = at<float>(norm_weight);
    p.residual = at<float>(residual);
    p.out = at<float>(out);
    p.num_rows = num_rows;
    p.width = width;
    p.out_width = out_width;
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_linear, p);
  });
}

}  // namespace kangaroo::bindings
