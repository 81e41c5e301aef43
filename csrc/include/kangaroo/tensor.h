/* Views of tensors: an address, an element type, and dimensions and strides by name.
 *
 * Sizes and strides count elements, and the last dimension of every view is contiguous. A view owns
 * nothing. Outputs may not overlap inputs or each other unless an op says so. */
#ifndef KANGAROO_TENSOR_H_
#define KANGAROO_TENSOR_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kangaroo_dtype {
  KANGAROO_FLOAT32 = 0,
  KANGAROO_BFLOAT16 = 1,
  KANGAROO_FLOAT16 = 2, /* on GPUs alone */
  KANGAROO_FLOAT64 = 3, /* this one and those below: in files alone, no op computes in them */
  KANGAROO_INT64 = 4,
  KANGAROO_INT32 = 5,
  KANGAROO_INT16 = 6,
  KANGAROO_INT8 = 7,
  KANGAROO_UINT8 = 8,
  KANGAROO_BOOL = 9
} kangaroo_dtype;

/* [width]; data may be NULL where an op says so: absent. */
typedef struct kangaroo_vector {
  const void* data;
  kangaroo_dtype dtype;
  int64_t width;
} kangaroo_vector;

/* [rows, width]: the weight of a product, one output a row. */
typedef struct kangaroo_matrix {
  const void* data;
  kangaroo_dtype dtype;
  int64_t rows;
  int64_t width;
  int64_t row_stride;
} kangaroo_matrix;

/* [batch, nodes, width]: a state or a row of logits for every node. */
typedef struct kangaroo_states {
  void* data;
  kangaroo_dtype dtype;
  int64_t batch;
  int64_t nodes;
  int64_t width;
  int64_t batch_stride;
  int64_t node_stride;
} kangaroo_states;

/* [batch, nodes, heads, head_dim]: queries, or what they attended to. */
typedef struct kangaroo_heads {
  void* data;
  kangaroo_dtype dtype;
  int64_t batch;
  int64_t nodes;
  int64_t heads;
  int64_t head_dim;
  int64_t batch_stride;
  int64_t node_stride;
  int64_t head_stride;
} kangaroo_heads;

/* Keys and values of a layer, [batch, heads, slots, head_dim] each, strided alike. */
typedef struct kangaroo_kv {
  void* k;
  void* v;
  kangaroo_dtype dtype;
  int64_t batch;
  int64_t heads;
  int64_t slots;
  int64_t head_dim;
  int64_t batch_stride;
  int64_t head_stride;
  int64_t slot_stride;
} kangaroo_kv;

/* Cosines, then sines, of every position: [2, positions, half], contiguous; half is head_dim / 2.
 */
typedef struct kangaroo_rope {
  const float* table;
  int64_t positions;
  int64_t half;
} kangaroo_rope;

/* Where new nodes stand. Node i of a call is node first_node + i of its sequence's tree and lives
 * in slot cache_seqlens[b] + first_node + i; slots below cache_seqlens[b] are committed. */
typedef struct kangaroo_nodes {
  const int32_t* positions;     /* [batch, nodes], rows position_stride apart: RoPE indices */
  const int32_t* cache_seqlens; /* [batch] */
  const int64_t* ancestors;     /* [batch, nodes], contiguous, bit j: tree node j is the node or its
                                   ancestor; NULL: a chain */
  int64_t batch;
  int64_t nodes;
  int64_t position_stride;
  int64_t first_node;
} kangaroo_nodes;

/* Contiguous views. */

static inline kangaroo_vector kangaroo_vector_of(const void* data, kangaroo_dtype dtype,
                                                 int64_t width) {
  const kangaroo_vector view = {data, dtype, width};
  return view;
}

static inline kangaroo_matrix kangaroo_matrix_of(const void* data, kangaroo_dtype dtype,
                                                 int64_t rows, int64_t width) {
  const kangaroo_matrix view = {data, dtype, rows, width, width};
  return view;
}

static inline kangaroo_states kangaroo_states_of(void* data, kangaroo_dtype dtype, int64_t batch,
                                                 int64_t nodes, int64_t width) {
  const kangaroo_states view = {data, dtype, batch, nodes, width, nodes * width, width};
  return view;
}

static inline kangaroo_heads kangaroo_heads_of(void* data, kangaroo_dtype dtype, int64_t batch,
                                               int64_t nodes, int64_t heads, int64_t head_dim) {
  const kangaroo_heads view = {
      data,    dtype, batch, nodes, heads, head_dim, nodes * heads * head_dim, heads * head_dim,
      head_dim};
  return view;
}

static inline kangaroo_kv kangaroo_kv_of(void* k, void* v, kangaroo_dtype dtype, int64_t batch,
                                         int64_t heads, int64_t slots, int64_t head_dim) {
  const kangaroo_kv view = {
      k,       v, dtype, batch, heads, slots, head_dim, heads * slots * head_dim, slots * head_dim,
      head_dim};
  return view;
}

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_TENSOR_H_ */
