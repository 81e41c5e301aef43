#include "kangaroo/adapter_step.h"

#include "attention_block.h"
#include "ops.h"

namespace kangaroo {
namespace {

AttentionBlock block_of(const kangaroo_adapter_step_params& p) {
  AttentionBlock block = {};
  block.norm = p.input_norm;
  block.qkv = p.qkv;
  block.o = p.o;
  block.kv = p.kv;
  block.rope = p.rope;
  block.nodes = p.nodes;
  block.eps = p.eps;
  block.num_threads = p.num_threads;
  return block;
}

}  // namespace

void check(Check& c, const kangaroo_adapter_step_params& p) { check(c, block_of(p), p.h, p.out); }

void run(const kangaroo_adapter_step_params& p) { run(block_of(p), p.h, p.out); }

}  // namespace kangaroo

kangaroo_status kangaroo_adapter_step(const kangaroo_adapter_step_params* params) {
  return kangaroo::checked("adapter_step", params);
}
