#include "kangaroo/topk_confidence.h"

#include <pybind11/stl.h>

#include "bindings.h"

namespace kangaroo::bindings {

void register_topk_confidence(pybind11::module_& module) {
  module.def("topk_confidence", [](int dtype, Address h, const Head& head, Address norm,
                                   Address tokens, Address confidence, int64_t batch, int64_t nodes,
                                   int64_t width, int64_t k, float eps, int32_t num_threads) {
    kangaroo_topk_confidence_params p = {};
    p.h = states(h, dtype, batch, nodes, width);
    p.head = head_of(head, dtype, width);
    p.norm = vector(norm, dtype, width);
    p.tokens = at<int64_t>(tokens);
    p.confidence = at<float>(confidence);
    p.k = k;
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_topk_confidence, p);
  });
}

}  // namespace kangaroo::bindings
