/* verify_tree: which drafted tokens the target would have written itself (greedy), float32. */
#ifndef KANGAROO_VERIFY_TREE_H_
#define KANGAROO_VERIFY_TREE_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_verify_tree_params {
  const float* logits;    /* [batch, num_nodes, vocab], the target's prediction after each node */
  const int64_t* tokens;  /* [batch, num_nodes] */
  const int64_t* parents; /* [batch, num_nodes], below the node's own number; the root's is -1 */
  int64_t* path;          /* [batch, num_nodes], written: accepted nodes, root first, then -1 */
  int32_t* path_len;      /* [batch], written, at least 1 */
  int64_t* bonus;         /* [batch], written: the target's token after the last accepted node */
  int64_t batch;
  int64_t num_nodes; /* at least 1 */
  int64_t vocab;     /* at least 1 */
} kangaroo_verify_tree_params;

/* Only rows on the path are read. Ties go to the lowest id; NaN counts as the largest logit. */
kangaroo_status kangaroo_verify_tree(const kangaroo_verify_tree_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_VERIFY_TREE_H_ */
