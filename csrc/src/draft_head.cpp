#include "draft_head.h"

#include <algorithm>

#include "stages.h"

namespace kangaroo {
namespace {

bool is_int8(const kangaroo_draft_head& head) { return head.weight.dtype == KANGAROO_INT8; }

}  // namespace

void check_head(Check& c, const kangaroo_states& h, const kangaroo_draft_head& head,
                const kangaroo_vector& norm) {
  c.cpu_dtype("h", h.dtype);
  c.states("h", h);
  c.at_least("head.weight.rows", head.weight.rows, 1);
  c.matrix("head.weight", head.weight, head.weight.rows, h.width,
           is_int8(head) ? KANGAROO_INT8 : h.dtype);
  if (is_int8(head)) {
    c.array("head.scale", head.scale, head.weight.rows, 1, sizeof(float));
  } else if (head.scale) {
    c.refuse("head.weight: expected values of %lld byte beside a scale, got values of %lld", 1,
             size_of(head.weight.dtype));
  }
  c.vector("norm", norm, h.width, h.dtype);
  c.at_least("head.num_ids", head.num_ids, 0);
  if (head.token_ids) {
    c.array("head.token_ids", head.token_ids, head.num_ids, 1, sizeof(int32_t));
    if (c.ok()) {
      c.increasing("head.token_ids", head.token_ids, head.num_ids, head.weight.rows - 1);
    }
  }
}

void check_chain(Check& c, const kangaroo_draft_chain* chain, const char* nodes,
                 const kangaroo_states& states) {
  if (!chain) return;
  c.array("chain", chain, 1, 1, sizeof *chain);
  if (c.ok()) c.chain(*chain, states.batch);
  if (states.batch > 0) c.at_least(nodes, states.nodes, 1);
}

void append(const kangaroo_draft_chain& c, const int64_t* tokens, const float* confidence,
            int64_t apart) {
  for (int64_t b = 0; b < c.batch; ++b) {
    const int32_t node = c.num_nodes[b];
    if (node >= c.capacity) c.stopped[b] = 1;
    if (c.stopped[b] != 0 || node <= 0) continue;
    const int64_t place = b * c.capacity + node;
    c.tokens[place] = std::max<int64_t>(tokens[b * apart], 0);
    c.positions[place] = c.positions[place - 1] + 1;
    c.num_nodes[b] = node + 1;
    const bool sure = confidence[b * apart] >= c.threshold[b];
    c.stopped[b] = sure && node + 1 < c.capacity ? 0 : 1;
  }
}

const char* packed_for(const kangaroo_draft_head& head, const kangaroo_states& h,
                       const kangaroo_vector& norm, float eps, int32_t num_threads) {
  const TypedKernels& k = kernels(h.dtype);
  return packed(h, is_int8(head) ? k.int8_layout : k.layout, norm.data, eps, num_threads);
}

void head_logits(const kangaroo_draft_head& head, const kangaroo_states& h, const char* panel,
                 int64_t begin, int64_t count, const Rows& out) {
  const TypedKernels& k = kernels(h.dtype);
  Gemm gemm = {};
  gemm.panel = panel;
  gemm.num_rows = h.batch * h.nodes;
  gemm.width = h.width;
  gemm.weight = head.weight.data;
  gemm.weight_stride = head.weight.row_stride;
  gemm.ids = head.token_ids;
  gemm.scale = head.scale;
  gemm.residual = no_rows();
  gemm.begin = begin;
  gemm.end = begin + count;
  gemm.out = out;
  gemm.out.data -= begin * int64_t{sizeof(float)};
  is_int8(head) ? k.int8_gemm(gemm) : k.gemm_to_float(gemm);
}

}  // namespace kangaroo
