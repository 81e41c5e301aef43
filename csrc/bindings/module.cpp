#include "bindings.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, module) {
  using namespace kangaroo::bindings;
  module.doc() = "Kangaroo's C++ core. Raw addresses and sizes: callers check tensors first.";
  module.def("build_info", [] {
    py::dict info;
    info["compiler"] = KANGAROO_COMPILER;
    info["version"] = kangaroo_version();
    info["isa"] = kangaroo_isa();
    info["compiled_isas"] = kangaroo_compiled_isas();
#ifdef KANGAROO_CUDA
    info["cuda"] = KANGAROO_CUDA;
#else
    info["cuda"] = "";
#endif
    return info;
  });
  module.def("select_isa", [](const char* isa) { raise(kangaroo_select_isa(isa)); });
  register_adapter_refresh(module);
  register_adapter_step(module);
  register_commit_path(module);
  register_compact_kv(module);
  register_copy_draft(module);
  register_decoder_layers(module);
  register_draft_logits(module);
  register_draft_tokens(module);
  register_draw_tokens(module);
  register_embedding(module);
  register_gated_mlp(module);
  register_grow_tree(module);
  register_linear(module);
  register_rms_norm(module);
  register_rope_append_kv(module);
  register_top1_confidence(module);
  register_topk_confidence(module);
  register_tree_attention(module);
  register_verify_tree(module);
#ifdef KANGAROO_CUDA
  register_compact_kv_cuda(module);
  register_linear_cuda(module);
  register_rope_append_kv_cuda(module);
  register_round_cuda(module);
  register_top1_confidence_cuda(module);
  register_verify_tree_cuda(module);
#endif
}
