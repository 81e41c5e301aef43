// What the tests of CUDA kernels share: arrays in every element type, poisoned until written.
#pragma once

#include <algorithm>

#include "../testing.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

namespace testing {

using Floats = std::vector<float>;

constexpr kangaroo_dtype kGpuDtypes[] = {KANGAROO_FLOAT32, KANGAROO_BFLOAT16, KANGAROO_FLOAT16};

inline Floats noise(int64_t count, unsigned seed) {
  const Tensor values = noise(KANGAROO_FLOAT32, count, seed);
  Floats floats(static_cast<std::size_t>(count));
  for (int64_t i = 0; i < count; ++i) floats[static_cast<std::size_t>(i)] = values.at(i);
  return floats;
}

// Half the distance of neighbours, relative to the number: what one rounding costs.
inline double half_ulp(kangaroo_dtype dtype) {
  return std::ldexp(1.0, dtype == KANGAROO_FLOAT32 ? -24 : dtype == KANGAROO_BFLOAT16 ? -8 : -11);
}

// On the heap, of exactly its size, so that a sanitizer sees every access beside it; `offset`
// elements behind an address that is a multiple of 16 bytes.
class Array {
 public:
  Array(kangaroo_dtype dtype, int64_t count, int64_t offset = 0)
      : dtype_(dtype),
        offset_(offset * item()),
        bytes_(static_cast<std::size_t>((count + offset) * item()), 0xff) {}  // NaN
  Array(kangaroo_dtype dtype, const Floats& values, int64_t offset = 0)
      : Array(dtype, static_cast<int64_t>(values.size()), offset) {
    for (int64_t i = 0; i < count(); ++i) set(i, values[static_cast<std::size_t>(i)]);
  }

  kangaroo_dtype dtype() const { return dtype_; }
  int64_t item() const { return dtype_ == KANGAROO_FLOAT32 ? 4 : 2; }
  int64_t count() const { return (static_cast<int64_t>(bytes_.size()) - offset_) / item(); }
  unsigned char* data() { return bytes_.data() + offset_; }
  const unsigned char* data() const { return bytes_.data() + offset_; }
  const unsigned char* at(int64_t i) const { return data() + i * item(); }

  float operator[](int64_t i) const {
    if (dtype_ == KANGAROO_BFLOAT16) return __bfloat162float(load<__nv_bfloat16>(i));
    if (dtype_ == KANGAROO_FLOAT16) return __half2float(load<__half>(i));
    return load<float>(i);
  }
  void set(int64_t i, float value) {
    if (dtype_ == KANGAROO_BFLOAT16) {
      store(i, __float2bfloat16_rn(value));
    } else if (dtype_ == KANGAROO_FLOAT16) {
      store(i, __float2half_rn(value));
    } else {
      store(i, value);
    }
  }
  void poison() { std::fill(bytes_.begin() + offset_, bytes_.end(), 0xff); }
  bool same_bits(int64_t i, const Array& other, int64_t j, int64_t length = 1) const {
    return length == 0 ||
           std::memcmp(at(i), other.at(j), static_cast<std::size_t>(length * item())) == 0;
  }
  bool operator==(const Array& other) const { return bytes_ == other.bytes_; }

 private:
  template <class T>
  T load(int64_t i) const {
    T value;
    std::memcpy(&value, data() + i * item(), sizeof value);
    return value;
  }
  template <class T>
  void store(int64_t i, T value) {
    std::memcpy(data() + i * item(), &value, sizeof value);
  }

  kangaroo_dtype dtype_;
  int64_t offset_;
  std::vector<unsigned char> bytes_;
};

// What the array holds, rounded to its type.
inline Floats values_of(const Array& array) {
  Floats values(static_cast<std::size_t>(array.count()));
  for (int64_t i = 0; i < array.count(); ++i) values[static_cast<std::size_t>(i)] = array[i];
  return values;
}

// The kernel in front of the next launch: until that waits for it, `array` holds no numbers.
inline void arrive_late(Array& array) {
  auto* const late = &array;
  const Array values = array;
  array.poison();
  cuda_on_cpu::enqueue(std::function<void()>([late, values] { *late = values; }));
}

}  // namespace testing

// The call is refused, launches nothing, and says this.
#define EXPECT_REFUSED(call, message)                                            \
  do {                                                                           \
    const int launches_before = cuda_on_cpu::num_launches();                     \
    EXPECT((call) == KANGAROO_INVALID_ARGUMENT);                                 \
    EXPECT(cuda_on_cpu::num_launches() == launches_before);                      \
    if (!std::strstr(kangaroo_last_error(), message)) {                          \
      std::printf("%s:%d: got %s\n", __FILE__, __LINE__, kangaroo_last_error()); \
      ++testing::failures;                                                       \
    }                                                                            \
  } while (false)
