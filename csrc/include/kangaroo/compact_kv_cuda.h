/* compact_kv on the GPU: in-place rollback of all caches in one launch, any element type. */
#ifndef KANGAROO_COMPACT_KV_CUDA_H_
#define KANGAROO_COMPACT_KV_CUDA_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KANGAROO_MAX_CUDA_CACHES 16

typedef struct kangaroo_cuda_slot_cache {
  void* data;     /* device: [planes, batch, heads, num_slots, row_bytes], mutated */
  int64_t planes; /* layers, keys and values: whatever leads */
  int64_t heads;
  int64_t num_slots;
  int64_t row_bytes; /* width times the size of an element */
} kangaroo_cuda_slot_cache;

typedef struct kangaroo_compact_kv_cuda_params {
  const kangaroo_cuda_slot_cache* caches; /* host: [num_caches] */
  const int64_t* path;                    /* device: [batch, path_stride], strictly increasing */
  const int32_t* path_len;                /* device: [batch] */
  const int32_t* cache_seqlens;           /* device: [batch] */
  int64_t num_caches;                     /* at most KANGAROO_MAX_CUDA_CACHES */
  int64_t batch;
  int64_t path_stride;
} kangaroo_compact_kv_cuda_params;

/* Launches on `stream` (a cudaStream_t) and returns at once. What lies on the device is not
   checked: a path that is not increasing, or leaves its cache, corrupts memory. */
kangaroo_status kangaroo_compact_kv_cuda(const kangaroo_compact_kv_cuda_params* params,
                                         void* stream);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_COMPACT_KV_CUDA_H_ */
