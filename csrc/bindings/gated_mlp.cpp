#include "kangaroo/gated_mlp.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_gated_mlp(pybind11::module_& module) {
  module.def("gated_mlp", [](Address x, Address gate_up, Address down, Address norm_weight,
                             Address out, int64_t num_rows, int64_t width, int64_t hidden_width,
                             float eps, int32_t num_threads) {
    kangaroo_gated_mlp_params p = {};
    p.x = at<float>(x);
    p.gate_up = at<float>(gate_up);
    p.down = at<float>(down);
    p.norm_weight = at<float>(norm_weight);
    p.out = at<float>(out);
    p.num_rows = num_rows;
    p.width = width;
    p.hidden_width = hidden_width;
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_gated_mlp, p);
  });
}

}  // namespace kangaroo::bindings
