// rms_norm against a double loop, and the same bits for every number of rows and threads, and for
// rows apart.
#include "exact.h"

using testing::Tensor;

namespace {

constexpr int64_t kRows = 38;

void run(const kangaroo_states& x, const Tensor& weight, const kangaroo_states& out,
         int32_t threads) {
  kangaroo_rms_norm_params p = {};
  p.x = x;
  p.weight = vector_of(weight);
  p.out = out;
  p.eps = 1e-6f;
  p.num_threads = threads;
  EXPECT(kangaroo_rms_norm(&p) == KANGAROO_OK);
}

void check(const Tensor& x, const Tensor& weight, const testing::Exacts& expected) {
  const int64_t width = weight.size();
  const Tensor out = testing::normed(x, weight, 1e-6f);
  EXPECT(within(out, expected));
  Tensor again(x.dtype, x.size());
  run(states_of(x, 1, kRows), weight, states_of(again, 1, kRows), 4);
  EXPECT(again == out);
  for (int64_t m = 0; m < kRows; ++m) {
    const Tensor row = x.slice(m * width, width);
    EXPECT(testing::normed(row, weight, 1e-6f) == out.slice(m * width, width));
  }
  const testing::Spread apart = testing::spread(x, 2, kRows / 2);
  const testing::Spread to = testing::spread(Tensor(x.dtype, x.size()), 2, kRows / 2);
  run(apart.view, weight, to.view, 2);
  EXPECT(holds(to, out));
}

}  // namespace

int main() {
  for (const kangaroo_dtype dtype : testing::kDtypes) {
    for (const int64_t width : {1, 7, 8, 31, 32, 33, 192, 515}) {
      const Tensor x = testing::noise(dtype, kRows * width, 1);
      const Tensor weight = testing::noise(dtype, width, 2);
      const testing::Exacts expected = testing::rms_norm(x, weight, 1e-6);
      testing::for_each_isa([&] { check(x, weight, expected); });
    }
  }
  return testing::result();
}
