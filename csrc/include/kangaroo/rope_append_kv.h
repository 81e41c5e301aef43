/* rope_append_kv: rotate queries and keys, write keys and values to their cache slots. */
#ifndef KANGAROO_ROPE_APPEND_KV_H_
#define KANGAROO_ROPE_APPEND_KV_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_rope_append_kv_params {
  kangaroo_states qkv;    /* [batch, nodes, (q.heads + 2 * kv.heads) * head_dim] */
  kangaroo_heads q;       /* written; may have 0 heads */
  kangaroo_kv kv;         /* mutated: the slots of the nodes */
  kangaroo_rope rope;     /* half = head_dim / 2 */
  kangaroo_vector q_norm; /* [head_dim], or absent; k_norm likewise */
  kangaroo_vector k_norm;
  kangaroo_nodes nodes;
  float eps;
  int32_t num_threads; /* on the CPU */
} kangaroo_rope_append_kv_params;

/* On the CPU nothing is written unless every position and slot is in range. */
kangaroo_status kangaroo_rope_append_kv(const kangaroo_rope_append_kv_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_ROPE_APPEND_KV_H_ */
