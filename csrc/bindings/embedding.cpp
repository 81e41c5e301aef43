#include "kangaroo/embedding.h"

#include "bindings.h"

namespace kangaroo::bindings {

void register_embedding(pybind11::module_& module) {
  module.def("embedding", [](Address tokens, Address weight, Address out, int64_t num_rows,
                             int64_t width, int64_t vocab) {
    kangaroo_embedding_params p = {};
    p.tokens = at<int64_t>(tokens);
    p.weight = at<float>(weight);
    p.out = at<float>(out);
    p.num_rows = num_rows;
    p.width = width;
    p.vocab = vocab;
    call(kangaroo_embedding, p);
  });
}

}  // namespace kangaroo::bindings
