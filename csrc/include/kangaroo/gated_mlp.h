/* gated_mlp: x + (silu(g) * u) W_down^T with [g; u] = rms_norm(x) W_gate_up^T, float32. */
#ifndef KANGAROO_GATED_MLP_H_
#define KANGAROO_GATED_MLP_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_gated_mlp_params {
  const float* x;           /* [num_rows, width] */
  const float* gate_up;     /* [2 * hidden_width, width], gate rows first */
  const float* down;        /* [width, hidden_width] */
  const float* norm_weight; /* [width] */
  float* out;               /* [num_rows, width]; aliases nothing */
  int64_t num_rows;
  int64_t width;
  int64_t hidden_width;
  float eps;
  int32_t num_threads;
} kangaroo_gated_mlp_params;

/* The bits of a row depend neither on num_rows nor on num_threads. */
kangaroo_status kangaroo_gated_mlp(const kangaroo_gated_mlp_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_GATED_MLP_H_ */
