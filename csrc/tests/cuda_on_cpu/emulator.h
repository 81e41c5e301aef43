// Runs CUDA kernels on the CPU, one thread of the grid at a time, so that tests need no GPU.
//
// What hardware leaves open is chosen at random, the same in every run: the order of blocks, which
// thread of a block goes on, and when an asynchronous copy lands. A kernel that was launched behind
// another one starts before it, as programmatic dependent launch allows, and is held where it waits
// for it. Shared memory holds NaN when a block starts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the thread that runs now.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

constexpr int kWarpSize = 32;
constexpr std::size_t kDefaultShared = 48 * 1024;
constexpr std::size_t kMostShared = 227 * 1024;

struct Launch {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  bool programmatic = false;  // may start before its predecessor has ended
  std::function<void()> thread;
};

// Queues a launch; it runs when it must.
void enqueue(Launch launch);
// Queues what stands for an earlier kernel of the stream: it runs when the next one waits for it.
void enqueue(std::function<void()> work);
// Runs everything that is queued.
void synchronize();
// Launches of kernels so far.
int num_launches();

// The rest is called by kernels.

// All threads of the block that have not ended.
void block_barrier();
// All lanes of the warp hand in `in`, the last one fills every `out`, and all go on.
using Combine = void (*)(const void* const* in, void* const* out);
void warp_collective(const void* in, void* out, Combine combine);
void wait_for_previous();
unsigned char* shared_memory();

// 16 bytes, of which the first `live` are copied and the others are 0.
void copy_async(void* to, const void* from, int live);
void commit_copies();
void wait_for_copies(int groups_left);

// Ends the test with a message: the kernel does what would hang or is undefined.
[[noreturn]] void die(const char* what);

}  // namespace cuda_on_cpu
