/* topk_confidence: the k largest of softmax(rms_norm(h) W_head^T), float32. */
#ifndef KANGAROO_TOPK_CONFIDENCE_H_
#define KANGAROO_TOPK_CONFIDENCE_H_

#include <stdint.h>

#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KANGAROO_MAX_K 16

typedef struct kangaroo_topk_confidence_params {
  const float* h; /* [num_rows, width] */
  kangaroo_draft_head head;
  const float* norm_weight; /* [width] */
  int64_t* tokens;          /* [num_rows, k], written: the best first, ties to the lowest id */
  float* confidence;        /* [num_rows, k], written */
  int64_t num_rows;
  int64_t width;
  int64_t k; /* 1 to KANGAROO_MAX_K, and at most the tokens of the head */
  float eps;
  int32_t num_threads;
} kangaroo_topk_confidence_params;

/* The bits of a row depend neither on num_rows nor on num_threads. */
kangaroo_status kangaroo_topk_confidence(const kangaroo_topk_confidence_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_TOPK_CONFIDENCE_H_ */
