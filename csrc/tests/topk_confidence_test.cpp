// topk_confidence against a sorted double loop; ties; a draft vocabulary; a head in int8; the same
// bits for every number of rows and threads.
#include "kangaroo/topk_confidence.h"

#include <algorithm>
#include <numeric>

#include "exact.h"
#include "heads.h"

using testing::Exact;
using testing::Exacts;
using testing::Head;
using testing::make_head;
using testing::noise;
using testing::Tensor;

namespace {

constexpr int64_t kWidth = 33;

struct Topk {
  std::vector<int64_t> tokens;
  std::vector<float> confidence;

  bool operator==(const Topk& other) const {
    return tokens == other.tokens && confidence == other.confidence;
  }
};

Topk run(const Tensor& h, const Head& head, const std::vector<int32_t>& ids, int64_t k,
         int32_t threads) {
  const int64_t rows = h.size() / kWidth;
  const auto count = static_cast<std::size_t>(rows * k);
  Topk out = {std::vector<int64_t>(count, -1), std::vector<float>(count, -1.0f)};
  const Tensor norm(h.dtype, kWidth, 0.5f);
  kangaroo_topk_confidence_params p = {};
  p.h = states_of(h, 1, rows);
  p.head = head.view(ids);
  p.norm = vector_of(norm);
  p.tokens = out.tokens.data();
  p.confidence = out.confidence.data();
  p.k = k;
  p.eps = 1e-5f;
  p.num_threads = threads;
  const bool possible = k <= (ids.empty() ? p.head.weight.rows : p.head.num_ids);
  EXPECT(kangaroo_topk_confidence(&p) == (possible ? KANGAROO_OK : KANGAROO_INVALID_ARGUMENT));
  return out;
}

// The j-th token has the j-th largest logit, or one that nobody can tell from it; equal rows of the
// head, every seventh, stand in the order of their ids. Confidences as in top1_confidence_test.
void check_row(const Topk& out, int64_t row, int64_t k, const Exact* logits,
               std::vector<int64_t> order) {
  std::stable_sort(order.begin(), order.end(),
                   [logits](int64_t a, int64_t b) { return logits[a].value > logits[b].value; });
  double error = 0.0, total = 0.0;
  for (const int64_t token : order) {
    error = std::fmax(error, logits[token].error);
    total += std::exp(logits[token].value - logits[order[0]].value);
  }
  for (int64_t j = 0; j < k; ++j) {
    const int64_t token = out.tokens[row * k + j];
    const bool known = std::count(order.begin(), order.end(), token) == 1;
    EXPECT(known);
    if (!known) return;
    const double gap = logits[token].value - logits[order[j]].value;
    EXPECT(token == order[j] || (gap != 0.0 && std::fabs(gap) <= 2 * error));
    const double expected = std::exp(logits[token].value - logits[order[0]].value) / total;
    const double got = out.confidence[row * k + j];
    EXPECT(std::fabs(got - expected) <= expected * (std::expm1(2 * error) + 1e-5));
  }
}

void check(kangaroo_dtype dtype, const Head& head, int64_t rows, int64_t k,
           const std::vector<int32_t>& ids) {
  const int64_t vocab = head.vocab;
  const Tensor h = noise(dtype, rows * kWidth, 1);
  const Topk out = run(h, head, ids, k, 1);
  const Tensor normed = testing::normed(h, Tensor(dtype, kWidth, 0.5f), 1e-5f);
  const Exacts logits = head.logits(testing::exact(normed));
  std::vector<int64_t> order(ids.begin(), ids.end());
  if (ids.empty()) {
    order.resize(static_cast<std::size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
  }
  for (int64_t m = 0; m < rows; ++m) {
    check_row(out, m, k, logits.data() + m * vocab, order);
    const Topk alone = run(h.slice(m * kWidth, kWidth), head, ids, k, 2);
    EXPECT(std::equal(alone.tokens.begin(), alone.tokens.end(), out.tokens.begin() + m * k));
    EXPECT(std::equal(alone.confidence.begin(), alone.confidence.end(),
                      out.confidence.begin() + m * k));
  }
  EXPECT(out == run(h, head, ids, k, 3));
}

void check_all(kangaroo_dtype dtype, bool int8) {
  std::vector<int32_t> some;
  for (int32_t id = 3; id < 900; id += id % 5 == 0 ? 9 : 1) some.push_back(id);
  const Head large = make_head(dtype, 1000, kWidth, int8),
             middle = make_head(dtype, 239, kWidth, int8);
  const Head small = make_head(dtype, 40, kWidth, int8);
  for (const int64_t rows : {1, 3, 17}) {
    for (const int64_t k : {1, 4, 16}) {
      check(dtype, large, rows, k, {});
      check(dtype, middle, rows, k, {});
      check(dtype, large, rows, k, some);
      check(dtype, small, rows, k, {0, 1, 5, 6, 7, 8, 9, 11, 13, 17, 19, 23, 29, 31, 37, 39});
    }
  }
  const Tensor h = noise(dtype, kWidth, 1);
  const Head head = make_head(dtype, 20, kWidth, int8);
  run(h, head, {}, 16, 1);
  run(h, head, {1, 2, 3}, 4, 1);
}

}  // namespace

int main() {
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) {
      for (const bool int8 : {false, true}) check_all(dtype, int8);
    }
  });
  return testing::result();
}
