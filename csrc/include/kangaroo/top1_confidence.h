/* top1_confidence: argmax and maximum of softmax(rms_norm(h) W_head^T), float32. */
#ifndef KANGAROO_TOP1_CONFIDENCE_H_
#define KANGAROO_TOP1_CONFIDENCE_H_

#include <stdint.h>

#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_top1_confidence_params {
  const float* h; /* [num_rows, width] */
  kangaroo_draft_head head;
  const float* norm_weight; /* [width] */
  int64_t* tokens;          /* [num_rows], written; ties go to the lowest id */
  float* confidence;        /* [num_rows], written */
  /* Written unless null, num_rows is a multiple of its batch: where a chain has not stopped, the
   * token of its sequence's last row is appended; it stops where that was not sure enough, or at
   * its capacity. */
  const kangaroo_draft_chain* chain;
  int64_t num_rows;
  int64_t width;
  float eps;
  int32_t num_threads;
} kangaroo_top1_confidence_params;

/* The bits of a row depend neither on num_rows nor on num_threads. */
kangaroo_status kangaroo_top1_confidence(const kangaroo_top1_confidence_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_TOP1_CONFIDENCE_H_ */
