// linear on the emulator against sums in double: all types, tiles and alignments, the parts that
// may be absent, and the bits of a row, whatever stands beside it.
#include <algorithm>

#include "arrays.h"
#include "kangaroo/cuda.h"

using testing::Array;
using testing::noise;

namespace {

constexpr float kEps = 1e-5f;

struct Case {
  int64_t batch, nodes, width, outs;
  bool norm = false, bias = false, residual = false, unrounded = false;
  int64_t gap = 0;     // elements behind every row of everything
  int64_t offset = 0;  // elements behind an aligned address, of everything
};

struct Inputs {
  Case c;
  kangaroo_dtype dtype;
  Array x, weight, bias, norm, residual;

  Inputs(const Case& shape, kangaroo_dtype type)
      : c(shape),
        dtype(type),
        x(type, noise(rows() * (c.width + c.gap) + c.batch * c.gap, 1), c.offset),
        weight(type, scaled(noise(c.outs * (c.width + c.gap), 2)), c.offset),
        bias(type, noise(c.outs, 3), c.offset),
        norm(type, noise(c.width, 4), c.offset),
        residual(type, noise(rows() * (c.outs + c.gap) + c.batch * c.gap, 5), c.offset) {}

  int64_t rows() const { return c.batch * c.nodes; }
  testing::Floats scaled(testing::Floats values) const {
    for (float& value : values)
      value /= std::sqrt(static_cast<float>(std::max<int64_t>(c.width, 1)));
    return values;
  }
  kangaroo_states view(Array& array, int64_t width) const {
    const int64_t row = width + c.gap;
    return {array.data(), array.dtype(), c.batch, c.nodes, width, row * c.nodes + c.gap, row};
  }
  Array out() const {
    return Array(c.unrounded ? KANGAROO_FLOAT32 : dtype,
                 rows() * (c.outs + c.gap) + c.batch * c.gap, c.offset);
  }
  kangaroo_linear_params params(Array& to) {
    kangaroo_linear_params p = {};
    p.x = view(x, c.width);
    p.weight = {weight.data(), dtype, c.outs, c.width, c.width + c.gap};
    if (c.bias) p.bias = kangaroo_vector_of(bias.data(), dtype, c.outs);
    if (c.norm) p.norm = kangaroo_vector_of(norm.data(), dtype, c.width);
    if (c.residual) p.residual = view(residual, c.outs);
    p.out = view(to, c.outs);
    p.eps = kEps;
    return p;
  }
  int64_t at(int64_t row, int64_t width) const {
    return row * (width + c.gap) + row / std::max<int64_t>(c.nodes, 1) * c.gap;
  }
};

// Of exactly the size that was asked for, and without numbers.
struct Workspace {
  std::vector<unsigned char> bytes;
  explicit Workspace(int64_t size) : bytes(static_cast<std::size_t>(size), 0xff) {}
  void* data() { return bytes.empty() ? nullptr : bytes.data(); }
};

Array run(Inputs& in) {
  Array out = in.out();
  kangaroo_linear_params p = in.params(out);
  const int64_t size = kangaroo_linear_cuda_workspace(&p);
  EXPECT(size >= 0 && (size == 0) == !(in.c.norm && in.x.count() > 0 && in.c.width > 0));
  Workspace workspace(std::max<int64_t>(size, 0));
  testing::arrive_late(in.x);
  testing::arrive_late(in.residual);
  EXPECT(kangaroo_linear_cuda(&p, workspace.data(), nullptr) == KANGAROO_OK);
  cuda_on_cpu::synchronize();
  return out;
}

// The row that goes into the product, rounded where the op rounds.
Array product_row(const Inputs& in, int64_t row) {
  Array to(in.dtype, in.c.width);
  const int64_t from = in.at(row, in.c.width);
  double squares = 0;
  for (int64_t k = 0; k < in.c.width; ++k) squares += std::pow(in.x[from + k], 2);
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(in.c.width) + kEps);
  for (int64_t k = 0; k < in.c.width; ++k) {
    to.set(k, in.x[from + k]);
    if (!in.c.norm) continue;
    to.set(k, static_cast<float>(in.x[from + k] * inverse));
    to.set(k, to[k] * in.norm[k]);
  }
  return to;
}

void expect_linear(const Inputs& in, const Array& out) {
  const Case& c = in.c;
  const testing::Floats weight = values_of(in.weight);
  double worst = 0;
  for (int64_t row = 0; row < in.rows(); ++row) {
    const testing::Floats x = values_of(product_row(in, row));
    for (int64_t o = 0; o < c.outs; ++o) {
      const float* w = weight.data() + o * (c.width + c.gap);
      double sum = 0, size = 1;
      for (int64_t k = 0; k < c.width; ++k) {
        sum += double{x[static_cast<std::size_t>(k)]} * w[k];
        size += std::fabs(double{x[static_cast<std::size_t>(k)]} * w[k]);
      }
      if (c.bias) sum += in.bias[o];
      if (c.residual) sum += in.residual[in.at(row, c.outs) + o];
      const double error = std::fabs(out[in.at(row, c.outs) + o] - sum);
      const double sums = std::ldexp(size, -19);  // in float32
      // With the norm, some numbers of x fall on the other side of a rounding.
      const double inputs = c.norm ? size * testing::half_ulp(in.dtype) / 2 : 0;
      const double last = std::fabs(sum) * testing::half_ulp(out.dtype());
      worst = std::fmax(worst, std::isfinite(error) ? error / (sums + inputs + last) : INFINITY);
    }
  }
  if (!(worst <= 1)) std::printf("%d: worst error %g of what is allowed\n", int(in.dtype), worst);
  EXPECT(worst <= 1);
}

void expect_gaps_untouched(const Inputs& in, const Array& out) {
  int64_t poisoned = 0;
  for (int64_t i = 0; i < out.count(); ++i) poisoned += std::isnan(out[i]);
  EXPECT(poisoned == out.count() - in.rows() * in.c.outs);
}

// The rows `first` to `first + count` of a call, as a call of their own.
Inputs part_of(const Inputs& in, int64_t first, int64_t count) {
  Case c = in.c;
  c.batch = count;
  c.nodes = 1;
  Inputs part(c, in.dtype);
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t k = 0; k < c.width; ++k) {
      part.x.set(part.at(row, c.width) + k, in.x[in.at(first + row, c.width) + k]);
    }
    for (int64_t o = 0; o < c.outs; ++o) {
      part.residual.set(part.at(row, c.outs) + o, in.residual[in.at(first + row, c.outs) + o]);
    }
  }
  return part;
}

void expect_same_rows(const Inputs& in, const Array& all, int64_t first, int64_t count) {
  Inputs part = part_of(in, first, count);
  const Array out = run(part);
  for (int64_t row = 0; row < count; ++row) {
    EXPECT(out.same_bits(part.at(row, in.c.outs), all, in.at(first + row, in.c.outs), in.c.outs));
  }
}

void check(const Case& c, kangaroo_dtype dtype) {
  Inputs in(c, dtype);
  const Array out = run(in);
  expect_linear(in, out);
  expect_gaps_untouched(in, out);
  EXPECT(run(in) == out);
  const int64_t rows = in.rows();
  for (const int64_t count : {1, 3, 16, 17, 40, 64}) {
    if (count < rows) expect_same_rows(in, out, (rows - count) / 2, count);
  }
  if (rows > 1) expect_same_rows(in, out, rows - 1, 1);
}

void check(const Case& c) {
  for (const kangaroo_dtype dtype : testing::kGpuDtypes) check(c, dtype);
}

// Whatever the addresses, the same bits.
void check_alignment(Case c) {
  for (const kangaroo_dtype dtype : testing::kGpuDtypes) {
    Inputs in(c, dtype);
    const Array out = run(in);
    for (const auto& [gap, offset] : {std::pair<int64_t, int64_t>{3, 0}, {0, 1}, {8, 0}}) {
      Case other = c;
      other.gap = gap;
      other.offset = offset;
      Inputs moved(other, dtype);
      const auto copy = [&](const Array& from, Array& to, int64_t rows, int64_t width) {
        for (int64_t i = 0; i < rows * width; ++i) {
          to.set(i / width * (width + gap) + i % width, from[i]);
        }
      };
      copy(in.weight, moved.weight, c.outs, c.width);
      for (int64_t row = 0; row < in.rows(); ++row) {
        for (int64_t k = 0; k < c.width; ++k) {
          moved.x.set(moved.at(row, c.width) + k, in.x[in.at(row, c.width) + k]);
        }
      }
      const Array again = run(moved);
      for (int64_t row = 0; row < in.rows(); ++row) {
        EXPECT(again.same_bits(moved.at(row, c.outs), out, in.at(row, c.outs), c.outs));
      }
    }
  }
}

// The residual stream: x is the residual as well.
void check_residual_is_x() {
  Inputs in({1, 3, 96, 96, true}, KANGAROO_BFLOAT16);
  Inputs apart({1, 3, 96, 96, true, false, true}, KANGAROO_BFLOAT16);
  for (int64_t i = 0; i < in.x.count(); ++i) apart.residual.set(i, in.x[i]);
  Array out = in.out();
  kangaroo_linear_params p = in.params(out);
  p.residual = p.x;
  Workspace workspace(kangaroo_linear_cuda_workspace(&p));
  EXPECT(kangaroo_linear_cuda(&p, workspace.data(), nullptr) == KANGAROO_OK);
  cuda_on_cpu::synchronize();
  EXPECT(out == run(apart));
}

// Calls of a stream share a workspace, and each starts before the one in front has ended.
void check_workspace_is_shared() {
  Inputs a({1, 5, 160, 160, true}, KANGAROO_BFLOAT16);
  Array first = run(a);
  Inputs b({1, 5, 160, 160, true}, KANGAROO_BFLOAT16);
  b.x = first;
  const Array second = run(b);
  Array chained_first = a.out(), chained_second = a.out();
  kangaroo_linear_params p = a.params(chained_first), q = b.params(chained_second);
  q.x = p.out;
  Workspace workspace(kangaroo_linear_cuda_workspace(&p));
  for (int replay = 0; replay < 3; ++replay) {
    chained_first.poison();
    chained_second.poison();
    EXPECT(kangaroo_linear_cuda(&p, workspace.data(), nullptr) == KANGAROO_OK);
    EXPECT(kangaroo_linear_cuda(&q, workspace.data(), nullptr) == KANGAROO_OK);
    cuda_on_cpu::synchronize();
    EXPECT(chained_second == second);
  }
}

// The norm rounds where PyTorch does, before its weight and behind it; a weight of ones shows it.
void check_norm_rounds_twice(kangaroo_dtype dtype) {
  Inputs in({1, 8, 64, 64, true}, dtype);
  for (int64_t i = 0; i < in.weight.count(); ++i) in.weight.set(i, i % 65 == 0 ? 1.0f : 0.0f);
  const Array out = run(in);
  for (int64_t row = 0; row < 8; ++row) {
    EXPECT(out.same_bits(in.at(row, 64), product_row(in, row), 0, 64));
  }
}

// What one row holds is nobody else's business.
void check_not_a_number_stays_in_its_row() {
  Inputs in({1, 20, 64, 48}, KANGAROO_FLOAT16);
  const Array clean = run(in);
  in.x.set(in.at(7, 64) + 5, NAN);
  in.x.set(in.at(18, 64), INFINITY);
  const Array out = run(in);
  for (int64_t row = 0; row < 20; ++row) {
    const bool spoilt = row == 7 || row == 18;
    EXPECT(spoilt ? !std::isfinite(out[in.at(row, 48)])
                  : out.same_bits(in.at(row, 48), clean, in.at(row, 48), 48));
  }
}

void check_refusals() {
  Inputs in({2, 3, 16, 24, true, true, true}, KANGAROO_BFLOAT16);
  Array out = in.out();
  Workspace workspace(1024);
  const auto refused = [&](const char* message, const auto& change) {
    kangaroo_linear_params p = in.params(out);
    change(p);
    EXPECT_REFUSED(kangaroo_linear_cuda(&p, workspace.data(), nullptr), message);
    EXPECT(kangaroo_linear_cuda_workspace(&p) == -1);
  };
  using Params = kangaroo_linear_params;
  EXPECT_REFUSED(kangaroo_linear_cuda(nullptr, nullptr, nullptr), "linear: params");
  EXPECT(kangaroo_linear_cuda_workspace(nullptr) == -1);
  refused("x: expected the address", [](Params& p) { p.x.data = nullptr; });
  refused("weight.width: expected 16, got 8", [](Params& p) { p.weight.width = 8; });
  refused("weight: expected bfloat16", [](Params& p) { p.weight.dtype = KANGAROO_FLOAT32; });
  refused("bias.width: expected 24", [](Params& p) { p.bias.width = 16; });
  refused("norm.width: expected 16", [](Params& p) { p.norm.width = 24; });
  refused("residual.nodes: expected 3", [](Params& p) { p.residual.nodes = 2; });
  refused("out: expected bfloat16, got float16", [](Params& p) { p.out.dtype = KANGAROO_FLOAT16; });
  refused("out: expected rows that do not overlap", [](Params& p) { p.out.node_stride = 0; });
  refused("eps: expected a number", [](Params& p) { p.eps = -1; });
  refused("x: expected sizes", [](Params& p) { p.x.batch = -1; });
  kangaroo_linear_params p = in.params(out);
  EXPECT_REFUSED(kangaroo_linear_cuda(&p, nullptr, nullptr), "linear: workspace");
  EXPECT_REFUSED(kangaroo_linear_cuda(&p, workspace.bytes.data() + 8, nullptr), "aligned to 16");
}

}  // namespace

int main() {
  check({1, 1, 64, 16});
  check({1, 16, 256, 40, true, true, true});
  check({2, 9, 200, 33, true, false, true, true});
  check({1, 64, 72, 17, false, true});
  check({3, 33, 136, 50, true, true, true, false, 8});
  check({1, 70, 1000, 9, false, false, false, true});
  check({2, 3, 37, 21, true, true, true, false, 1});
  check({1, 18, 1, 1});
  check({1, 4, 0, 5, true, true});
  check({0, 4, 8, 5, true});
  check({1, 3, 8, 0});
  check({1, 2, 5000, 16, true}, KANGAROO_BFLOAT16);
  check({1, 18, 272, 4096, true}, KANGAROO_BFLOAT16);  // tiles of 32
  check({1, 18, 272, 4104}, KANGAROO_FLOAT16);
  check({1, 20, 264, 8192, true}, KANGAROO_FLOAT16);  // of 64
  check({1, 5, 320, 8200}, KANGAROO_BFLOAT16);
  check({1, 5, 31, 8197}, KANGAROO_BFLOAT16);
  check_alignment({1, 18, 152, 48});
  check_alignment({1, 3, 560, 4096});
  check_alignment({1, 3, 280, 8192});
  check_residual_is_x();
  check_workspace_is_shared();
  check_norm_rounds_twice(KANGAROO_BFLOAT16);
  check_norm_rounds_twice(KANGAROO_FLOAT16);
  check_not_a_number_stays_in_its_row();
  check_refusals();
  return testing::result();
}
