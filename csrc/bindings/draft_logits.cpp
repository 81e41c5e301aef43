#include "kangaroo/draft_logits.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_draft_logits(pybind11::module_& module) {
  module.def("draft_logits",
             [](int dtype, Address h, const Head& head, Address norm, Address out, int64_t batch,
                int64_t nodes, int64_t width, float eps, int32_t num_threads) {
               kangaroo_draft_logits_params p = {};
               p.h = states(h, dtype, batch, nodes, width);
               p.head = head_of(head, dtype, width);
               p.norm = vector(norm, dtype, width);
               const int64_t num_ids = p.head.token_ids ? p.head.num_ids : p.head.weight.rows;
               p.out = states(out, KANGAROO_FLOAT32, batch, nodes, num_ids);
               p.eps = eps;
               p.num_threads = num_threads;
               call(kangaroo_draft_logits, p);
             });
}

}  // namespace kangaroo::bindings
