/* tree_attention: every node attends to the committed prefix and to its own ancestors, float32. */
#ifndef KANGAROO_TREE_ATTENTION_H_
#define KANGAROO_TREE_ATTENTION_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Keys are summed in chunks that start at absolute multiples of this many slots, in order. */
#define KANGAROO_KV_CHUNK 64
#define KANGAROO_MAX_HEAD_DIM 256

typedef struct kangaroo_tree_attention_params {
  const float* q;               /* [batch, num_nodes, q_heads, head_dim], rotated */
  const float* k_cache;         /* [batch, kv_heads, num_slots, head_dim] */
  const float* v_cache;         /* [batch, kv_heads, num_slots, head_dim] */
  float* out;                   /* [batch, num_nodes, q_heads, head_dim] */
  const int32_t* cache_seqlens; /* [batch], committed slots */
  const int64_t* ancestors;     /* [batch, num_nodes], bit j: sees tree node j; NULL: a chain */
  int64_t batch;
  int64_t num_nodes;
  int64_t q_heads; /* multiple of kv_heads */
  int64_t kv_heads;
  int64_t head_dim;   /* at most KANGAROO_MAX_HEAD_DIM */
  int64_t num_slots;  /* multiple of KANGAROO_KV_CHUNK */
  int64_t first_node; /* node i of the call is tree node first_node + i */
  float scale;
  int32_t num_threads;
} kangaroo_tree_attention_params;

/* The bits of a row depend on its own visible slots alone; other slots may hold anything. */
kangaroo_status kangaroo_tree_attention(const kangaroo_tree_attention_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_TREE_ATTENTION_H_ */
