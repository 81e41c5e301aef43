/* embedding: the rows of tokens. */
#ifndef KANGAROO_EMBEDDING_H_
#define KANGAROO_EMBEDDING_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_embedding_params {
  const int64_t* tokens; /* [out.batch, out.nodes], contiguous, in [0, weight.rows) */
  kangaroo_matrix weight;
  kangaroo_states out; /* written, of the dtype of the weight */
} kangaroo_embedding_params;

/* Nothing is written where a token is outside the vocabulary. */
kangaroo_status kangaroo_embedding(const kangaroo_embedding_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_EMBEDDING_H_ */
