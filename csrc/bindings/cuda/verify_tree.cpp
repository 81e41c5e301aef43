#include "cuda.h"

namespace kangaroo::bindings {

void register_verify_tree_cuda(pybind11::module_& module) {
  module.def("verify_tree_cuda", [](int dtype, Address logits, Address tokens, Address parents,
                                    Address num_nodes, Address path, Address path_len,
                                    Address bonus, Address successors, Address choices,
                                    int64_t batch, int64_t nodes, int64_t vocab, Address stream) {
    kangaroo_verify_tree_params p = {};
    p.logits = states(logits, dtype, batch, nodes, vocab);
    p.tokens = at<int64_t>(tokens);
    p.parents = at<int64_t>(parents);
    p.num_nodes = at<int32_t>(num_nodes);
    p.path = at<int64_t>(path);
    p.path_len = at<int32_t>(path_len);
    p.bonus = at<int64_t>(bonus);
    p.successors = at<int64_t>(successors);
    p.choices = at<int64_t>(choices);
    call([stream](const auto* q) { return kangaroo_verify_tree_cuda(q, at<void>(stream)); }, p);
  });
}

}  // namespace kangaroo::bindings
