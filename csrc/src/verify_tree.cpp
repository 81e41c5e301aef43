#include "kangaroo/verify_tree.h"

#include <algorithm>

#include "check.h"
#include "isa/kernels.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_verify_tree_params;

// Parents stand in front of their children, so one pass in order walks the whole path.
void walk(const Params& p, int64_t b) {
  const int64_t first = b * p.logits.nodes;
  int64_t* path = p.path + first;
  if (p.successors) std::fill_n(p.successors + first, p.logits.nodes, 0);
  const auto choice_after = [&](int64_t node) {
    const void* logits = rows_of(p.logits).at(first + node);
    const int64_t choice = p.choices ? p.choices[first + node]
                                     : kernels(p.logits.dtype).argmax(logits, p.logits.width);
    if (p.successors) p.successors[first + node] = std::max<int64_t>(choice, 0);
    return choice;
  };
  int32_t length = 1;
  path[0] = 0;
  int64_t choice = choice_after(0);
  const int64_t num_nodes = p.num_nodes ? p.num_nodes[b] : p.logits.nodes;
  for (int64_t node = 1; node < num_nodes && choice >= 0; ++node) {
    if (p.parents[first + node] != path[length - 1] || p.tokens[first + node] != choice) continue;
    path[length++] = node;
    choice = choice_after(node);
  }
  for (int64_t j = length; j < p.logits.nodes; ++j) path[j] = -1;
  p.path_len[b] = length;
  p.bonus[b] = choice;
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_verify_tree(const kangaroo_verify_tree_params* params) {
  using namespace kangaroo;
  return entry("verify_tree", params, [](const Params& p) {
    const int64_t batch = p.logits.batch, nodes = p.logits.nodes;
    Check c("verify_tree");
    c.cpu_dtype("logits", p.logits.dtype);
    c.states("logits", p.logits);
    c.within("logits.nodes", nodes, 1, INT32_MAX);
    c.within("logits.width", p.logits.width, 1, INT32_MAX);
    c.array("tokens", p.tokens, batch, nodes, sizeof(int64_t));
    c.array("parents", p.parents, batch, nodes, sizeof(int64_t));
    c.array("path", p.path, batch, nodes, sizeof(int64_t));
    c.array("path_len", p.path_len, batch, 1, sizeof(int32_t));
    c.array("bonus", p.bonus, batch, 1, sizeof(int64_t));
    if (p.successors) c.array("successors", p.successors, batch, nodes, sizeof(int64_t));
    if (p.num_nodes) c.array("num_nodes", p.num_nodes, batch, 1, sizeof(int32_t));
    for (int64_t b = 0; c.ok() && p.num_nodes && b < batch; ++b) {
      c.within("num_nodes", p.num_nodes[b], 1, nodes);
    }
    if (p.choices) c.array("choices", p.choices, batch, nodes, sizeof(int64_t));
    for (int64_t i = 0; c.ok() && p.choices && i < batch * nodes; ++i) {
      c.within("choices", p.choices[i], -1, p.logits.width - 1);
    }
    for (int64_t b = 0; c.ok() && b < batch; ++b) walk(p, b);
    return c.status();
  });
}
