// top1_confidence against a double loop; ties; the same bits for every number of rows and threads.
#include "kangaroo/top1_confidence.h"

#include <algorithm>

#include "testing.h"

using testing::Floats;
using testing::noise;

namespace {

struct Top1 {
  std::vector<int64_t> tokens;
  Floats confidence;
};

Top1 run(const float* h, const Floats& head, const Floats& norm_weight, int64_t rows,
         int32_t threads) {
  Top1 out = {std::vector<int64_t>(static_cast<std::size_t>(rows), -1),
              Floats(static_cast<std::size_t>(rows), NAN)};
  kangaroo_top1_confidence_params p = {};
  p.h = h;
  p.head.weight = head.data();
  p.head.vocab = static_cast<int64_t>(head.size() / norm_weight.size());
  p.norm_weight = norm_weight.data();
  p.tokens = out.tokens.data();
  p.confidence = out.confidence.data();
  p.num_rows = rows;
  p.width = static_cast<int64_t>(norm_weight.size());
  p.eps = 1e-5f;
  p.num_threads = threads;
  EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_OK);
  return out;
}

void check(int64_t width, int64_t vocab, int64_t rows) {
  const Floats h = noise(rows * width, 1);
  const Floats norm_weight(static_cast<std::size_t>(width), 0.5f);
  Floats head = noise(vocab * width, 2);
  for (int64_t tied = 300; tied < vocab; tied += 300) {
    std::copy(head.begin(), head.begin() + width, head.begin() + tied * width);
  }
  const Top1 out = run(h.data(), head, norm_weight, rows, 1);
  const auto normed = testing::naive_rms_norm(h, norm_weight, 1e-5, rows, width);
  const auto logits = testing::naive_product(normed, head.data(), rows, width, vocab);
  for (int64_t m = 0; m < rows; ++m) {
    const auto first = logits.begin() + m * vocab;
    const auto best = std::max_element(first, first + vocab);
    double total = 0.0;
    for (auto logit = first; logit != first + vocab; ++logit) total += std::exp(*logit - *best);
    EXPECT(out.tokens[m] == best - first);
    EXPECT(std::fabs(out.confidence[m] * total - 1.0) < 1e-5);
    const Top1 alone = run(h.data() + m * width, head, norm_weight, 1, 2);
    EXPECT(alone.tokens[0] == out.tokens[m]);
    EXPECT(testing::same_bits(&alone.confidence[0], &out.confidence[m], 1));
  }
  EXPECT(out.confidence == run(h.data(), head, norm_weight, rows, 3).confidence);
}

// Token 1 with probability 1 / (1 + 2 e^-1) = 0.576, in two chains of two rows each.
void check_chain() {
  const Floats h = {9, 9, 1, -1, 9, 9, 1, -1};
  const Floats head = {0, 0, 0.5f, -0.5f, 0, 0};
  const Floats norm_weight(2, 1.0f);
  std::vector<int64_t> tokens(4);
  Floats confidence(4);
  std::vector<int64_t> chain_tokens = {5, -1, -1, 6, -1, -1};
  std::vector<int32_t> positions = {40, -1, -1, 70, -1, -1};
  std::vector<int32_t> num_nodes = {1, 1};
  std::vector<int32_t> stopped = {0, 0};
  const Floats threshold = {0.5f, 0.6f};
  kangaroo_draft_chain chain = {chain_tokens.data(),
                                positions.data(),
                                num_nodes.data(),
                                stopped.data(),
                                threshold.data(),
                                2,
                                3};
  kangaroo_top1_confidence_params p = {};
  p.h = h.data();
  p.head = {head.data(), nullptr, 3, 0};
  p.norm_weight = norm_weight.data();
  p.tokens = tokens.data();
  p.confidence = confidence.data();
  p.chain = &chain;
  p.num_rows = 4;
  p.width = 2;
  p.num_threads = 1;
  EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_OK);
  EXPECT((num_nodes == std::vector<int32_t>{2, 2}));
  EXPECT((stopped == std::vector<int32_t>{0, 1}));  // the second was not sure enough
  for (int call = 0; call < 2; ++call) EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_OK);
  EXPECT((chain_tokens == std::vector<int64_t>{5, 1, 1, 6, 1, -1}));
  EXPECT((positions == std::vector<int32_t>{40, 41, 42, 70, 71, -1}));
  EXPECT((num_nodes == std::vector<int32_t>{3, 2}));
  EXPECT((stopped == std::vector<int32_t>{1, 1}));  // the first is full
  p.num_rows = 3;
  EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  check_chain();
  for (const int64_t rows : {1, 2, 5, 17, 40}) {
    check(64, 1000, rows);
    check(33, 239, rows);
    check(8, 1, rows);
  }
  return testing::result();
}
