// Stands in for NVIDIA's header of this name: what the kernels use of it, by the emulator.
// Static shared memory is left out on purpose: kernels take theirs from `shared_memory` of ptx.cuh.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline void __syncthreads() { cuda_on_cpu::block_barrier(); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  struct In {
    T value;
    int lane_mask;
  };
  if (mask != 0xffffffffu) cuda_on_cpu::die("a shuffle of a part of a warp");
  const In in = {value, lane_mask};
  T out;
  cuda_on_cpu::warp_collective(&in, &out, [](const void* const* ins, void* const* outs) {
    for (int lane = 0; lane < cuda_on_cpu::kWarpSize; ++lane) {
      const int other = lane ^ static_cast<const In*>(ins[lane])->lane_mask;
      *static_cast<T*>(outs[lane]) = static_cast<const In*>(ins[other])->value;
    }
  });
  return out;
}

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
};
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidValue           ? "invalid argument"
         : error == cudaErrorInvalidConfiguration ? "invalid configuration argument"
                                                  : "no error";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor };
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 9;
  return cudaSuccess;
}

using cudaStream_t = struct CUstream_st*;

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout
};
enum { cudaSharedmemCarveoutMaxShared = 100 };

namespace cuda_on_cpu {

inline std::map<const void*, std::size_t> shared_limits;

}  // namespace cuda_on_cpu

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int bytes) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (static_cast<std::size_t>(bytes) > cuda_on_cpu::kMostShared) return cudaErrorInvalidValue;
  cuda_on_cpu::shared_limits[reinterpret_cast<const void*>(kernel)] =
      static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args&&... args) {
  const auto limit = cuda_on_cpu::shared_limits.find(reinterpret_cast<const void*>(kernel));
  const dim3 grid = config->gridDim;
  const dim3 block = config->blockDim;
  if (config->dynamicSmemBytes >
      (limit == cuda_on_cpu::shared_limits.end() ? cuda_on_cpu::kDefaultShared : limit->second)) {
    return cudaErrorInvalidValue;
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535 || block.x * block.y * block.z == 0 || block.x * block.y * block.z > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  const bool programmatic =
      config->numAttrs > 0 && config->attrs[0].val.programmaticStreamSerializationAllowed;
  cuda_on_cpu::enqueue({grid, block, config->dynamicSmemBytes, programmatic,
                        [kernel, args...] { kernel(static_cast<Params>(args)...); }});
  return cudaSuccess;
}
