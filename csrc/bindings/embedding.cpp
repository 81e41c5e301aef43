#include "kangaroo/embedding.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_embedding(pybind11::module_& module) {
  module.def("embedding", [](int dtype, Address tokens, Address weight, Address out, int64_t batch,
                             int64_t nodes, int64_t vocab, int64_t width) {
    kangaroo_embedding_params p = {};
    p.tokens = at<int64_t>(tokens);
    p.weight = matrix(weight, dtype, vocab, width);
    p.out = states(out, dtype, batch, nodes, width);
    call(kangaroo_embedding, p);
  });
}

}  // namespace kangaroo::bindings
