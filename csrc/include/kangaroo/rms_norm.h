/* rms_norm: x / sqrt(mean(x^2) + eps) * weight, row by row. */
#ifndef KANGAROO_RMS_NORM_H_
#define KANGAROO_RMS_NORM_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_rms_norm_params {
  kangaroo_states x;
  kangaroo_vector weight; /* [x.width] */
  kangaroo_states out;    /* as x */
  float eps;
  int32_t num_threads; /* on the CPU */
} kangaroo_rms_norm_params;

kangaroo_status kangaroo_rms_norm(const kangaroo_rms_norm_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_RMS_NORM_H_ */
