/* adapter_refresh: the adapter's keys and values of verified slots, from
 * [rms_norm(h); rms_norm(h_deep); rms_norm(successor)], written in place. */
#ifndef KANGAROO_ADAPTER_REFRESH_H_
#define KANGAROO_ADAPTER_REFRESH_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_adapter_refresh_params {
  kangaroo_states h;         /* exit states */
  kangaroo_states h_deep;    /* last states, of the shape of h */
  kangaroo_states successor; /* embeddings of the tokens behind the slots, of the shape of h */
  kangaroo_vector input_norm, deep_norm, successor_norm; /* [h.width], of the three */
  kangaroo_matrix deep_kv; /* [2 * kv.heads * head_dim, 3 * h.width] */
  kangaroo_kv kv;          /* mutated: the slots of the nodes */
  kangaroo_rope rope;
  kangaroo_nodes nodes;
  float eps;
  int32_t num_threads; /* on the CPU */
} kangaroo_adapter_refresh_params;

/* The bits of a row do not depend on how many are written. */
kangaroo_status kangaroo_adapter_refresh(const kangaroo_adapter_refresh_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_ADAPTER_REFRESH_H_ */
