/* linear: residual + (rms_norm(x) W^T + bias), accumulated in float32. */
#ifndef KANGAROO_LINEAR_H_
#define KANGAROO_LINEAR_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_linear_params {
  kangaroo_states x;
  kangaroo_matrix weight;
  kangaroo_vector bias;     /* [weight.rows], or absent */
  kangaroo_vector norm;     /* [x.width], or absent: no norm in front */
  kangaroo_states residual; /* [batch, nodes, weight.rows], or absent; may be x */
  kangaroo_states out;      /* [batch, nodes, weight.rows] of the dtype of x, or float32 */
  float eps;                /* of the norm */
  int32_t num_threads;      /* on the CPU */
} kangaroo_linear_params;

/* The bits of a row depend neither on how many there are nor on num_threads. */
kangaroo_status kangaroo_linear(const kangaroo_linear_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_LINEAR_H_ */
