#include "kangaroo/verify_tree.h"

#include <cmath>

#include "error.h"

namespace kangaroo {
namespace {

using Params = kangaroo_verify_tree_params;

int64_t argmax(const float* logits, int64_t vocab) {
  int64_t best = 0;
  for (int64_t token = 1; token < vocab && !std::isnan(logits[best]); ++token) {
    if (logits[token] > logits[best] || std::isnan(logits[token])) best = token;
  }
  return best;
}

// Parents stand in front of their children, so one pass in order walks the whole path.
void walk(const Params& p, int64_t b) {
  const int64_t first = b * p.num_nodes;
  int64_t* path = p.path + first;
  int32_t length = 1;
  path[0] = 0;
  int64_t choice = argmax(p.logits + first * p.vocab, p.vocab);
  for (int64_t node = 1; node < p.num_nodes; ++node) {
    if (p.parents[first + node] != path[length - 1] || p.tokens[first + node] != choice) continue;
    path[length++] = node;
    choice = argmax(p.logits + (first + node) * p.vocab, p.vocab);
  }
  for (int64_t j = length; j < p.num_nodes; ++j) path[j] = -1;
  p.path_len[b] = length;
  p.bonus[b] = choice;
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_verify_tree(const kangaroo_verify_tree_params* params) {
  using namespace kangaroo;
  const Params& p = *params;
  const int64_t num_nodes = p.batch * p.num_nodes;
  const kangaroo_status status = check(
      "verify_tree", {{"batch", p.batch}, {"num_nodes", p.num_nodes - 1}, {"vocab", p.vocab - 1}},
      {{"logits", p.logits, num_nodes * p.vocab},
       {"tokens", p.tokens, num_nodes},
       {"parents", p.parents, num_nodes},
       {"path", p.path, num_nodes},
       {"path_len", p.path_len, p.batch},
       {"bonus", p.bonus, p.batch}});
  if (status != KANGAROO_OK) return status;
  for (int64_t b = 0; b < p.batch; ++b) walk(p, b);
  return KANGAROO_OK;
}
