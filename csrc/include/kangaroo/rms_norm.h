/* rms_norm: x / sqrt(mean(x^2) + eps) * weight, row by row, float32. */
#ifndef KANGAROO_RMS_NORM_H_
#define KANGAROO_RMS_NORM_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_rms_norm_params {
  const float* x;      /* [num_rows, width] */
  const float* weight; /* [width] */
  float* out;          /* [num_rows, width] */
  int64_t num_rows;
  int64_t width;
  float eps;
  int32_t num_threads;
} kangaroo_rms_norm_params;

kangaroo_status kangaroo_rms_norm(const kangaroo_rms_norm_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_RMS_NORM_H_ */
