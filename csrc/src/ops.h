// The ops as functions of C++: `check` says what is wrong with the parameters of a call, `run` does
// it on parameters that are right. Ops that are made of others call these.
#pragma once

#include "check.h"
#include "kangaroo/adapter_refresh.h"
#include "kangaroo/adapter_step.h"
#include "kangaroo/decoder_layers.h"
#include "kangaroo/draft_tokens.h"
#include "kangaroo/gated_mlp.h"
#include "kangaroo/linear.h"
#include "kangaroo/rms_norm.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/topk_confidence.h"
#include "kangaroo/tree_attention.h"

namespace kangaroo {

void check(Check& c, const kangaroo_linear_params& p);
void check(Check& c, const kangaroo_gated_mlp_params& p);
void check(Check& c, const kangaroo_rms_norm_params& p);
void check(Check& c, const kangaroo_rope_append_kv_params& p);
void check(Check& c, const kangaroo_tree_attention_params& p);
void check(Check& c, const kangaroo_decoder_layers_params& p);
void check(Check& c, const kangaroo_adapter_step_params& p);
void check(Check& c, const kangaroo_draft_tokens_params& p);
void check(Check& c, const kangaroo_adapter_refresh_params& p);
void check(Check& c, const kangaroo_topk_confidence_params& p);

void run(const kangaroo_linear_params& p);
void run(const kangaroo_gated_mlp_params& p);
void run(const kangaroo_rms_norm_params& p);
void run(const kangaroo_rope_append_kv_params& p);
void run(const kangaroo_tree_attention_params& p);
void run(const kangaroo_decoder_layers_params& p);
void run(const kangaroo_adapter_step_params& p);
void run(const kangaroo_draft_tokens_params& p);
void run(const kangaroo_adapter_refresh_params& p);
void run(const kangaroo_topk_confidence_params& p);

// A C entry point: refused as a whole, or done.
template <class Params>
kangaroo_status checked(const char* op, const Params* params) {
  return entry(op, params, [op](const Params& p) {
    Check c(op);
    check(c, p);
    if (c.ok()) run(p);
    return c.status();
  });
}

}  // namespace kangaroo
