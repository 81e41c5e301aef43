/* The public headers are C, and the library serves a C program. */
#include <stdio.h>

#include "kangaroo/adapter_refresh.h"
#include "kangaroo/adapter_step.h"
#include "kangaroo/compact_kv.h"
#include "kangaroo/draft_head.h"
#include "kangaroo/embedding.h"
#include "kangaroo/gated_mlp.h"
#include "kangaroo/linear.h"
#include "kangaroo/rms_norm.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/status.h"
#include "kangaroo/top1_confidence.h"
#include "kangaroo/topk_confidence.h"
#include "kangaroo/tree_attention.h"
#include "kangaroo/verify_tree.h"

int main(void) {
  const float x[2] = {3.0f, 4.0f};
  const float weight[2] = {5.0f, -1.0f};
  float out = 0.0f;
  kangaroo_linear_params params = {0};
  params.x = x;
  params.weight = weight;
  params.out = &out;
  params.num_rows = 1;
  params.width = 2;
  params.out_width = 1;
  params.num_threads = 1;
  if (kangaroo_linear(&params) != KANGAROO_OK || out != 11.0f) return 1;
  printf("%s of %s\n", kangaroo_isa(), kangaroo_compiled_isas());
  return 0;
}
