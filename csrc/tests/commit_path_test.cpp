// commit_path: what a round leaves to the next, in chains and trees, with sequences that are done.
#include "kangaroo/commit_path.h"

#include <vector>

#include "testing.h"

namespace {

constexpr int64_t kBatch = 3, kNodes = 4, kRows = 6, kWidth = 5, kCapacity = 4, kReach = 7;

struct Places {
  std::vector<int32_t> seqlens;
  std::vector<int32_t> positions = std::vector<int32_t>(kBatch * kReach, -1);

  kangaroo_slot_places view() { return {seqlens.data(), positions.data()}; }
  void expect(std::size_t b, int32_t seqlen) const {
    EXPECT(seqlens[b] == seqlen);
    for (std::size_t i = 0; i < kReach; ++i) {
      EXPECT(positions[b * kReach + i] == seqlen + static_cast<int32_t>(i));
    }
  }
};

void check(kangaroo_dtype dtype, int32_t lag, int32_t limit) {
  const int64_t path[kBatch * kNodes] = {0, -1, -1, -1, 0, 2, 3, -1, 0, 1, 2, 3};
  const int32_t path_len[kBatch] = {1, 3, 0}, done[kBatch] = {0, 0, 1};  // done: unset
  const int64_t bonus[kBatch] = {-1, 9, 8};
  std::vector<int64_t> tokens(kBatch * kCapacity, 5);
  std::vector<int32_t> positions(kBatch * kCapacity, 5), counts(kBatch, 3);
  std::vector<float> threshold(kBatch);
  testing::Tensor h(dtype, kBatch * kRows * kWidth, 0.0f);
  for (int64_t i = 0; i < h.size(); ++i) h.set(i, static_cast<float>(i));
  Places target = {{0, 20, 30}}, adapter = {{0, 19, 29}};
  kangaroo_commit_path_params p = {};
  p.path = path;
  p.path_len = path_len;
  p.bonus = bonus;
  p.chain = {tokens.data(),    positions.data(), counts.data(), counts.data(),
             threshold.data(), kBatch,           kCapacity};
  p.exit_states = states_of(h, kBatch, kRows);
  p.target = target.view();
  p.adapter = adapter.view();
  p.done = done;
  p.nodes = kNodes;
  p.reach = kReach;
  p.lag = lag;
  p.limit = limit;
  EXPECT(kangaroo_commit_path(&p) == KANGAROO_OK);
  const int32_t roots[2] = {1, limit < 23 ? limit : 23};
  const int64_t leaves[2] = {0, 3};
  for (std::size_t b = 0; b < 2; ++b) {
    target.expect(b, roots[b]);
    adapter.expect(b, roots[b] - lag);
    EXPECT(tokens[b * kCapacity] == (b == 0 ? 0 : 9));
    EXPECT(positions[b * kCapacity] == roots[b] && positions[b * kCapacity + 1] == 5);
    const auto first = static_cast<int64_t>(b) * kRows * kWidth;
    for (int64_t i = 0; i < kWidth; ++i) {
      EXPECT(h.at(first + i) == static_cast<float>(first + (leaves[b] + 1) * kWidth + i));
    }
  }
  EXPECT(target.seqlens[2] == 30 && adapter.seqlens[2] == 29 && tokens[2 * kCapacity] == 5);
  EXPECT(h.at(2 * kRows * kWidth) == static_cast<float>(2 * kRows * kWidth));
}

}  // namespace

int main() {
  for (const kangaroo_dtype dtype : testing::kDtypes) {
    for (const int32_t lag : {0, 1}) {
      for (const int32_t limit : {1000, 21}) check(dtype, lag, limit);
    }
  }
  return testing::result();
}
