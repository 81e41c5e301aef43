/* commit_path: the accepted path becomes history, where lengths and positions are kept in arrays.
 */
#ifndef KANGAROO_COMMIT_PATH_H_
#define KANGAROO_COMMIT_PATH_H_

#include "kangaroo/draft_head.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kangaroo_slot_places {
  int32_t* cache_seqlens; /* [batch], committed slots */
  int32_t* positions;     /* [batch, reach], of the slots behind them */
} kangaroo_slot_places;

typedef struct kangaroo_commit_path_params {
  const int64_t* path;     /* [batch, nodes], as verify_tree wrote it; rows are in place already */
  const int32_t* path_len; /* [batch], from 1 */
  const int64_t* bonus;    /* [batch] */
  kangaroo_draft_chain chain;  /* token and position of each root are written */
  kangaroo_states exit_states; /* [batch, more than nodes, width], node n's at n + 1: that of the
                                  path's last node moves to 0 */
  kangaroo_slot_places target;
  kangaroo_slot_places adapter;
  const int32_t* done; /* [batch]; where it is not 0 nothing changes */
  int64_t nodes;
  int64_t reach;
  int32_t lag;   /* slots that the adapter is behind at the next root, 0 or 1 */
  int32_t limit; /* committed slots at most */
} kangaroo_commit_path_params;

/* Of each sequence: target.cache_seqlens <- min(target.cache_seqlens + path_len, limit), and so on.
 * Nothing is written unless every path is in range. */
kangaroo_status kangaroo_commit_path(const kangaroo_commit_path_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_COMMIT_PATH_H_ */
