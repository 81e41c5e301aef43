// linear against a double loop; a row's bits against the same row alone and other thread counts.
#include "kangaroo/linear.h"

#include "testing.h"

using testing::Floats;
using testing::noise;

namespace {

struct Case {
  int64_t width;
  int64_t out_width;
  bool fused;
};

Floats run(const Case& c, const Floats& x, const Floats& weights, const Floats& residual,
           int64_t rows, int32_t threads) {
  Floats out(static_cast<std::size_t>(rows * c.out_width), NAN);
  kangaroo_linear_params p = {};
  p.x = x.data();
  p.weight = weights.data();
  p.out = out.data();
  p.num_rows = rows;
  p.width = c.width;
  p.out_width = c.out_width;
  p.num_threads = threads;
  if (c.fused) {
    p.bias = weights.data() + c.width * c.out_width;
    p.norm_weight = p.bias + c.out_width;
    p.residual = residual.data();
    p.eps = 1e-5f;
  }
  EXPECT(kangaroo_linear(&p) == KANGAROO_OK);
  return out;
}

void check(const Case& c, int64_t rows) {
  const Floats x = noise(rows * c.width, 1);
  const Floats weights = noise(c.width * c.out_width + c.out_width + c.width, 2);
  const Floats residual = noise(rows * c.out_width, 3);
  const float* bias = weights.data() + c.width * c.out_width;
  const Floats norm_weight(bias + c.out_width, bias + c.out_width + c.width);

  const std::vector<double> inputs =
      c.fused ? testing::naive_rms_norm(x, norm_weight, 1e-5, rows, c.width)
              : std::vector<double>(x.begin(), x.end());
  std::vector<double> expected =
      testing::naive_product(inputs, weights.data(), rows, c.width, c.out_width);
  for (int64_t i = 0; c.fused && i < rows * c.out_width; ++i) {
    expected[i] += double{residual[i]} + bias[i % c.out_width];
  }
  const Floats out = run(c, x, weights, residual, rows, 1);
  EXPECT(testing::error(out, expected) < 2e-6);

  for (const int32_t threads : {2, 3, 8}) {
    const Floats again = run(c, x, weights, residual, rows, threads);
    EXPECT(testing::same_bits(out.data(), again.data(), rows * c.out_width));
  }
  for (int64_t m = 0; m < rows; ++m) {
    const Floats row(x.begin() + m * c.width, x.begin() + (m + 1) * c.width);
    const Floats rest(residual.begin() + m * c.out_width, residual.begin() + (m + 1) * c.out_width);
    const Floats alone = run(c, row, weights, rest, 1, 2);
    EXPECT(testing::same_bits(alone.data(), out.data() + m * c.out_width, c.out_width));
  }
}

}  // namespace

int main() {
  const int64_t sizes[][2] = {{192, 576}, {1, 1}, {7, 5}, {8, 3}, {33, 100}, {515, 25}, {16, 23}};
  for (const auto& [width, out_width] : sizes) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64}) {
      check({width, out_width, false}, rows);
      check({width, out_width, true}, rows);
    }
  }
  check({192, 576, true}, 0);
  kangaroo_linear_params nothing = {};
  nothing.num_rows = nothing.width = nothing.out_width = 1;
  EXPECT(kangaroo_linear(&nothing) == KANGAROO_INVALID_ARGUMENT);
  EXPECT(std::strstr(kangaroo_last_error(), "linear: x: expected"));
  return testing::result();
}
