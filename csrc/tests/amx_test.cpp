// The products of AMX, their tiles emulated, against a double loop; a row alone has the bits it has
// among others; what a tile may not read lies behind NaN.
#include <vector>

#include "isa/kernels.h"
#include "testing.h"

namespace kangaroo::amx_emulated {
extern const Kernels kKernels;
}

namespace {

using Bits = std::vector<uint16_t>;
using Floats = std::vector<float>;

const kangaroo::TypedKernels& k = kangaroo::amx_emulated::kKernels.of_bfloat16;

Bits noise(int64_t count, unsigned seed) {
  const testing::Tensor values = testing::noise(KANGAROO_BFLOAT16, count, seed);
  Bits bits;
  for (int64_t i = 0; i < count; ++i) bits.push_back(testing::to_bfloat16(values.at(i)));
  return bits;
}

Floats run(const Bits& x, const Bits& weight, int64_t rows, int64_t width, int64_t outs) {
  std::vector<char> panel(k.layout.panel_bytes(rows, width) + 64, static_cast<char>(0xff));  // NaN
  char* const aligned = panel.data() + (64 - reinterpret_cast<std::uintptr_t>(panel.data()) % 64);
  char* const data = reinterpret_cast<char*>(const_cast<uint16_t*>(x.data()));
  const kangaroo::Packing packing = {
      {data, rows, 0, width * 2}, nullptr, 0.0f, rows, width, aligned};
  k.layout.pack(packing, 0, rows);
  Floats out(static_cast<std::size_t>(rows * outs), NAN);
  kangaroo::Gemm gemm = {};
  gemm.panel = aligned;
  gemm.num_rows = rows;
  gemm.width = width;
  gemm.weight = weight.data();
  gemm.weight_stride = width + 3;
  gemm.residual = {nullptr, 1, 0, 0};
  gemm.out = {reinterpret_cast<char*>(out.data()), rows, 0, outs * 4};
  gemm.end = outs;
  k.gemm_to_float(gemm);
  return out;
}

// One sum of `width` products in order: off by at most width 2^-24 of their magnitudes.
bool right(float got, const uint16_t* x, const uint16_t* w, int64_t width) {
  double sum = 0.0, magnitude = 0.0;
  for (int64_t i = 0; i < width; ++i) {
    const double product = double{testing::from_bfloat16(x[i])} * testing::from_bfloat16(w[i]);
    sum += product;
    magnitude += std::fabs(product);
  }
  return std::fabs(got - sum) <= static_cast<double>(width) * magnitude / (1 << 24);
}

void check(int64_t rows, int64_t width, int64_t outs) {
  const int64_t stride = width + 3;
  const Bits x = noise(rows * width, 1);
  Bits weight = noise(outs * stride, 2);
  for (int64_t i = 0; i < outs * stride; ++i) {
    if (i % stride >= width) weight[static_cast<std::size_t>(i)] = 0x7fc0;  // NaN
  }
  weight.resize(static_cast<std::size_t>(outs * stride - 3));  // ends with the last value
  const Floats out = run(x, weight, rows, width, outs);
  for (int64_t row = 0; row < rows; ++row) {
    const uint16_t* own = x.data() + row * width;
    const Floats alone = run(Bits(own, own + width), weight, 1, width, outs);
    for (int64_t j = 0; j < outs; ++j) {
      EXPECT(right(out[row * outs + j], own, weight.data() + j * stride, width));
      EXPECT(std::memcmp(&alone[j], &out[row * outs + j], sizeof(float)) == 0);
    }
  }
}

}  // namespace

int main() {
  for (const int64_t rows : {1, 2, 8, 16, 17, 33}) {
    for (const int64_t width : {1, 31, 32, 64, 100}) {
      for (const int64_t outs : {1, 16, 17, 32, 50}) check(rows, width, outs);
    }
  }
  return testing::result();
}
