#include "kangaroo/verify_tree.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_verify_tree(pybind11::module_& module) {
  module.def("verify_tree",
             [](int dtype, Address logits, Address tokens, Address parents, Address num_nodes,
                Address path, Address path_len, Address bonus, Address successors, Address choices,
                int64_t batch, int64_t nodes, int64_t vocab) {
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
               call(kangaroo_verify_tree, p);
             });
}

}  // namespace kangaroo::bindings
