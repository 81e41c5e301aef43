/* verify_tree: which drafted tokens the target would have written itself (greedy). */
#ifndef KANGAROO_VERIFY_TREE_H_
#define KANGAROO_VERIFY_TREE_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_verify_tree_params {
  kangaroo_states logits;   /* [batch, nodes, vocab], the target's prediction after each node */
  const int64_t* tokens;    /* [batch, nodes] */
  const int64_t* parents;   /* [batch, nodes], below the node's own number; the root's is -1 */
  const int32_t* num_nodes; /* [batch], from 1: of a tree, the others are padding; NULL: `nodes` */
  int64_t* path;            /* [batch, nodes], written: accepted nodes, root first, then -1 */
  int32_t* path_len;        /* [batch], written, at least 1 */
  int64_t* bonus;           /* [batch], written: the target's token after the last accepted node; -1
                               where the largest of its logits is not finite */
  int64_t* successors;      /* [batch, nodes], written: the target's token after each accepted node,
                               0 after the others and where there is none; NULL: not wanted */
  const int64_t* choices; /* [batch, nodes], the target's token after each node, -1 for none, and no
                             logits are read; NULL: the argmax of the logits */
} kangaroo_verify_tree_params;

/* Only rows on the path are read. Ties go to the lowest id; NaN is the largest logit. Where
 * the largest is not finite, nothing follows. */
kangaroo_status kangaroo_verify_tree(const kangaroo_verify_tree_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_VERIFY_TREE_H_ */
