// grow_tree: trees by hand, pass by pass, with ties, with nothing sure, in a batch; what is
// refused.
#include "kangaroo/grow_tree.h"

#include <tuple>
#include <vector>

#include "testing.h"

namespace {

using Tokens = std::vector<int64_t>;
using Positions = std::vector<int32_t>;
using Numbers = std::vector<double>;

constexpr int64_t kTop = 2, kPlaces = 5;

struct Pass {
  int64_t first, newest, width, passes_left;
};

// Trees whose roots are token 9 at position 20, in memory that holds anything.
struct Trees {
  Trees(int64_t trees, int64_t nodes, float confidence)
      : batch(trees),
        capacity(nodes),
        seeds(places(), 5),
        from(places(), 5),
        seen(places(), 5),
        candidates(places() * kTop, 5),
        where(places(), 5),
        sure(places(), 5),
        paths(places(), 0.5),
        waiting(places() * kTop, 0.5),
        tokens(num_nodes(), 9),
        parents(num_nodes(), 5),
        ancestors(num_nodes(), 5),
        positions(num_nodes(), 20),
        counts(std::size_t(batch), 5),
        stopped(std::size_t(batch), 0),
        threshold(std::size_t(batch), confidence) {}

  std::size_t places() const { return std::size_t(batch * kPlaces); }
  std::size_t num_nodes() const { return std::size_t(batch * capacity); }

  kangaroo_grow_tree_params params(const Pass& pass, const Tokens& found,
                                   const std::vector<float>& probabilities) {
    kangaroo_grow_tree_params p = {};
    p.tokens = found.data();
    p.probabilities = probabilities.data();
    p.seedbed = {seeds.data(), where.data(),      from.data(),    seen.data(), paths.data(),
                 sure.data(),  candidates.data(), waiting.data(), kPlaces};
    p.trees.nodes = {tokens.data(),  positions.data(), counts.data(),
                     stopped.data(), threshold.data(), batch,
                     capacity};
    p.trees.parents = parents.data();
    p.trees.ancestors = ancestors.data();
    p.max_nodes = capacity;
    p.newest = pass.newest;
    p.k = kTop;
    p.first = pass.first;
    p.width = pass.width;
    p.passes_left = pass.passes_left;
    p.sharpness = 1.0;
    return p;
  }
  void grow(const Pass& pass, const Tokens& found, const std::vector<float>& probabilities) {
    const auto p = params(pass, found, probabilities);
    EXPECT(kangaroo_grow_tree(&p) == KANGAROO_OK);
  }

  auto all() const {
    return std::tie(seeds, from, seen, candidates, where, sure, paths, waiting, tokens, parents,
                    ancestors, positions, counts, stopped);
  }

  int64_t batch, capacity;
  Tokens seeds, from, seen, candidates;
  Positions where, sure;
  Numbers paths, waiting;
  Tokens tokens, parents, ancestors;
  Positions positions, counts, stopped;
  std::vector<float> threshold;
};

// Values [at, at + count) of `whole`.
template <class T>
std::vector<T> part(const std::vector<T>& whole, std::size_t at, std::size_t count) {
  const auto begin = whole.begin() + static_cast<std::ptrdiff_t>(at);
  return std::vector<T>(begin, begin + static_cast<std::ptrdiff_t>(count));
}

// The first tree, finished, of `count` nodes.
void expect_tree(const Trees& t, int32_t count, const Tokens& tokens, const Tokens& parents,
                 const Tokens& ancestors, const Positions& positions) {
  const auto n = std::size_t(t.capacity);
  EXPECT(t.counts[0] == count && t.stopped[0] == 1);
  EXPECT(part(t.tokens, 0, n) == tokens);
  EXPECT(part(t.parents, 0, n) == parents);
  EXPECT(part(t.ancestors, 0, n) == ancestors);
  EXPECT(part(t.positions, 0, n) == positions);
}

// An inner pass with a place too many, one where a better rank wins a tie, and the last, where an
// older place wins it.
void check_passes() {
  Trees t(1, 6, 0.5f);
  t.grow({0, 1, 2, 3}, {10, 11}, {0.75f, 0.25f});
  EXPECT(part(t.seeds, 0, 4) == (Tokens{9, 10, 0, 5}));
  EXPECT(part(t.where, 0, 4) == (Positions{20, 21, 20, 5}));
  EXPECT(part(t.from, 0, 4) == (Tokens{-1, 0, -1, 5}));
  EXPECT(part(t.seen, 0, 4) == (Tokens{1, 3, 4, 5}));
  EXPECT(part(t.paths, 0, 4) == (Numbers{1.0, 0.75, -1.0, 0.5}));
  EXPECT(part(t.waiting, 0, 3) == (Numbers{-1.0, 0.25, 0.5}));
  EXPECT(part(t.candidates, 0, 3) == (Tokens{10, 11, 5}));
  EXPECT(t.sure[0] == 1 && t.stopped[0] == 0 && t.counts[0] == 5 && t.tokens[1] == 9);

  t.grow({1, 2, 1, 2}, {12, 13, 90, 91}, {0.5f, 0.5f, 0.25f, 0.25f});
  EXPECT(part(t.seeds, 0, 5) == (Tokens{9, 10, 0, 12, 5}));
  EXPECT(part(t.where, 0, 5) == (Positions{20, 21, 20, 22, 5}));
  EXPECT(part(t.from, 0, 5) == (Tokens{-1, 0, -1, 1, 5}));
  EXPECT(part(t.seen, 0, 5) == (Tokens{1, 3, 4, 11, 5}));
  EXPECT(part(t.paths, 0, 4) == (Numbers{1.0, 0.75, -1.0, 0.375}));
  EXPECT(part(t.waiting, 0, 6) == (Numbers{-1.0, 0.25, -1.0, 0.375, -1.0, -1.0}));
  EXPECT(part(t.candidates, 2, 4) == (Tokens{12, 13, 90, 91}));
  EXPECT(part(t.sure, 0, 4) == (Positions{1, 1, 0, 5}) && t.stopped[0] == 0);

  t.grow({3, 1, 0, 1}, {14, 15}, {1.0f, 0.0f});
  expect_tree(t, 6, {9, 10, 12, 13, 14, 11}, {-1, 0, 1, 1, 2, 0}, {1, 3, 7, 11, 23, 33},
              {20, 21, 22, 22, 23, 21});
}

void check_one_node_left() {
  Trees t(1, 2, 0.0f);
  t.grow({0, 1, 1, 5}, {10, 11}, {0.75f, 0.25f});
  expect_tree(t, 2, {9, 10}, {-1, 0}, {1, 3}, {20, 21});
  Trees root(1, 1, 0.0f);
  root.grow({0, 1, 1, 5}, {10, 11}, {0.75f, 0.25f});
  expect_tree(root, 1, {9}, {-1}, {1}, {20});
}

// Leaves, then padding; the mask of the last node that a tree can have is negative.
void check_none_sure() {
  Trees t(1, 4, 0.8f);
  t.grow({0, 1, 2, 3}, {10, 11}, {0.75f, 0.25f});
  expect_tree(t, 3, {9, 10, 11, 0}, {-1, 0, 0, -1}, {1, 3, 5, 8}, {20, 21, 21, 20});
  Trees whole(1, KANGAROO_MAX_TREE_NODES, 0.8f);
  whole.grow({0, 1, 2, 3}, {10, 11}, {0.75f, 0.25f});
  EXPECT(whole.counts[0] == 3 && whole.ancestors.back() == INT64_MIN);
  Trees empty(1, 2, 0.0f);
  empty.paths.assign(empty.places(), -1.0);
  empty.grow({1, 1, 1, 2}, {10, 11}, {0.75f, 0.25f});
  expect_tree(empty, 0, {0, 0}, {-1, -1}, {1, 2}, {5, 5});
}

// What waits behind a sure node is no inner node where enough is more probable, be it unsure.
void check_improbable_waits() {
  Trees t(1, 4, 0.6f);
  t.grow({0, 1, 1, 3}, {10, 11}, {0.75f, 0.25f});
  t.grow({1, 1, 1, 2}, {12, 13}, {0.5f, 0.0f});
  expect_tree(t, 4, {9, 10, 12, 11}, {-1, 0, 1, 0}, {1, 3, 7, 9}, {20, 21, 22, 21});
}

// What has become a node waits no more.
void check_width() {
  Trees t(1, 20, 0.5f);
  t.grow({0, 1, 1, 2}, {10, 11}, {0.75f, 0.25f});  // its share would be five
  EXPECT(part(t.paths, 0, 3) == (Numbers{1.0, 0.75, 0.5}));
  EXPECT(part(t.waiting, 0, 2) == (Numbers{-1.0, 0.25}) && t.stopped[0] == 0);
  t.grow({1, 1, 0, 1}, {12, 13}, {0.5f, 0.5f});
  EXPECT(t.counts[0] == 5 && part(t.tokens, 0, 6) == (Tokens{9, 10, 12, 13, 11, 0}));
}

void check_probabilities() {
  Trees sharp(1, 4, 0.0f);
  const Tokens found = {10, 11};
  const std::vector<float> unequal = {0.5f, 0.25f};
  auto p = sharp.params({0, 1, 0, 1}, found, unequal);
  p.sharpness = 2.0;
  EXPECT(kangaroo_grow_tree(&p) == KANGAROO_OK);
  EXPECT(part(sharp.waiting, 0, 2) == (Numbers{0.25 / 0.3125, 0.0625 / 0.3125}));
  Trees odd(1, 4, 0.0f);  // no number is not sure, and shares nothing
  odd.grow({0, 1, 1, 2}, {10, 11}, {NAN, 0.25f});
  EXPECT(part(odd.waiting, 0, 2) == (Numbers{0.0, 1.0}) && odd.sure[0] == 0);
  expect_tree(odd, 3, {9, 11, 10, 0}, {-1, 0, 0, -1}, {1, 3, 5, 8}, {20, 21, 21, 20});
  Trees none(1, 3, 0.0f);
  none.grow({0, 1, 0, 1}, {10, 11}, {0.0f, -0.25f});
  EXPECT(part(none.waiting, 0, 2) == (Numbers{0.0, 0.0}) && none.counts[0] == 3);
}

// One tree grows, one ends, one had stopped.
void check_batch() {
  Trees t(3, 4, 0.5f);
  t.threshold[1] = 0.8f;
  t.stopped[2] = 7;
  t.positions[8] = -1;  // nobody looks at it
  t.grow({0, 1, 1, 3}, {10, 11, 12, 13, 14, 15}, {0.75f, 0.25f, 0.75f, 0.25f, 0.75f, 0.25f});
  EXPECT(t.stopped == (Positions{0, 1, 7}) && t.counts == (Positions{5, 3, 5}));
  EXPECT(part(t.seeds, 0, 2) == (Tokens{9, 10}) && t.tokens[1] == 9);
  EXPECT(part(t.tokens, 4, 4) == (Tokens{9, 12, 13, 0}));
  EXPECT(part(t.parents, 4, 4) == (Tokens{-1, 0, 0, -1}));
  const Trees before(3, 4, 0.5f);
  EXPECT(part(t.seeds, 10, 5) == part(before.seeds, 10, 5));
  EXPECT(part(t.candidates, 20, 10) == part(before.candidates, 20, 10));
  EXPECT(part(t.waiting, 20, 10) == part(before.waiting, 20, 10));
  EXPECT(part(t.paths, 10, 5) == part(before.paths, 10, 5));
  EXPECT(part(t.tokens, 8, 4) == part(before.tokens, 8, 4));
  EXPECT(part(t.ancestors, 8, 4) == part(before.ancestors, 8, 4));
}

// `spoil` changes the second of two trees, or the call; the first is not written either.
template <class Spoil>
void expect_refused(const char* what, const Spoil& spoil) {
  Trees t(2, 3, 0.5f);
  const Tokens found(2 * kPlaces * KANGAROO_MAX_K, 10);
  const std::vector<float> probabilities(found.size(), 0.5f);
  t.grow({0, 1, 1, 3}, found, probabilities);
  auto p = t.params({1, 1, 1, 2}, found, probabilities);
  spoil(t, p);
  const Trees before = t;
  EXPECT(kangaroo_grow_tree(&p) == KANGAROO_INVALID_ARGUMENT);
  EXPECT(std::string(kangaroo_last_error()).find(what) != std::string::npos);
  EXPECT(t.all() == before.all());
}

void check_refusals() {
  using Params = kangaroo_grow_tree_params;
  const auto refuse = [](const char* what, auto Params::* field, auto value) {
    expect_refused(what, [=](Trees&, Params& p) { p.*field = value; });
  };
  for (const double bad : {0.0, -1.0, double{NAN}, double{INFINITY}}) {
    refuse("sharpness: expected a finite number above 0", &Params::sharpness, bad);
  }
  refuse("first: expected 0 to 4, got 5", &Params::first, 5);
  refuse("width: expected 0 to 3, got 4", &Params::width, 4);
  refuse("newest nodes: expected 1 to 5, got 0", &Params::newest, 0);
  refuse("passes_left: expected 1 to 64, got 0", &Params::passes_left, 0);
  refuse("k: expected 1 to 16, got 17", &Params::k, 17);
  expect_refused("newest nodes: expected 1 to 1, got 2",
                 [](Trees&, Params& p) { p.first = 0, p.newest = 2; });
  expect_refused("chain.capacity: expected 1 to 64, got 65",
                 [](Trees&, Params& p) { p.trees.nodes.capacity = 65; });
  expect_refused("seedbed.places: expected 1 to 64, got 65",
                 [](Trees&, Params& p) { p.seedbed.places = 65; });
  expect_refused("seedbed.parents: expected -1 to 0, got 1",
                 [](Trees& t, Params&) { t.from[kPlaces + 1] = 1; });
  expect_refused("seedbed.positions", [](Trees& t, Params&) { t.where[kPlaces + 1] = INT32_MAX; });
  expect_refused("seedbed.positions", [](Trees& t, Params&) {
    t.where[kPlaces] = -1;
    t.paths[kPlaces] = -1.0;  // padding stands there
  });
  expect_refused("chain.positions", [](Trees& t, Params& p) {
    p.first = 0;
    t.positions[3] = -1;
  });
  expect_refused("seedbed.paths: expected at most 3 nodes, got 4", [](Trees& t, Params& p) {
    p.newest = 3, p.width = 0;  // places 2 and 3 hold anything
    for (const std::size_t b : {0, 1}) {
      for (const std::size_t place : {2, 3}) t.from[b * kPlaces + place] = 0;
      t.paths[b * kPlaces + 3] = b == 0 ? -1.0 : 0.5;
    }
  });
}

}  // namespace

int main() {
  check_passes();
  check_one_node_left();
  check_none_sure();
  check_improbable_waits();
  check_width();
  check_probabilities();
  check_batch();
  check_refusals();
  return testing::result();
}
