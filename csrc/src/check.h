// What an op refuses about its arguments: the first fault is kept as "op: name: expected, got".
#pragma once

#include <cstdint>

#include "error.h"
#include "kangaroo/compact_kv.h"
#include "kangaroo/draft_trees.h"
#include "kangaroo/tensor.h"

namespace kangaroo {

// Bytes of an element; 0 for a dtype that does not exist.
constexpr int64_t size_of(kangaroo_dtype dtype) {
  switch (dtype) {
    case KANGAROO_FLOAT64:
    case KANGAROO_INT64:
      return 8;
    case KANGAROO_FLOAT32:
    case KANGAROO_INT32:
      return 4;
    case KANGAROO_BFLOAT16:
    case KANGAROO_FLOAT16:
    case KANGAROO_INT16:
      return 2;
    case KANGAROO_INT8:
    case KANGAROO_UINT8:
    case KANGAROO_BOOL:
      return 1;
  }
  return 0;
}

const char* name_of(kangaroo_dtype dtype);

// Every method leaves the first fault alone, so that checks follow one another without branches.
// Sizes and addresses are judged before they are multiplied or read.
class Check {
 public:
  explicit Check(const char* op) : op_(op) {}

  bool ok() const { return status_ == KANGAROO_OK; }
  kangaroo_status status() const { return status_; }

  // `format` names what was expected and what was got, two integers.
  void refuse(const char* format, int64_t expected, int64_t got);
  // `value` in [least, most].
  void within(const char* name, int64_t value, int64_t least, int64_t most);
  void at_least(const char* name, int64_t value, int64_t least) {
    within(name, value, least, INT64_MAX);
  }
  void eps(float value);
  void positive(const char* name, double value);
  // `value` in [0, most].
  void number(const char* name, double value, double most);
  void threads(int32_t value);
  // The dtype of `name` is one of what this device computes in.
  void cpu_dtype(const char* name, kangaroo_dtype got);
  void gpu_dtype(const char* name, kangaroo_dtype got);
  void dtype(const char* name, kangaroo_dtype got, kangaroo_dtype expected);
  // An array of [outer, inner] values, contiguous.
  void array(const char* name, const void* data, int64_t outer, int64_t inner, int64_t item_bytes);

  // Each of `ids` [count] larger than the one before, from 0 to `most`.
  void increasing(const char* name, const int32_t* ids, int64_t count, int64_t most);

  void vector(const char* name, const kangaroo_vector& v, int64_t width, kangaroo_dtype dtype);
  void optional(const char* name, const kangaroo_vector& v, int64_t width, kangaroo_dtype dtype) {
    if (v.data) vector(name, v, width, dtype);
  }
  void matrix(const char* name, const kangaroo_matrix& m, int64_t rows, int64_t width,
              kangaroo_dtype dtype);
  // Sizes of a view that others are compared with: none negative, and no address out of range.
  void states(const char* name, const kangaroo_states& s);
  void states(const char* name, const kangaroo_states& s, const kangaroo_states& like,
              int64_t width, kangaroo_dtype dtype);
  void heads(const char* name, const kangaroo_heads& h);
  void heads(const char* name, const kangaroo_heads& h, const kangaroo_heads& like);
  // The caches of one layer, or of several that stand `layer_stride` apart.
  void kv(const kangaroo_kv& kv, int64_t batch, kangaroo_dtype dtype, int64_t layers = 1,
          int64_t layer_stride = 0);
  void cache(const kangaroo_slot_cache& cache, int64_t batch);
  void chain(const kangaroo_draft_chain& chain, int64_t batch);
  void trees(const kangaroo_draft_trees& trees, int64_t batch);
  void rope(const kangaroo_rope& rope, int64_t head_dim);
  // Shape and addresses of `n`; what they point to is not read.
  void nodes(const kangaroo_nodes& n, int64_t batch, int64_t num_nodes, bool positions);
  // The nodes' slots inside a cache of `slots`, by lengths that the host can read.
  void slots(const kangaroo_nodes& n, int64_t slots);
  // The nodes' positions inside a table of `limit`.
  void positions(const kangaroo_nodes& n, int64_t limit);

 private:
  struct Dim {
    int64_t size = 1;
    int64_t stride = 0;
  };

  // Five dimensions at most; `written` views may not overlap themselves.
  static constexpr int kDims = 5;
  void view(const char* name, const void* data, kangaroo_dtype dtype, const Dim (&dims)[kDims],
            bool written);
  void equal(const char* name, const char* dim, int64_t got, int64_t expected);

  const char* op_;
  kangaroo_status status_ = KANGAROO_OK;
};

}  // namespace kangaroo
