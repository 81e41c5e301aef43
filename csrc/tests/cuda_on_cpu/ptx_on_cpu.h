// Stands in for the instructions of ptx.cuh, which includes this where no CUDA compiler reads it.
#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace kangaroo {

template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(cuda_on_cpu::shared_memory());
}

inline void wait_for_previous_kernel() { cuda_on_cpu::wait_for_previous(); }
inline void let_next_kernel_start() {}

inline uint64_t cache_policy(bool) { return 0; }
inline void copy_async(void* to, const void* from, int live, uint64_t) {
  cuda_on_cpu::copy_async(to, from, live);
}
inline void commit_copies() { cuda_on_cpu::commit_copies(); }
template <int kGroupsLeft>
void wait_for_copies() {
  cuda_on_cpu::wait_for_copies(kGroupsLeft);
}

namespace emulated {

struct Fragments {
  unsigned a[4];
  unsigned b[2];
  float c[4];
};

inline float number(__nv_bfloat16 value) { return __bfloat162float(value); }
inline float number(__half value) { return __half2float(value); }

template <class T>
float half_of(unsigned pair, int which) {
  return number(T{static_cast<uint16_t>(pair >> (16 * which))});
}

// The fragments of mma.m16n8k16 as the PTX manual draws them: lane 4 g + t.
template <class T>
void multiply(const void* const* ins, void* const* outs) {
  float a[16][16];
  float b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const Fragments*>(ins[lane]);
    const int g = lane / 4;
    const int t = lane % 4;
    for (int e = 0; e < 2; ++e) {
      for (int part = 0; part < 4; ++part) {
        a[g + part % 2 * 8][2 * t + e + part / 2 * 8] = half_of<T>(own.a[part], e);
      }
      for (int part = 0; part < 2; ++part) b[2 * t + e + part * 8][g] = half_of<T>(own.b[part], e);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const Fragments*>(ins[lane]);
    auto* const out = static_cast<float*>(outs[lane]);
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + e / 2 * 8;
      const int column = lane % 4 * 2 + e % 2;
      float sum = own.c[e];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      out[e] = sum;
    }
  }
}

}  // namespace emulated

template <class T>
void multiply_add(float (&acc)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  emulated::Fragments in;
  std::memcpy(in.a, a, sizeof in.a);
  std::memcpy(in.b, b, sizeof in.b);
  std::memcpy(in.c, acc, sizeof in.c);
  cuda_on_cpu::warp_collective(&in, acc, emulated::multiply<T>);
}

}  // namespace kangaroo
