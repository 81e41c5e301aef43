#include "kangaroo/top1_confidence.h"

#include "draft_head.h"
#include "ops.h"

kangaroo_status kangaroo_top1_confidence(const kangaroo_top1_confidence_params* params) {
  using namespace kangaroo;
  return entry("top1_confidence", params, [](const kangaroo_top1_confidence_params& p) {
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
    check_chain(c, p.chain, "h.nodes", p.h);
    if (!c.ok()) return c.status();
    run(best);
    const int64_t last = p.h.nodes - 1;
    if (p.chain && last >= 0) append(*p.chain, p.tokens + last, p.confidence + last, p.h.nodes);
    return KANGAROO_OK;
  });
}
