// embedding: rows are copied; a token outside the vocabulary is refused and nothing is written.
#include "kangaroo/embedding.h"

#include "testing.h"

int main() {
  constexpr int64_t kVocab = 5;
  constexpr int64_t kWidth = 3;
  const testing::Floats weight = testing::noise(kVocab * kWidth, 1);
  std::vector<int64_t> tokens = {4, 0, 4};
  testing::Floats out(tokens.size() * kWidth, NAN);
  kangaroo_embedding_params p = {};
  p.tokens = tokens.data();
  p.weight = weight.data();
  p.out = out.data();
  p.num_rows = static_cast<int64_t>(tokens.size());
  p.width = kWidth;
  p.vocab = kVocab;
  EXPECT(kangaroo_embedding(&p) == KANGAROO_OK);
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    const float* expected = weight.data() + tokens[row] * kWidth;
    EXPECT(testing::same_bits(out.data() + row * kWidth, expected, kWidth));
  }
  const testing::Floats before = out;
  for (const int64_t bad : {int64_t{-1}, kVocab}) {
    tokens[2] = bad;
    EXPECT(kangaroo_embedding(&p) == KANGAROO_INVALID_ARGUMENT);
    EXPECT(out == before);
  }
  return testing::result();
}
