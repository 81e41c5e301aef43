// What the kernels share: element types, launches, sums over warps.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "error.h"
#include "kangaroo/tensor.h"
#include "ptx.cuh"

namespace kangaroo {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int64_t kMaxBlocks = 0x7fffffff;

__device__ __forceinline__ float wide(float value) { return value; }
__device__ __forceinline__ float wide(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float wide(__half value) { return __half2float(value); }

// Rounds to nearest, ties to even.
template <class T>
__device__ __forceinline__ T narrow(float value);
template <>
__device__ __forceinline__ float narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __forceinline__ __half narrow<__half>(float value) {
  return __float2half_rn(value);
}

// The value as its type holds it.
template <class T>
__device__ __forceinline__ float rounded(float value) {
  return wide(narrow<T>(value));
}

// The numbers of 16 bytes.
template <class T>
constexpr int kUnit = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ unsigned bits_of(float value) { return __float_as_uint(value); }
__device__ __forceinline__ unsigned bits_of(__nv_bfloat16 value) {
  return __bfloat16_as_ushort(value);
}
__device__ __forceinline__ unsigned bits_of(__half value) { return __half_as_ushort(value); }

template <class T>
__device__ __forceinline__ float wide_part(unsigned word, int part);
template <>
__device__ __forceinline__ float wide_part<float>(unsigned word, int) {
  return __uint_as_float(word);
}
template <>
__device__ __forceinline__ float wide_part<__nv_bfloat16>(unsigned word, int part) {
  return __uint_as_float(part ? word & 0xffff0000u : word << 16);
}
template <>
__device__ __forceinline__ float wide_part<__half>(unsigned word, int part) {
  return wide(__ushort_as_half(static_cast<unsigned short>(part ? word >> 16 : word)));
}

template <class T>
__device__ __forceinline__ void widen(const uint4& unit, float (&values)[kUnit<T>]) {
  constexpr int kParts = kUnit<T> / 4;
  const unsigned words[4] = {unit.x, unit.y, unit.z, unit.w};
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) values[i] = wide_part<T>(words[i / kParts], i % kParts);
}

template <class T>
__device__ __forceinline__ uint4 packed(const T (&values)[kUnit<T>]) {
  constexpr int kParts = kUnit<T> / 4;
  unsigned words[4] = {};
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) words[i / kParts] |= bits_of(values[i]) << 16 * (i % kParts);
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Numbers from `from` on, of which `left` are there and the others are 0; where they are aligned,
// all are there or none.
template <class T>
__device__ __forceinline__ uint4 load_unit(const T* from, int64_t left, bool aligned) {
  if (aligned) {
    return left > 0 ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
  }
  T values[kUnit<T>];
#pragma unroll
  for (int i = 0; i < kUnit<T>; ++i) values[i] = i < left ? from[i] : narrow<T>(0.0f);
  return packed(values);
}

// x / sqrt(mean(x^2) + eps) is x times this.
__device__ __forceinline__ float inverse_rms(float squares, int64_t width, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(width) + eps);
}

// One number of an RMSNorm, rounded where PyTorch rounds.
template <class T>
__device__ __forceinline__ T normalized(T x, float inverse, T weight) {
  return narrow<T>(rounded<T>(wide(x) * inverse) * wide(weight));
}

// Every lane's sum over the warp, of the same bits.
__device__ __forceinline__ float warp_sum(float value) {
  for (int apart = kWarpSize / 2; apart > 0; apart /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, apart);
  }
  return value;
}

// Rows of a view [batch, nodes, width], counted through.
struct Rows {
  const void* data;
  int64_t nodes, batch_stride, node_stride;

  template <class T>
  __device__ __forceinline__ T* at(int64_t row) const {
    return static_cast<T*>(const_cast<void*>(data)) + row / nodes * batch_stride +
           row % nodes * node_stride;
  }
};

inline Rows rows_of(const kangaroo_states& s) {
  return {s.data, s.nodes, s.batch_stride, s.node_stride};
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

__host__ __device__ inline bool aligned_to_16(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

// Calls `body` with a value of the element's type.
template <class Body>
cudaError_t by_dtype(kangaroo_dtype dtype, const Body& body) {
  switch (dtype) {
    case KANGAROO_BFLOAT16:
      return body(__nv_bfloat16{});
    case KANGAROO_FLOAT16:
      return body(__half{});
    default:
      return body(float{});
  }
}

struct Blocks {
  int64_t count;
  int threads;
  int shared_bytes;
};

// Launches so that the kernel may start before the one in front of it has ended: it calls
// wait_for_previous_kernel before it touches what is not constant.
template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), const Blocks& blocks, cudaStream_t stream,
                   const Args&... args) {
  constexpr int kSharedWithoutAsking = 48 * 1024;
  if (blocks.count == 0) return cudaSuccess;
  if (blocks.count > kMaxBlocks) return cudaErrorInvalidConfiguration;
  int device = 0;
  int major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error == cudaSuccess && blocks.shared_bytes > kSharedWithoutAsking) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 blocks.shared_bytes);
    if (error == cudaSuccess) {  // or a multiprocessor might have room for one block alone
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared);
    }
  }
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks.count));
  config.blockDim = dim3(static_cast<unsigned>(blocks.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(blocks.shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = major >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

// A launch that failed leaves no error behind that a later call would find.
inline kangaroo_status launched(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return KANGAROO_OK;
  cudaGetLastError();
  return cuda_error(op, cudaGetErrorString(error));
}

}  // namespace kangaroo
