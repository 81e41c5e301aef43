#include "kangaroo/topk_confidence.h"

#include <pybind11/stl.h>

#include "draft_head.h"

namespace kangaroo::bindings {

void register_topk_confidence(pybind11::module_& module) {
  module.def("topk_confidence", [](Address h, const Head& head, Address norm_weight, Address tokens,
                                   Address confidence, int64_t num_rows, int64_t width, int64_t k,
                                   float eps, int32_t num_threads) {
    kangaroo_topk_confidence_params p = {};
    p.h = at<float>(h);
    p.head = head_of(head);
    p.norm_weight = at<float>(norm_weight);
    p.tokens = at<int64_t>(tokens);
    p.confidence = at<float>(confidence);
    p.num_rows = num_rows;
    p.width = width;
    p.k = k;
    p.eps = eps;
    p.num_threads = num_threads;
    call(kangaroo_topk_confidence, p);
  });
}

}  // namespace kangaroo::bindings
