// What every binding shares: addresses come as integers, errors leave as ValueError.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <new>
#include <stdexcept>

#include "kangaroo/status.h"

namespace kangaroo::bindings {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Calls the op without the GIL.
template <class Op, class Params>
void call(const Op& op, const Params& params) {
  kangaroo_status status;
  {
    const pybind11::gil_scoped_release release;
    status = op(&params);
  }
  if (status == KANGAROO_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status == KANGAROO_CUDA_ERROR) throw std::runtime_error(kangaroo_last_error());
  if (status != KANGAROO_OK) throw pybind11::value_error(kangaroo_last_error());
}

void register_adapter_refresh(pybind11::module_& module);
void register_adapter_step(pybind11::module_& module);
void register_compact_kv(pybind11::module_& module);
void register_compact_kv_cuda(pybind11::module_& module);
void register_embedding(pybind11::module_& module);
void register_gated_mlp(pybind11::module_& module);
void register_linear(pybind11::module_& module);
void register_rms_norm(pybind11::module_& module);
#ifdef KANGAROO_CUDA
void register_round_cuda(pybind11::module_& module);
#endif
void register_rope_append_kv(pybind11::module_& module);
void register_top1_confidence(pybind11::module_& module);
void register_topk_confidence(pybind11::module_& module);
void register_tree_attention(pybind11::module_& module);
void register_verify_tree(pybind11::module_& module);

}  // namespace kangaroo::bindings
