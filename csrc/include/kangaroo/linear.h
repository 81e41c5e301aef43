/* linear: residual + (rms_norm(x) W^T + bias), float32. */
#ifndef KANGAROO_LINEAR_H_
#define KANGAROO_LINEAR_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_linear_params {
  const float* x;           /* [num_rows, width] */
  const float* weight;      /* [out_width, width] */
  const float* bias;        /* [out_width], or NULL */
  const float* norm_weight; /* [width], or NULL: no norm in front */
  const float* residual;    /* [num_rows, out_width], or NULL; may alias x */
  float* out;               /* [num_rows, out_width]; aliases nothing */
  int64_t num_rows;
  int64_t width;
  int64_t out_width;
  float eps; /* of the norm */
  int32_t num_threads;
} kangaroo_linear_params;

/* The bits of a row depend neither on num_rows nor on num_threads. */
kangaroo_status kangaroo_linear(const kangaroo_linear_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_LINEAR_H_ */
