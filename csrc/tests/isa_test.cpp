// Instruction sets: which there are, choosing one, refusing others; and the promise that all of
// them keep, a row's bits beside any number of others.
#include <algorithm>

#include "kangaroo/linear.h"
#include "testing.h"

using testing::noise;
using testing::Tensor;

namespace {

std::vector<std::string> compiled() {
  std::vector<std::string> names;
  std::istringstream stream(kangaroo_compiled_isas());
  for (std::string name; std::getline(stream, name, ',');) names.push_back(name);
  return names;
}

// By default the best that the processor has serves.
void test_default() {
  const std::string first = kangaroo_isa();
  for (const std::string& name : compiled()) {
    const kangaroo_status status = kangaroo_select_isa(name.c_str());
    if (name == first) {
      EXPECT(status == KANGAROO_OK);
      return;
    }
    EXPECT(status == KANGAROO_UNSUPPORTED);  // better, but not of this processor
    EXPECT(kangaroo_isa() == first);
    EXPECT(std::strstr(kangaroo_last_error(), "select_isa: "));
  }
  EXPECT(false);
}

void test_list() {
  const char* known[] = {"amx", "avx512_bf16", "avx512", "avx2", "portable"};
  const std::vector<std::string> names = compiled();
  EXPECT(!names.empty() && names.back() == "portable");
  for (const std::string& name : names) {
    EXPECT(std::find(std::begin(known), std::end(known), name) != std::end(known));
    EXPECT(std::count(names.begin(), names.end(), name) == 1);
  }
  testing::for_each_isa(
      [&] { EXPECT(std::count(names.begin(), names.end(), kangaroo_isa()) == 1); });
}

void test_refusals() {
  const std::string before = kangaroo_isa();
  const char* wrong[] = {nullptr, "", "sse9", "avx", "portable ", "AVX2", ","};
  for (const char* name : wrong) {
    EXPECT(kangaroo_select_isa(name) == KANGAROO_INVALID_ARGUMENT);
    EXPECT(std::strncmp(kangaroo_last_error(), "select_isa: ", 12) == 0);
    EXPECT(kangaroo_isa() == before);
  }
}

Tensor product(const Tensor& x, const Tensor& weight, const Tensor& norm) {
  const int64_t width = norm.size(), outs = weight.size() / width, rows = x.size() / width;
  Tensor out(x.dtype, rows * outs);
  kangaroo_linear_params p = {};
  p.x = states_of(x, 1, rows);
  p.weight = matrix_of(weight, outs);
  p.norm = vector_of(norm);
  p.out = states_of(out, 1, rows);
  p.eps = 1e-6f;
  p.num_threads = 1;
  EXPECT(kangaroo_linear(&p) == KANGAROO_OK);
  return out;
}

// The first row, and the last, among 1 to 20: tiles of every height, at both of their ends.
void test_rows(kangaroo_dtype dtype, int64_t width) {
  constexpr int64_t kOuts = 29, kMostRows = 20;
  const Tensor x = noise(dtype, kMostRows * width, 1);
  const Tensor weight = noise(dtype, kOuts * width, 2);
  const Tensor norm = noise(dtype, width, 3);
  Tensor alone(dtype, kMostRows * kOuts);
  for (int64_t row = 0; row < kMostRows; ++row) {
    alone.put(row * kOuts, product(x.slice(row * width, width), weight, norm), 0, kOuts);
  }
  for (int64_t rows = 1; rows <= kMostRows; ++rows) {
    const int64_t first = kMostRows - rows;
    EXPECT(product(x.slice(0, rows * width), weight, norm) == alone.slice(0, rows * kOuts));
    EXPECT(product(x.slice(first * width, rows * width), weight, norm) ==
           alone.slice(first * kOuts, rows * kOuts));
  }
}

}  // namespace

int main() {
  test_default();
  test_list();
  test_refusals();
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) {
      for (const int64_t width : {15, 64, 101}) test_rows(dtype, width);
    }
  });
  return testing::result();
}
