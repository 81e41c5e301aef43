#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace kangaroo {
namespace {

long long wide(int64_t value) { return static_cast<long long>(value); }

bool aligned(const void* data, int64_t bytes) {
  return bytes == 0 ||
         reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(bytes) == 0;
}

}  // namespace

const char* name_of(kangaroo_dtype dtype) {
  switch (dtype) {
    case KANGAROO_FLOAT32:
      return "float32";
    case KANGAROO_BFLOAT16:
      return "bfloat16";
    case KANGAROO_FLOAT16:
      return "float16";
    case KANGAROO_FLOAT64:
      return "float64";
    case KANGAROO_INT64:
      return "int64";
    case KANGAROO_INT32:
      return "int32";
    case KANGAROO_INT16:
      return "int16";
    case KANGAROO_INT8:
      return "int8";
    case KANGAROO_UINT8:
      return "uint8";
    case KANGAROO_BOOL:
      return "bool";
  }
  return "no dtype";
}

void Check::refuse(const char* format, int64_t expected, int64_t got) {
  if (!ok()) return;
  char what[256];
  std::snprintf(what, sizeof what, format, wide(expected), wide(got));
  status_ = invalid("%s: %s", op_, what);
}

void Check::within(const char* name, int64_t value, int64_t least, int64_t most) {
  if (!ok() || (value >= least && value <= most)) return;
  status_ = most == INT64_MAX ? invalid("%s: %s: expected at least %lld, got %lld", op_, name,
                                        wide(least), wide(value))
                              : invalid("%s: %s: expected %lld to %lld, got %lld", op_, name,
                                        wide(least), wide(most), wide(value));
}

void Check::eps(float value) {
  if (!ok() || (value >= 0.0f && std::isfinite(value))) return;
  status_ = invalid("%s: eps: expected a number of at least 0, got %g", op_, double{value});
}

void Check::positive(const char* name, double value) {
  if (!ok() || (value > 0.0 && std::isfinite(value))) return;
  status_ = invalid("%s: %s: expected a finite number above 0, got %g", op_, name, value);
}

void Check::number(const char* name, double value, double most) {
  if (!ok() || (value >= 0.0 && value <= most)) return;
  status_ = invalid("%s: %s: expected a number from 0 to %g, got %g", op_, name, most, value);
}

void Check::threads(int32_t value) { at_least("num_threads", value, 0); }

void Check::cpu_dtype(const char* name, kangaroo_dtype got) {
  if (!ok() || got == KANGAROO_FLOAT32 || got == KANGAROO_BFLOAT16) return;
  invalid("%s: %s: expected float32 or bfloat16, got %s", op_, name, name_of(got));
  status_ = size_of(got) ? KANGAROO_UNSUPPORTED : KANGAROO_INVALID_ARGUMENT;
}

void Check::gpu_dtype(const char* name, kangaroo_dtype got) {
  if (!ok() || got == KANGAROO_FLOAT32 || got == KANGAROO_BFLOAT16 || got == KANGAROO_FLOAT16)
    return;
  status_ = invalid("%s: %s: expected float32, bfloat16 or float16, got dtype %d", op_, name,
                    static_cast<int>(got));
}

void Check::dtype(const char* name, kangaroo_dtype got, kangaroo_dtype expected) {
  if (!ok() || got == expected) return;
  status_ = invalid("%s: %s: expected %s, got %s", op_, name, name_of(expected), name_of(got));
}

void Check::equal(const char* name, const char* dim, int64_t got, int64_t expected) {
  if (!ok() || got == expected) return;
  status_ =
      invalid("%s: %s.%s: expected %lld, got %lld", op_, name, dim, wide(expected), wide(got));
}

void Check::view(const char* name, const void* data, kangaroo_dtype dtype, const Dim (&dims)[kDims],
                 bool written) {
  if (!ok()) return;
  int64_t count = 1;
  int64_t last = 0;  // offset of the last element
  bool fits = true;
  for (const Dim& dim : dims) {
    if (dim.size < 0 || dim.stride < 0) {
      status_ = invalid("%s: %s: expected sizes and strides of at least 0, got %lld and %lld", op_,
                        name, wide(dim.size), wide(dim.stride));
      return;
    }
    int64_t reach = 0;
    fits = fits && dim.stride <= INT64_MAX / 8;  // in bytes too, even where nobody goes that far
    fits = fits && !__builtin_mul_overflow(count, dim.size, &count);
    if (dim.size > 1) {
      fits = fits && !__builtin_mul_overflow(dim.size - 1, dim.stride, &reach) &&
             !__builtin_add_overflow(last, reach, &last);
    }
  }
  int64_t bytes = 0;
  fits = fits && last < INT64_MAX && !__builtin_mul_overflow(last + 1, size_of(dtype), &bytes);
  if (!fits) {
    status_ = invalid("%s: %s: expected a size in bytes below 2^63, got more", op_, name);
  } else if (count > 0 && !data) {
    status_ =
        invalid("%s: %s: expected the address of %lld values, got NULL", op_, name, wide(count));
  } else if (count > 0 && !aligned(data, size_of(dtype))) {
    status_ = invalid("%s: %s: expected an address aligned to %lld bytes, got %p", op_, name,
                      wide(size_of(dtype)), data);
  }
  if (!ok() || !written || count == 0) return;
  Dim sorted[kDims];
  std::copy(dims, dims + kDims, sorted);
  std::sort(sorted, sorted + kDims, [](const Dim& a, const Dim& b) { return a.stride < b.stride; });
  int64_t extent = 1;
  for (const Dim& dim : sorted) {
    if (dim.size <= 1) continue;
    if (dim.stride < extent) {
      status_ = invalid(
          "%s: %s: expected rows that do not overlap, got a stride of %lld behind "
          "%lld values",
          op_, name, wide(dim.stride), wide(extent));
      return;
    }
    extent = dim.stride * (dim.size - 1) + extent;
  }
}

void Check::array(const char* name, const void* data, int64_t outer, int64_t inner,
                  int64_t item_bytes) {
  if (!ok()) return;
  int64_t count = 0;
  int64_t bytes = 0;
  if (outer < 0 || inner < 0 || __builtin_mul_overflow(outer, inner, &count) ||
      __builtin_mul_overflow(count, item_bytes, &bytes)) {
    status_ = invalid("%s: %s: expected sizes from 0 to 2^63 bytes, got %lld times %lld values",
                      op_, name, wide(outer), wide(inner));
  } else if (count > 0 && !data) {
    status_ =
        invalid("%s: %s: expected the address of %lld values, got NULL", op_, name, wide(count));
  } else if (count > 0 && !aligned(data, std::min<int64_t>(item_bytes, 8))) {
    status_ = invalid("%s: %s: expected an address aligned to %lld bytes, got %p", op_, name,
                      wide(std::min<int64_t>(item_bytes, 8)), data);
  }
}

void Check::increasing(const char* name, const int32_t* ids, int64_t count, int64_t most) {
  for (int64_t j = 0; ok() && j < count; ++j) {
    within(name, ids[j], j == 0 ? 0 : int64_t{ids[j - 1]} + 1, most);
  }
}

void Check::vector(const char* name, const kangaroo_vector& v, int64_t width,
                   kangaroo_dtype wanted) {
  dtype(name, v.dtype, wanted);
  equal(name, "width", v.width, width);
  view(name, v.data, v.dtype, {{v.width, 1}}, false);
}

void Check::matrix(const char* name, const kangaroo_matrix& m, int64_t rows, int64_t width,
                   kangaroo_dtype wanted) {
  dtype(name, m.dtype, wanted);
  equal(name, "rows", m.rows, rows);
  equal(name, "width", m.width, width);
  view(name, m.data, m.dtype, {{m.rows, m.row_stride}, {m.width, 1}}, false);
}

void Check::states(const char* name, const kangaroo_states& s) {
  view(name, s.data, s.dtype, {{s.batch, s.batch_stride}, {s.nodes, s.node_stride}, {s.width, 1}},
       false);
}

void Check::states(const char* name, const kangaroo_states& s, const kangaroo_states& like,
                   int64_t width, kangaroo_dtype wanted) {
  dtype(name, s.dtype, wanted);
  equal(name, "batch", s.batch, like.batch);
  equal(name, "nodes", s.nodes, like.nodes);
  equal(name, "width", s.width, width);
  view(name, s.data, s.dtype, {{s.batch, s.batch_stride}, {s.nodes, s.node_stride}, {s.width, 1}},
       true);
}

void Check::heads(const char* name, const kangaroo_heads& h) {
  view(name, h.data, h.dtype,
       {{h.batch, h.batch_stride},
        {h.nodes, h.node_stride},
        {h.heads, h.head_stride},
        {h.head_dim, 1}},
       true);
}

void Check::heads(const char* name, const kangaroo_heads& h, const kangaroo_heads& like) {
  dtype(name, h.dtype, like.dtype);
  equal(name, "batch", h.batch, like.batch);
  equal(name, "nodes", h.nodes, like.nodes);
  equal(name, "heads", h.heads, like.heads);
  equal(name, "head_dim", h.head_dim, like.head_dim);
  heads(name, h);
}

void Check::kv(const kangaroo_kv& kv, int64_t batch, kangaroo_dtype wanted, int64_t layers,
               int64_t layer_stride) {
  dtype("kv", kv.dtype, wanted);
  equal("kv", "batch", kv.batch, batch);
  const Dim dims[kDims] = {{layers, layer_stride},
                           {kv.batch, kv.batch_stride},
                           {kv.heads, kv.head_stride},
                           {kv.slots, kv.slot_stride},
                           {kv.head_dim, 1}};
  view("kv.k", kv.k, kv.dtype, dims, true);
  view("kv.v", kv.v, kv.dtype, dims, true);
}

void Check::cache(const kangaroo_slot_cache& cache, int64_t batch) {
  gpu_dtype("caches.dtype", cache.dtype);  // rows are moved, not computed with
  view("caches.data", cache.data, cache.dtype,
       {{cache.planes, cache.plane_stride},
        {batch, cache.batch_stride},
        {cache.heads, cache.head_stride},
        {cache.slots, cache.slot_stride},
        {cache.width, 1}},
       true);
}

void Check::chain(const kangaroo_draft_chain& chain, int64_t batch) {
  within("chain.batch", chain.batch, batch, batch);
  at_least("chain.capacity", chain.capacity, 0);
  array("chain.tokens", chain.tokens, batch, chain.capacity, sizeof(int64_t));
  array("chain.positions", chain.positions, batch, chain.capacity, sizeof(int32_t));
  array("chain.num_nodes", chain.num_nodes, batch, 1, sizeof(int32_t));
  array("chain.stopped", chain.stopped, batch, 1, sizeof(int32_t));
  array("chain.threshold", chain.threshold, batch, 1, sizeof(float));
}

void Check::trees(const kangaroo_draft_trees& trees, int64_t batch) {
  const int64_t capacity = trees.nodes.capacity;
  within("chain.capacity", capacity, 1, KANGAROO_MAX_TREE_NODES);
  chain(trees.nodes, batch);
  array("trees.parents", trees.parents, batch, capacity, sizeof(int64_t));
  array("trees.ancestors", trees.ancestors, batch, capacity, sizeof(int64_t));
}

void Check::rope(const kangaroo_rope& rope, int64_t head_dim) {
  at_least("rope.positions", rope.positions, 0);
  if (head_dim % 2) refuse("head_dim: expected a multiple of %lld, got %lld", 2, head_dim);
  equal("rope", "half", rope.half, head_dim / 2);
  if (ok()) array("rope.table", rope.table, rope.positions, 2 * rope.half, sizeof(float));
}

void Check::nodes(const kangaroo_nodes& n, int64_t batch, int64_t num_nodes, bool positions) {
  equal("nodes", "batch", n.batch, batch);
  equal("nodes", "nodes", n.nodes, num_nodes);
  within("nodes.first_node", n.first_node, 0, INT32_MAX);
  within("nodes.nodes", n.nodes, 0, INT32_MAX);
  at_least("nodes.position_stride", n.position_stride, 0);
  array("nodes.cache_seqlens", n.cache_seqlens, n.batch, 1, sizeof(int32_t));
  if (n.ancestors) {
    within("nodes of a tree", n.first_node + n.nodes, 0, KANGAROO_MAX_TREE_NODES);
    array("nodes.ancestors", n.ancestors, n.batch, n.nodes, sizeof(int64_t));
  }
  if (positions && n.nodes > 0) {
    const int64_t apart = std::max(n.position_stride, n.nodes);
    array("nodes.positions", n.positions, n.batch, apart, sizeof(int32_t));
  }
}

void Check::slots(const kangaroo_nodes& n, int64_t slots) {
  for (int64_t b = 0; ok() && b < n.batch; ++b) {
    const int64_t start = n.cache_seqlens[b] + n.first_node;
    if (n.cache_seqlens[b] >= 0 && start + n.nodes <= slots) continue;
    status_ =
        invalid("%s: cache_seqlens[%lld]: expected nodes in slots [0, %lld), got [%lld, %lld)", op_,
                wide(b), wide(slots), wide(start), wide(start + n.nodes));
  }
}

void Check::positions(const kangaroo_nodes& n, int64_t limit) {
  for (int64_t b = 0; ok() && b < n.batch; ++b) {
    for (int64_t i = 0; ok() && i < n.nodes; ++i) {
      const int32_t position = n.positions[b * n.position_stride + i];
      if (position >= 0 && position < limit) continue;
      status_ = invalid("%s: positions: expected values in [0, %lld), got %d", op_, wide(limit),
                        position);
    }
  }
}

}  // namespace kangaroo
