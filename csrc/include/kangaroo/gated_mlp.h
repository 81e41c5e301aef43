/* gated_mlp: x + (silu(g) * u) W_down^T with [g; u] = rms_norm(x) W_gate_up^T. */
#ifndef KANGAROO_GATED_MLP_H_
#define KANGAROO_GATED_MLP_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_gated_mlp_params {
  kangaroo_states x;
  kangaroo_matrix gate_up; /* [2 * down.width, x.width], gate rows first */
  kangaroo_matrix down;    /* [x.width, hidden width] */
  kangaroo_vector norm;    /* [x.width] */
  kangaroo_states out;     /* as x */
  float eps;
  int32_t num_threads; /* on the CPU */
} kangaroo_gated_mlp_params;

/* The bits of a row depend neither on how many there are nor on num_threads. */
kangaroo_status kangaroo_gated_mlp(const kangaroo_gated_mlp_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_GATED_MLP_H_ */
