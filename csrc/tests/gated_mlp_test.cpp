// gated_mlp against a double loop, and the same bits for every number of rows and threads.
#include "kangaroo/gated_mlp.h"

#include "testing.h"

using testing::Floats;
using testing::noise;

namespace {

struct Weights {
  int64_t width, hidden_width;
  Floats gate_up = noise(2 * hidden_width * width, 1);
  Floats down = noise(width * hidden_width, 2);
  Floats norm_weight = noise(width, 3);
};

Floats run(const Weights& w, const float* x, int64_t rows, int32_t threads) {
  Floats out(static_cast<std::size_t>(rows * w.width), NAN);
  kangaroo_gated_mlp_params p = {};
  p.x = x;
  p.gate_up = w.gate_up.data();
  p.down = w.down.data();
  p.norm_weight = w.norm_weight.data();
  p.out = out.data();
  p.num_rows = rows;
  p.width = w.width;
  p.hidden_width = w.hidden_width;
  p.eps = 1e-5f;
  p.num_threads = threads;
  EXPECT(kangaroo_gated_mlp(&p) == KANGAROO_OK);
  return out;
}

std::vector<double> naive(const Weights& w, const Floats& x, int64_t rows) {
  const auto normed = testing::naive_rms_norm(x, w.norm_weight, 1e-5, rows, w.width);
  const int64_t f = w.hidden_width;
  auto gate = testing::naive_product(normed, w.gate_up.data(), rows, w.width, f);
  const auto up = testing::naive_product(normed, w.gate_up.data() + f * w.width, rows, w.width, f);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
  auto out = testing::naive_product(gate, w.down.data(), rows, f, w.width);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += x[i];
  return out;
}

}  // namespace

int main() {
  const int64_t sizes[][2] = {{64, 160}, {7, 5}, {33, 257}};
  for (const auto& [width, hidden_width] : sizes) {
    const Weights w = {width, hidden_width};
    for (const int64_t rows : {1, 2, 3, 4, 5, 8, 65, 130}) {
      const Floats x = noise(rows * width, 4);
      const Floats out = run(w, x.data(), rows, 1);
      EXPECT(testing::error(out, naive(w, x, rows)) < 4e-6);
      EXPECT(out == run(w, x.data(), rows, 3));
      for (int64_t m = 0; m < rows; ++m) {
        const Floats alone = run(w, x.data() + m * width, 1, 2);
        EXPECT(testing::same_bits(alone.data(), out.data() + m * width, width));
      }
    }
  }
  return testing::result();
}
