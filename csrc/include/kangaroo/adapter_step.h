/* adapter_step: the whole adapter on unverified nodes, h + W_o attention(W_qkv rms_norm(h)),
 * float32.
 */
#ifndef KANGAROO_ADAPTER_STEP_H_
#define KANGAROO_ADAPTER_STEP_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_adapter_step_params {
  const float* h;               /* [batch, num_nodes, width], exit states */
  const float* input_norm;      /* [width] */
  const float* qkv;             /* [(q_heads + 2 * kv_heads) * head_dim, width] */
  const float* o;               /* [width, q_heads * head_dim] */
  float* k_cache;               /* [batch, kv_heads, num_slots, head_dim], mutated */
  float* v_cache;               /* [batch, kv_heads, num_slots, head_dim], mutated */
  const float* rope;            /* [2, num_positions, head_dim / 2], cosines then sines */
  const int32_t* positions;     /* [batch, num_nodes], each below num_positions */
  const int32_t* cache_seqlens; /* [batch], committed slots */
  const int64_t* ancestors;     /* [batch, num_nodes], bit j: sees tree node j; NULL: a chain */
  float* out;                   /* [batch, num_nodes, width]; aliases nothing */
  int64_t batch;
  int64_t num_nodes;
  int64_t width;
  int64_t q_heads; /* multiple of kv_heads */
  int64_t kv_heads;
  int64_t head_dim;  /* even, at most KANGAROO_MAX_HEAD_DIM */
  int64_t num_slots; /* multiple of KANGAROO_KV_CHUNK */
  int64_t num_positions;
  int64_t first_node; /* node i goes to slot cache_seqlens[b] + first_node + i */
  float eps;
  float scale; /* of the softmax */
  int32_t num_threads;
} kangaroo_adapter_step_params;

/* Exactly linear, rope_append_kv, tree_attention and linear in turn; checked as a whole first. */
kangaroo_status kangaroo_adapter_step(const kangaroo_adapter_step_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_ADAPTER_STEP_H_ */
