// The little that the tests share: checks that count, reproducible noise, a naive product.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace testing {

inline int failures = 0;

#define EXPECT(condition)                                                  \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::printf("%s:%d: expected %s\n", __FILE__, __LINE__, #condition); \
      ++testing::failures;                                                 \
    }                                                                      \
  } while (false)

inline int result() { return failures == 0 ? 0 : 1; }

using Floats = std::vector<float>;

// Normal noise, the same in every run.
inline Floats noise(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Floats values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

// Largest difference, relative to the largest value expected; infinite where a NaN is.
inline double error(const Floats& got, const std::vector<double>& expected) {
  double difference = 0.0;
  double largest = 1e-30;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(got[i])) return INFINITY;
    difference = std::fmax(difference, std::fabs(got[i] - expected[i]));
    largest = std::fmax(largest, std::fabs(expected[i]));
  }
  return difference / largest;
}

inline bool same_bits(const float* a, const float* b, int64_t count) {
  return count == 0 || std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

// x / sqrt(mean(x^2) + eps) * weight, [rows, width].
inline std::vector<double> naive_rms_norm(const Floats& x, const Floats& weight, double eps,
                                          int64_t rows, int64_t width) {
  std::vector<double> out(static_cast<std::size_t>(rows * width));
  for (int64_t m = 0; m < rows; ++m) {
    double squares = 0.0;
    for (int64_t k = 0; k < width; ++k) squares += double{x[m * width + k]} * x[m * width + k];
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(width) + eps);
    for (int64_t k = 0; k < width; ++k) out[m * width + k] = x[m * width + k] * inverse * weight[k];
  }
  return out;
}

// x [rows, width] times weight [outs, width], transposed: [rows, outs].
template <class Values>
std::vector<double> naive_product(const Values& x, const float* weight, int64_t rows, int64_t width,
                                  int64_t outs) {
  std::vector<double> out(static_cast<std::size_t>(rows * outs));
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < outs; ++n) {
      for (int64_t k = 0; k < width; ++k) {
        out[m * outs + n] += double{x[m * width + k]} * weight[n * width + k];
      }
    }
  }
  return out;
}

}  // namespace testing
