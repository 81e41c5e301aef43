// embedding: rows are copied; a token outside the vocabulary is refused and nothing is written.
#include "kangaroo/embedding.h"

#include "testing.h"

using testing::Tensor;

namespace {

constexpr int64_t kVocab = 5, kWidth = 3;

void check(kangaroo_dtype dtype) {
  const Tensor weight = testing::noise(dtype, kVocab * kWidth, 1);
  const testing::Spread rows = testing::spread(weight, 1, kVocab);
  std::vector<int64_t> tokens = {4, 0, 4, 2};
  Tensor expected(dtype, 4 * kWidth);
  for (int64_t i = 0; i < 4; ++i) expected.put(i * kWidth, weight, tokens[i] * kWidth, kWidth);
  const testing::Spread out = testing::spread(Tensor(dtype, 4 * kWidth), 2, 2);
  kangaroo_embedding_params p = {};
  p.tokens = tokens.data();
  p.weight = matrix_of(weight, kVocab);
  p.weight.data = rows.values.address();
  p.weight.row_stride = rows.view.node_stride;
  p.out = out.view;
  EXPECT(kangaroo_embedding(&p) == KANGAROO_OK);
  EXPECT(holds(out, expected));
  for (const int64_t bad : {int64_t{-1}, kVocab}) {
    tokens = {1, 1, 1, bad};
    EXPECT(kangaroo_embedding(&p) == KANGAROO_INVALID_ARGUMENT);
    EXPECT(holds(out, expected));
  }
}

}  // namespace

int main() {
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) check(dtype);
  });
  return testing::result();
}
