/* compact_kv: in-place rollback of caches to the accepted path, float32. */
#ifndef KANGAROO_COMPACT_KV_H_
#define KANGAROO_COMPACT_KV_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_slot_cache {
  float* data;    /* [planes, batch, heads, num_slots, width], mutated */
  int64_t planes; /* layers, keys and values: whatever leads */
  int64_t heads;
  int64_t num_slots;
  int64_t width;
} kangaroo_slot_cache;

typedef struct kangaroo_compact_kv_params {
  const kangaroo_slot_cache* caches; /* [num_caches] */
  const int64_t* path;          /* [batch, path_stride], strictly increasing, path[b][0] >= 0 */
  const int32_t* path_len;      /* [batch], each at most path_stride */
  const int32_t* cache_seqlens; /* [batch], committed slots before the path */
  int64_t num_caches;
  int64_t batch;
  int64_t path_stride;
} kangaroo_compact_kv_params;

/* Slot cache_seqlens[b] + j <- slot cache_seqlens[b] + path[b][j], j < path_len[b], in all caches.
   Nothing is written unless every path is increasing and in range. */
kangaroo_status kangaroo_compact_kv(const kangaroo_compact_kv_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_COMPACT_KV_H_ */
