#include "kangaroo/tree_attention.h"

#include <algorithm>

#include "error.h"
#include "isa/kernels.h"
#include "parallel.h"

namespace kangaroo {
namespace {

using Params = kangaroo_tree_attention_params;

kangaroo_status check_params(const Params& p) {
  const int64_t queries = p.batch * p.num_nodes * p.q_heads * p.head_dim;
  const int64_t cached = p.batch * p.kv_heads * p.num_slots * p.head_dim;
  const kangaroo_status status = check("tree_attention",
                                       {{"batch", p.batch},
                                        {"num_nodes", p.num_nodes},
                                        {"q_heads", p.q_heads},
                                        {"kv_heads", p.kv_heads},
                                        {"head_dim", p.head_dim},
                                        {"num_slots", p.num_slots},
                                        {"first_node", p.first_node}},
                                       {{"q", p.q, queries},
                                        {"k_cache", p.k_cache, cached},
                                        {"v_cache", p.v_cache, cached},
                                        {"out", p.out, queries},
                                        {"cache_seqlens", p.cache_seqlens, p.batch}});
  if (status != KANGAROO_OK) return status;
  if (p.head_dim > KANGAROO_MAX_HEAD_DIM) {
    return invalid("tree_attention: head_dim: expected at most %d, got %lld", KANGAROO_MAX_HEAD_DIM,
                   static_cast<long long>(p.head_dim));
  }
  if (p.kv_heads == 0 || p.q_heads % p.kv_heads) {
    return invalid("tree_attention: q_heads: expected a multiple of kv_heads %lld, got %lld",
                   static_cast<long long>(p.kv_heads), static_cast<long long>(p.q_heads));
  }
  if (p.num_slots % KANGAROO_KV_CHUNK) {
    return invalid("tree_attention: num_slots: expected a multiple of %d, got %lld",
                   KANGAROO_KV_CHUNK, static_cast<long long>(p.num_slots));
  }
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t end = p.cache_seqlens[b] + p.first_node + p.num_nodes;
    if (p.cache_seqlens[b] < 0 || end > p.num_slots) {
      return invalid(
          "tree_attention: cache_seqlens[%lld]: expected nodes in slots [0, %lld), got [%lld, "
          "%lld)",
          static_cast<long long>(b), static_cast<long long>(p.num_slots),
          static_cast<long long>(p.cache_seqlens[b] + p.first_node), static_cast<long long>(end));
    }
  }
  return KANGAROO_OK;
}

// Query rows of one key head: its group of query heads, node by node.
AttentionRow row_of(const Params& p, int64_t b, int64_t kv_head, int64_t row) {
  const int64_t group = p.q_heads / p.kv_heads;
  const int64_t node = row / group;
  const int64_t head = kv_head * group + row % group;
  const int64_t at = ((b * p.num_nodes + node) * p.q_heads + head) * p.head_dim;
  AttentionRow result = {p.q + at, p.out + at, p.cache_seqlens[b], 0};
  if (p.ancestors) {
    const int64_t num_nodes = std::min<int64_t>(p.first_node + p.num_nodes, 64);
    const uint64_t existing = num_nodes == 64 ? ~uint64_t{0} : (uint64_t{1} << num_nodes) - 1;
    result.tree = static_cast<uint64_t>(p.ancestors[b * p.num_nodes + node]) & existing;
  } else {
    result.prefix_len += p.first_node + node + 1;
  }
  return result;
}

void attend_tile(const Params& p, int64_t tiles_per_head, int64_t task) {
  const int64_t rows = p.num_nodes * (p.q_heads / p.kv_heads);
  const int64_t first = task % tiles_per_head * kMaxAttentionRows;
  const int64_t head = task / tiles_per_head;  // over batch and key heads
  AttentionTile tile = {};
  tile.num_rows = static_cast<int>(std::min<int64_t>(kMaxAttentionRows, rows - first));
  for (int r = 0; r < tile.num_rows; ++r) {
    tile.rows[r] = row_of(p, head / p.kv_heads, head % p.kv_heads, first + r);
  }
  tile.k = p.k_cache + head * p.num_slots * p.head_dim;
  tile.v = p.v_cache + head * p.num_slots * p.head_dim;
  tile.head_dim = p.head_dim;
  tile.scale = p.scale;
  kernels().attend(tile);
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_tree_attention(const kangaroo_tree_attention_params* params) {
  using namespace kangaroo;
  const Params& p = *params;
  const kangaroo_status status = check_params(p);
  if (status != KANGAROO_OK || p.batch == 0) return status;
  const int64_t rows = p.num_nodes * (p.q_heads / p.kv_heads);
  const int64_t tiles_per_head = (rows + kMaxAttentionRows - 1) / kMaxAttentionRows;
  const int64_t longest = *std::max_element(p.cache_seqlens, p.cache_seqlens + p.batch);
  const int64_t slots = longest + p.first_node + p.num_nodes;
  const int64_t work = 2 * std::min<int64_t>(rows, kMaxAttentionRows) * slots * p.head_dim;
  const int64_t tasks = p.batch * p.kv_heads * tiles_per_head;
  parallel_for(tasks, grain_for(tasks, work, 1, p.num_threads), p.num_threads,
               [&](int64_t begin, int64_t end) {
                 for (int64_t task = begin; task < end; ++task) {
                   attend_tile(p, tiles_per_head, task);
                 }
               });
  return KANGAROO_OK;
}
