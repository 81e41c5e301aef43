#include "kangaroo/grow_tree.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "check.h"

namespace kangaroo {
namespace {

using Params = kangaroo_grow_tree_params;

constexpr int64_t kMaxPlaces = KANGAROO_MAX_TREE_NODES;
constexpr int64_t kMaxWaiting = kMaxPlaces * KANGAROO_MAX_K;

struct Candidate {
  double probability;
  int64_t place;  // of its parent
  int64_t rank;
};

// A total order: sorting needs no stability.
bool before(const Candidate& a, const Candidate& b) {
  if (a.probability != b.probability) return a.probability > b.probability;
  return a.place != b.place ? a.place < b.place : a.rank < b.rank;
}

struct Waiting {
  Candidate items[kMaxWaiting];
  int64_t count = 0;
};

// The mask of a node alone.
int64_t bit(int64_t node) { return static_cast<int64_t>(uint64_t{1} << node); }

// One sequence's rows of seedbed and tree.
struct Tree {
  kangaroo_seedbed own;
  kangaroo_draft_trees out;

  Tree(const Params& p, int64_t b) : own(p.seedbed), out(p.trees) {
    const int64_t place = b * own.places, node = b * out.nodes.capacity;
    own.tokens += place;
    own.positions += place;
    own.parents += place;
    own.ancestors += place;
    own.paths += place;
    own.sure += place;
    own.candidates += place * p.k;
    own.waiting += place * p.k;
    out.nodes.tokens += node;
    out.nodes.positions += node;
    out.nodes.num_nodes += b;
    out.nodes.stopped += b;
    out.nodes.threshold += b;
    out.parents += node;
    out.ancestors += node;
  }
};

void check_arrays(Check& c, const Params& p) {
  const int64_t batch = p.trees.nodes.batch;
  const kangaroo_seedbed& own = p.seedbed;
  c.array("tokens", p.tokens, batch, p.newest * p.k, sizeof(int64_t));
  c.array("probabilities", p.probabilities, batch, p.newest * p.k, sizeof(float));
  c.array("seedbed.tokens", own.tokens, batch, own.places, sizeof(int64_t));
  c.array("seedbed.positions", own.positions, batch, own.places, sizeof(int32_t));
  c.array("seedbed.parents", own.parents, batch, own.places, sizeof(int64_t));
  c.array("seedbed.ancestors", own.ancestors, batch, own.places, sizeof(int64_t));
  c.array("seedbed.paths", own.paths, batch, own.places, sizeof(double));
  c.array("seedbed.sure", own.sure, batch, own.places, sizeof(int32_t));
  c.array("seedbed.candidates", own.candidates, batch, own.places * p.k, sizeof(int64_t));
  c.array("seedbed.waiting", own.waiting, batch, own.places * p.k, sizeof(double));
  c.trees(p.trees, batch);
}

// The deepest node of a tree stands less than kMaxPlaces behind its root.
void check_position(Check& c, const char* name, int32_t position) {
  c.within(name, position, 0, INT32_MAX - kMaxPlaces);
}

// What is read of one sequence whose tree grows.
void check_tree(Check& c, const Params& p, int64_t b) {
  const Tree tree(p, b);
  if (*tree.out.nodes.stopped != 0) return;
  if (p.first == 0) return check_position(c, "chain.positions", *tree.out.nodes.positions);
  check_position(c, "seedbed.positions", tree.own.positions[0]);
  int64_t taken = 0;
  for (int64_t place = 0; place < p.first + p.newest; ++place) {
    if (!(tree.own.paths[place] >= 0.0)) continue;
    ++taken;
    c.within("seedbed.parents", tree.own.parents[place], -1, place - 1);
    check_position(c, "seedbed.positions", tree.own.positions[place]);
  }
  if (taken > p.max_nodes) {
    c.refuse("seedbed.paths: expected at most %lld nodes, got %lld", p.max_nodes, taken);
  }
}

void check(Check& c, const Params& p) {
  c.within("k", p.k, 1, KANGAROO_MAX_K);
  c.within("seedbed.places", p.seedbed.places, 1, kMaxPlaces);
  c.within("newest nodes", p.newest, 1, p.first == 0 ? 1 : p.seedbed.places);
  if (!c.ok()) return;
  c.within("first", p.first, 0, p.seedbed.places - p.newest);
  if (!c.ok()) return;
  c.within("width", p.width, 0, p.seedbed.places - p.newest - p.first);
  c.within("passes_left", p.passes_left, 1, kMaxPlaces);
  c.positive("sharpness", p.sharpness);
  check_arrays(c, p);
  c.within("max_nodes", p.max_nodes, 1, p.trees.nodes.capacity);
  for (int64_t b = 0; c.ok() && b < p.trees.nodes.batch; ++b) check_tree(c, p, b);
}

void plant(const Tree& tree) {
  const kangaroo_seedbed& own = tree.own;
  own.tokens[0] = tree.out.nodes.tokens[0];
  own.positions[0] = tree.out.nodes.positions[0];
  own.parents[0] = -1;
  own.ancestors[0] = bit(0);
  own.paths[0] = 1.0;
}

// Tokens [k] behind the newest node at `place`, with their probabilities.
void offer(const Params& p, const Tree& tree, int64_t place, const int64_t* tokens,
           const float* probabilities) {
  double weights[KANGAROO_MAX_K];
  double total = 0.0;
  for (int64_t rank = 0; rank < p.k; ++rank) {
    const double probability = probabilities[rank];
    weights[rank] = probability > 0.0 ? std::pow(probability, p.sharpness) : 0.0;
    total += weights[rank];
  }
  const double path = tree.own.paths[place];
  double* const waiting = tree.own.waiting + place * p.k;
  for (int64_t rank = 0; rank < p.k; ++rank) {
    const double share = total != 0.0 ? weights[rank] / total : 0.0;
    waiting[rank] = path < 0.0 ? -1.0 : path * share;
  }
  std::copy(tokens, tokens + p.k, tree.own.candidates + place * p.k);
  tree.own.sure[place] = probabilities[0] >= *tree.out.nodes.threshold;
}

// The `most` most probable of the first `count` move to the front; returns how many there are.
int64_t best_of(Candidate* items, int64_t count, int64_t most) {
  most = std::min(most, count);
  std::partial_sort(items, items + most, items + count, before);
  return most;
}

// The least of the max_nodes - 1 most probable paths known, or of all where there are fewer.
double least_of(const Params& p, const Tree& tree, const int64_t* places, int64_t taken,
                const Waiting& waiting) {
  double known[kMaxPlaces + kMaxWaiting];
  int64_t count = 0;
  for (int64_t i = 0; i < taken; ++i) known[count++] = tree.own.paths[places[i]];
  for (int64_t i = 0; i < waiting.count; ++i) known[count++] = waiting.items[i].probability;
  const int64_t last = std::min(p.max_nodes - 1, count) - 1;
  std::nth_element(known, known + last, known + count, std::greater<double>());
  return known[last];
}

// Inner nodes; what is left of their places is empty.
void add(const Params& p, const Tree& tree, const Candidate* chosen, int64_t count) {
  const kangaroo_seedbed& own = tree.own;
  for (int64_t n = 0; n < p.width; ++n) {
    const int64_t place = p.first + p.newest + n;
    own.tokens[place] = 0;
    own.positions[place] = own.positions[0];
    own.parents[place] = -1;
    own.ancestors[place] = bit(place);
    own.paths[place] = -1.0;
    if (n >= count) continue;
    const Candidate& c = chosen[n];
    own.tokens[place] = own.candidates[c.place * p.k + c.rank];
    own.positions[place] = own.positions[c.place] + 1;
    own.parents[place] = c.place;
    own.ancestors[place] |= own.ancestors[c.place];
    own.paths[place] = c.probability;
    own.waiting[c.place * p.k + c.rank] = -1.0;
  }
}

// Inner nodes of the places that are taken, in their order, then leaves, then padding.
void finish(const Params& p, const Tree& tree, const int64_t* places, int64_t taken,
            const Candidate* leaves, int64_t count) {
  const kangaroo_seedbed& own = tree.own;
  const kangaroo_draft_trees& out = tree.out;
  int64_t node_of[kMaxPlaces];
  std::fill_n(node_of, kMaxPlaces, -1);
  for (int64_t node = 0; node < taken; ++node) node_of[places[node]] = node;
  for (int64_t node = 0; node < out.nodes.capacity; ++node) {
    int64_t token = 0, place = -1;
    if (node < taken) {
      token = own.tokens[places[node]];
      place = own.parents[places[node]];
    } else if (node < taken + count) {
      const Candidate& leaf = leaves[node - taken];
      token = own.candidates[leaf.place * p.k + leaf.rank];
      place = leaf.place;
    }
    const int64_t parent = place < 0 ? -1 : node_of[place];
    out.nodes.tokens[node] = token;
    out.nodes.positions[node] = parent < 0 ? own.positions[0] : out.nodes.positions[parent] + 1;
    out.parents[node] = parent;
    out.ancestors[node] = bit(node) | (parent < 0 ? 0 : out.ancestors[parent]);
  }
  *out.nodes.num_nodes = static_cast<int32_t>(taken + count);
  *out.nodes.stopped = 1;
}

void grow(const Params& p, int64_t b) {
  const Tree tree(p, b);
  const kangaroo_seedbed& own = tree.own;
  if (*tree.out.nodes.stopped != 0) return;
  if (p.first == 0) plant(tree);
  for (int64_t i = 0; i < p.newest; ++i) {
    const int64_t row = (b * p.newest + i) * p.k;
    offer(p, tree, p.first + i, p.tokens + row, p.probabilities + row);
  }
  int64_t places[kMaxPlaces], taken = 0;
  Waiting all;
  for (int64_t place = 0; place < p.first + p.newest; ++place) {
    if (!(own.paths[place] >= 0.0)) continue;
    places[taken++] = place;
    for (int64_t rank = 0; rank < p.k; ++rank) {
      const double probability = own.waiting[place * p.k + rank];
      if (probability >= 0.0) all.items[all.count++] = {probability, place, rank};
    }
  }
  const int64_t nodes_left = p.max_nodes - taken;
  int64_t inner = 0;
  if (p.passes_left > 1 && nodes_left > 1 && all.count > 0) {
    const double least = least_of(p, tree, places, taken, all);
    const auto grows = [&](const Candidate& c) {
      return own.sure[c.place] != 0 && c.probability >= least;
    };
    inner = std::partition(all.items, all.items + all.count, grows) - all.items;
  }
  if (inner == 0) {
    const int64_t leaves = best_of(all.items, all.count, nodes_left);
    return finish(p, tree, places, taken, all.items, leaves);
  }
  const int64_t shares = 2 * p.passes_left;
  add(p, tree, all.items, best_of(all.items, inner, (nodes_left + shares - 1) / shares));
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_grow_tree(const kangaroo_grow_tree_params* params) {
  using namespace kangaroo;
  return entry("grow_tree", params, [](const Params& p) {
    Check c("grow_tree");
    check(c, p);
    for (int64_t b = 0; c.ok() && b < p.trees.nodes.batch; ++b) grow(p, b);
    return c.status();
  });
}
