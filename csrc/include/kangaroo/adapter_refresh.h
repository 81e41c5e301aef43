/* adapter_refresh: the adapter's keys and values of verified slots, from
 * [rms_norm(h); rms_norm(h_deep)], written in place, float32. */
#ifndef KANGAROO_ADAPTER_REFRESH_H_
#define KANGAROO_ADAPTER_REFRESH_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_adapter_refresh_params {
  const float* h;               /* [batch, num_nodes, width], exit states */
  const float* h_deep;          /* [batch, num_nodes, width], last states */
  const float* input_norm;      /* [width], of h */
  const float* deep_norm;       /* [width], of h_deep */
  const float* deep_kv;         /* [2 * kv_heads * head_dim, 2 * width] */
  float* k_cache;               /* [batch, kv_heads, num_slots, head_dim], mutated */
  float* v_cache;               /* [batch, kv_heads, num_slots, head_dim], mutated */
  const float* rope;            /* [2, num_positions, head_dim / 2], cosines then sines */
  const int32_t* positions;     /* [batch, num_nodes], each below num_positions */
  const int32_t* cache_seqlens; /* [batch], slots in front of the rows */
  int64_t batch;
  int64_t num_nodes;
  int64_t width;
  int64_t kv_heads;
  int64_t head_dim; /* even */
  int64_t num_slots;
  int64_t num_positions;
  int64_t first_node; /* node i goes to slot cache_seqlens[b] + first_node + i */
  float eps;
  int32_t num_threads;
} kangaroo_adapter_refresh_params;

/* The bits of a row do not depend on how many are written. */
kangaroo_status kangaroo_adapter_refresh(const kangaroo_adapter_refresh_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_ADAPTER_REFRESH_H_ */
