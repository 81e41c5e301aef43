#include "kangaroo/top1_confidence.h"

#include "ops.h"

namespace kangaroo {
namespace {

using Params = kangaroo_top1_confidence_params;

// The token of each sequence's last node becomes its chain's next, unless drafting has stopped.
void append(const Params& p) {
  const kangaroo_draft_chain& c = *p.chain;
  for (int64_t b = 0; b < c.batch; ++b) {
    const int32_t node = c.num_nodes[b];
    if (node >= c.capacity) c.stopped[b] = 1;
    if (c.stopped[b] != 0 || node <= 0) continue;
    const int64_t row = (b + 1) * p.h.nodes - 1;
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
  return entry("top1_confidence", params, [](const Params& p) {
    kangaroo_topk_confidence_params best = {};
    best.h = p.h;
    best.head = p.head;
    best.norm = p.norm;
    best.tokens = p.tokens;
    best.confidence = p.confidence;
    best.k = 1;
    best.eps = p.eps;
    best.num_threads = p.num_threads;
    Check c("top1_confidence");
    check(c, best);
    if (p.chain) c.array("chain", p.chain, 1, 1, sizeof *p.chain);
    if (p.chain && c.ok()) c.chain(*p.chain, p.h.batch);
    if (p.chain && p.h.batch > 0) c.at_least("h.nodes", p.h.nodes, 1);
    if (!c.ok()) return c.status();
    run(best);
    if (p.chain && p.h.nodes > 0) append(p);
    return KANGAROO_OK;
  });
}
