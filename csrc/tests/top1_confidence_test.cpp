// top1_confidence against a double loop; ties; chains of drafts; the same bits for every number of
// rows and threads, and for rows apart.
#include "kangaroo/top1_confidence.h"

#include "exact.h"

using testing::Exacts;
using testing::noise;
using testing::Tensor;

namespace {

struct Top1 {
  std::vector<int64_t> tokens;
  std::vector<float> confidence;

  bool operator==(const Top1& other) const {
    return tokens == other.tokens && confidence == other.confidence;
  }
};

Top1 run(const kangaroo_states& h, const Tensor& head, const Tensor& norm, int32_t threads) {
  const auto rows = static_cast<std::size_t>(h.batch * h.nodes);
  Top1 out = {std::vector<int64_t>(rows, -1), std::vector<float>(rows, -1.0f)};
  kangaroo_top1_confidence_params p = {};
  p.h = h;
  p.head.weight = matrix_of(head, head.size() / norm.size());
  p.norm = vector_of(norm);
  p.tokens = out.tokens.data();
  p.confidence = out.confidence.data();
  p.eps = 1e-5f;
  p.num_threads = threads;
  EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_OK);
  return out;
}

// Errors of the logits are relative errors of what they are exponents of; e^x, the sum of up to a
// thousand of them and the quotient add less than 1e-5.
void check_row(const Top1& out, std::size_t row, const testing::Exact* logits, int64_t vocab) {
  const int64_t token = out.tokens[row];
  const bool known = token >= 0 && token < vocab;
  EXPECT(known);
  if (!known) return;
  double error = 0.0, total = 0.0;
  for (int64_t i = 0; i < vocab; ++i) {
    error = std::fmax(error, logits[i].error);
    total += std::exp(logits[i].value - logits[token].value);
    const double gap = logits[i].value - logits[token].value;
    EXPECT(gap <= logits[i].error + logits[token].error);
  }
  EXPECT(token == 0 || token % 300 != 0);  // rows that are equal to row 0
  EXPECT(std::fabs(out.confidence[row] * total - 1.0) < std::expm1(2 * error) + 1e-5);
}

void check(kangaroo_dtype dtype, int64_t width, int64_t vocab, int64_t rows) {
  const Tensor h = noise(dtype, rows * width, 1);
  const Tensor norm(dtype, width, 0.5f);
  Tensor head = noise(dtype, vocab * width, 2);
  for (int64_t tied = 300; tied < vocab; tied += 300) head.put(tied * width, head, 0, width);
  const Top1 out = run(states_of(h, 1, rows), head, norm, 1);
  const Exacts normed = testing::exact(testing::normed(h, norm, 1e-5f));
  const Exacts logits = product(normed, head, vocab);
  for (int64_t m = 0; m < rows; ++m) {
    check_row(out, static_cast<std::size_t>(m), logits.data() + m * vocab, vocab);
    const Tensor row = h.slice(m * width, width);
    const Top1 alone = run(states_of(row, 1, 1), head, norm, 2);
    EXPECT((alone == Top1{{out.tokens[m]}, {out.confidence[m]}}));
  }
  EXPECT(out == run(states_of(h, 1, rows), head, norm, 3));
  if (rows % 2) return;
  const testing::Spread apart = testing::spread(h, 2, rows / 2);
  EXPECT(out == run(apart.view, head, norm, 2));
}

struct Chains {
  std::vector<int64_t> tokens = {5, -1, -1, 6, -1, -1};
  std::vector<int32_t> positions = {40, -1, -1, 70, -1, -1};
  std::vector<int32_t> num_nodes = {1, 1};
  std::vector<int32_t> stopped = {0, 0};
  std::vector<float> threshold = {0.5f, 0.6f};
};

// Token 1 with probability 1 / (1 + 2 e^-1) = 0.576, in two chains of two rows each.
void check_chain(kangaroo_dtype dtype) {
  Tensor h(dtype, 8, 9.0f), head(dtype, 6, 0.0f);
  for (const int64_t row : {1, 3}) {
    h.set(2 * row, 1.0f);
    h.set(2 * row + 1, -1.0f);
  }
  head.set(2, 0.5f);
  head.set(3, -0.5f);
  const Tensor norm(dtype, 2, 1.0f);
  std::vector<int64_t> tokens(4);
  std::vector<float> confidence(4);
  Chains c;
  const kangaroo_draft_chain chain = {c.tokens.data(),
                                      c.positions.data(),
                                      c.num_nodes.data(),
                                      c.stopped.data(),
                                      c.threshold.data(),
                                      2,
                                      3};
  kangaroo_top1_confidence_params p = {};
  p.h = states_of(h, 2, 2);
  p.head.weight = matrix_of(head, 3);
  p.norm = vector_of(norm);
  p.tokens = tokens.data();
  p.confidence = confidence.data();
  p.chain = &chain;
  p.num_threads = 1;
  EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_OK);
  EXPECT((c.num_nodes == std::vector<int32_t>{2, 2}));
  EXPECT((c.stopped == std::vector<int32_t>{0, 1}));  // the second was not sure enough
  for (int call = 0; call < 2; ++call) EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_OK);
  EXPECT((c.tokens == std::vector<int64_t>{5, 1, 1, 6, 1, -1}));
  EXPECT((c.positions == std::vector<int32_t>{40, 41, 42, 70, 71, -1}));
  EXPECT((c.num_nodes == std::vector<int32_t>{3, 2}));
  EXPECT((c.stopped == std::vector<int32_t>{1, 1}));  // the first is full
  p.h = states_of(h, 1, 4);
  EXPECT(kangaroo_top1_confidence(&p) == KANGAROO_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) {
      check_chain(dtype);
      for (const int64_t rows : {1, 2, 5, 18}) {
        check(dtype, 64, 1000, rows);
        check(dtype, 33, 239, rows);
        check(dtype, 8, 1, rows);
      }
    }
  });
  return testing::result();
}
