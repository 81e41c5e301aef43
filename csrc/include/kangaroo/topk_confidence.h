/* topk_confidence: the k largest of softmax(rms_norm(h) W_head^T), in float32. */
#ifndef KANGAROO_TOPK_CONFIDENCE_H_
#define KANGAROO_TOPK_CONFIDENCE_H_

#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KANGAROO_MAX_K 16

typedef struct kangaroo_topk_confidence_params {
  kangaroo_states h;
  kangaroo_draft_head head;
  kangaroo_vector norm; /* [h.width] */
  int64_t* tokens;      /* [batch, nodes, k], written: the best first, ties to the lowest id */
  float* confidence;    /* [batch, nodes, k], written */
  int64_t k;            /* 1 to KANGAROO_MAX_K, and at most the tokens of the head */
  float eps;
  int32_t num_threads; /* on the CPU */
} kangaroo_topk_confidence_params;

/* The bits of a row depend neither on how many there are nor on num_threads. */
kangaroo_status kangaroo_topk_confidence(const kangaroo_topk_confidence_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_TOPK_CONFIDENCE_H_ */
