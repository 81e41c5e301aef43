/* grow_tree: the next nodes of trees of drafts, pass by pass; what waits is kept in arrays. */
#ifndef KANGAROO_GROW_TREE_H_
#define KANGAROO_GROW_TREE_H_

#include "kangaroo/draft_trees.h"
#include "kangaroo/status.h"
#include "kangaroo/topk_confidence.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Trees while they grow: inner nodes at places, those of each pass at its own, and the candidates
 * behind them. */
typedef struct kangaroo_seedbed {
  int64_t* tokens;     /* [batch, places] */
  int32_t* positions;  /* [batch, places], RoPE indices */
  int64_t* parents;    /* [batch, places], a place in front; -1: none */
  int64_t* ancestors;  /* [batch, places], bit j: place j is the node's own or its ancestor's */
  double* paths;       /* [batch, places], the probability that all of the path is right; -1: the
                          place is empty */
  int32_t* sure;       /* [batch, places], not 0: inner nodes may follow */
  int64_t* candidates; /* [batch, places, k], tokens */
  double* waiting;     /* [batch, places, k], their paths' probabilities; -1: it has become a node,
                          or the place is empty */
  int64_t places;      /* 1 to KANGAROO_MAX_TREE_NODES */
} kangaroo_seedbed;

typedef struct kangaroo_grow_tree_params {
  const int64_t* tokens;      /* [batch, newest, k], the most probable behind each newest node */
  const float* probabilities; /* [batch, newest, k], decreasing; NaN counts as none */
  kangaroo_seedbed seedbed;   /* of as many sequences as there are trees */
  kangaroo_draft_trees trees; /* where nodes.stopped is not 0 nothing changes */
  int64_t max_nodes;          /* of a tree, its root included, 1 to nodes.capacity */
  int64_t newest;             /* nodes at the places [first, first + newest) */
  int64_t k;                  /* 1 to KANGAROO_MAX_K */
  int64_t first;              /* 0: the newest node is the root, planted from trees.nodes */
  int64_t width;              /* places behind the newest nodes for the next; 0 in the last pass */
  int64_t passes_left;        /* 1 to KANGAROO_MAX_TREE_NODES, this one included */
  double sharpness;           /* above 0: the power that probabilities are raised to */
} kangaroo_grow_tree_params;

/* Of each sequence: candidates wait behind the newest nodes, each with the product of its parent's
 * path and its share of probabilities ** sharpness. Of those that wait behind a node whose best
 * child's probability is not below nodes.threshold, and that are among the max_nodes - 1 most
 * probable paths known, the first (nodes left) / (2 passes_left), rounded up, become the next
 * nodes, at most `width`. Where there are none, in the last pass, and where one node is left, the
 * most probable of all that wait fill the tree up: it is written, and nodes.stopped is 1. Ties go
 * to the older place, then to the better rank. Nothing is written unless every argument is in
 * range. */
kangaroo_status kangaroo_grow_tree(const kangaroo_grow_tree_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_GROW_TREE_H_ */
