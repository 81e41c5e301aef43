#include "kangaroo/top1_confidence.h"

#include <pybind11/stl.h>

#include <optional>

#include "bindings.h"

namespace kangaroo::bindings {

void register_top1_confidence(pybind11::module_& module) {
  module.def("top1_confidence",
             [](int dtype, Address h, const Head& head, Address norm, Address tokens,
                Address confidence, const std::optional<Chain>& chain, int64_t batch, int64_t nodes,
                int64_t width, float eps, int32_t num_threads) {
               kangaroo_draft_chain appended = {};
               if (chain) appended = chain_of(*chain);
               kangaroo_top1_confidence_params p = {};
               p.h = states(h, dtype, batch, nodes, width);
               p.head = head_of(head, dtype, width);
               p.norm = vector(norm, dtype, width);
               p.tokens = at<int64_t>(tokens);
               p.confidence = at<float>(confidence);
               p.chain = chain ? &appended : nullptr;
               p.eps = eps;
               p.num_threads = num_threads;
               call(kangaroo_top1_confidence, p);
             });
}

}  // namespace kangaroo::bindings
