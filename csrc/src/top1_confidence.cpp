#include "kangaroo/top1_confidence.h"

#include "error.h"
#include "rank.h"

namespace kangaroo {
namespace {

kangaroo_status check_chain(const kangaroo_draft_chain& c, int64_t num_rows) {
  const kangaroo_status status =
      check("top1_confidence", {{"chain.batch", c.batch}, {"chain.capacity", c.capacity}},
            {{"chain.tokens", c.tokens, c.batch * c.capacity},
             {"chain.positions", c.positions, c.batch * c.capacity},
             {"chain.num_nodes", c.num_nodes, c.batch},
             {"chain.stopped", c.stopped, c.batch},
             {"chain.threshold", c.threshold, c.batch}});
  if (status != KANGAROO_OK) return status;
  const bool whole = c.batch == 0 ? num_rows == 0 : num_rows % c.batch == 0 && num_rows > 0;
  return whole ? KANGAROO_OK
               : invalid("top1_confidence: num_rows: expected rows of %lld sequences, got %lld",
                         static_cast<long long>(c.batch), static_cast<long long>(num_rows));
}

// The token of each sequence's last row becomes its chain's next node, unless drafting has stopped.
void append(const kangaroo_top1_confidence_params& p) {
  const kangaroo_draft_chain& c = *p.chain;
  for (int64_t b = 0; b < c.batch; ++b) {
    const int32_t node = c.num_nodes[b];
    if (node >= c.capacity) c.stopped[b] = 1;
    if (c.stopped[b] != 0 || node <= 0) continue;
    const int64_t row = (b + 1) * (p.num_rows / c.batch) - 1;
    const int64_t place = b * c.capacity + node;
    c.tokens[place] = p.tokens[row];
    c.positions[place] = c.positions[place - 1] + 1;
    c.num_nodes[b] = node + 1;
    const bool sure = p.confidence[row] >= c.threshold[b];
    c.stopped[b] = sure && node + 1 < c.capacity ? 0 : 1;
  }
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_top1_confidence(const kangaroo_top1_confidence_params* params) {
  using namespace kangaroo;
  return guarded([&] {
    const kangaroo_top1_confidence_params& p = *params;
    kangaroo_topk_confidence_params best = {};
    best.h = p.h;
    best.head = p.head;
    best.norm_weight = p.norm_weight;
    best.tokens = p.tokens;
    best.confidence = p.confidence;
    best.num_rows = p.num_rows;
    best.width = p.width;
    best.k = 1;
    best.eps = p.eps;
    best.num_threads = p.num_threads;
    kangaroo_status status = check_rank("top1_confidence", best);
    if (status == KANGAROO_OK && p.chain) status = check_chain(*p.chain, p.num_rows);
    if (status != KANGAROO_OK || p.num_rows == 0) return status;
    rank(best);
    if (p.chain) append(p);
    return status;
  });
}
