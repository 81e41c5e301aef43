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

const kangaroo::TypedKernels& k = kangaroo::amx_emulated::kKernels.of_bfloat16;

Bits noise16(int64_t count, unsigned seed) {
  Bits bits;
  for (const float value : testing::noise(count, seed)) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    bits.push_back(static_cast<uint16_t>(word >> 16));
  }
  return bits;
}

testing::Floats wide(const Bits& bits) {
  testing::Floats values;
  for (const uint16_t half : bits) {
    const uint32_t word = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    values.push_back(value);
  }
  return values;
}

testing::Floats run(const Bits& x, const Bits& weight, int64_t rows, int64_t width, int64_t outs) {
  std::vector<char> panel(k.panel_bytes(rows, width) + 64, static_cast<char>(0xff));  // NaN
  char* const aligned = panel.data() + (64 - reinterpret_cast<std::uintptr_t>(panel.data()) % 64);
  for (int64_t row = 0; row < rows; ++row) {
    k.pack({x.data() + row * width, nullptr, 0.0f, 1.0f, width}, row, rows, aligned);
  }
  testing::Floats out(static_cast<std::size_t>(rows * outs), NAN);
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

void check(int64_t rows, int64_t width, int64_t outs) {
  const Bits x = noise16(rows * width, 1);
  Bits weight = noise16(outs * (width + 3), 2);
  testing::Floats packed;
  for (int64_t out = 0; out < outs; ++out) {
    for (int64_t j = 0; j < 3; ++j) weight[out * (width + 3) + width + j] = 0x7fc0;  // NaN
    const Bits row(weight.begin() + out * (width + 3), weight.begin() + out * (width + 3) + width);
    const testing::Floats values = wide(row);
    packed.insert(packed.end(), values.begin(), values.end());
  }
  weight.resize(static_cast<std::size_t>(outs * (width + 3) - 3));  // ends with the last value
  const testing::Floats out = run(x, weight, rows, width, outs);
  EXPECT(testing::error(out, testing::naive_product(wide(x), packed.data(), rows, width, outs)) <
         2e-6);
  for (int64_t row = 0; row < rows; ++row) {
    const Bits alone(x.begin() + row * width, x.begin() + (row + 1) * width);
    const testing::Floats own = run(alone, weight, 1, width, outs);
    EXPECT(testing::same_bits(own.data(), out.data() + row * outs, outs));
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
