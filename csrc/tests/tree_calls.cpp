// Calls of the ops that verify trees, keep their paths and grow them.
#include "call_parts.h"
#include "kangaroo/commit_path.h"
#include "kangaroo/copy_draft.h"
#include "kangaroo/grow_tree.h"
#include "kangaroo/verify_tree.h"

namespace testing {
namespace {

void add_seedbed(Call& c, kangaroo_seedbed& own, int64_t k) {
  constexpr int64_t kPlaces = 12;
  constexpr std::size_t kAll = kBatch * kPlaces;
  std::vector<double> paths(kAll, -1.0);
  for (const std::size_t place : {0, 1, 12, 13, 14}) paths[place] = 0.5;
  c.address(own.tokens = c.values(std::vector<int64_t>(kAll, 7)));
  c.address(own.positions = c.values(std::vector<int32_t>(kAll, 7)));
  for (const int64_t bad : {int64_t{-1}, int64_t{INT32_MAX}}) c.content(own.positions[13], bad);
  c.address(own.parents = c.values(std::vector<int64_t>(kAll, -1)));
  for (const int64_t bad : {int64_t{-2}, int64_t{1}, INT64_MAX, INT64_MIN}) {
    c.content(own.parents[13], bad);
  }
  c.address(own.ancestors = c.values(std::vector<int64_t>(kAll, 7)));
  c.address(own.paths = c.values(paths));
  c.address(own.sure = c.values(std::vector<int32_t>(kAll, 1)));
  const std::size_t behind = kAll * static_cast<std::size_t>(k);
  c.address(own.candidates = c.values(std::vector<int64_t>(behind, 7)));
  c.address(own.waiting = c.values(std::vector<double>(behind, 0.25)));
  c.size(own.places = kPlaces);
}

void add_trees(Call& c, kangaroo_draft_trees& trees) {
  add_chain(c, trees.nodes);
  const std::vector<int64_t> nodes(static_cast<std::size_t>(kBatch * trees.nodes.capacity), 7);
  c.address(trees.parents = c.values(nodes));
  c.address(trees.ancestors = c.values(nodes));
}

}  // namespace

void add_verify_tree(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "verify_tree", dtype, kangaroo_verify_tree);
  c.add(p.logits = new_states(c, kVocab), false);
  c.address(p.tokens = c.values(std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
  c.address(p.parents = c.values(std::vector<int64_t>{-1, 0, 0, -1, 0, 1}));
  c.address(p.path = c.values(std::vector<int64_t>(kRows, 7)));
  c.address(p.path_len = c.values(std::vector<int32_t>(kBatch, 7)));
  c.address(p.bonus = c.values(std::vector<int64_t>(kBatch, 7)));
  c.address(p.successors = c.values(std::vector<int64_t>(kRows, 7)), true);
  c.address(p.num_nodes = c.values(std::vector<int32_t>{kRows / kBatch, 1}), true);
  for (const int64_t bad : {int64_t{-1}, int64_t{0}, kRows / kBatch + 1}) {
    c.content(c.ints.back()[1], bad);
  }
  c.address(p.choices = c.values(std::vector<int64_t>(kRows, -1)), true);
  for (const int64_t bad : {int64_t{-2}, kVocab, INT64_MAX}) c.content(c.longs.back()[5], bad);
}

void add_commit_path(Call& c, kangaroo_dtype dtype) {
  constexpr int64_t kPath = kRows / kBatch - 1, kReach = 5;
  auto& p = params_of(c, "commit_path", dtype, kangaroo_commit_path);
  c.add(p.exit_states = new_states(c, kWidth), true);
  add_chain(c, p.chain);
  c.address(p.path = c.values(std::vector<int64_t>(kBatch * kPath, 1)));
  for (const int64_t bad : {int64_t{-1}, kPath, INT64_MAX}) c.content(c.longs.back()[1], bad);
  c.address(p.path_len = c.values(std::vector<int32_t>(kBatch, kPath)));
  for (const int64_t bad : {int64_t{0}, kPath + 1}) c.content(c.ints.back()[1], bad);
  c.address(p.bonus = c.values(std::vector<int64_t>(kBatch, 7)));
  c.address(p.done = c.values(std::vector<int32_t>(kBatch, 0)));
  for (kangaroo_slot_places* places : {&p.target, &p.adapter}) {
    c.address(places->cache_seqlens = c.values(std::vector<int32_t>(kBatch, 7)));
    c.address(places->positions = c.values(std::vector<int32_t>(kBatch * kReach, 7)));
  }
  c.size(p.nodes = kPath);
  c.size(p.reach = kReach);
  p.lag = 1;
  p.limit = 100;
}

void add_grow_tree(Call& c, kangaroo_dtype dtype) {
  constexpr int64_t kNewest = 3, kBest = 5;
  auto& p = params_of(c, "grow_tree", dtype, kangaroo_grow_tree);
  constexpr std::size_t kFound = kBatch * kNewest * kBest;
  c.address(p.tokens = c.values(std::vector<int64_t>(kFound, 7)));
  c.address(p.probabilities = c.floats(kFound));
  add_seedbed(c, p.seedbed, kBest);
  add_trees(c, p.trees);
  c.size(p.max_nodes = 4);
  c.size(p.newest = kNewest);
  c.size(p.k = kBest);
  c.size(p.first = 1);
  c.size(p.width = 6);
  c.size(p.passes_left = 10);
  p.sharpness = 1.5;
}

void add_copy_draft(Call& c, kangaroo_dtype dtype) {
  constexpr int64_t kTextSlots = 17;
  auto& p = params_of(c, "copy_draft", dtype, kangaroo_copy_draft);
  c.address(p.text = c.values(std::vector<int32_t>(kBatch * kTextSlots, 1)));
  add_trees(c, p.trees);
  c.address(p.path = c.values(std::vector<int64_t>(8, 1)));
  for (const int64_t bad : {int64_t{-1}, int64_t{4}, INT64_MAX}) c.content(c.longs.back()[2], bad);
  c.address(p.path_len = c.values(std::vector<int32_t>{3, 1}));
  for (const int64_t bad : {-1, 0, 5, INT32_MAX}) c.content(c.ints.back()[1], bad);
  c.address(p.cache_seqlens = c.values(std::vector<int32_t>{12, 0}));
  for (const int64_t bad : {int64_t{1}, kTextSlots, int64_t{INT32_MAX}}) {
    c.content(c.ints.back()[0], bad);
  }
  c.address(p.found = c.values(std::vector<int32_t>(kBatch, 7)));
  c.size(p.slots = kTextSlots);
  c.size(p.size = 6);
  c.size(p.count = 3);
}

void add_compact_kv(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "compact_kv", dtype, kangaroo_compact_kv);
  const auto caches = std::make_shared<std::vector<kangaroo_slot_cache>>();
  c.run = [caches, run = c.run](bool without) { return run(without); };
  for (const kangaroo_dtype type : {dtype, KANGAROO_FLOAT32}) {
    constexpr int64_t kCacheSlots = 16, kPlane = kBatch * kKvHeads * kCacheSlots * kHeadDim;
    caches->push_back({data_of(c.tensor(type, 2 * kPlane)), type, 2, kKvHeads, kCacheSlots,
                       kHeadDim, kPlane, kPlane / kBatch, kCacheSlots * kHeadDim, kHeadDim});
  }
  for (kangaroo_slot_cache& cache : *caches) c.add(cache);
  c.address(p.caches = caches->data());
  c.address(p.path_len = c.values(std::vector<int32_t>{4, 2}));
  c.content(c.ints.back()[1], -1);
  c.content(c.ints.back()[1], 5);
  c.address(p.cache_seqlens = c.values(std::vector<int32_t>{3, 9}));
  for (const int64_t bad : {-1, 13, INT32_MAX}) c.content(c.ints.back()[1], bad);
  c.address(p.path = c.values(std::vector<int64_t>{0, 2, 5, 6, 1, 3, -1, -1}));
  std::vector<int64_t>& path = c.longs.back();
  for (const int64_t bad : {int64_t{-1}, int64_t{5}, int64_t{13}, INT64_MAX, INT64_MIN}) {
    c.content(path[3], bad);
  }
  for (const int64_t bad : {int64_t{-1}, int64_t{2}, INT64_MAX}) c.content(path[0], bad);
  c.size(p.num_caches = 2, true);
  c.size(p.batch = kBatch);
  c.size(p.path_stride = 4);
}

}  // namespace testing
