// rms_norm against a double loop, and the same bits for every number of rows and threads.
#include "kangaroo/rms_norm.h"

#include "testing.h"

using testing::Floats;

namespace {

Floats run(const float* x, const Floats& weight, int64_t rows, int32_t threads) {
  Floats out(static_cast<std::size_t>(rows) * weight.size(), NAN);
  kangaroo_rms_norm_params p = {};
  p.x = x;
  p.weight = weight.data();
  p.out = out.data();
  p.num_rows = rows;
  p.width = static_cast<int64_t>(weight.size());
  p.eps = 1e-6f;
  p.num_threads = threads;
  EXPECT(kangaroo_rms_norm(&p) == KANGAROO_OK);
  return out;
}

}  // namespace

int main() {
  constexpr int64_t kRows = 37;
  for (const int64_t width : {1, 7, 8, 31, 32, 33, 192, 515}) {
    const Floats x = testing::noise(kRows * width, 1);
    const Floats weight = testing::noise(width, 2);
    const Floats out = run(x.data(), weight, kRows, 1);
    EXPECT(testing::error(out, testing::naive_rms_norm(x, weight, 1e-6, kRows, width)) < 1e-6);
    EXPECT(out == run(x.data(), weight, kRows, 4));
    for (int64_t m = 0; m < kRows; ++m) {
      const Floats alone = run(x.data() + m * width, weight, 1, 1);
      EXPECT(testing::same_bits(alone.data(), out.data() + m * width, width));
    }
  }
  return testing::result();
}
