// linear against a double loop; a row's bits against the same row alone, other numbers of threads
// and rows apart; a norm in front has the bits of rms_norm.
#include "kangaroo/linear.h"

#include "exact.h"

using testing::Exacts;
using testing::noise;
using testing::Tensor;

namespace {

struct Inputs {
  kangaroo_dtype dtype;
  int64_t width, out_width, rows;
  bool fused;
  Tensor x = noise(dtype, rows* width, 1);
  Tensor weight = noise(dtype, width* out_width, 2);
  Tensor bias = noise(dtype, out_width, 3);
  Tensor norm = noise(dtype, width, 4);
  Tensor residual = noise(dtype, rows* out_width, 5);
};

kangaroo_linear_params params_of(const Inputs& in, const kangaroo_states& x,
                                 const kangaroo_states& residual, const kangaroo_states& out,
                                 int32_t threads) {
  kangaroo_linear_params p = {};
  p.x = x;
  p.weight = matrix_of(in.weight, in.out_width);
  p.out = out;
  p.num_threads = threads;
  if (in.fused) {
    p.bias = vector_of(in.bias);
    p.norm = vector_of(in.norm);
    p.residual = residual;
    p.eps = 1e-5f;
  }
  return p;
}

// Rows [first, first + rows), into a tensor of `out_dtype`.
Tensor run(const Inputs& in, int64_t first, int64_t rows, int32_t threads,
           kangaroo_dtype out_dtype) {
  const Tensor x = in.x.slice(first * in.width, rows * in.width);
  const Tensor residual = in.residual.slice(first * in.out_width, rows * in.out_width);
  Tensor out(out_dtype, rows * in.out_width);
  const kangaroo_linear_params p =
      params_of(in, kangaroo_states_of(data_of(x), in.dtype, 1, rows, in.width),
                kangaroo_states_of(data_of(residual), in.dtype, 1, rows, in.out_width),
                kangaroo_states_of(out.address(), out_dtype, 1, rows, in.out_width), threads);
  EXPECT(kangaroo_linear(&p) == KANGAROO_OK);
  return out;
}

// From the rows that rms_norm the op makes, so that only this op's own errors are bounded.
Exacts expected(const Inputs& in) {
  const Tensor x = in.fused ? testing::normed(in.x, in.norm, 1e-5f) : in.x;
  Exacts out = product(testing::exact(x), in.weight, in.out_width);
  for (std::size_t i = 0; in.fused && i < out.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    out[i] = sum(out[i], {in.bias.at(at % in.out_width), 0.0});
    out[i] = sum(out[i], {in.residual.at(at), 0.0});
  }
  return out;
}

void check_apart(const Inputs& in, const Tensor& out) {
  const int64_t nodes = in.rows / 2;
  const testing::Spread x = testing::spread(in.x, 2, nodes);
  const testing::Spread residual = testing::spread(in.residual, 2, nodes);
  const testing::Spread to = testing::spread(Tensor(in.dtype, out.size()), 2, nodes);
  testing::Spread weight = testing::spread(in.weight, 1, in.out_width);
  kangaroo_linear_params p = params_of(in, x.view, residual.view, to.view, 2);
  p.weight.data = weight.values.address();
  p.weight.row_stride = weight.view.node_stride;
  EXPECT(kangaroo_linear(&p) == KANGAROO_OK);
  EXPECT(holds(to, out));
}

void check(const Inputs& in) {
  const Tensor out = run(in, 0, in.rows, 1, in.dtype);
  const Tensor unrounded = run(in, 0, in.rows, 1, KANGAROO_FLOAT32);
  EXPECT(within(unrounded, expected(in)));
  bool rounds = true;
  for (int64_t i = 0; i < out.size(); ++i) {
    Tensor one(in.dtype, 1, unrounded.at(i));
    rounds = rounds && one == out.slice(i, 1);
  }
  EXPECT(rounds);
  for (const int32_t threads : {2, 3, 8}) EXPECT(run(in, 0, in.rows, threads, in.dtype) == out);
  for (int64_t m = 0; m < in.rows; ++m) {
    EXPECT(run(in, m, 1, 2, in.dtype) == out.slice(m * in.out_width, in.out_width));
  }
  if (in.rows % 2 == 0 && in.rows > 0) check_apart(in, out);
}

// A program may still compute while it ends, behind its threads' own memory.
struct AtTheEnd {
  ~AtTheEnd() {
    float x[2] = {3.0f, 4.0f}, out = 0.0f;
    const float weight[2] = {5.0f, -1.0f};
    kangaroo_linear_params p = {};
    p.x = kangaroo_states_of(x, KANGAROO_FLOAT32, 1, 1, 2);
    p.weight = kangaroo_matrix_of(weight, KANGAROO_FLOAT32, 1, 2);
    p.out = kangaroo_states_of(&out, KANGAROO_FLOAT32, 1, 1, 1);
    p.num_threads = 1;
    if (kangaroo_linear(&p) != KANGAROO_OK || out != 11.0f) std::abort();
  }
} at_the_end;

}  // namespace

int main() {
  const int64_t sizes[][2] = {{192, 96}, {1, 1}, {7, 5}, {8, 3}, {33, 100}, {515, 25}, {16, 23}};
  for (const kangaroo_dtype dtype : testing::kDtypes) {
    for (const auto& [width, out_width] : sizes) {
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 40}) {
        for (const bool fused : {false, true}) {
          const Inputs in = {dtype, width, out_width, rows, fused};
          testing::for_each_isa([&] { check(in); });
        }
      }
    }
    testing::for_each_isa([&] { check({dtype, 192, 96, 0, false}); });
  }
  return testing::result();
}
