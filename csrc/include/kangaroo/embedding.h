/* embedding: the rows of tokens. */
#ifndef KANGAROO_EMBEDDING_H_
#define KANGAROO_EMBEDDING_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_embedding_params {
  const int64_t* tokens; /* [num_rows], in [0, vocab) */
  const float* weight;   /* [vocab, width] */
  float* out;            /* [num_rows, width], written */
  int64_t num_rows;
  int64_t width;
  int64_t vocab;
} kangaroo_embedding_params;

/* Nothing is written where a token is outside the vocabulary. */
kangaroo_status kangaroo_embedding(const kangaroo_embedding_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_EMBEDDING_H_ */
