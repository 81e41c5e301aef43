#include "kangaroo/gated_mlp.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_gated_mlp(pybind11::module_& module) {
  module.def("gated_mlp", [](int dtype, Address x, Address gate_up, Address down, Address norm,
                             Address out, int64_t batch, int64_t nodes, int64_t width,
                             int64_t hidden_width, float eps, int32_t num_threads) {
    kangaroo_gated_mlp_params p = {};
    p.x = states(x, dtype, batch, nodes, width);
    p.gate_up = matrix(gate_up, dtype, 2 * hidden_width, width);
    p.down = matrix(down, dtype, width, hidden_width);
    p.norm = vector(norm, dtype, width);
    p.out = states(out, dtype, batch, nodes, width);
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_gated_mlp, p);
  });
}

}  // namespace kangaroo::bindings
