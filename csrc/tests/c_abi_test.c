/* The public headers are C, and the library serves a C program. */
#include <stdio.h>
#include <string.h>

#include "kangaroo/adapter_refresh.h"
#include "kangaroo/adapter_step.h"
#include "kangaroo/compact_kv.h"
#include "kangaroo/copy_draft.h"
#include "kangaroo/cuda.h"
#include "kangaroo/decoder_layers.h"
#include "kangaroo/draft_head.h"
#include "kangaroo/draft_logits.h"
#include "kangaroo/draw_tokens.h"
#include "kangaroo/embedding.h"
#include "kangaroo/gated_mlp.h"
#include "kangaroo/grow_tree.h"
#include "kangaroo/linear.h"
#include "kangaroo/rms_norm.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"
#include "kangaroo/top1_confidence.h"
#include "kangaroo/topk_confidence.h"
#include "kangaroo/tree_attention.h"
#include "kangaroo/verify_tree.h"

int main(void) {
  float x[2] = {3.0f, 4.0f};
  const float weight[2] = {5.0f, -1.0f};
  float out = 0.0f;
  char version[32];
  kangaroo_linear_params params;
  memset(&params, 0, sizeof params);
  params.x = kangaroo_states_of(x, KANGAROO_FLOAT32, 1, 1, 2);
  params.weight = kangaroo_matrix_of(weight, KANGAROO_FLOAT32, 1, 2);
  params.out = kangaroo_states_of(&out, KANGAROO_FLOAT32, 1, 1, 1);
  params.num_threads = 1;
  if (kangaroo_linear(&params) != KANGAROO_OK || out != 11.0f) return 1;
  params.weight.width = 3;
  if (kangaroo_linear(&params) != KANGAROO_INVALID_ARGUMENT) return 2;
  if (strncmp(kangaroo_last_error(), "linear: weight", strlen("linear: weight")) != 0) return 3;
  snprintf(version, sizeof version, "%d.%d.%d", KANGAROO_VERSION_MAJOR, KANGAROO_VERSION_MINOR,
           KANGAROO_VERSION_PATCH);
  if (strcmp(kangaroo_version(), version) != 0) return 4;
  printf("%s of %s\n", kangaroo_isa(), kangaroo_compiled_isas());
  return 0;
}
