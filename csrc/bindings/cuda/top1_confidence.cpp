#include <pybind11/stl.h>

#include <optional>

#include "cuda.h"

namespace kangaroo::bindings {

void register_top1_confidence_cuda(pybind11::module_& module) {
  module.def("top1_confidence_cuda",
             [](int dtype, Address h, const Head& head, Address norm, Address tokens,
                Address confidence, const std::optional<Chain>& chain, int64_t batch, int64_t nodes,
                int64_t width, float eps, const Allocate& allocate, Address stream) {
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
               void* const workspace =
                   workspace_of(kangaroo_top1_confidence_cuda_workspace, p, allocate);
               call(
                   [=](const auto* q) {
                     return kangaroo_top1_confidence_cuda(q, workspace, at<void>(stream));
                   },
                   p);
             });
}

}  // namespace kangaroo::bindings
