/* compact_kv: in-place rollback of caches to the accepted path. */
#ifndef KANGAROO_COMPACT_KV_H_
#define KANGAROO_COMPACT_KV_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* [planes, batch, heads, slots, width]; planes are layers, keys and values: whatever leads. */
typedef struct kangaroo_slot_cache {
  void* data; /* mutated */
  kangaroo_dtype dtype;
  int64_t planes;
  int64_t heads;
  int64_t slots;
  int64_t width;
  int64_t plane_stride;
  int64_t batch_stride;
  int64_t head_stride;
  int64_t slot_stride;
} kangaroo_slot_cache;

typedef struct kangaroo_compact_kv_params {
  const kangaroo_slot_cache* caches; /* [num_caches], on the host */
  const int64_t* path;          /* [batch, path_stride], strictly increasing, path[b][0] >= 0 */
  const int32_t* path_len;      /* [batch], each at most path_stride */
  const int32_t* cache_seqlens; /* [batch], committed slots before the path */
  int64_t num_caches;
  int64_t batch;
  int64_t path_stride;
} kangaroo_compact_kv_params;

/* Slot cache_seqlens[b] + j <- slot cache_seqlens[b] + path[b][j], j < path_len[b], in all caches.
   On the CPU nothing is written unless every path is increasing and in range. */
kangaroo_status kangaroo_compact_kv(const kangaroo_compact_kv_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_COMPACT_KV_H_ */
