/* Trees of drafts as they are verified: what ops that draft write, and others read. */
#ifndef KANGAROO_DRAFT_TREES_H_
#define KANGAROO_DRAFT_TREES_H_

#include "kangaroo/draft_head.h"
#include "kangaroo/tree_attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One tree per sequence: parents in front of their children. What is not taken of nodes.capacity is
 * padding that sees the prefix and itself alone. */
typedef struct kangaroo_draft_trees {
  kangaroo_draft_chain nodes; /* capacity 1 to KANGAROO_MAX_TREE_NODES, the root included */
  int64_t* parents;           /* [batch, capacity]; -1: none, as the root and padding */
  int64_t* ancestors;         /* [batch, capacity], bit j: node j is the node or its ancestor */
} kangaroo_draft_trees;

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_DRAFT_TREES_H_ */
