#include "kangaroo/draft_tokens.h"

#include "ops.h"
#include "scratch.h"

namespace kangaroo {
namespace {

using Params = kangaroo_draft_tokens_params;

kangaroo_nodes part(kangaroo_nodes nodes, int64_t first, int64_t count) {
  nodes.positions += first;
  nodes.first_node += first;
  nodes.nodes = count;
  return nodes;
}

kangaroo_states part(kangaroo_states states, int64_t first, int64_t count) {
  states.data =
      static_cast<char*>(states.data) + first * states.node_stride * size_of(states.dtype);
  states.nodes = count;
  return states;
}

// Slots in front of the root that the adapter has not seen.
int64_t num_unseen(const Params& p) { return p.adapter.nodes.nodes - p.layers.nodes.nodes; }

kangaroo_topk_confidence_params best_of(const Params& p, const kangaroo_states& h, int64_t node) {
  kangaroo_topk_confidence_params best = {};
  best.h = h;
  best.head = p.head;
  best.norm = p.norm;
  best.tokens = p.tokens + node;
  best.confidence = p.confidence + node;
  best.k = 1;
  best.eps = p.eps;
  best.num_threads = p.num_threads;
  return best;
}

// One token through the layers; its exit state is written.
void enter(const Params& p, int64_t node) {
  kangaroo_decoder_layers_params pass = p.layers;
  const int64_t bytes = p.embed.row_stride * size_of(p.embed.dtype);
  const char* const row = static_cast<const char*>(p.embed.data) + p.tokens[node] * bytes;
  pass.h = kangaroo_states_of(const_cast<char*>(row), p.embed.dtype, 1, 1, p.embed.width);
  pass.nodes = part(p.layers.nodes, node, 1);
  pass.out = part(p.exit_states, num_unseen(p) + node, 1);
  run(pass);
}

// The token behind the node in front: the adapter passes over what it has not seen.
void guess(const Params& p, int64_t node) {
  const int64_t first = node == 1 ? 0 : num_unseen(p) + node - 1;
  const int64_t count = num_unseen(p) + node - first;
  const kangaroo_states& like = p.exit_states;
  void* const memory = scratch_bytes(
      Scratch::kDraft, static_cast<std::size_t>(count * like.width * size_of(like.dtype)));
  kangaroo_adapter_step_params pass = p.adapter;
  pass.h = part(like, first, count);
  pass.nodes = part(p.adapter.nodes, first, count);
  pass.out = kangaroo_states_of(memory, like.dtype, 1, count, like.width);
  run(pass);
  run(best_of(p, part(pass.out, count - 1, 1), node));
}

}  // namespace

void check(Check& c, const Params& p) {
  const int64_t capacity = p.layers.nodes.nodes;
  c.within("layers.nodes.nodes", capacity, 1, INT32_MAX);
  c.within("layers.nodes.batch", p.layers.nodes.batch, 1, 1);
  c.within("adapter.nodes.nodes", p.adapter.nodes.nodes, capacity, INT32_MAX);
  if (p.layers.nodes.ancestors || p.adapter.nodes.ancestors) {
    c.refuse("ancestors: expected a chain, NULL, got those of %lld nodes", capacity, capacity);
  }
  c.states("exit_states", p.exit_states);
  c.within("exit_states.batch", p.exit_states.batch, 1, 1);
  c.at_least("exit_states.width", p.exit_states.width, 1);
  c.within("exit_states.nodes", p.exit_states.nodes, p.adapter.nodes.nodes, p.adapter.nodes.nodes);
  if (!c.ok()) return;
  c.matrix("embed", p.embed, p.embed.rows, p.exit_states.width, p.exit_states.dtype);
  Params whole = p;
  whole.layers.h = whole.layers.out = part(p.exit_states, num_unseen(p), capacity);
  whole.adapter.h = whole.adapter.out = p.exit_states;
  check(c, whole.layers);
  check(c, whole.adapter);
  c.array("tokens", p.tokens, capacity, 1, sizeof(int64_t));
  c.array("confidence", p.confidence, capacity, 1, sizeof(float));
  c.array("num_tokens", p.num_tokens, 1, 1, sizeof(int64_t));
  c.at_least("embed.rows", p.embed.rows, p.head.weight.rows);
  if (!c.ok()) return;
  check(c, best_of(p, part(p.exit_states, 0, 1), 0));
  c.within("tokens[0]", p.tokens[0], 0, p.embed.rows - 1);
}

void run(const Params& p) {
  enter(p, 0);
  int64_t node = 1;
  for (bool sure = true; sure && node < p.layers.nodes.nodes; ++node) {
    guess(p, node);
    enter(p, node);
    sure = p.confidence[node] >= p.threshold;
  }
  *p.num_tokens = node;
}

}  // namespace kangaroo

kangaroo_status kangaroo_draft_tokens(const kangaroo_draft_tokens_params* params) {
  return kangaroo::checked("draft_tokens", params);
}
