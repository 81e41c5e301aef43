#include "kangaroo/tree_attention.h"

#include <algorithm>

#include "isa/kernels.h"
#include "ops.h"
#include "parallel.h"

namespace kangaroo {
namespace {

using Params = kangaroo_tree_attention_params;

// Query rows of one key head: its group of query heads, node by node.
AttentionRow row_of(const Params& p, int64_t b, int64_t kv_head, int64_t row) {
  const int64_t item = size_of(p.q.dtype);
  const int64_t group = p.q.heads / p.kv.heads;
  const int64_t node = row / group;
  const int64_t head = kv_head * group + row % group;
  const auto place = [&](const kangaroo_heads& h) {
    return static_cast<char*>(h.data) +
           (b * h.batch_stride + node * h.node_stride + head * h.head_stride) * item;
  };
  AttentionRow result = {place(p.q), place(p.out), p.nodes.cache_seqlens[b], 0};
  if (p.nodes.ancestors) {
    const int64_t num_nodes = p.nodes.first_node + p.nodes.nodes;  // at most 64
    const uint64_t existing = num_nodes == 64 ? ~uint64_t{0} : (uint64_t{1} << num_nodes) - 1;
    const int64_t mask = p.nodes.ancestors[b * p.nodes.nodes + node];
    result.tree = static_cast<uint64_t>(mask) & existing;
  } else {
    result.prefix_len += p.nodes.first_node + node + 1;
  }
  return result;
}

// Query rows of a key head per task: as many as a tile holds, but with tasks for all threads where
// there are rows for them. Tiles of fewer than four rows would read keys and values too often.
int64_t rows_per_tile(const Params& p) {
  const int64_t rows = p.q.nodes * (p.q.heads / p.kv.heads);
  const int64_t wanted = 2 * std::max<int64_t>(p.num_threads, 1);
  const int64_t heads = p.q.batch * p.kv.heads;
  const int64_t tiles =
      std::max((wanted + heads - 1) / heads, (rows + kMaxAttentionRows - 1) / kMaxAttentionRows);
  return std::min<int64_t>(std::max<int64_t>((rows + tiles - 1) / tiles, 4), kMaxAttentionRows);
}

void attend_tile(const Params& p, int64_t tile_rows, int64_t tiles_per_head, int64_t task) {
  const int64_t rows = p.q.nodes * (p.q.heads / p.kv.heads);
  const int64_t first = task % tiles_per_head * tile_rows;
  const int64_t b = task / tiles_per_head / p.kv.heads;
  const int64_t head = task / tiles_per_head % p.kv.heads;
  AttentionTile tile;
  tile.num_rows = static_cast<int>(std::min(tile_rows, rows - first));
  for (int r = 0; r < tile.num_rows; ++r) tile.rows[r] = row_of(p, b, head, first + r);
  const int64_t at = (b * p.kv.batch_stride + head * p.kv.head_stride) * size_of(p.kv.dtype);
  tile.k = static_cast<const char*>(p.kv.k) + at;
  tile.v = static_cast<const char*>(p.kv.v) + at;
  tile.slot_stride = p.kv.slot_stride;
  tile.head_dim = p.kv.head_dim;
  tile.scale = p.scale;
  kernels(p.q.dtype).attend(tile);
}

}  // namespace

void check(Check& c, const Params& p) {
  c.cpu_dtype("q", p.q.dtype);
  c.within("q.heads", p.q.heads, 0, INT32_MAX);
  c.within("q.head_dim", p.q.head_dim, 0, KANGAROO_MAX_HEAD_DIM);
  c.heads("q", p.q);
  c.heads("out", p.out, p.q);
  c.kv(p.kv, p.q.batch, p.q.dtype);
  c.within("kv.head_dim", p.kv.head_dim, p.q.head_dim, p.q.head_dim);
  if (c.ok() && (p.kv.heads == 0 || p.q.heads % p.kv.heads)) {
    c.refuse("q.heads: expected a multiple of kv.heads %lld, got %lld", p.kv.heads, p.q.heads);
  }
  if (c.ok() && p.kv.slots % KANGAROO_KV_CHUNK) {
    c.refuse("kv.slots: expected a multiple of %lld, got %lld", KANGAROO_KV_CHUNK, p.kv.slots);
  }
  c.nodes(p.nodes, p.q.batch, p.q.nodes, false);
  c.threads(p.num_threads);
  c.slots(p.nodes, p.kv.slots);
}

void run(const Params& p) {
  if (p.q.batch == 0 || p.q.nodes == 0) return;
  const int64_t rows = p.q.nodes * (p.q.heads / p.kv.heads);
  const int64_t tile_rows = rows_per_tile(p);
  const int64_t tiles_per_head = (rows + tile_rows - 1) / tile_rows;
  const int32_t* lengths = p.nodes.cache_seqlens;
  const int64_t longest = *std::max_element(lengths, lengths + p.q.batch);
  const int64_t slots = longest + p.nodes.first_node + p.q.nodes;
  const int64_t work = 2 * std::min(rows, tile_rows) * slots * p.kv.head_dim;
  const int64_t tasks = p.q.batch * p.kv.heads * tiles_per_head;
  parallel_for(tasks, grain_for(tasks, work, 1, p.num_threads), p.num_threads,
               [&](int64_t begin, int64_t end) {
                 for (int64_t task = begin; task < end; ++task) {
                   attend_tile(p, tile_rows, tiles_per_head, task);
                 }
               });
}

}  // namespace kangaroo

kangaroo_status kangaroo_tree_attention(const kangaroo_tree_attention_params* params) {
  return kangaroo::checked("tree_attention", params);
}
