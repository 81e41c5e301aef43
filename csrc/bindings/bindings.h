// What every binding shares: addresses come as integers, views are contiguous, errors leave as
// exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <new>
#include <stdexcept>
#include <tuple>

#include "kangaroo/compact_kv.h"
#include "kangaroo/draft_trees.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

namespace kangaroo::bindings {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

inline kangaroo_vector vector(Address data, int dtype, int64_t width) {
  return kangaroo_vector_of(at<void>(data), static_cast<kangaroo_dtype>(dtype), width);
}

inline kangaroo_matrix matrix(Address data, int dtype, int64_t rows, int64_t width) {
  return kangaroo_matrix_of(at<void>(data), static_cast<kangaroo_dtype>(dtype), rows, width);
}

inline kangaroo_states states(Address data, int dtype, int64_t batch, int64_t nodes,
                              int64_t width) {
  return kangaroo_states_of(at<void>(data), static_cast<kangaroo_dtype>(dtype), batch, nodes,
                            width);
}

// (k, v, heads, slots, head_dim)
using KV = std::tuple<Address, Address, int64_t, int64_t, int64_t>;

inline kangaroo_kv kv_of(const KV& kv, int dtype, int64_t batch) {
  const auto [k, v, heads, slots, head_dim] = kv;
  return kangaroo_kv_of(at<void>(k), at<void>(v), static_cast<kangaroo_dtype>(dtype), batch, heads,
                        slots, head_dim);
}

// (table, positions, half)
using Rope = std::tuple<Address, int64_t, int64_t>;

inline kangaroo_rope rope_of(const Rope& rope) {
  const auto [table, positions, half] = rope;
  return {at<float>(table), positions, half};
}

// (positions, cache_seqlens, ancestors or 0, batch, nodes, first_node)
using Nodes = std::tuple<Address, Address, Address, int64_t, int64_t, int64_t>;

inline kangaroo_nodes nodes_of(const Nodes& nodes) {
  const auto [positions, cache_seqlens, ancestors, batch, count, first_node] = nodes;
  return {at<int32_t>(positions),
          at<int32_t>(cache_seqlens),
          at<int64_t>(ancestors),
          batch,
          count,
          count,
          first_node};
}

// (address, planes, heads, slots, width, plane_stride), each plane contiguous
using Cache = std::tuple<Address, int64_t, int64_t, int64_t, int64_t, int64_t>;

inline kangaroo_slot_cache cache_of(const Cache& described, int dtype) {
  const auto [address, planes, heads, slots, width, plane_stride] = described;
  kangaroo_slot_cache cache = {};
  cache.data = at<void>(address);
  cache.dtype = static_cast<kangaroo_dtype>(dtype);
  cache.planes = planes;
  cache.heads = heads;
  cache.slots = slots;
  cache.width = cache.slot_stride = width;
  cache.head_stride = slots * width;
  cache.batch_stride = heads * cache.head_stride;
  cache.plane_stride = plane_stride;
  return cache;
}

// (weight, token_ids or 0, vocab, num_ids, scale of an int8 weight or 0)
using Head = std::tuple<Address, Address, int64_t, int64_t, Address>;

inline kangaroo_draft_head head_of(const Head& head, int dtype, int64_t width) {
  const auto [weight, token_ids, vocab, num_ids, scale] = head;
  const int kind = scale ? static_cast<int>(KANGAROO_INT8) : dtype;
  return {matrix(weight, kind, vocab, width), at<int32_t>(token_ids), num_ids, at<float>(scale)};
}

// (tokens, positions, num_nodes, stopped, threshold, batch, capacity)
using Chain = std::tuple<Address, Address, Address, Address, Address, int64_t, int64_t>;

inline kangaroo_draft_chain chain_of(const Chain& chain) {
  const auto [tokens, positions, num_nodes, stopped, threshold, batch, capacity] = chain;
  return {at<int64_t>(tokens),
          at<int32_t>(positions),
          at<int32_t>(num_nodes),
          at<int32_t>(stopped),
          at<float>(threshold),
          batch,
          capacity};
}

// (nodes, parents, ancestors)
using Trees = std::tuple<Chain, Address, Address>;

inline kangaroo_draft_trees trees_of(const Trees& trees) {
  const auto [nodes, parents, ancestors] = trees;
  return {chain_of(nodes), at<int64_t>(parents), at<int64_t>(ancestors)};
}

inline void raise(kangaroo_status status) {
  switch (status) {
    case KANGAROO_OK:
      return;
    case KANGAROO_INVALID_ARGUMENT:
      throw pybind11::value_error(kangaroo_last_error());
    case KANGAROO_OUT_OF_MEMORY:
      throw std::bad_alloc();
    default:
      throw std::runtime_error(kangaroo_last_error());
  }
}

// Calls the op without the GIL.
template <class Op, class Params>
void call(const Op& op, const Params& params) {
  kangaroo_status status;
  {
    const pybind11::gil_scoped_release release;
    status = op(&params);
  }
  raise(status);
}

void register_adapter_refresh(pybind11::module_& module);
void register_adapter_step(pybind11::module_& module);
void register_commit_path(pybind11::module_& module);
void register_compact_kv(pybind11::module_& module);
void register_copy_draft(pybind11::module_& module);
void register_decoder_layers(pybind11::module_& module);
void register_draft_logits(pybind11::module_& module);
void register_draft_tokens(pybind11::module_& module);
void register_draw_tokens(pybind11::module_& module);
void register_embedding(pybind11::module_& module);
void register_gated_mlp(pybind11::module_& module);
void register_grow_tree(pybind11::module_& module);
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

void register_compact_kv_cuda(pybind11::module_& module);
void register_linear_cuda(pybind11::module_& module);
void register_rope_append_kv_cuda(pybind11::module_& module);
void register_top1_confidence_cuda(pybind11::module_& module);
void register_verify_tree_cuda(pybind11::module_& module);

}  // namespace kangaroo::bindings
