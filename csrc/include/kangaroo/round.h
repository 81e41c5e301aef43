/* A round of decoding as one CUDA graph: draft steps that the device stops, verification, and
 * tokens that come back through host memory. Nothing is read back inside a round, and the host may
 * launch the next one before it has read the last.
 *
 *   [open][step 0][gate 1][IF: step 1]...[gate n-1][IF: step n-1][tail][publish]
 *
 * The caller captures the steps and the tail (verify, accept, commit) on its own stream; open, gate
 * and publish are kernels of this library. With conditions, all that is between open and publish
 * lies in one more IF node, which is skipped once every sequence is done.
 *
 * Drafts may also be found without steps (in the text, say), by the front, which is always run;
 * what only such drafts need is one more piece behind the steps. Then step 0 has a gate, too:
 *
 *   [open][front][gate 0][IF: step 0]...[gate][IF: found][tail][publish]
 *
 * What the caller's kernels must honour, in every mode:
 *  - `stopped` and `num_nodes` are the round's to reset: open writes stopped[b] = done[b] and
 *    num_nodes[b] = 1 before step 0. Steps set `stopped` where drafting ends, and never clear it.
 *  - The front sets found[b], to 0 where the sequence is done, and `stopped` and num_nodes where it
 *    has found a draft.
 *  - The rest of a chain is the caller's: step 0, or the tail for the next round, puts its root in
 *    tokens[b][0].
 *  - A sequence that is done may share a round with others that are not. Its path, its bonus token
 *    and its rows are ignored, but kernels must stay inside their buffers for it: the commit leaves
 *    the length of a sequence alone where done[b] is not 0.
 *  - Kernels, copies and fills alone (CUDA allows nothing else in an IF body): everything is
 *    allocated, every module loaded and every kernel launched once before the capture.
 * With KANGAROO_ROUND_EARLY_RETURN, steps are always run, so that their kernels also
 *  - return at once, and write nothing, where stopped[b] is not 0; those of step 0 as well, since a
 *    sequence that is done has stopped from the beginning;
 * and `found` and the tail are always run, also in rounds where every sequence is done: its kernels
 * see that in done[b], not in stopped[b], which a low confidence sets too.
 *
 * A round belongs to one thread at a time. In libkangaroo_cuda; needs CUDA 12.4. */
#ifndef KANGAROO_ROUND_H_
#define KANGAROO_ROUND_H_

#include <stdint.h>

#include "kangaroo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KANGAROO_ROUND_MAX_EOS 16
#define KANGAROO_ROUND_MAX_AHEAD 8
#define KANGAROO_ROUND_MAX_STEPS 64
#define KANGAROO_ROUND_MAX_BATCH 1024
#define KANGAROO_ROUND_MAX_NODES 1024

typedef struct kangaroo_round kangaroo_round;

typedef enum kangaroo_round_mode {
  KANGAROO_ROUND_CONDITIONAL = 0, /* an IF node per step, side by side */
  KANGAROO_ROUND_NESTED = 1,      /* an IF node per step, inside that of the step before: one that
                                     is skipped spares the gates of all that follow */
  KANGAROO_ROUND_EARLY_RETURN = 2 /* no conditions: kernels return where they see `stopped` */
} kangaroo_round_mode;

/* Addresses lie on the device, but for eos_ids, and live as long as the round. The tokens of a
 * round are tokens[path[1]], ..., tokens[path[path_len - 1]], bonus: what verify_tree writes. */
typedef struct kangaroo_round_config {
  kangaroo_round_mode mode;
  int64_t num_steps; /* draft steps captured; 0: the tail alone */
  int64_t ahead;     /* rounds launched and not yet read, at most; 2 overlaps host and device */
  int64_t batch;
  int64_t nodes;           /* of a tree, its root included: no path is longer */
  int32_t* stopped;        /* [batch], as in kangaroo_draft_chain */
  const int64_t* tokens;   /* [batch, nodes], rows token_stride apart */
  const int64_t* path;     /* [batch, nodes], rows path_stride apart; NULL: node j is path[j] */
  const int32_t* path_len; /* [batch] */
  const int64_t* bonus;    /* [batch] */
  int32_t* num_nodes;      /* [batch], as in kangaroo_draft_chain; NULL: always `nodes` */
  const int32_t* found;    /* [batch], not 0: a draft without steps; NULL: no front */
  int64_t token_stride;
  int64_t path_stride;
  const int64_t* eos_ids; /* [num_eos] on the host, copied: a token that ends its sequence */
  int64_t num_eos;
} kangaroo_round_config;

/* What a round brought. The arrays lie in host memory that the device wrote and stay valid until
 * the next poll or wait that is ready. */
typedef struct kangaroo_round_result {
  int32_t ready;             /* 0: the round is still running, and nothing else is set */
  int64_t round;             /* its number, from 0 */
  int64_t num_steps;         /* draft steps that were run; all of them with ..._EARLY_RETURN */
  const int32_t* num_tokens; /* [batch]; 0 where the sequence was done before */
  const int32_t* num_nodes;  /* [batch], of the tree; and of its path, from 1; unset where */
  const int32_t* path_len;   /* num_tokens is 0 */
  const int32_t* done;       /* [batch], not 0: it will write no more */
  const int64_t* tokens;     /* [batch, nodes], the first num_tokens[b] of each row */
} kangaroo_round_result;

/* All sequences are done at first. KANGAROO_CUDA_ERROR where there is no device,
 * KANGAROO_UNSUPPORTED where the driver is too old for the mode. The current device is the round's.
 */
kangaroo_status kangaroo_round_create(const kangaroo_round_config* config, kangaroo_round** round);

/* Ends a capture that is under way, waits for rounds that run, frees everything. NULL is fine.
 * Streams that rounds were captured or launched on must still exist. */
void kangaroo_round_destroy(kangaroo_round* round);

/* int32 [batch] on the device: not 0 where a sequence is done. Never NULL for a round. */
const int32_t* kangaroo_round_done(const kangaroo_round* round);

/* Capture, in this order: capture; begin_step(0), end_step, begin_step(1), ...; begin_tail,
 * end_tail; finish. With a front: begin_front and end_front before the steps, and behind them,
 * where there is anything, begin_found and end_found. Between a begin and its end, what the caller
 * enqueues on `stream` (not the default stream) becomes part of the piece; a piece may be empty.
 * Again at any time that no round is unread: finish then updates the graph in place, and
 * instantiates anew where CUDA refuses. The former graph serves until then. A call in the wrong
 * order is refused and changes nothing; any other failure abandons the capture, as abort does. */
kangaroo_status kangaroo_round_capture(kangaroo_round* round, void* stream);
kangaroo_status kangaroo_round_begin_front(kangaroo_round* round);
kangaroo_status kangaroo_round_end_front(kangaroo_round* round);
kangaroo_status kangaroo_round_begin_step(kangaroo_round* round, int64_t step);
kangaroo_status kangaroo_round_end_step(kangaroo_round* round);
kangaroo_status kangaroo_round_begin_found(kangaroo_round* round);
kangaroo_status kangaroo_round_end_found(kangaroo_round* round);
kangaroo_status kangaroo_round_begin_tail(kangaroo_round* round);
kangaroo_status kangaroo_round_end_tail(kangaroo_round* round);
kangaroo_status kangaroo_round_finish(kangaroo_round* round);
void kangaroo_round_abort(kangaroo_round* round);

/* How often finish had to instantiate: 1 where every later capture was an update. */
int64_t kangaroo_round_instantiations(const kangaroo_round* round);

/* Enqueues that a sequence, done or not, may write max_tokens more; done at once where that is 0.
 */
kangaroo_status kangaroo_round_start(kangaroo_round* round, int64_t sequence, int32_t max_tokens,
                                     void* stream);

/* Enqueues a round and returns. Refused where `ahead` rounds are unread, or nothing is captured.
 * Rounds and starts go to one stream, or to streams that wait for each other. */
kangaroo_status kangaroo_round_launch(kangaroo_round* round, void* stream);

/* Rounds launched and not yet read. */
int64_t kangaroo_round_unread(const kangaroo_round* round);

/* Reads the oldest unread round; refused where there is none. Of a sequence's tokens, those behind
 * the first end-of-sequence id and those beyond its budget are cut off, and it is done.
 * poll makes no CUDA call. wait spins, and asks CUDA now and then whether the stream has failed; it
 * returns with ready = 0 after timeout_us, and never of itself where that is negative. */
kangaroo_status kangaroo_round_poll(kangaroo_round* round, kangaroo_round_result* result);
kangaroo_status kangaroo_round_wait(kangaroo_round* round, int64_t timeout_us,
                                    kangaroo_round_result* result);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_ROUND_H_ */
