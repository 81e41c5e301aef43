// verify_tree on the emulator: random trees against a walk in plain C++, ties, NaN, rows that are
// not on the path, parents and tokens that lie.
#include <algorithm>

#include "arrays.h"
#include "kangaroo/cuda.h"

using testing::Array;

namespace {

struct Case {
  int64_t batch, nodes, vocab;
  int64_t gap = 0;  // elements behind every row and sequence
  int64_t offset = 0;
};

struct Trees {
  std::vector<int64_t> tokens, parents;
};

struct Verdict {
  std::vector<int64_t> path, bonus, successors;
  std::vector<int32_t> path_len;

  bool operator==(const Verdict& other) const {
    return path == other.path && bonus == other.bonus && successors == other.successors &&
           path_len == other.path_len;
  }
};

kangaroo_states view_of(const Case& c, Array& logits) {
  const int64_t row = c.vocab + c.gap;
  return {logits.data(), logits.dtype(), c.batch, c.nodes, c.vocab, row * c.nodes + c.gap, row};
}

Verdict run(const Case& c, Array logits, const Trees& trees, const int64_t* choices = nullptr) {
  const auto n = static_cast<std::size_t>(c.batch * c.nodes);
  const auto b = static_cast<std::size_t>(c.batch);
  Verdict v = {std::vector<int64_t>(n, -7), std::vector<int64_t>(b, -7),
               std::vector<int64_t>(n, -7), std::vector<int32_t>(b, -7)};
  testing::arrive_late(logits);
  kangaroo_verify_tree_params p = {};
  p.logits = view_of(c, logits);
  p.tokens = trees.tokens.data();
  p.parents = trees.parents.data();
  p.path = v.path.data();
  p.path_len = v.path_len.data();
  p.bonus = v.bonus.data();
  p.successors = v.successors.data();
  p.choices = choices;
  EXPECT(kangaroo_verify_tree_cuda(&p, nullptr) == KANGAROO_OK);
  cuda_on_cpu::synchronize();
  return v;
}

int64_t argmax(const Array& logits, int64_t first, int64_t vocab) {
  int64_t best = 0;
  for (int64_t id = 1; id < vocab && !std::isnan(logits[first + best]); ++id) {
    if (logits[first + id] > logits[first + best] || std::isnan(logits[first + id])) best = id;
  }
  return std::isfinite(logits[first + best]) ? best : -1;
}

Verdict expected(const Case& c, Array logits, const Trees& trees) {
  const kangaroo_states view = view_of(c, logits);
  Verdict v;
  for (int64_t b = 0; b < c.batch; ++b) {
    std::vector<int64_t> path = {0}, successors(static_cast<std::size_t>(c.nodes));
    const auto row = [&](int64_t node) { return b * view.batch_stride + node * view.node_stride; };
    int64_t choice = argmax(logits, row(0), c.vocab);
    successors[0] = std::max<int64_t>(choice, 0);
    for (int64_t node = 1; node < c.nodes; ++node) {
      const auto at = static_cast<std::size_t>(b * c.nodes + node);
      if (trees.parents[at] != path.back() || trees.tokens[at] != choice) continue;
      path.push_back(node);
      choice = argmax(logits, row(node), c.vocab);
      successors[static_cast<std::size_t>(node)] = std::max<int64_t>(choice, 0);
    }
    v.successors.insert(v.successors.end(), successors.begin(), successors.end());
    v.path_len.push_back(static_cast<int32_t>(path.size()));
    v.bonus.push_back(choice);
    path.resize(static_cast<std::size_t>(c.nodes), -1);
    v.path.insert(v.path.end(), path.begin(), path.end());
  }
  return v;
}

Array random_logits(const Case& c, kangaroo_dtype dtype, unsigned seed, float levels) {
  Array shape(dtype, 0);
  const int64_t count = view_of(c, shape).batch_stride * c.batch;
  testing::Floats values = testing::noise(count, seed);
  if (levels > 0) {  // few different values, so that most maxima are shared
    for (float& value : values) value = std::round(value * levels) / levels;
  }
  return Array(dtype, values, c.offset);
}

// Trees whose nodes carry the target's own choice half of the time, so that paths are long.
Trees random_trees(const Case& c, const Array& logits, unsigned seed) {
  std::mt19937 dice(seed);
  Array copy = logits;
  const kangaroo_states view = view_of(c, copy);
  Trees trees;
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t node = 0; node < c.nodes; ++node) {
      const int64_t parent = node == 0 ? -1 : static_cast<int64_t>(dice() % node);
      const int64_t row = b * view.batch_stride + std::max<int64_t>(parent, 0) * view.node_stride;
      const bool right = dice() % 2 == 0;
      trees.parents.push_back(parent);
      trees.tokens.push_back(right ? argmax(logits, row, c.vocab)
                                   : static_cast<int64_t>(dice() % c.vocab));
    }
  }
  return trees;
}

void check(const Case& c, kangaroo_dtype dtype, unsigned seed, float levels) {
  const Array logits = random_logits(c, dtype, seed, levels);
  const Trees trees = random_trees(c, logits, seed);
  EXPECT(run(c, logits, trees) == expected(c, logits, trees));
}

// One sequence, a root alone: which token is chosen.
void expect_choice(const std::vector<float>& row, int64_t choice) {
  for (const kangaroo_dtype dtype : testing::kGpuDtypes) {
    const Case c = {1, 1, static_cast<int64_t>(row.size())};
    const Verdict v = run(c, Array(dtype, row), {{5}, {-1}});
    EXPECT(v.bonus[0] == choice);
    EXPECT(v.path[0] == 0 && v.path_len[0] == 1);
  }
}

// What is not on the path may hold anything, and is not even read: it is not there.
void check_reads_the_path_alone() {
  const Case c = {1, 3, 40};
  Array logits(KANGAROO_FLOAT32, testing::noise(40, 1));
  const Verdict v = run(c, logits, {{0, -1, -1}, {-1, 0, 0}});  // a sanitizer sees rows 1 and 2
  EXPECT(v.path_len[0] == 1);
}

// Choices that were drawn: a sanitizer sees where logits are read, there is but one.
void check_choices() {
  const Case c = {2, 4, 9};
  Array logits(KANGAROO_FLOAT32, 1);
  const Trees trees = {{0, 5, 6, 7, 0, 5, 6, 7}, {-1, 0, 1, 2, -1, 0, 0, 2}};
  const std::vector<int64_t> choices = {5, 6, -1, 8, 6, 0, 7, 0};
  const Verdict expected = {{0, 1, 2, -1, 0, 2, 3, -1}, {-1, 0}, {5, 6, 0, 0, 6, 0, 7, 0}, {3, 3}};
  EXPECT(run(c, logits, trees, choices.data()) == expected);
}

void check_lies() {
  const Case c = {1, 4, 9};
  const Array logits = random_logits(c, KANGAROO_FLOAT32, 3, 0);
  const int64_t choice = argmax(logits, 0, 9);
  const Trees trees = {{0, choice, choice, choice}, {5, 7, INT64_MIN, INT64_MAX}};
  EXPECT(run(c, logits, trees) == expected(c, logits, trees));
}

void check_refusals() {
  Array logits(KANGAROO_FLOAT32, 8);
  int64_t word = 0;
  int32_t length = 0;
  kangaroo_verify_tree_params p = {};
  p.logits = kangaroo_states_of(logits.data(), KANGAROO_FLOAT32, 1, 0, 8);
  p.tokens = p.parents = &word;
  p.path = p.bonus = &word;
  p.path_len = &length;
  EXPECT_REFUSED(kangaroo_verify_tree_cuda(nullptr, nullptr), "verify_tree: params");
  EXPECT_REFUSED(kangaroo_verify_tree_cuda(&p, nullptr), "logits.nodes: expected 1 to");
  p.logits = kangaroo_states_of(logits.data(), KANGAROO_FLOAT32, 1, 1, 0);
  EXPECT_REFUSED(kangaroo_verify_tree_cuda(&p, nullptr), "logits.width: expected 1 to");
  p.logits = kangaroo_states_of(logits.data(), static_cast<kangaroo_dtype>(3), 1, 1, 8);
  EXPECT_REFUSED(kangaroo_verify_tree_cuda(&p, nullptr), "got dtype 3");
  p.logits = kangaroo_states_of(logits.data(), KANGAROO_FLOAT32, 1, 1, 8);
  p.bonus = nullptr;
  EXPECT_REFUSED(kangaroo_verify_tree_cuda(&p, nullptr), "verify_tree: bonus");
  p.bonus = &word;
  p.logits.batch = 0;
  const int launches = cuda_on_cpu::num_launches();
  EXPECT(kangaroo_verify_tree_cuda(&p, nullptr) == KANGAROO_OK);
  EXPECT(cuda_on_cpu::num_launches() == launches);
}

// Counts that lie are held within the tree: nothing in front of a sequence's rows is written.
void counts_that_lie() {
  for (const int32_t wanted : {-5, 0, 1, 9}) {
    std::vector<int64_t> tokens = {0, 0, 0}, parents = {-1, 0, 1}, path(9, -7), successors(9, -7);
    std::vector<float> logits(9);
    int64_t bonus = -7;
    int32_t path_len = -7;
    kangaroo_verify_tree_params p = {};
    p.logits = kangaroo_states_of(logits.data(), KANGAROO_FLOAT32, 1, 3, 3);
    p.tokens = tokens.data();
    p.parents = parents.data();
    p.path = path.data() + 3;
    p.path_len = &path_len;
    p.bonus = &bonus;
    p.successors = successors.data() + 3;
    p.num_nodes = &wanted;
    EXPECT(kangaroo_verify_tree_cuda(&p, nullptr) == KANGAROO_OK);
    cuda_on_cpu::synchronize();
    for (const std::size_t at : {0, 1, 2, 6, 7, 8}) {
      EXPECT(path[at] == -7 && successors[at] == -7);
    }
    EXPECT(path_len == (wanted > 1 ? 3 : 1) && bonus == 0 && successors[3] == 0);
  }
}

}  // namespace

int main() {
  const Case cases[] = {{1, 1, 1},         {2, 5, 7},          {3, 16, 64},     {1, 64, 1000},
                        {2, 7, 4099},      {1, 3, 40000},      {2, 9, 1030, 3}, {2, 9, 1024, 8},
                        {2, 9, 120, 5, 1}, {1, 4, 70001, 0, 3}};
  unsigned seed = 0;
  for (const Case& c : cases) {
    for (const kangaroo_dtype dtype : testing::kGpuDtypes) {
      check(c, dtype, ++seed, 0);
      check(c, dtype, ++seed, 1);
    }
  }
  expect_choice({-1, 3, 3, 2}, 1);
  expect_choice({-INFINITY, -INFINITY, 4}, 2);
  expect_choice({1, NAN, 5, NAN}, -1);
  expect_choice({-INFINITY, -INFINITY}, -1);
  expect_choice({-INFINITY, INFINITY, 5}, -1);
  expect_choice({-1, -0.0f, 0.0f}, 1);
  expect_choice({-1, 0.0f, -0.0f, -2}, 1);
  expect_choice({-3, -NAN, 2}, -1);
  check_reads_the_path_alone();
  check_choices();
  check_lies();
  check_refusals();
  counts_that_lie();
  return testing::result();
}
