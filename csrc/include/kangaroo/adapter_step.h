/* adapter_step: the whole adapter on unverified nodes, h + W_o attention(W_qkv rms_norm(h)). */
#ifndef KANGAROO_ADAPTER_STEP_H_
#define KANGAROO_ADAPTER_STEP_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_adapter_step_params {
  kangaroo_states h;          /* exit states */
  kangaroo_vector input_norm; /* [h.width] */
  kangaroo_matrix qkv;        /* [(q heads + 2 * kv.heads) * head_dim, h.width] */
  kangaroo_matrix o;          /* [h.width, q heads * head_dim] */
  kangaroo_kv kv;             /* mutated: the slots of the nodes */
  kangaroo_rope rope;
  kangaroo_nodes nodes;
  kangaroo_states out; /* as h */
  float eps;           /* the scale of the softmax is 1 / sqrt(head_dim) */
  int32_t num_threads; /* on the CPU */
} kangaroo_adapter_step_params;

/* Exactly linear, rope_append_kv, tree_attention and linear in turn; checked as a whole first. */
kangaroo_status kangaroo_adapter_step(const kangaroo_adapter_step_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_ADAPTER_STEP_H_ */
