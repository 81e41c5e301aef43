// topk_confidence against a sorted double loop; ties; a draft vocabulary; the same bits for every
// number of rows and threads.
#include "kangaroo/topk_confidence.h"

#include <algorithm>
#include <numeric>

#include "testing.h"

using testing::Floats;
using testing::noise;

namespace {

constexpr int64_t kWidth = 33;

struct Topk {
  std::vector<int64_t> tokens;
  Floats confidence;
};

Topk run(const float* h, const Floats& head, const std::vector<int32_t>& ids, int64_t rows,
         int64_t k, int32_t threads) {
  const auto count = static_cast<std::size_t>(rows * k);
  Topk out = {std::vector<int64_t>(count, -1), Floats(count, NAN)};
  const Floats norm_weight(kWidth, 0.5f);
  kangaroo_topk_confidence_params p = {};
  p.h = h;
  p.head.weight = head.data();
  p.head.vocab = static_cast<int64_t>(head.size()) / kWidth;
  p.head.token_ids = ids.empty() ? nullptr : ids.data();
  p.head.num_ids = static_cast<int64_t>(ids.size());
  p.norm_weight = norm_weight.data();
  p.tokens = out.tokens.data();
  p.confidence = out.confidence.data();
  p.num_rows = rows;
  p.width = kWidth;
  p.k = k;
  p.eps = 1e-5f;
  p.num_threads = threads;
  const bool possible = k <= (ids.empty() ? p.head.vocab : p.head.num_ids);
  EXPECT(kangaroo_topk_confidence(&p) == (possible ? KANGAROO_OK : KANGAROO_INVALID_ARGUMENT));
  return out;
}

void check(int64_t vocab, int64_t rows, int64_t k, const std::vector<int32_t>& ids) {
  const Floats h = noise(rows * kWidth, 1);
  Floats head = noise(vocab * kWidth, 2);
  for (int64_t tied = 7; tied < vocab; tied += 7) {
    std::copy(head.begin(), head.begin() + kWidth, head.begin() + tied * kWidth);
  }
  const Topk out = run(h.data(), head, ids, rows, k, 1);
  const auto normed = testing::naive_rms_norm(h, Floats(kWidth, 0.5f), 1e-5, rows, kWidth);
  const auto logits = testing::naive_product(normed, head.data(), rows, kWidth, vocab);
  std::vector<int64_t> order(ids.begin(), ids.end());
  if (ids.empty()) {
    order.resize(static_cast<std::size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
  }
  for (int64_t m = 0; m < rows; ++m) {
    const double* own = logits.data() + m * vocab;
    std::sort(order.begin(), order.end(), [own](int64_t a, int64_t b) {
      return own[a] > own[b] || (own[a] == own[b] && a < b);
    });
    double total = 0.0;
    for (const int64_t token : order) total += std::exp(own[token] - own[order[0]]);
    for (int64_t j = 0; j < k; ++j) {
      const double expected = std::exp(own[order[j]] - own[order[0]]) / total;
      EXPECT(out.tokens[m * k + j] == order[j]);
      EXPECT(std::fabs(out.confidence[m * k + j] - expected) < 1e-5);
    }
    const Topk alone = run(h.data() + m * kWidth, head, ids, 1, k, 2);
    EXPECT(std::equal(alone.tokens.begin(), alone.tokens.end(), out.tokens.begin() + m * k));
    EXPECT(testing::same_bits(alone.confidence.data(), out.confidence.data() + m * k, k));
  }
  EXPECT(out.confidence == run(h.data(), head, ids, rows, k, 3).confidence);
}

}  // namespace

int main() {
  std::vector<int32_t> some;
  for (int32_t id = 3; id < 900; id += id % 5 == 0 ? 9 : 1) some.push_back(id);
  for (const int64_t rows : {1, 3, 17}) {
    for (const int64_t k : {1, 4, 16}) {
      check(1000, rows, k, {});
      check(239, rows, k, {});
      check(1000, rows, k, some);
      check(40, rows, k, {0, 1, 5, 6, 7, 8, 9, 11, 13, 17, 19, 23, 29, 31, 37, 39});
    }
  }
  const Floats h = noise(kWidth, 1);
  const Floats head = noise(20 * kWidth, 2);
  run(h.data(), head, {}, 1, 16, 1);
  run(h.data(), head, {1, 2, 3}, 1, 4, 1);
  return testing::result();
}
