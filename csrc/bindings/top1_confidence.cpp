#include "kangaroo/top1_confidence.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_top1_confidence(pybind11::module_& module) {
  module.def("top1_confidence",
             [](Address h, Address head, Address norm_weight, Address tokens, Address confidence,
                int64_t num_rows, int64_t width, int64_t vocab, float eps, int32_t num_threads) {
               kangaroo_top1_confidence_params p = {};
               p.h = at<float>(h);
               p.head = at<float>(head);
               p.norm_weight = at<float>(norm_weight);
               p.tokens = at<int64_t>(tokens);
               p.confidence = at<float>(confidence);
               p.num_rows = num_rows;
               p.width = width;
               p.vocab = vocab;
               p.eps = eps;
               p.num_threads = num_threads;
               call(kangaroo_top1_confidence, p);
             });
}

}  // namespace kangaroo::bindings
