// The instructions that CUDA C++ has no word for, and nothing else.
#pragma once

#ifndef __CUDACC__
#include "ptx_on_cpu.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace kangaroo {

// The launch's dynamic shared memory; a kernel has no other, so that one number is its size.
template <class T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}

// Programmatic dependent launch: until here a kernel may overlap the one in front, whose results
// are not there yet, and which may still read what this one is going to write. Every thread calls
// it, so that a kernel's end is also the end of all those in front of it.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The kernel behind may start once all blocks have called this. What it may touch before it waits
// does not depend on this one, so the first line of a kernel is the place.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// For what is read once (weights), which must not push out of L2 what is read again.
__device__ __forceinline__ uint64_t cache_policy(bool read_once) {
  uint64_t policy;
  if (read_once) {
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  } else {
    asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  }
  return policy;
}

// 16 bytes of global memory, of which `live` are copied and the others are 0.
__device__ __forceinline__ void copy_async(void* to, const void* from, int live, uint64_t policy) {
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(shared),
               "l"(from), "r"(live), "l"(policy)
               : "memory");
}

__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most the newest `kGroupsLeft` groups of this thread are under way.
template <int kGroupsLeft>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

// acc [16, 8] += a [16, 16] b [16, 8] by the warp, in float32.
template <class T>
__device__ __forceinline__ void multiply_add(float (&acc)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]);

#define KANGAROO_MULTIPLY_ADD(T, name)                                                     \
  template <>                                                                              \
  __device__ __forceinline__ void multiply_add<T>(float (&acc)[4], const unsigned (&a)[4], \
                                                  const unsigned (&b)[2]) {                \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                             \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"             \
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])                           \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));               \
  }
KANGAROO_MULTIPLY_ADD(__nv_bfloat16, "bf16")
KANGAROO_MULTIPLY_ADD(__half, "f16")
#undef KANGAROO_MULTIPLY_ADD

}  // namespace kangaroo

#endif
