// What the tests share: checks that count, tensors of either dtype, views of them, and a run under
// every instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

namespace testing {

inline int failures = 0;

#define EXPECT(condition)                                                                       \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      std::printf("%s:%d (%s): expected %s\n", __FILE__, __LINE__, kangaroo_isa(), #condition); \
      ++testing::failures;                                                                      \
    }                                                                                           \
  } while (false)

inline int result() { return failures == 0 ? 0 : 1; }

constexpr kangaroo_dtype kDtypes[] = {KANGAROO_FLOAT32, KANGAROO_BFLOAT16};

// run() under every instruction set that was compiled in and that this processor has.
template <class Run>
void for_each_isa(const Run& run) {
  const std::string before = kangaroo_isa();
  std::istringstream names(kangaroo_compiled_isas());
  int served = 0;
  for (std::string name; std::getline(names, name, ',');) {
    const kangaroo_status status = kangaroo_select_isa(name.c_str());
    if (status == KANGAROO_UNSUPPORTED) continue;
    EXPECT(status == KANGAROO_OK);
    run();
    ++served;
  }
  EXPECT(served > 0);
  EXPECT(kangaroo_select_isa(before.c_str()) == KANGAROO_OK);
}

// The nearest bfloat16, ties to even.
inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_bfloat16(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Values as a tensor of float32 or bfloat16 keeps them.
class Tensor {
 public:
  Tensor(kangaroo_dtype type, int64_t count, float value = NAN)
      : dtype(type), bytes_(static_cast<std::size_t>(count) * item()) {
    for (int64_t i = 0; i < count; ++i) set(i, value);
  }

  int64_t size() const { return static_cast<int64_t>(bytes_.size() / item()); }
  std::size_t item() const { return dtype == KANGAROO_FLOAT32 ? sizeof(float) : sizeof(uint16_t); }
  std::size_t num_bytes() const { return bytes_.size(); }

  float at(int64_t i) const {
    if (dtype == KANGAROO_FLOAT32) return read<float>(i);
    return from_bfloat16(read<uint16_t>(i));
  }
  void set(int64_t i, float value) {
    if (dtype == KANGAROO_FLOAT32) {
      std::memcpy(address(i), &value, sizeof value);
    } else {
      const uint16_t half = to_bfloat16(value);
      std::memcpy(address(i), &half, sizeof half);
    }
  }

  char* address(int64_t i = 0) { return bytes_.data() + static_cast<std::size_t>(i) * item(); }
  const char* address(int64_t i = 0) const {
    return bytes_.data() + static_cast<std::size_t>(i) * item();
  }

  // Values [begin, begin + count).
  Tensor slice(int64_t begin, int64_t count) const {
    Tensor part(dtype, count);
    part.put(0, *this, begin, count);
    return part;
  }
  void put(int64_t at, const Tensor& from, int64_t begin, int64_t count) {
    if (count > 0) std::memcpy(address(at), from.address(begin), item() * std::size_t(count));
  }

  // The same bits.
  bool operator==(const Tensor& other) const {
    return dtype == other.dtype && bytes_ == other.bytes_;
  }
  bool operator!=(const Tensor& other) const { return !(*this == other); }

  kangaroo_dtype dtype;

 private:
  template <class T>
  T read(int64_t i) const {
    T value;
    std::memcpy(&value, address(i), sizeof value);
    return value;
  }

  std::vector<char> bytes_;
};

// Normal noise, the same in every run.
inline Tensor noise(kangaroo_dtype dtype, int64_t count, unsigned seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Tensor values(dtype, count);
  for (int64_t i = 0; i < count; ++i) values.set(i, scale * normal(generator));
  return values;
}

// Views of whole tensors. Inputs are given as const: a view of states serves inputs and outputs.
inline void* data_of(const Tensor& t) { return const_cast<char*>(t.address()); }

inline kangaroo_vector vector_of(const Tensor& t) {
  return kangaroo_vector_of(data_of(t), t.dtype, t.size());
}

inline kangaroo_matrix matrix_of(const Tensor& t, int64_t rows) {
  return kangaroo_matrix_of(data_of(t), t.dtype, rows, t.size() / rows);
}

inline kangaroo_states states_of(const Tensor& t, int64_t batch, int64_t nodes) {
  const int64_t rows = batch * nodes;
  return kangaroo_states_of(data_of(t), t.dtype, batch, nodes, rows ? t.size() / rows : 0);
}

// Rows with NaN between nodes, and more of it between sequences.
struct Spread {
  Tensor values;
  kangaroo_states view;

  Tensor rows() const {
    Tensor out(view.dtype, view.batch * view.nodes * view.width);
    for (int64_t row = 0; row < view.batch * view.nodes; ++row) {
      out.put(row * view.width, values, place(row), view.width);
    }
    return out;
  }
  int64_t place(int64_t row) const {
    return row / view.nodes * view.batch_stride + row % view.nodes * view.node_stride;
  }
};

inline Spread spread(const Tensor& rows, int64_t batch, int64_t nodes) {
  kangaroo_states view = states_of(rows, batch, nodes);
  view.node_stride += 3;
  view.batch_stride = nodes * view.node_stride + 7;
  Spread out = {Tensor(rows.dtype, batch * view.batch_stride), view};
  out.view.data = out.values.address();
  for (int64_t row = 0; row < batch * nodes; ++row) {
    out.values.put(out.place(row), rows, row * view.width, view.width);
  }
  return out;
}

// `got` was written by an op that keeps to its rows, and they hold `expected`.
inline bool holds(const Spread& got, const Tensor& expected) {
  return got.values == spread(expected, got.view.batch, got.view.nodes).values;
}

}  // namespace testing
