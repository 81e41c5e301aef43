// gated_mlp against a double loop, and the same bits for every number of rows and threads, and for
// rows apart.
#include "kangaroo/gated_mlp.h"

#include "exact.h"

using testing::Exact;
using testing::Exacts;
using testing::noise;
using testing::Tensor;

namespace {

struct Weights {
  kangaroo_dtype dtype;
  int64_t width, hidden_width;
  Tensor gate_up = noise(dtype, 2 * hidden_width * width, 1);
  Tensor down = noise(dtype, width* hidden_width, 2);
  Tensor norm = noise(dtype, width, 3);
};

void run(const Weights& w, const kangaroo_states& x, const kangaroo_states& out, int32_t threads) {
  kangaroo_gated_mlp_params p = {};
  p.x = x;
  p.gate_up = matrix_of(w.gate_up, 2 * w.hidden_width);
  p.down = matrix_of(w.down, w.width);
  p.norm = vector_of(w.norm);
  p.out = out;
  p.eps = 1e-5f;
  p.num_threads = threads;
  EXPECT(kangaroo_gated_mlp(&p) == KANGAROO_OK);
}

Tensor run(const Weights& w, const Tensor& x, int32_t threads) {
  Tensor out(w.dtype, x.size());
  const int64_t rows = x.size() / w.width;
  run(w, states_of(x, 1, rows), states_of(out, 1, rows), threads);
  return out;
}

// silu' is below 1.1 everywhere; e^-g within 2 ulp, a sum and a quotient are 6 roundings.
Exact silu(const Exact& g) {
  const Exact out = {g.value / (1.0 + std::exp(-g.value)), 1.1 * g.error};
  return out.rounded(6 * testing::kFloatHalfUlp);
}

// The hidden values are kept in the dtype of x: their rounding passes through the second product,
// element by element.
Exacts expected(const Weights& w, const Tensor& x) {
  const int64_t f = w.hidden_width;
  const Exacts rows = testing::exact(testing::normed(x, w.norm, 1e-5f));
  const Exacts both = product(rows, w.gate_up, 2 * f);
  Exacts hidden;
  for (std::size_t row = 0; row < both.size(); row += static_cast<std::size_t>(2 * f)) {
    for (int64_t j = 0; j < f; ++j) {
      hidden.push_back(product(silu(both[row + j]), both[row + f + j]).kept(w.dtype));
    }
  }
  Exacts out = product(hidden, w.down, w.width);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = sum(out[i], {x.at(static_cast<int64_t>(i)), 0.0}).kept(w.dtype);
  }
  return out;
}

void check(const Weights& w, int64_t rows, bool against_double) {
  const Tensor x = noise(w.dtype, rows * w.width, 4);
  const Tensor out = run(w, x, 1);
  if (against_double) EXPECT(within(out, expected(w, x)));
  EXPECT(out == run(w, x, 3));
  for (int64_t m = 0; m < rows; ++m) {
    EXPECT(run(w, x.slice(m * w.width, w.width), 2) == out.slice(m * w.width, w.width));
  }
  if (rows % 2) return;
  const testing::Spread apart = testing::spread(x, 2, rows / 2);
  const testing::Spread to = testing::spread(Tensor(w.dtype, x.size()), 2, rows / 2);
  run(w, apart.view, to.view, 2);
  EXPECT(holds(to, out));
}

}  // namespace

int main() {
  const int64_t sizes[][2] = {{64, 160}, {7, 5}, {33, 257}};
  for (const kangaroo_dtype dtype : testing::kDtypes) {
    for (const auto& [width, hidden_width] : sizes) {
      const Weights w = {dtype, width, hidden_width};
      testing::for_each_isa([&] {
        for (const int64_t rows : {1, 2, 3, 4, 5, 8, 65, 130}) check(w, rows, rows <= 8);
      });
    }
  }
  return testing::result();
}
