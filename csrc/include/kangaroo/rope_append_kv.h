/* rope_append_kv: rotate queries and keys, write keys and values to their cache slots, float32. */
#ifndef KANGAROO_ROPE_APPEND_KV_H_
#define KANGAROO_ROPE_APPEND_KV_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_rope_append_kv_params {
  const float* qkv;             /* [batch, num_nodes, (q_heads + 2 * kv_heads) * head_dim] */
  float* q_out;                 /* [batch, num_nodes, q_heads, head_dim] */
  float* k_cache;               /* [batch, kv_heads, num_slots, head_dim], mutated */
  float* v_cache;               /* [batch, kv_heads, num_slots, head_dim], mutated */
  const float* rope;            /* [2, num_positions, head_dim / 2], cosines then sines */
  const float* q_norm;          /* [head_dim], or NULL: no norm of the q heads */
  const float* k_norm;          /* [head_dim], or NULL: no norm of the k heads */
  const int32_t* positions;     /* [batch, num_nodes], each below num_positions */
  const int32_t* cache_seqlens; /* [batch], committed slots */
  int64_t batch;
  int64_t num_nodes;
  int64_t q_heads; /* may be 0 */
  int64_t kv_heads;
  int64_t head_dim; /* even */
  int64_t num_slots;
  int64_t num_positions;
  int64_t first_node; /* node i goes to slot cache_seqlens[b] + first_node + i */
  float eps;
  int32_t num_threads;
} kangaroo_rope_append_kv_params;

/* Nothing is written unless every position and slot is in range. */
kangaroo_status kangaroo_rope_append_kv(const kangaroo_rope_append_kv_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_ROPE_APPEND_KV_H_ */
