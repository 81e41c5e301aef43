#include "cuda.h"

namespace kangaroo::bindings {

void register_linear_cuda(pybind11::module_& module) {
  module.def("linear_cuda", [](int dtype, Address x, Address weight, Address bias, Address norm,
                               Address residual, Address out, int out_dtype, int64_t batch,
                               int64_t nodes, int64_t width, int64_t out_width, float eps,
                               const Allocate& allocate, Address stream) {
    kangaroo_linear_params p = {};
    p.x = states(x, dtype, batch, nodes, width);
    p.weight = matrix(weight, dtype, out_width, width);
    p.bias = vector(bias, dtype, out_width);
    p.norm = vector(norm, dtype, width);
    p.residual = states(residual, dtype, batch, nodes, out_width);
    p.out = states(out, out_dtype, batch, nodes, out_width);
    p.eps = eps;
    void* const workspace = workspace_of(kangaroo_linear_cuda_workspace, p, allocate);
    call([=](const auto* q) { return kangaroo_linear_cuda(q, workspace, at<void>(stream)); }, p);
  });
}

}  // namespace kangaroo::bindings
