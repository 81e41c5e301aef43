/* copy_draft: where a text repeats itself, what followed before is the draft (prompt lookup). */
#ifndef KANGAROO_COPY_DRAFT_H_
#define KANGAROO_COPY_DRAFT_H_

#include "kangaroo/draft_trees.h"
#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_copy_draft_params {
  int32_t* text;                /* [batch, slots], the token of each slot; those of the last path
                                   and the root are written, all in front of them are known */
  const int64_t* path;          /* [batch, trees.nodes.capacity], as verify_tree wrote it */
  const int32_t* path_len;      /* [batch], from 1; 1: all in front of the root is known */
  kangaroo_draft_trees trees;   /* of the last round, but for the roots, which are the next one's;
                                   where nodes.stopped is not 0 nothing changes */
  const int32_t* cache_seqlens; /* [batch], the roots' slots */
  int32_t* found;               /* [batch], written: 1 where something was found, else 0 */
  int64_t slots;
  int64_t size;  /* 1 to slots: tokens that must have stood in the text before */
  int64_t count; /* 1 to trees.nodes.capacity - 1: tokens of a draft */
} kangaroo_copy_draft_params;

/* Of each sequence: the tokens of the path and the root join the text. Where its last `size` tokens
 * have stood in it before, the `count` that followed the last time become a chain behind the root,
 * and nodes.stopped is 1. The copy may reach into itself, as in LZ77. Nothing is written unless
 * every argument is in range. */
kangaroo_status kangaroo_copy_draft(const kangaroo_copy_draft_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_COPY_DRAFT_H_ */
