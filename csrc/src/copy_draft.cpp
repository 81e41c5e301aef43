#include "kangaroo/copy_draft.h"

#include <algorithm>

#include "check.h"

namespace kangaroo {
namespace {

using Params = kangaroo_copy_draft_params;

void check_sequence(Check& c, const Params& p, int64_t b) {
  const int64_t capacity = p.trees.nodes.capacity;
  if (p.trees.nodes.stopped[b] != 0) return;
  c.within("path_len", p.path_len[b], 1, capacity);
  if (!c.ok()) return;
  c.within("cache_seqlens", p.cache_seqlens[b], p.path_len[b] - 1, p.slots - 1);
  for (int64_t j = 1; j < p.path_len[b]; ++j) {
    c.within("path", p.path[b * capacity + j], 0, capacity - 1);
  }
}

void check(Check& c, const Params& p) {
  const int64_t batch = p.trees.nodes.batch, capacity = p.trees.nodes.capacity;
  c.trees(p.trees, batch);
  c.within("slots", p.slots, 1, INT32_MAX - KANGAROO_MAX_TREE_NODES);
  c.array("text", p.text, batch, p.slots, sizeof(int32_t));
  c.array("path", p.path, batch, capacity, sizeof(int64_t));
  c.array("path_len", p.path_len, batch, 1, sizeof(int32_t));
  c.array("cache_seqlens", p.cache_seqlens, batch, 1, sizeof(int32_t));
  c.array("found", p.found, batch, 1, sizeof(int32_t));
  c.within("size", p.size, 1, p.slots);
  c.within("count", p.count, 1, capacity - 1);
  for (int64_t b = 0; c.ok() && b < batch; ++b) check_sequence(c, p, b);
}

void join(const Params& p, int64_t b, int32_t* text) {
  const int64_t capacity = p.trees.nodes.capacity;
  const int64_t root = p.cache_seqlens[b], length = p.path_len[b];
  const int64_t* const tokens = p.trees.nodes.tokens + b * capacity;
  for (int64_t j = 1; j < length; ++j) {
    text[root - length + j] = static_cast<int32_t>(tokens[p.path[b * capacity + j]]);
  }
  text[root] = static_cast<int32_t>(tokens[0]);
}

// The place behind the latest run of tokens that is the text's end; 0: there is none.
int64_t latest(const int32_t* text, int64_t length, int64_t size) {
  const int32_t* const last = text + length - size;
  for (int64_t end = length - 1; end >= size; --end) {
    if (std::equal(last, last + size, text + end - size)) return end;
  }
  return 0;
}

void find(const Params& p, int64_t b) {
  int32_t* const text = p.text + b * p.slots;
  join(p, b, text);
  const int64_t root = p.cache_seqlens[b], first = b * p.trees.nodes.capacity;
  const int64_t from = latest(text, root + 1, p.size), period = root + 1 - from;
  if (from == 0) return;
  for (int64_t node = 0; node <= p.count; ++node) {
    if (node > 0) p.trees.nodes.tokens[first + node] = text[from + (node - 1) % period];
    p.trees.nodes.positions[first + node] = static_cast<int32_t>(root + node);
    p.trees.parents[first + node] = node - 1;
    p.trees.ancestors[first + node] = static_cast<int64_t>(~uint64_t{0} >> (63 - node));
  }
  p.trees.nodes.num_nodes[b] = static_cast<int32_t>(1 + p.count);
  p.trees.nodes.stopped[b] = p.found[b] = 1;
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_copy_draft(const kangaroo_copy_draft_params* params) {
  using namespace kangaroo;
  return entry("copy_draft", params, [](const Params& p) {
    Check c("copy_draft");
    check(c, p);
    for (int64_t b = 0; c.ok() && b < p.trees.nodes.batch; ++b) {
      p.found[b] = 0;
      if (p.trees.nodes.stopped[b] == 0) find(p, b);
    }
    return c.status();
  });
}
