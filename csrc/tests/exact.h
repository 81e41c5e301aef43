// References in double, each value with a bound on how far from it a right result may lie.
//
// Running error analysis, to first order, element by element: an operation adds what its own
// rounding may do and passes on what its inputs' errors may do. With e = 2^-24, float32's half an
// ulp relative to the value: a sum of K products in at least 8 lanes is off by at most
// (K / 8 + 8) e times the sum of the products' magnitudes. Rounding to bfloat16, 8 bits of
// significand, is off by at most 2^-8 of the value (2^-9 just below a power of two).
#pragma once

#include "kangaroo/rms_norm.h"
#include "testing.h"

namespace testing {

constexpr double kFloatHalfUlp = 1.0 / (1 << 24);
constexpr double kBfloat16HalfUlp = 1.0 / (1 << 8);

struct Exact {
  double value = 0.0;
  double error = 0.0;

  double magnitude() const { return std::fabs(value) + error; }
  // After a rounding of relative size `half_ulp`.
  Exact rounded(double half_ulp) const { return {value, error + half_ulp * magnitude()}; }
  Exact kept(kangaroo_dtype dtype) const {
    return dtype == KANGAROO_FLOAT32 ? *this : rounded(kBfloat16HalfUlp);
  }
};

using Exacts = std::vector<Exact>;

inline Exacts exact(const Tensor& t) {
  Exacts out(static_cast<std::size_t>(t.size()));
  for (int64_t i = 0; i < t.size(); ++i) out[i].value = t.at(i);
  return out;
}

inline Exact sum(const Exact& a, const Exact& b) {
  return Exact{a.value + b.value, a.error + b.error}.rounded(kFloatHalfUlp);
}

inline Exact product(const Exact& a, const Exact& b) {
  const double value = a.value * b.value;
  return Exact{value, a.magnitude() * b.magnitude() - std::fabs(value)}.rounded(kFloatHalfUlp);
}

inline double accumulation(int64_t width) {
  return (static_cast<double>(width) / 8.0 + 8.0) * kFloatHalfUlp;
}

// x [rows, width] times weight [outs, width], transposed: [rows, outs].
inline Exacts product(const Exacts& x, const Tensor& weight, int64_t outs) {
  const int64_t width = weight.size() / outs;
  const int64_t rows = static_cast<int64_t>(x.size()) / width;
  const Exacts w = exact(weight);
  Exacts out(static_cast<std::size_t>(rows * outs));
  for (int64_t i = 0; i < rows * outs; ++i) {
    const Exact* own = x.data() + i / outs * width;
    const Exact* other = w.data() + i % outs * width;
    double magnitude = 0.0;
    for (int64_t k = 0; k < width; ++k) {
      out[i].value += own[k].value * other[k].value;
      out[i].error += own[k].error * std::fabs(other[k].value);
      magnitude += own[k].magnitude() * std::fabs(other[k].value);
    }
    out[i].error += accumulation(width) * magnitude;
  }
  return out;
}

// x / sqrt(mean(x^2) + eps) * weight, row by row. The sum's relative error is halved by the root;
// the quotient, the root, eps and two products round as well. bfloat16 is rounded in front of the
// weight.
inline Exacts rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const int64_t width = weight.size();
  Exacts out(static_cast<std::size_t>(x.size()));
  for (int64_t first = 0; first < x.size(); first += width) {
    double squares = 0.0;
    for (int64_t k = 0; k < width; ++k) squares += double{x.at(first + k)} * x.at(first + k);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(width) + eps);
    const Exact factor = Exact{inverse, 0.0}.rounded(accumulation(width) + 4 * kFloatHalfUlp);
    for (int64_t k = 0; k < width; ++k) {
      const Exact unit = product(Exact{x.at(first + k), 0.0}, factor).kept(x.dtype);
      out[first + k] = product(unit, Exact{weight.at(k), 0.0}).kept(x.dtype);
    }
  }
  return out;
}

// Every value within its bound. Products of denormals may be flushed to zero.
inline bool within(const Tensor& got, const Exacts& expected) {
  if (got.size() != static_cast<int64_t>(expected.size())) return false;
  for (int64_t i = 0; i < got.size(); ++i) {
    const double difference = std::fabs(double{got.at(i)} - expected[i].value);
    if (difference <= expected[i].error + 1e-30) continue;
    std::printf("value %lld: expected %.9g within %.3g, got %.9g\n", static_cast<long long>(i),
                expected[i].value, expected[i].error, double{got.at(i)});
    return false;
  }
  return true;
}

// What rms_norm the op makes of rows: ops that normalise in front of a product promise these bits.
inline Tensor normed(const Tensor& x, const Tensor& weight, float eps) {
  Tensor out(x.dtype, x.size());
  kangaroo_rms_norm_params p = {};
  p.x = states_of(x, 1, x.size() / weight.size());
  p.weight = vector_of(weight);
  p.out = states_of(out, 1, p.x.nodes);
  p.eps = eps;
  EXPECT(kangaroo_rms_norm(&p) == KANGAROO_OK);
  return out;
}

}  // namespace testing
