// The products and the attention of AMX, their tiles emulated, against a double loop; a row alone
// has the bits it has among others; what a tile may not read, or a row not see, is NaN.
#include <algorithm>
#include <vector>

#include "isa/kernels.h"
#include "testing.h"

namespace kangaroo {
namespace amx_beside_portable {
extern const Kernels kKernels;
}
namespace amx_beside_avx512 {
extern const Kernels kKernels;
}
}  // namespace kangaroo

namespace {

using Bits = std::vector<uint16_t>;
using Floats = std::vector<float>;

const kangaroo::TypedKernels* k = nullptr;

Bits noise(int64_t count, unsigned seed) {
  const testing::Tensor values = testing::noise(KANGAROO_BFLOAT16, count, seed);
  Bits bits;
  for (int64_t i = 0; i < count; ++i) bits.push_back(testing::to_bfloat16(values.at(i)));
  return bits;
}

// Products of rows of [width] that were laid out; weights lie three values further apart.
struct Product {
  const Bits& x;
  const Bits& weight;
  int64_t rows, width, outs;
  std::vector<char> panel =
      std::vector<char>(k->layout.panel_bytes(rows, width) + 64, '\xff');  // NaN
  Floats out = Floats(static_cast<std::size_t>(rows * outs), NAN);

  kangaroo::Gemm gemm(const Bits* norm = nullptr) {
    char* const aligned = panel.data() + (64 - reinterpret_cast<std::uintptr_t>(panel.data()) % 64);
    char* const data = reinterpret_cast<char*>(const_cast<uint16_t*>(x.data()));
    const kangaroo::Rows own = {data, rows, 0, width * 2};
    k->layout.pack({own, norm ? norm->data() : nullptr, 1e-6f, rows, width, aligned}, 0, rows);
    kangaroo::Gemm g = {};
    g.panel = aligned;
    g.num_rows = rows;
    g.width = width;
    g.weight = weight.data();
    g.weight_stride = width + 3;
    g.residual = {nullptr, 1, 0, 0};
    g.out = {reinterpret_cast<char*>(out.data()), rows, 0, outs * 4};
    g.end = outs;
    return g;
  }
};

Floats run(const Bits& x, const Bits& weight, int64_t rows, int64_t width, int64_t outs) {
  Product product = {x, weight, rows, width, outs};
  k->gemm_to_float(product.gemm());
  return product.out;
}

// One sum of `width` products in order: off by at most width 2^-24 of their magnitudes.
bool right(float got, const uint16_t* x, const uint16_t* w, int64_t width) {
  double sum = 0.0, magnitude = 0.0;
  for (int64_t i = 0; i < width; ++i) {
    const double product = double{testing::from_bfloat16(x[i])} * testing::from_bfloat16(w[i]);
    sum += product;
    magnitude += std::fabs(product);
  }
  if (std::isinf(sum)) return got == static_cast<float>(sum);
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
  if (width >= 32) {  // infinite in front of the last step, which has no whole tile
    weight[static_cast<std::size_t>((outs - 1) * stride + width / 32 * 32 - 1)] = 0x7f80;
  }
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

// Some outputs in another order, from the second on, have the bits of all; what is added to them,
// and the rounding, is what it says. A norm is that of rows normalised before.
void check_rest(int64_t rows, int64_t width, int64_t outs) {
  const Bits x = noise(rows * width, 1), weight = noise(outs * (width + 3), 2);
  const Bits bias = noise(outs, 3), residual = noise(rows * outs, 4), norm = noise(width, 5);
  const Floats all = run(x, weight, rows, width, outs);
  std::vector<int32_t> ids;
  for (int64_t j = 0; j < outs; ++j) ids.push_back(static_cast<int32_t>((j * 7 + 3) % outs));
  Product some = {x, weight, rows, width, outs};
  kangaroo::Gemm gemm = some.gemm();
  gemm.ids = ids.data();
  gemm.begin = 1;
  k->gemm_to_float(gemm);
  Product added = {x, weight, rows, width, outs};
  gemm = added.gemm();
  gemm.bias = bias.data();
  char* const more = reinterpret_cast<char*>(const_cast<uint16_t*>(residual.data()));
  gemm.residual = {more, rows, 0, outs * 2};
  Bits kept(static_cast<std::size_t>(rows * outs));
  gemm.out = {reinterpret_cast<char*>(kept.data()), rows, 0, outs * 2};
  k->gemm(gemm);
  Bits normed(x.size());
  for (int64_t row = 0; row < rows; ++row) {
    k->rms_norm(x.data() + row * width, norm.data(), 1e-6f, width, normed.data() + row * width);
  }
  Product behind = {x, weight, rows, width, outs};
  k->gemm_to_float(behind.gemm(&norm));
  EXPECT(behind.out == run(normed, weight, rows, width, outs));
  for (int64_t i = 0; i < rows * outs; ++i) {
    const int64_t row = i / outs * outs, j = i % outs;
    EXPECT(j == 0 ? std::isnan(some.out[i]) : some.out[i] == all[row + ids[j]]);
    const float sum =
        testing::from_bfloat16(residual[i]) + (all[i] + testing::from_bfloat16(bias[j]));
    EXPECT(kept[i] == testing::to_bfloat16(sum));
  }
}

// Rows of a chain behind `committed` slots; the last sees them all and one for each row.
struct Chain {
  int64_t rows, head_dim, committed;
  Bits q = noise(rows * head_dim, 1);
  Bits k = noise(kSlots * head_dim, 2);
  Bits v = noise(kSlots * head_dim, 3);

  static constexpr int64_t kSlots = 192;
  static constexpr float kScale = 0.25f;

  int64_t length(int64_t row) const { return committed + row + 1; }
  void hide_from(int64_t slot) {
    for (Bits* bits : {&k, &v}) std::fill(bits->begin() + slot * head_dim, bits->end(), 0x7fc0);
  }
  // Rows [first, first + count), as rows of a tree whose every node hangs on the one before or of a
  // chain.
  Bits attend(int64_t first, int64_t count, bool as_tree) const {
    Bits out(static_cast<std::size_t>(count * head_dim));
    kangaroo::AttentionTile tile = {};
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t path = (uint64_t{2} << (first + i)) - 1;
      tile.rows[i] = {q.data() + (first + i) * head_dim, out.data() + i * head_dim,
                      as_tree ? committed : length(first + i), as_tree ? path : 0};
    }
    tile.num_rows = static_cast<int>(count);
    tile.k = k.data();
    tile.v = v.data();
    tile.slot_stride = tile.head_dim = head_dim;
    tile.scale = kScale;
    ::k->attend(tile);
    return out;
  }
  // The result is rounded to 8 bits of itself; weights keep 16 bits, and what errors in float32 do
  // to scores and sums of so few is less than 2^-14 of the weighted magnitudes.
  bool right(int64_t row, int64_t at, uint16_t got) const {
    std::vector<double> scores;
    for (int64_t slot = 0; slot < length(row); ++slot) {
      double score = 0.0;
      for (int64_t d = 0; d < head_dim; ++d) {
        score += double{testing::from_bfloat16(q[row * head_dim + d])} *
                 testing::from_bfloat16(k[slot * head_dim + d]);
      }
      scores.push_back(kScale * score);
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0.0, sum = 0.0, magnitude = 0.0;
    for (int64_t slot = 0; slot < length(row); ++slot) {
      const double weight = std::exp(scores[slot] - top);
      const double value = testing::from_bfloat16(v[slot * head_dim + at]);
      total += weight;
      sum += weight * value;
      magnitude += weight * std::fabs(value);
    }
    const double error = magnitude / total / (1 << 14), want = sum / total;
    return std::fabs(testing::from_bfloat16(got) - want) <= error + (std::fabs(want) + error) / 256;
  }
};

void check_attention(int64_t rows, int64_t head_dim, int64_t committed) {
  Chain chain = {rows, head_dim, committed};
  chain.hide_from(chain.length(rows - 1));
  const Bits out = chain.attend(0, rows, false);
  EXPECT(chain.attend(0, rows, true) == out);
  for (int64_t i = 0; i < rows * head_dim; ++i)
    EXPECT(chain.right(i / head_dim, i % head_dim, out[i]));
  for (int64_t row = rows - 1; row >= 0; --row) {
    chain.hide_from(chain.length(row));
    const Bits alone(out.begin() + row * head_dim, out.begin() + (row + 1) * head_dim);
    EXPECT(chain.attend(row, 1, false) == alone);
    EXPECT(chain.attend(row, 1, true) == alone);
  }
}

void check_all(const kangaroo::Kernels& kernels) {
  k = &kernels.of_bfloat16;
  for (const int64_t rows : {1, 2, 8, 16, 17, 33}) {
    for (const int64_t width : {1, 31, 32, 64, 100}) {
      for (const int64_t outs : {1, 16, 17, 32, 40, 50, 100}) check(rows, width, outs);
      check_rest(rows, width, 100);
    }
  }
  for (const int64_t rows : {1, 3, 8, 16}) {
    for (const int64_t head_dim : {15, 64, 80, 256}) {
      for (const int64_t committed : {0, 55, 63, 64, 120}) {
        check_attention(rows, head_dim, committed);
      }
    }
  }
}

}  // namespace

int main() {
  check_all(kangaroo::amx_beside_portable::kKernels);
#ifdef BESIDE_avx512
  if (kangaroo_select_isa("avx512") == KANGAROO_OK) {
    check_all(kangaroo::amx_beside_avx512::kKernels);
  }
#endif
  return testing::result();
}
