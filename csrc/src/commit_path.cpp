#include "kangaroo/commit_path.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "check.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_commit_path_params;

void check_places(Check& c, const kangaroo_slot_places& places, const Params& p) {
  const int64_t batch = p.exit_states.batch;
  c.array("cache_seqlens", places.cache_seqlens, batch, 1, sizeof(int32_t));
  c.array("positions", places.positions, batch, p.reach, sizeof(int32_t));
}

void check(Check& c, const Params& p) {
  const int64_t batch = p.exit_states.batch;
  c.cpu_dtype("exit_states", p.exit_states.dtype);
  c.states("exit_states", p.exit_states);
  const kangaroo_states& h = p.exit_states;
  c.states("exit_states", h, h, h.width, h.dtype);  // nothing overlaps: it is written to
  c.within("nodes", p.nodes, 1, INT32_MAX);
  if (c.ok()) c.at_least("exit_states.nodes", p.exit_states.nodes, p.nodes + 1);
  c.within("reach", p.reach, 0, INT32_MAX);
  c.within("lag", p.lag, 0, 1);
  c.within("limit", p.limit, 0, INT32_MAX - std::max<int64_t>(p.reach, 0));
  c.array("path", p.path, batch, p.nodes, sizeof(int64_t));
  c.array("path_len", p.path_len, batch, 1, sizeof(int32_t));
  c.array("bonus", p.bonus, batch, 1, sizeof(int64_t));
  c.array("done", p.done, batch, 1, sizeof(int32_t));
  c.chain(p.chain, batch);
  c.at_least("chain.capacity", p.chain.capacity, 1);
  check_places(c, p.target, p);
  check_places(c, p.adapter, p);
  for (int64_t b = 0; c.ok() && b < batch; ++b) {
    if (p.done[b] != 0) continue;
    c.within("path_len", p.path_len[b], 1, p.nodes);
    c.within("cache_seqlens", p.target.cache_seqlens[b], 0, INT32_MAX);
    if (c.ok()) c.within("path", p.path[b * p.nodes + p.path_len[b] - 1], 0, p.nodes - 1);
  }
}

void place(const kangaroo_slot_places& places, int64_t b, int64_t reach, int32_t seqlen) {
  places.cache_seqlens[b] = seqlen;
  int32_t* const positions = places.positions + b * reach;
  std::iota(positions, positions + reach, seqlen);
}

void commit(const Params& p, int64_t b) {
  const int32_t length = p.path_len[b];
  const int64_t leaf = p.path[b * p.nodes + length - 1];
  const int64_t grown = int64_t{p.target.cache_seqlens[b]} + length;
  const auto root = static_cast<int32_t>(std::min<int64_t>(grown, p.limit));
  const Rows states = rows_of(p.exit_states);
  const int64_t first = b * p.exit_states.nodes;
  const auto row_bytes = static_cast<std::size_t>(p.exit_states.width) *
                         static_cast<std::size_t>(size_of(p.exit_states.dtype));
  std::memcpy(states.at(first), states.at(first + leaf + 1), row_bytes);
  place(p.target, b, p.reach, root);
  place(p.adapter, b, p.reach, std::max(root - p.lag, 0));
  p.chain.tokens[b * p.chain.capacity] = std::max<int64_t>(p.bonus[b], 0);
  p.chain.positions[b * p.chain.capacity] = root;
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_commit_path(const kangaroo_commit_path_params* params) {
  using namespace kangaroo;
  return entry("commit_path", params, [](const Params& p) {
    Check c("commit_path");
    check(c, p);
    for (int64_t b = 0; c.ok() && b < p.exit_states.batch; ++b) {
      if (p.done[b] == 0) commit(p, b);
    }
    return c.status();
  });
}
