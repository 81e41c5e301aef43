// verify_tree: the walk along the target's own choices, in a tree, a chain and a batch.
#include "kangaroo/verify_tree.h"

#include "testing.h"

namespace {

constexpr int64_t kBatch = 2, kNodes = 5, kVocab = 40;

void check(kangaroo_dtype dtype) {
  // Sequence 0 branches at the root, 0 -> {1, 2}, 2 -> 3 -> 4; sequence 1 is a chain.
  const int64_t parents[kBatch * kNodes] = {-1, 0, 0, 2, 3, -1, 0, 1, 2, 3};
  const int64_t tokens[kBatch * kNodes] = {7, 1, 32, 3, 4, 7, 1, 2, 3, 4};
  const int64_t choices[kBatch * kNodes] = {32, 5, 3, 36, 0, 3, 2, 3, 4, 5};
  testing::Tensor rows(dtype, kBatch * kNodes * kVocab, -1.0f);
  for (int64_t node = 0; node < kBatch * kNodes; ++node) {
    rows.set(node * kVocab + choices[node], 1.0f);
    rows.set(node * kVocab + kVocab - 1, 1.0f);  // a tie, which goes to the lower id
  }
  const testing::Spread logits = testing::spread(rows, kBatch, kNodes);
  int64_t path[kBatch * kNodes];
  int32_t path_len[kBatch];
  int64_t bonus[kBatch];
  kangaroo_verify_tree_params p = {};
  p.logits = logits.view;
  p.tokens = tokens;
  p.parents = parents;
  p.path = path;
  p.path_len = path_len;
  p.bonus = bonus;
  int64_t successors[kBatch * kNodes];
  p.successors = successors;
  EXPECT(kangaroo_verify_tree(&p) == KANGAROO_OK);
  EXPECT(path_len[0] == 3 && bonus[0] == 36);
  EXPECT(path_len[1] == 1 && bonus[1] == 3);
  const int64_t expected[kBatch * kNodes] = {0, 2, 3, -1, -1, 0, -1, -1, -1, -1};
  EXPECT(std::memcmp(path, expected, sizeof expected) == 0);
  int64_t next[kBatch * kNodes] = {32, 0, 3, 36, 0, 3, 0, 0, 0, 0};
  EXPECT(std::memcmp(successors, next, sizeof next) == 0);
  next[3] = 0;

  // Choices that were made elsewhere, with an end of the path that no draft follows.
  int64_t drawn[kBatch * kNodes] = {32, 5, 3, -1, 0, 1, -1, 3, 4, 5};
  p.choices = drawn;
  EXPECT(kangaroo_verify_tree(&p) == KANGAROO_OK);
  EXPECT(path_len[0] == 3 && bonus[0] == -1);
  EXPECT(path_len[1] == 2 && bonus[1] == -1);
  const int64_t walked[kBatch * kNodes] = {0, 2, 3, -1, -1, 0, 1, -1, -1, -1};
  EXPECT(std::memcmp(path, walked, sizeof walked) == 0);
  const int64_t followed[kBatch * kNodes] = {32, 0, 3, 0, 0, 1, 0, 0, 0, 0};
  EXPECT(std::memcmp(successors, followed, sizeof followed) == 0);
  for (const int64_t bad : {int64_t{-2}, kVocab}) {
    drawn[9] = bad;
    EXPECT(kangaroo_verify_tree(&p) == KANGAROO_INVALID_ARGUMENT);
  }
  p.choices = nullptr;

  // A draft that no number chose is no one's choice; what is in front of it stands.
  for (const float odd : {NAN, INFINITY, -INFINITY}) {
    for (int64_t id = 0; id < kVocab; ++id) rows.set(3 * kVocab + id, -INFINITY);
    rows.set(3 * kVocab + tokens[4], odd);
    for (int64_t id = 0; id < kVocab; ++id) rows.set(7 * kVocab + id, odd);
    const testing::Spread odd_logits = testing::spread(rows, kBatch, kNodes);
    p.logits = odd_logits.view;
    EXPECT(kangaroo_verify_tree(&p) == KANGAROO_OK);
    EXPECT(path_len[0] == 3 && bonus[0] == -1);
    EXPECT(path_len[1] == 1 && bonus[1] == 3);  // not on its path
    EXPECT(std::memcmp(path, expected, sizeof expected) == 0);
    EXPECT(std::memcmp(successors, next, sizeof next) == 0);
  }
}

}  // namespace

int main() {
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) check(dtype);
  });
  return testing::result();
}
