#include "kangaroo/draft_logits.h"

#include <algorithm>

#include "draft_head.h"
#include "ops.h"
#include "parallel.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_draft_logits_params;

void check(Check& c, const Params& p) {
  check_head(c, p.h, p.head, p.norm);
  c.states("out", p.out, p.h, num_ids(p.head), KANGAROO_FLOAT32);
  c.eps(p.eps);
  c.threads(p.num_threads);
}

void run(const Params& p) {
  const int64_t num_rows = p.h.batch * p.h.nodes;
  if (num_rows == 0) return;
  const char* panel = packed_for(p.head, p.h, p.norm, p.eps, p.num_threads);
  const int64_t blocks = (num_ids(p.head) + kHeadBlock - 1) / kHeadBlock;
  const int64_t work = num_rows * p.h.width * kHeadBlock;
  parallel_for(blocks, grain_for(blocks, work, 1, p.num_threads), p.num_threads,
               [&](int64_t first, int64_t last) {
                 const int64_t begin = first * kHeadBlock;
                 const int64_t end = std::min(last * kHeadBlock, num_ids(p.head));
                 Rows out = rows_of(p.out);
                 out.data += begin * int64_t{sizeof(float)};
                 head_logits(p.head, p.h, panel, begin, end - begin, out);
               });
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_draft_logits(const kangaroo_draft_logits_params* params) {
  using namespace kangaroo;
  return entry("draft_logits", params, [](const Params& p) {
    Check c("draft_logits");
    check(c, p);
    if (c.ok()) run(p);
    return c.status();
  });
}
